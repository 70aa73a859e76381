"""The gateway over HTTP, from a real DataNode in this process, against the specification's words."""

from __future__ import annotations

import asyncio
import io
import tarfile
import urllib.parse
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from yarl import URL

from twinfs.common.checksum import CHUNK_BYTES
from twinfs.common.ipld import car, dag_pb, unixfs
from twinfs.common.ipld.cid import DAG_PB, RAW, SHA2_256, Cid
from twinfs.common.ipld.dag_pb import PBLink

from .gateway_help import Client, cids_of, serving_tree


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    async with serving_tree(tmp_path_factory.mktemp("volume")) as client:
        yield client


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_raw_block_has_all_the_headers_of_the_specification(gateway: Client) -> None:
    cid = gateway.tree.hello
    status, headers, body = await gateway.ask(f"/ipfs/{cid}?format=raw")
    assert (status, body) == (200, b"hello, peers\n")
    assert headers["Content-Type"] == "application/vnd.ipld.raw"
    assert headers["Content-Length"] == "13"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Disposition"] == f'attachment; filename="{cid}.bin"'
    assert headers["Etag"] == f'"{cid}.raw"'
    assert headers["Cache-Control"] == "public, max-age=29030400, immutable"
    assert headers["X-Ipfs-Path"] == f"/ipfs/{cid}"
    assert headers["X-Ipfs-Roots"] == str(cid)
    assert headers["Access-Control-Allow-Origin"] == "*"
    status, _, body = await gateway.ask(f"/ipfs/{cid}", Accept="application/vnd.ipld.raw")
    assert (status, body) == (200, b"hello, peers\n")


async def test_a_leaf_of_a_large_file_comes_whole_by_range_and_as_head(gateway: Client) -> None:
    tree = gateway.tree
    leaf = tree.leaves[1]
    path = f"/ipfs/{leaf}?format=raw"
    status, headers, body = await gateway.ask(path)
    assert status == 200 and body == tree.blocks[leaf]
    status, headers, body = await gateway.ask(path, Range="bytes=100-199")
    assert status == 206 and body == tree.blocks[leaf][100:200]
    assert headers["Content-Range"] == f"bytes 100-199/{CHUNK_BYTES}"
    status, headers, body = await gateway.ask(path, "HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(CHUNK_BYTES), b"")
    status, _, _ = await gateway.ask(path, Range=f"bytes={CHUNK_BYTES}-")
    assert status == 416


async def test_every_text_of_a_cid_names_the_same_block(gateway: Client) -> None:
    cid = gateway.tree.root
    block = gateway.tree.blocks[cid]
    for base in ("base32", "base36", "base58btc"):
        status, _, body = await gateway.ask(f"/ipfs/{cid.encode(base)}?format=raw")
        assert (status, body) == (200, block)
    status, _, body = await gateway.ask(f"/ipfs/{Cid(1, RAW, cid.multihash)}?format=raw")
    assert (status, body) == (200, block)


async def test_the_probe_path(gateway: Client) -> None:
    for method in ("GET", "HEAD"):
        status, headers, body = await gateway.ask("/ipfs/bafkqaaa?format=raw", method)
        assert (status, body, headers["Content-Length"]) == (200, b"", "0")


async def test_what_is_not_here_and_what_is_no_cid(gateway: Client) -> None:
    missing = Cid.of(RAW, b"nobody has this")
    for method in ("GET", "HEAD"):
        for query in ("?format=raw", "?format=car", "", "?format=tar"):
            status, _, _ = await gateway.ask(f"/ipfs/{missing}{query}", method)
            assert status == 404
            status, _, _ = await gateway.ask(
                f"/ipfs/{missing}{query}", method, Cache_Control="only-if-cached"
            )
            assert status == 412
    for bad in ("nonsense", "Qmabc", "b", "bafk" + "a" * 600, "%ff%fe", "bafkqaaa%00"):
        status, _, _ = await gateway.ask(f"/ipfs/{bad}?format=raw")
        assert status == 400, bad
    root = gateway.tree.root
    for bad in (
        "?format=zip",
        "?format=car&dag-scope=some",
        "?format=car&entity-bytes=x:y",
        "?format=car&entity-bytes=9:3",
        "?format=car&car-version=2",
        "?format=car&car-dups=maybe",
    ):
        status, _, _ = await gateway.ask(f"/ipfs/{root}{bad}")
        assert status == 400, bad
    status, _, _ = await gateway.ask(f"/ipfs/{root}/no/such")
    assert status == 404


async def test_conditions(gateway: Client) -> None:
    cid = gateway.tree.hello
    for known in (f'"{cid}"', f'W/"{cid}"', f'"other", "{cid}"', "*"):
        status, _, body = await gateway.ask(f"/ipfs/{cid}", If_None_Match=known)
        assert (status, body) == (304, b"")
    status, _, _ = await gateway.ask(f"/ipfs/{cid}", If_None_Match=f'"{cid}.raw"')
    assert status == 200
    status, _, _ = await gateway.ask(f"/ipfs/{cid}?format=raw", If_None_Match=f'"{cid}.raw"')
    assert status == 304


async def test_a_file_by_path_with_ranges_and_types(gateway: Client) -> None:
    tree = gateway.tree
    path = f"/ipfs/{tree.root}/big.bin"
    status, headers, body = await gateway.ask(path)
    assert status == 200 and body == tree.data
    assert headers["Etag"] == f'"{tree.big}"'
    assert headers["X-Ipfs-Roots"] == f"{tree.root},{tree.big}"
    assert headers["Content-Type"] == "application/octet-stream"
    edge = CHUNK_BYTES
    size = len(tree.data)
    for wanted, start, end in (
        (f"bytes={edge - 10}-{edge + 9}", edge - 10, edge + 10),
        ("bytes=-7", size - 7, size),
        (f"bytes={size - 3}-{size + 1000}", size - 3, size),
        (f"bytes={2 * edge}-", 2 * edge, size),
    ):
        status, headers, body = await gateway.ask(path, Range=wanted)
        assert status == 206 and body == tree.data[start:end], wanted
        assert headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
    status, headers, _ = await gateway.ask(path, Range=f"bytes={size}-")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{size}")
    status, headers, body = await gateway.ask(f"/ipfs/{tree.root}/hello.txt")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    status, headers, _ = await gateway.ask(f"/ipfs/{tree.hello}?filename=x.png&download=true")
    assert headers["Content-Type"] == "image/png"
    assert headers["Content-Disposition"] == 'attachment; filename="x.png"'
    status, headers, _ = await gateway.ask(f"/ipfs/{tree.hello}?filename=%C3%BC%22.txt")
    assert headers["Content-Disposition"].endswith("filename*=UTF-8''%C3%BC%22.txt")


async def test_folders(gateway: Client) -> None:
    tree = gateway.tree
    strange = urllib.parse.quote("ünï cödé")
    status, headers, _ = await gateway.ask(f"/ipfs/{tree.root}/{strange}?x=1")
    assert status == 301
    assert headers["Location"] == f"/ipfs/{tree.root}/{strange}/?x=1"
    status, headers, body = await gateway.ask(f"/ipfs/{tree.root}/{strange}/")
    assert status == 200 and b'href="./a%20b"' in body
    assert headers["Etag"].startswith('"DirIndex-')
    assert "immutable" not in headers["Cache-Control"]
    assert headers["X-Ipfs-Path"] == f"/ipfs/{tree.root}/{strange}/"
    status, headers, body = await gateway.ask(f"/ipfs/{tree.root}/page/")
    assert (status, body) == (200, b"<!doctype html><p>hi")
    assert headers["Content-Security-Policy"].startswith("sandbox")
    status, _, body = await gateway.ask(f"/ipfs/{tree.root}/")
    assert b"<script>" not in body and b"&lt;script&gt;" in body
    status, headers, body = await gateway.ask(f"/ipfs/{tree.root}/link")
    assert (body, headers["Content-Type"]) == (b"hello.txt", "inode/symlink")


async def test_a_tar_of_everything(gateway: Client) -> None:
    tree = gateway.tree
    _, headers, body = await gateway.ask(f"/ipfs/{tree.root}?format=tar")
    assert headers["Content-Type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        names = {member.name for member in archive}
        top = str(tree.root)
        assert {f"{top}/big.bin", f"{top}/ünï cödé/a b", f"{top}/page/index.html"} <= names
        assert archive.extractfile(f"{top}/big.bin").read() == tree.data  # type: ignore[union-attr]
        assert archive.getmember(f"{top}/link").linkname == "hello.txt"


async def test_cars(gateway: Client) -> None:
    tree = gateway.tree
    _, headers, body = await gateway.ask(f"/ipfs/{tree.root}?format=car")
    assert headers["Content-Type"] == "application/vnd.ipld.car; version=1; order=dfs; dups=n"
    assert car.read_all(body)[0] == [tree.root]
    assert sorted(cids_of(body)) == sorted(tree.blocks)
    _, _, body = await gateway.ask(f"/ipfs/{tree.root}?format=car&car-dups=y")
    assert len(cids_of(body)) == len(tree.blocks) + 2  # hello is there three times
    _, _, body = await gateway.ask(f"/ipfs/{tree.root}?format=car&dag-scope=block")
    assert cids_of(body) == [tree.root]
    _, _, body = await gateway.ask(f"/ipfs/{tree.root}/big.bin?format=car&dag-scope=entity")
    assert cids_of(body) == [tree.root, tree.big, *tree.leaves]
    size = len(tree.data)
    tags = set()
    for wanted, leaves in (
        ("0:0", tree.leaves[:1]),
        (f"{CHUNK_BYTES}:{CHUNK_BYTES}", tree.leaves[1:2]),
        ("-1:*", tree.leaves[3:]),
        (f"5:{-(size - 10)}", tree.leaves[:1]),
        (f"{size + 5}:*", []),
        ("0:*", tree.leaves),
    ):
        _, headers, body = await gateway.ask(
            f"/ipfs/{tree.root}/big.bin?format=car&entity-bytes={wanted}"
        )
        assert cids_of(body) == [tree.root, tree.big, *leaves], wanted
        tags.add(headers["Etag"])
    assert len(tags) == 6
    _, headers, _ = await gateway.ask(
        f"/ipfs/{tree.root}", Accept="application/vnd.ipld.car; version=1; order=dfs; dups=y"
    )
    assert headers["Content-Type"].endswith("dups=y")


async def test_a_car_whose_child_is_missing_breaks_off(gateway: Client) -> None:
    block = dag_pb.encode([PBLink(Cid.of(RAW, b"gone"), "x", 4)], unixfs.DIRECTORY_DATA)
    cid = Cid.of(DAG_PB, block, SHA2_256)
    await gateway.content.put([(cid, block)])
    with pytest.raises(aiohttp.ClientPayloadError):
        await gateway.ask(f"/ipfs/{cid}?format=car")


async def test_clients_that_go_away_leave_nothing_behind(gateway: Client) -> None:
    path = f"/ipfs/{gateway.tree.root}/big.bin"
    for _ in range(20):
        answer = await gateway.session.get(URL(gateway.base + path, encoded=True))
        await answer.content.read(10)
        answer.close()
    results = await asyncio.gather(*(gateway.ask(path) for _ in range(10)))
    assert all(body == gateway.tree.data for _, _, body in results)

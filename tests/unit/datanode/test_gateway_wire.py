"""What real clients need of the trustless gateway, line by line, where `test_gateway.py` has it not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from twinfs.common.ipld import car, dag_pb, directory, unixfs
from twinfs.common.ipld.cid import DAG_PB, MAX_BLOCK_BYTES, RAW, Cid
from twinfs.common.ipld.dag_pb import PBLink
from twinfs.common.ipld.layout import TWINFS, Node

from .gateway_help import Client, cids_of, serving_tree


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    async with serving_tree(tmp_path_factory.mktemp("volume")) as client:
        yield client


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_car_says_what_it_is(gateway: Client) -> None:
    cid, tags = gateway.tree.root, set()
    for query in ("", "&dag-scope=block", "&dag-scope=entity", "&car-dups=y"):
        for method in ("GET", "HEAD"):
            status, headers, _ = await gateway.ask(f"/ipfs/{cid}?format=car{query}", method)
            assert status == 200
            assert headers["Content-Disposition"] == f'attachment; filename="{cid}.car"'
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Accept-Ranges"] == "none"
            tags.add(headers["Etag"])
    assert len(tags) == 4
    path = f"/ipfs/{gateway.tree.big}?format=car"
    first = (await gateway.ask(f"{path}&entity-bytes=0:5"))[1]["Etag"]
    other = (await gateway.ask(f"{path}&entity-bytes=0:6"))[1]["Etag"]
    assert first != other and not {first, other} & tags
    assert (await gateway.ask(f"{path}&entity-bytes=0:5", If_None_Match=first))[0] == 304


async def test_the_query_wins_over_the_header(gateway: Client) -> None:
    cid = gateway.tree.root
    accept = "application/vnd.ipld.car; version=1; order=dfs; dups=y"
    _, headers, body = await gateway.ask(f"/ipfs/{cid}?format=car&car-dups=n", Accept=accept)
    assert headers["Content-Type"].endswith("dups=n")
    assert len(cids_of(body)) == len(set(cids_of(body)))
    _, headers, body = await gateway.ask(f"/ipfs/{cid}?format=raw", Accept=accept)
    assert headers["Content-Type"] == "application/vnd.ipld.raw"
    assert body == gateway.tree.blocks[cid]
    for bad in ("&car-order=bfs", "&car-dups=maybe", "&car-version=3", "&entity-bytes=*:1"):
        assert (await gateway.ask(f"/ipfs/{cid}?format=car{bad}"))[0] == 400, bad


async def test_identity_cids_are_no_blocks_of_a_car(gateway: Client) -> None:
    inline = Cid(1, RAW, b"\x00\x05hello")
    block = dag_pb.encode([PBLink(inline, "i", 5)], unixfs.DIRECTORY_DATA)
    cid = Cid.of(DAG_PB, block)
    await gateway.content.put([(cid, block)])
    _, _, body = await gateway.ask(f"/ipfs/{cid}?format=car")
    assert cids_of(body) == [cid]
    _, _, body = await gateway.ask(f"/ipfs/{cid}/i?format=car")
    assert cids_of(body) == [cid]
    assert (await gateway.ask(f"/ipfs/{cid}/i"))[2] == b"hello"
    assert (await gateway.ask(f"/ipfs/{inline}?format=raw"))[2] == b"hello"


async def test_the_entity_of_a_folder(gateway: Client) -> None:
    """Its own block; of a sharded one every shard; of neither a child. Bytes of a folder mean nothing."""
    tree = gateway.tree
    for query in ("dag-scope=entity", "entity-bytes=0:3", "dag-scope=entity&entity-bytes=9:*"):
        _, _, body = await gateway.ask(f"/ipfs/{tree.root}?format=car&{query}")
        assert cids_of(body) == [tree.root], query
    entries = {f"entry number {n:06}": Node(tree.hello, 13, 13) for n in range(5_000)}
    root, made = directory.build(TWINFS, entries)
    await gateway.content.put([(one.cid, one.block) for one in made])
    assert len(made) > 200
    _, _, body = await gateway.ask(f"/ipfs/{root.cid}?format=car&dag-scope=entity")
    got = cids_of(body)
    assert got[0] == root.cid and set(got) == {one.cid for one in made}
    _, _, body = await gateway.ask(
        f"/ipfs/{root.cid}/entry number 004711?format=car".replace(" ", "%20")
    )
    got = cids_of(body)
    assert got[0] == root.cid and got[-1] == tree.hello and len(got) <= 4


async def test_nothing_is_bigger_than_clients_take(gateway: Client) -> None:
    data = bytes(range(256)) * (MAX_BLOCK_BYTES // 256)
    cid = Cid.of(RAW, data)
    await gateway.content.put([(cid, data)])
    status, headers, body = await gateway.ask(f"/ipfs/{cid}?format=raw")
    assert (status, body, headers["Content-Length"]) == (200, data, str(MAX_BLOCK_BYTES))


async def test_what_is_not_here_is_said_at_once(gateway: Client) -> None:
    cid = Cid.of(RAW, b"elsewhere")
    for form in ("raw", "car", "dag-json", "tar"):
        for method in ("GET", "HEAD"):
            path = f"/ipfs/{cid}?format={form}"
            assert (await gateway.ask(path, method))[0] == 404
            status, _, _ = await gateway.ask(path, method, Cache_Control="only-if-cached")
            assert status == 412
    assert (await gateway.ask("/ipfs/nonsense?format=raw", "HEAD"))[0] == 400


async def test_a_car_is_read_back(gateway: Client) -> None:
    _, _, body = await gateway.ask(f"/ipfs/{gateway.tree.root}?format=car")
    for block in car.read_all(body)[1]:
        assert gateway.tree.blocks[block.cid] == block.data

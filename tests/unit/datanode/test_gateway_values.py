"""dag-json, dag-cbor and their kin at the gateway: as they are, converted, as a page; and what goes with any form."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from twinfs.common.ipld import dag_cbor, dag_json, dag_pb, forms, unixfs
from twinfs.common.ipld.cid import CBOR, DAG_CBOR, DAG_JSON, DAG_PB, JSON, RAW, Cid
from twinfs.common.ipld.dag_pb import PBLink
from twinfs.datanode.content import Content

from .gateway_help import Gateway, serving

DAG_JSON_TYPE = "application/vnd.ipld.dag-json"
DAG_CBOR_TYPE = "application/vnd.ipld.dag-cbor"


class Store(Gateway):
    """Blocks of every codec, and who asks for them."""

    def __init__(self, base: str, session: aiohttp.ClientSession, content: Content) -> None:
        super().__init__(base, session, content)
        self.blocks: dict[Cid, bytes] = {}
        self.leaf = self.add(RAW, b"hello\n")
        self.value = {
            "leaf": self.leaf,
            "n": [1, {"deep": self.leaf}],
            "bytes": b"\0\xff",
            "<b>": '"',
        }
        self.cbor = self.add(DAG_CBOR, dag_cbor.encode(self.value))
        self.json = self.add(DAG_JSON, dag_json.encode(self.value))
        self.plain_json = self.add(JSON, b'{ "a" : 1.50 }')
        self.plain_cbor = self.add(CBOR, b"\x18\x01")  # one, longer than need be: no dag-cbor
        self.page = self.add(RAW, b'{"page": true}')
        links = dag_pb.sorted_links(
            [PBLink(self.leaf, "a", 6), PBLink(self.page, "p.json", 14), PBLink(self.cbor, "c", 90)]
        )
        self.folder = self.add(DAG_PB, dag_pb.encode(links, unixfs.DIRECTORY_DATA))
        self.bad_json = self.add(DAG_JSON, b'{"/": 1}')
        self.bad_cbor = self.add(DAG_CBOR, b"\x18\x01")
        self.huge = self.add(DAG_JSON, b"18446744073709551616")  # dag-cbor has no such number

    def add(self, codec: int, data: bytes) -> Cid:
        cid = Cid.of(codec, data)
        self.blocks[cid] = data
        return cid


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    async with serving(tmp_path_factory.mktemp("volume"), {}, Store) as made:
        await made.content.put(list(made.blocks.items()))
        yield made


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("how", ["query", "accept"])
@pytest.mark.parametrize("form", ["dag-json", "dag-cbor"])
@pytest.mark.parametrize("source", ["json", "cbor", "folder", "leaf"])
async def test_a_block_in_the_form_that_was_asked_for(
    store: Store, source: str, form: str, how: str
) -> None:
    """Every codec with a data model is converted, to what `forms` makes of it; the query and the header mean the same."""
    cid = getattr(store, source)
    kind = f"application/vnd.ipld.{form}"
    if how == "query":
        status, headers, body = await store.ask(f"/ipfs/{cid}?format={form}", Accept="text/html")
        assert "Content-Location" not in headers
    else:
        status, headers, body = await store.ask(f"/ipfs/{cid}?x=1", Accept=f"{kind};q=0.9, */*")
        assert headers["Content-Location"] == f"/ipfs/{cid}?x=1&format={form}"
    codec = DAG_JSON if form == "dag-json" else DAG_CBOR
    assert body == forms.encoded(forms.value_of(cid, store.blocks[cid]), codec)
    extension = form.removeprefix("dag-")
    shown = "inline" if extension == "json" else "attachment"
    assert (status, headers["Content-Type"], headers["Etag"]) == (200, kind, f'"{cid}.{form}"')
    assert headers["Content-Disposition"] == f'{shown}; filename="{cid}.{extension}"'
    assert headers["Cache-Control"] == "public, max-age=29030400, immutable"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert (headers["X-Ipfs-Path"], headers["X-Ipfs-Roots"]) == (f"/ipfs/{cid}", str(cid))


async def test_a_folder_has_the_logical_form_of_dag_pb(store: Store) -> None:
    _, _, body = await store.ask(f"/ipfs/{store.folder}?format=dag-json")
    assert json.loads(body) == {
        "Data": {"/": {"bytes": "CAE"}},
        "Links": [
            {"Hash": {"/": str(store.leaf)}, "Name": "a", "Tsize": 6},
            {"Hash": {"/": str(store.cbor)}, "Name": "c", "Tsize": 90},
            {"Hash": {"/": str(store.page)}, "Name": "p.json", "Tsize": 14},
        ],
    }


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("json", DAG_JSON_TYPE),
        ("cbor", DAG_CBOR_TYPE),
        ("plain_json", "application/json"),
        ("plain_cbor", "application/cbor"),
    ],
)
async def test_without_a_form_a_block_comes_as_it_is(store: Store, source: str, kind: str) -> None:
    cid = getattr(store, source)
    status, headers, body = await store.ask(f"/ipfs/{cid}")
    assert (status, headers["Content-Type"], headers["Etag"]) == (200, kind, f'"{cid}"')
    assert body == store.blocks[cid]
    status, headers, body = await store.ask(f"/ipfs/{cid}", Range="bytes=1-1")
    assert (status, body) == (206, store.blocks[cid][1:2])
    status, headers, body = await store.ask(f"/ipfs/{cid}", "HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", str(len(store.blocks[cid])))
    assert (await store.ask(f"/ipfs/{cid}", If_None_Match=f'W/"{cid}"'))[0] == 304


async def test_plain_json_and_cbor(store: Store) -> None:
    """They take dag-json and dag-cbor as they are, and leave files what they are."""
    for source, form, of in (
        ("plain_json", "json", "plain_json"),
        ("json", "json", "json"),
        ("cbor", "json", "json"),
        ("plain_cbor", "cbor", "plain_cbor"),
        ("cbor", "cbor", "cbor"),
        ("json", "cbor", "cbor"),
    ):
        cid = getattr(store, source)
        for path, accept in ((f"?format={form}", "*/*"), ("", f"application/{form}")):
            status, headers, body = await store.ask(f"/ipfs/{cid}{path}", Accept=accept)
            assert (status, headers["Content-Type"]) == (200, f"application/{form}")
            assert (body, headers["Etag"]) == (
                store.blocks[getattr(store, of)],
                f'"{cid}.{form}"',
            )
    status, headers, body = await store.ask(
        f"/ipfs/{store.folder}/p.json", Accept="application/json, */*"
    )
    assert (status, headers["Content-Type"], body) == (200, "application/json", b'{"page": true}')


async def test_people_get_a_page_with_links(store: Store) -> None:
    accept = "text/html,application/xhtml+xml,*/*;q=0.8"
    status, headers, body = await store.ask(f"/ipfs/{store.cbor}", Accept=accept)
    text = body.decode()
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert headers["Etag"].startswith('"DagIndex-') and "immutable" not in headers["Cache-Control"]
    assert f'<a href="/ipfs/{store.leaf}">' in text and "&lt;b&gt;" in text and "<b>" not in text
    assert f"/ipfs/{store.cbor}?format=dag-json" in text
    status, headers, body = await store.ask(f"/ipfs/{store.cbor}?download=true", Accept=accept)
    assert (headers["Content-Type"], body) == (DAG_CBOR_TYPE, store.blocks[store.cbor])
    assert headers["Content-Disposition"].startswith("attachment")


async def test_paths_follow_links_and_end_at_blocks(store: Store) -> None:
    status, headers, body = await store.ask(f"/ipfs/{store.cbor}/n/1/deep")
    assert (status, body) == (200, b"hello\n")
    assert headers["X-Ipfs-Roots"] == f"{store.cbor},{store.leaf}"
    status, _, body = await store.ask(f"/ipfs/{store.folder}/c/leaf")
    assert (status, body) == (200, b"hello\n")
    assert (await store.ask(f"/ipfs/{store.cbor}/n/0"))[0] == 501  # a number is no block
    for path in ("absent", "n/7", "n/" + "9" * 5000, "n/٣", "n/-1", "n/1/deep/further"):
        status, _, body = await store.ask(f"/ipfs/{store.cbor}/{path}")
        assert status == 404 and json.loads(body)["message"], path


async def test_what_cannot_be_had_so(store: Store) -> None:
    for cid, form, expected in (
        (store.plain_json, "dag-json", 406),
        (store.plain_cbor, "json", 406),
        (store.huge, "dag-cbor", 406),
        (store.bad_json, "dag-json", 500),
        (store.bad_cbor, "dag-cbor", 500),
        (store.bad_cbor, "dag-json", 500),
        (store.leaf, "dag-xml", 400),
        (Cid.of(DAG_CBOR, b"elsewhere"), "dag-cbor", 404),
    ):
        status, headers, body = await store.ask(f"/ipfs/{cid}?format={form}")
        assert (status, headers["Content-Type"]) == (expected, "application/json"), (cid, form)
        assert json.loads(body)["message"]
    status, _, _ = await store.ask(
        f"/ipfs/{Cid.of(DAG_CBOR, b'elsewhere')}?format=dag-json", Cache_Control="only-if-cached"
    )
    assert status == 412


async def test_any_negotiated_form_says_which_url_it_has(store: Store) -> None:
    cid = store.page
    for accept, location in (
        ("application/vnd.ipld.raw", f"/ipfs/{cid}?format=raw"),
        (
            "application/vnd.ipld.car; version=1; dups=y",
            f"/ipfs/{cid}?format=car&car-version=1&car-order=dfs&car-dups=y",
        ),
        ("application/x-tar", f"/ipfs/{cid}?format=tar"),
    ):
        status, headers, body = await store.ask(f"/ipfs/{cid}", Accept=accept)
        assert (status, headers["Content-Location"]) == (200, location)
        again = await store.ask(location)
        assert (again[0], again[2]) == (200, body)
        assert "Content-Location" not in again[1]


async def test_a_service_worker_is_not_for_a_root_alone(store: Store) -> None:
    assert (await store.ask(f"/ipfs/{store.folder}", Service_Worker="script"))[0] == 400
    assert (await store.ask(f"/ipfs/{store.folder}/a", Service_Worker="script"))[0] == 200

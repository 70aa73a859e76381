"""CIDs, dag-pb, UnixFS, CAR, dag-cbor and dag-json: what is encoded decodes to itself, and bad input gets a typed error."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twinfs.common.errors import (
    ChecksumMismatch,
    DagTooLarge,
    DfsError,
    InvalidCid,
    InvalidContent,
    LinkNotFound,
    NotADirectory,
    RequestError,
    Unsupported,
)
from twinfs.common.ipld import (
    car,
    dag,
    dag_cbor,
    dag_json,
    dag_pb,
    directory,
    hamt,
    layout,
    multibase,
    unixfs,
    varint,
)
from twinfs.common.ipld.cid import DAG_CBOR, DAG_PB, IDENTITY, RAW, SHA2_256, Cid, verify
from twinfs.common.ipld.dag_pb import PBLink, PBNode
from twinfs.common.ipld.layout import PROFILES, TWINFS, Node
from twinfs.common.ipld.murmur3 import hash64
from twinfs.common.ipld.unixfs import Kind, UnixFs

from .contents import Blocks, add_bytes, add_tree, content

# `make fuzz` asks for many more.
EXAMPLES = int(os.environ.get("TWINFS_FUZZ_EXAMPLES", "300"))
FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


def strictly(decode: Callable[[bytes], Any], data: bytes) -> Any:
    """What *decode* makes of arbitrary bytes: a value, or None for a refusal. Any other error fails the test."""
    try:
        return decode(data)
    except (RequestError, ChecksumMismatch):
        return None


digests = st.binary(min_size=32, max_size=32)
cids = st.one_of(
    st.builds(lambda d: Cid(0, DAG_PB, b"\x12\x20" + d), digests),
    st.builds(
        lambda codec, code, d: Cid.from_digest(codec, d, code),
        st.sampled_from([RAW, DAG_PB, DAG_CBOR, 0x0129, 0x72]),
        st.sampled_from([0x12, 0x1E]),
        digests,
    ),
    st.builds(lambda data: Cid.of(RAW, data, IDENTITY), st.binary(max_size=64)),
)
texts = st.text(max_size=20)
links = st.builds(
    PBLink,
    cids,
    st.one_of(st.none(), texts),
    st.one_of(st.none(), st.integers(min_value=0, max_value=2**63 - 1)),
)


# --- varints, multibase, CIDs ---


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_varints_round_trip(value: int) -> None:
    encoded = varint.encode(value)
    assert varint.decode(encoded) == (value, len(encoded))
    assert varint.size(value) == len(encoded)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x00", b"\xff" * 10, b"\x80" * 9 + b"\x01"])
def test_bad_varints_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidContent):
        varint.decode(data)


@given(st.binary(max_size=100), st.sampled_from(list(multibase.NAMES)))
def test_multibase_round_trips(data: bytes, base: str) -> None:
    assert multibase.decode(multibase.encode(data, base)) == data


@pytest.mark.parametrize(
    "text",
    ["", "b", "x", "b1", "ba", "bab", "bB", "Bb", "z0", "zl", "k_", "kA", "f1", "fgg", "m=", "ma",
     "mab", "u+a", "9123", "z" + "1" * 5_000, "bé", "f\udc80a"],
)  # fmt: skip
def test_bad_multibase_is_refused(text: str) -> None:
    if text == "b":
        assert multibase.decode(text) == b""
        return
    with pytest.raises(InvalidCid):
        multibase.decode(text)


@given(cids, st.sampled_from(["base32", "base36", "base58btc", "base16", "base64url"]))
def test_cids_round_trip(cid: Cid, base: str) -> None:
    assert Cid.parse(str(cid)) == cid
    assert Cid.from_bytes(bytes(cid)) == cid
    assert Cid.read(b"xy" + bytes(cid) + b"z", 2) == (cid, 2 + len(bytes(cid)))
    if cid.version == 1:
        assert Cid.parse(cid.encode(base)) == cid
    assert cid.v1.multihash == cid.multihash


@FUZZ
@given(
    st.one_of(st.binary(max_size=80), st.builds(lambda c, b: bytes(c)[:-1] + b, cids, st.binary()))
)
def test_arbitrary_bytes_are_a_canonical_cid_or_none(data: bytes) -> None:
    cid = strictly(Cid.from_bytes, data)
    if cid is not None:
        assert bytes(cid) == data
        assert Cid.parse(str(cid)) == cid


@FUZZ
@given(st.text(max_size=80))
def test_arbitrary_text_is_a_cid_or_none(text: str) -> None:
    strictly(Cid.parse, text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQ",  # a letter short
        "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1Aw0H",  # 0 is no letter of base58
        "zQmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH",  # version 0 with a multibase letter
        "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyk",
        "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvykuaa",
        "hello",
        "",
        "/ipfs/bafkqaaa",
    ],
)
def test_what_is_no_cid_is_refused(text: str) -> None:
    with pytest.raises(InvalidCid):
        Cid.parse(text)


def test_a_cid_holds_against_its_bytes() -> None:
    for code in (0x12, 0x1E, 0x00):
        cid = Cid.of(RAW, b"hello", code)
        cid.verify(b"hello")
        with pytest.raises(ChecksumMismatch):
            cid.verify(b"hellO")
    with pytest.raises(Unsupported):
        Cid(1, RAW, b"\x13\x04abcd").verify(b"hello")
    with pytest.raises(InvalidContent):
        verify(Cid.of(RAW, b""), b"\0" * (2 * 1024 * 1024 + 1))


# --- dag-pb, UnixFS ---


@FUZZ
@given(st.lists(links, max_size=5), st.one_of(st.none(), st.binary(max_size=40)))
def test_nodes_round_trip(found: list[PBLink], data: bytes | None) -> None:
    block = dag_pb.encode(found, data)
    assert dag_pb.decode(block) == PBNode(found, data)


@FUZZ
@given(
    st.one_of(
        st.binary(max_size=60),
        st.builds(
            lambda n, d, cut: dag_pb.encode(n, d)[cut:],
            st.lists(links, max_size=3),
            st.binary(max_size=9),
            st.integers(0, 40),
        ),
    )
)
def test_arbitrary_bytes_are_a_node_or_none(data: bytes) -> None:
    node = strictly(dag_pb.decode, data)
    if node is not None and (node.data is None or not node.links or data[:1] == b"\x12"):
        assert dag_pb.encode(node.links, node.data) == data  # one encoding, or it is refused


def test_file_links_are_encoded_as_any_links() -> None:
    found = [PBLink(Cid.of(RAW, bytes([n])), "", 300**n) for n in range(7)]
    quick = dag_pb.encode_file_links([bytes(n.cid) for n in found], [n.tsize or 0 for n in found])
    assert quick == dag_pb.encode(found, None)


optional = st.one_of(st.none(), st.integers(0, 2**40))
values = st.builds(
    UnixFs,
    kind=st.sampled_from(list(Kind)),
    data=st.one_of(st.none(), st.binary(max_size=20)),
    filesize=optional,
    blocksizes=st.lists(st.integers(0, 2**50), max_size=5),
    hash_type=optional,
    fanout=optional,
    mode=optional,
    mtime_s=st.one_of(st.none(), st.integers(-(2**40), 2**40)),
)


@FUZZ
@given(values)
def test_unixfs_round_trips(value: UnixFs) -> None:
    assert unixfs.decode(unixfs.encode(value)) == value


@FUZZ
@given(
    st.one_of(
        st.binary(max_size=40),
        st.builds(lambda v, junk: unixfs.encode(v)[:-1] + junk, values, st.binary(max_size=5)),
    )
)
def test_arbitrary_bytes_are_unixfs_or_none(data: bytes) -> None:
    strictly(unixfs.decode, data)


def test_packed_block_sizes_are_understood() -> None:
    assert unixfs.decode(b"\x08\x02\x18\x0a\x22\x02\x04\x06").blocksizes == [4, 6]


# --- dag-cbor, dag-json ---

plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**64), 2**64 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        texts,
        st.binary(max_size=20),
        cids,
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(texts.filter(lambda key: key != "/"), inner, max_size=4),
    ),
    max_leaves=12,
)


@FUZZ
@given(plain)
def test_values_round_trip(value: Any) -> None:
    assert dag_cbor.decode(dag_cbor.encode(value)) == value
    again = dag_json.decode(dag_json.encode(value))
    assert dag_json.encode(again) == dag_json.encode(value)


@FUZZ
@given(
    st.one_of(
        st.binary(max_size=60),
        st.builds(
            lambda v, at, b: dag_cbor.encode(v)[:at] + b,
            plain,
            st.integers(0, 30),
            st.binary(max_size=9),
        ),
    )
)
def test_arbitrary_bytes_are_one_value_or_none(data: bytes) -> None:
    try:
        value = dag_cbor.decode(data)
    except (InvalidContent, InvalidCid, Unsupported):
        return
    assert dag_cbor.encode(value) == data


@FUZZ
@given(
    st.one_of(
        st.text(max_size=60),
        st.builds(
            lambda v, at: dag_json.encode(v)[:at].decode(errors="replace"),
            plain,
            st.integers(0, 60),
        ),
    )
)
def test_arbitrary_text_is_json_or_none(text: str) -> None:
    strictly(dag_json.decode, text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "block",
    [
        b"\x18\x01", b"\x19\x00\xff", b"\x1b\0\0\0\0\0\0\0\1", b"\x9f\xff", b"\x81", b"\xa2\x61b\1\x61a\2",
        b"\xa2\x61a\1\x61a\2", b"\xa1\1\1", b"\xf9\0\0", b"\xfb\x7f\xf8\0\0\0\0\0\0", b"\xf7", b"\xc1\0",
        b"\xd8\x2a\x41\0", b"\x61\xff", b"\x1c", b"\0\0", b"\x9b" + b"\xff" * 8, b"\x81" * 5_000, b"\x5b" + b"\xff" * 8,
    ],
)  # fmt: skip
def test_loose_cbor_is_refused(block: bytes) -> None:
    with pytest.raises(RequestError):
        dag_cbor.decode(block)


@pytest.mark.parametrize(
    "text",
    ['{"a":1,"a":2}', '{"/":1}', '{"/":"x","a":1}', '{"/":{"bytes":"?"}}', "NaN", "[" * 100_000, "{}{}", '{"/":{"bytes":"YQ=="}}', ""],
)  # fmt: skip
def test_loose_json_is_refused(text: str) -> None:
    with pytest.raises(RequestError):
        dag_json.decode(text)


def test_infinite_numbers_have_no_encoding() -> None:
    for codec in (dag_cbor, dag_json):
        for bad in (math.inf, math.nan, {1: 2}, object(), "\udc80"):
            with pytest.raises(InvalidContent):
                codec.encode(bad)


def test_a_node_and_its_map() -> None:
    node = PBNode([PBLink(Cid.of(RAW, b"1"), "a", 1), PBLink(Cid.of(RAW, b"2"), None, None)], b"x")
    value = dag_json.decode(dag_json.encode(dag_json.node_of(node)))
    assert dag_json.to_node(value) == node
    for bad in ({}, {"Links": [1]}, {"Links": [], "x": 1}, {"Links": [{"Hash": "x"}]}, []):
        with pytest.raises(InvalidContent):
            dag_json.to_node(bad)


# --- hashing names ---


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"", "0000000000000000"),
        (b"hello", "cbd8a7b341bd9b02"),
        (b"hello, world", "342fac623a5ebc8e"),
        (b"19 Jan 2038 at 3:14:07 AM", "b89e5988b737affc"),
        (b"The quick brown fox jumps over the lazy dog.", "cd99481f9ee902c9"),
    ],
)
def test_murmur3_gives_the_published_values(data: bytes, wanted: str) -> None:
    """Values of the tests of spaolacci/murmur3."""
    assert hash64(data).hex() == wanted


# --- directories and walks ---


def find(root: Node, path: list[str], blocks: Blocks) -> Cid:
    return dag.run(dag.resolve(root.cid, path), blocks.get_block).cid


@pytest.mark.parametrize("count", [0, 1, 300, 9_000])
def test_every_entry_of_a_directory_is_found_and_listed(count: int) -> None:
    blocks = Blocks()
    entries = {f"entry {n}": add_bytes(TWINFS, content(n, n % 7), blocks) for n in range(count)}
    root, made = directory.build(TWINFS, entries)
    for one in made:
        blocks.add(*one)
    found = dag.entity(root.cid, blocks.get_block(root.cid))
    assert (found.kind == Kind.HAMT_SHARD) == (count == 9_000)
    listed = dag.run(dag.entries(found), blocks.get_block)
    assert {entry.name: entry.cid for entry in listed} == {n: e.cid for n, e in entries.items()}
    for name in list(entries)[:: max(1, count // 50)]:
        assert find(root, [name], blocks) == entries[name].cid
    for name in ("absent", "entry", "", "entry 0x"):
        with pytest.raises(LinkNotFound):
            find(root, [name], blocks)


def test_a_path_through_a_file_is_refused() -> None:
    blocks = Blocks()
    root = add_tree(TWINFS, {"a": {"b": b"file"}}, blocks)
    assert blocks.get_block(find(root, ["a", "b"], blocks)) == b"file"
    with pytest.raises(NotADirectory):
        find(root, ["a", "b", "c"], blocks)


def file_bytes(cid: Cid, blocks: Blocks, start: int = 0, end: int | None = None) -> bytes:
    """A range of a file, put together from its parts."""
    found = dag.entity(cid, blocks.get_block(cid))
    out = bytearray()
    stop = found.size if end is None else min(end, found.size)
    parts = dag.file_parts(found, start, end)
    wish = next(parts, None)
    while wish is not None:
        if isinstance(wish, Cid):
            try:
                wish = parts.send(blocks.get_block(wish))
            except StopIteration:
                break
            continue
        data = blocks.get_block(wish.cid) if wish.cid is not None else bytes(wish.data or b"")
        assert len(data) == wish.length
        low, high = max(start, wish.offset), min(stop, wish.offset + wish.length)
        out += data[low - wish.offset : high - wish.offset]
        wish = next(parts, None)
    return bytes(out)


SMALL = layout.Profile(
    name="small",
    hash_code=SHA2_256,
    cid_version=1,
    raw_leaves=True,
    chunk_bytes=7,
    width=3,
    shard_by="block",
)
SMALL_V0 = layout.Profile(
    name="small0",
    hash_code=SHA2_256,
    cid_version=0,
    raw_leaves=False,
    chunk_bytes=5,
    width=2,
    shard_by="links",
)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 500),
    st.integers(0, 520),
    st.integers(0, 520),
    st.sampled_from([SMALL, SMALL_V0]),
)
def test_any_range_of_a_file(size: int, start: int, end: int, profile: layout.Profile) -> None:
    data = content(9, 500)[:size]
    blocks = Blocks()
    root = add_bytes(profile, data, blocks)
    assert root.filesize == size
    assert file_bytes(root.cid, blocks, start, end) == data[start : max(start, end)]
    walked = list(_walked(root.cid, blocks))
    assert {cid.multihash for cid in walked} == set(blocks)
    assert root.tsize >= sum(len(block) for block in blocks.values()) or size > 300


def _walked(root: Cid, blocks: Blocks, limit: int = 10_000) -> list[Cid]:
    found = []

    def get(cid: Cid) -> bytes:
        found.append(cid)
        return blocks.get_block(cid)

    dag.run(dag.walk(root, max_blocks=limit), get)
    return found


# --- DAGs that lie ---


def made(links: list[PBLink], value: UnixFs, blocks: Blocks) -> Cid:
    block = dag_pb.encode(links, unixfs.encode(value))
    cid = Cid.of(DAG_PB, block)
    blocks.add(cid, block)
    return cid


def leaf(data: bytes, blocks: Blocks) -> Cid:
    cid = Cid.of(RAW, data)
    blocks.add(cid, data)
    return cid


def test_files_that_lie_about_sizes_are_refused() -> None:
    blocks = Blocks()
    one = leaf(b"12345", blocks)
    for links, value in (
        ([PBLink(one)], UnixFs(kind=Kind.FILE, filesize=6, blocksizes=[5])),
        ([PBLink(one)], UnixFs(kind=Kind.FILE, filesize=5, blocksizes=[])),
        ([PBLink(one)] * 2, UnixFs(kind=Kind.FILE, filesize=None, blocksizes=[2**62, 2**62])),
    ):
        with pytest.raises(InvalidContent):
            file_bytes(made(links, value, blocks), blocks)
    inner = made([PBLink(one)], UnixFs(kind=Kind.FILE, filesize=5, blocksizes=[5]), blocks)
    outer = made([PBLink(inner)], UnixFs(kind=Kind.FILE, filesize=9, blocksizes=[9]), blocks)
    with pytest.raises(InvalidContent):
        file_bytes(outer, blocks)


def test_a_file_too_deep_is_refused() -> None:
    blocks = Blocks()
    cid = leaf(b"x", blocks)
    for _ in range(dag.MAX_DEPTH + 2):
        cid = made([PBLink(cid)], UnixFs(kind=Kind.FILE, filesize=1, blocksizes=[1]), blocks)
    with pytest.raises(DagTooLarge):
        file_bytes(cid, blocks)


def test_a_doubling_dag_is_walked_once_and_bounded() -> None:
    """Each level links to the one below twice: 2**40 paths, 41 blocks."""
    blocks = Blocks()
    cid = leaf(b"x", blocks)
    for _ in range(40):
        block = dag_cbor.encode([cid, cid])
        cid = Cid.of(DAG_CBOR, block)
        blocks.add(cid, block)
    assert len(_walked(cid, blocks)) == 41
    with pytest.raises(DagTooLarge):
        _walked(cid, blocks, 40)
    with pytest.raises(DagTooLarge):
        dag.run(dag.walk(cid, max_blocks=1_000, unique=False), blocks.get_block)


def test_a_chain_too_deep_is_refused() -> None:
    blocks = Blocks()
    cid = leaf(b"x", blocks)
    for _ in range(1_200):
        block = dag_cbor.encode([cid])
        cid = Cid.of(DAG_CBOR, block)
        blocks.add(cid, block)
    with pytest.raises(DagTooLarge):
        _walked(cid, blocks)


@pytest.mark.parametrize("name", ["..", ".", "a/b", "", "nul\0", "x" * 256])
def test_names_that_would_escape_are_refused(name: str) -> None:
    blocks = Blocks()
    cid = made([PBLink(leaf(b"x", blocks), name, 1)], UnixFs(kind=Kind.DIRECTORY), blocks)
    found = dag.entity(cid, blocks.get_block(cid))
    with pytest.raises(InvalidContent):
        dag.run(dag.entries(found), blocks.get_block)


@pytest.mark.parametrize("fanout", [0, 1, 7, 100, 2048, 2**40])
def test_shards_of_impossible_width_are_refused(fanout: int) -> None:
    blocks = Blocks()
    cid = made([], UnixFs(kind=Kind.HAMT_SHARD, fanout=fanout, hash_type=0x22), blocks)
    with pytest.raises(InvalidContent):
        dag.entity(cid, blocks.get_block(cid))


def test_shards_that_go_down_for_ever_are_refused() -> None:
    """A shard in each shard's slot, deeper than the hash has bits: found neither by name nor by listing."""
    blocks = Blocks()
    value = UnixFs(kind=Kind.HAMT_SHARD, data=b"\1", fanout=256, hash_type=0x22)
    prefix = f"{hash64(b'name')[0]:02X}"
    cid = made([PBLink(leaf(b"x", blocks), prefix + "other", 1)], value, blocks)
    for depth in reversed(range(80)):
        slot = hash64(b"name")[depth % 8]
        cid = made([PBLink(cid, f"{slot:02X}", 1)], value, blocks)
    with pytest.raises((InvalidContent, LinkNotFound)):
        dag.run(dag.resolve(cid, ["name"]), blocks.get_block)
    with pytest.raises(DagTooLarge):
        dag.run(dag.entries(dag.entity(cid, blocks.get_block(cid))), blocks.get_block)


def test_too_many_names_of_one_hash_are_refused() -> None:
    names = [(hash64(b"same"), f"n{n}") for n in range(3)]
    entries = {name: Node(Cid.of(RAW, b""), 0, 0) for _, name in names}
    with pytest.raises(DfsError):
        hamt._shard(TWINFS, entries, names, 0, [])


# --- CAR ---


def packed(blocks: Blocks, root: Cid) -> bytes:
    cids = _walked(root, blocks)
    return car.header([root]) + b"".join(car.frame(c, blocks.get_block(c)) for c in cids)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 400), max_size=8), st.booleans())
def test_a_car_in_pieces(cuts: list[int], version2: bool) -> None:
    blocks = Blocks()
    root = add_tree(SMALL, {"a": content(1, 100), "b": {"c": content(2, 60)}}, blocks)
    data = packed(blocks, root.cid)
    if version2:
        found = car.read_all(data)[1]
        data = car.v2_header(len(data)) + data + car.v2_index((b.cid, b.offset) for b in found)
    reader = car.Reader()
    got, at = [], 0
    for cut in [*cuts, len(data)]:
        got += reader.feed(data[at : at + cut])
        at += cut
    got += reader.feed(data[at:])
    reader.finish()
    assert reader.roots == [root.cid]
    assert Blocks({b.cid.multihash: b.data for b in got}) == blocks
    assert reader.version == (2 if version2 else 1)


def test_an_index_says_where_blocks_are() -> None:
    blocks = Blocks()
    root = add_bytes(SMALL, content(1, 100), blocks)
    data = packed(blocks, root.cid)
    for block in car.read_all(data)[1]:
        assert data[block.offset :].startswith(car.frame(block.cid, block.data))


@FUZZ
@given(st.binary(max_size=120), st.integers(0, 200), st.booleans())
def test_a_damaged_car_never_gives_a_wrong_block(junk: bytes, at: int, cut: bool) -> None:
    blocks = Blocks()
    root = add_bytes(SMALL, content(1, 60), blocks)
    good = packed(blocks, root.cid)
    bad = good[:at] + junk + (b"" if cut else good[at + len(junk) :])
    reader = car.Reader()
    try:
        for block in reader.feed(bad):
            block.cid.verify(block.data)
        reader.finish()
    except (RequestError, ChecksumMismatch):
        pass


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\xff" * 12,
        varint.encode(2 * 1024 * 1024) + b"x",
        car.header([Cid.of(RAW, b"")])[:-1],
        car.header([]) + varint.encode(3 * 1024 * 1024),
        car.header([]) + b"\x00",
        car.header([]) + car.frame(Cid.of(RAW, b"a"), b"b"),
        car.header([]) + car.frame(Cid.of(RAW, b"a"), b"a")[:-1],
        car.header([]) + b"\x05hello",
        varint.encode(7) + dag_cbor.encode({"version": 1})[:7],
        car.PRAGMA + car.PRAGMA,
        car.PRAGMA + bytes(40),
        car.v2_header(2**62) + car.header([]),
        car.v2_header(11) + car.PRAGMA,
    ],
)
def test_what_is_no_car_is_refused(data: bytes) -> None:
    with pytest.raises((RequestError, ChecksumMismatch)):
        car.read_all(data)


def test_every_profile_shards_where_it_says() -> None:
    for profile in PROFILES.values():
        node = Node(Cid.of(RAW, b"", profile.hash_code), 0, 0)
        entries = {f"{n:06d}": node for n in range(7_000)}
        assert directory.is_sharded(profile, entries)
        assert not directory.is_sharded(profile, dict(list(entries.items())[:4_000]))
        root, blocks = directory.build(profile, dict(list(entries.items())[:4_000]))
        assert len(blocks[-1].block) == directory.plain_size(dict(list(entries.items())[:4_000]))
        assert root.tsize == len(blocks[-1].block)

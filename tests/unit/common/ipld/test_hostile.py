"""What a hostile DAG or file can claim: each ends in a typed error, soon, and in little memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from twinfs.common.errors import (
    DagTooLarge,
    DfsError,
    InvalidCid,
    InvalidContent,
    Unsupported,
)
from twinfs.common.ipld import car, dag, dag_cbor, dag_json, dag_pb, unixfs, varint
from twinfs.common.ipld.cid import DAG_CBOR, DAG_JSON, DAG_PB, MAX_BLOCK_BYTES, RAW, Cid, verify
from twinfs.common.ipld.dag_pb import PBLink
from twinfs.common.ipld.unixfs import Kind, UnixFs
from twinfs.common.runtime import SystemClock

LIMIT_S = 20.0  # of a slow machine under load; most take milliseconds
MEMORY_BYTES = 64 * 1024 * 1024
Get = Callable[[Cid], bytes]


@contextmanager
def little() -> Iterator[None]:
    """Bounded in time and memory."""
    clock = SystemClock()
    began_s = clock.monotonic_s()
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES
    finally:
        tracemalloc.stop()
    assert clock.monotonic_s() - began_s < LIMIT_S


def drive(walk: Iterator[object], get: Get) -> None:
    """Take all that a generator of wishes gives."""
    wish = next(walk, None)
    while wish is not None:
        try:
            wish = walk.send(get(wish) if isinstance(wish, Cid) else None)  # type: ignore[attr-defined]
        except StopIteration:
            return


# --- CIDs ---


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\x01\x55",
        b"\x01\x55\x1e\x20" + bytes(31),  # a byte short
        b"\x01\x55\x1e\x20" + bytes(33),  # a byte long
        b"\x01\x55\x1e\xff\xff\xff\xff\x07" + bytes(10),  # two gigabytes of digest, it says
        b"\x01\x55\x1e\xa0\x00" + bytes(32),  # a length of two bytes where one would do
        b"\x81\x00\x55\x1e\x20" + bytes(32),  # so the version
        b"\x01\xd5\x00\x1e\x20" + bytes(32),  # so the codec
        b"\x01" + b"\xff" * 10 + b"\x01",  # a codec of more than 63 bits
        b"\x12\x20" + bytes(31),
        b"\x12\x21" + bytes(33),
        b"\x01\x55\x00\xff\x7f" + bytes(16_383),  # an identity of 16 KiB
        b"\x00\x55\x1e\x20" + bytes(32),  # version 0, written out
    ],
)
def test_cids_that_are_cut_padded_or_lie_about_their_length(data: bytes) -> None:
    with little(), pytest.raises((InvalidCid, InvalidContent, Unsupported)):
        Cid.from_bytes(data)


@pytest.mark.parametrize("letter", ["b", "z", "k", "f", "u", "Q", "?"])
def test_a_megabyte_of_text_is_no_cid(letter: str) -> None:
    with little(), pytest.raises((InvalidCid, Unsupported)):
        Cid.parse(letter + "a" * 1_000_000)


# --- blocks ---


@pytest.mark.parametrize("size", [MAX_BLOCK_BYTES + 1, 40_000_000])
@pytest.mark.parametrize("codec", [RAW, DAG_PB, DAG_CBOR, DAG_JSON])
def test_blocks_over_two_mebibytes_are_none(codec: int, size: int) -> None:
    data = bytes(size)
    cid = Cid.of(codec, data)
    with little(), pytest.raises(InvalidContent):
        verify(cid, data)
    if codec != RAW:
        with little(), pytest.raises(InvalidContent):
            dag.decode(cid, data)


@pytest.mark.parametrize(
    ("codec", "data"),
    [
        (DAG_CBOR, b"\x81" * MAX_BLOCK_BYTES),
        (DAG_CBOR, b"\xa1\x61a" * (MAX_BLOCK_BYTES // 3)),
        (DAG_CBOR, b"\xd8\x2a" * (MAX_BLOCK_BYTES // 2)),
        (DAG_CBOR, b"\x9b\x00\x00\x00\xff\xff\xff\xff\xff"),  # a trillion entries
        (DAG_CBOR, b"\xbb\x00\x00\x00\xff\xff\xff\xff\xff"),
        (DAG_CBOR, b"\x5b\x00\x00\x00\xff\xff\xff\xff\xff"),
        (DAG_CBOR, b"\x9f\xff"),
        (DAG_JSON, b"[" * MAX_BLOCK_BYTES),
        (DAG_JSON, b'{"a":' * (MAX_BLOCK_BYTES // 5)),
        (DAG_JSON, b'{"/":' * (MAX_BLOCK_BYTES // 5)),
        (DAG_JSON, b"9" * MAX_BLOCK_BYTES),
        (DAG_PB, b"\x12\xff\xff\xff\xff\x7f"),
        (DAG_PB, b"\x12" * MAX_BLOCK_BYTES),
        (DAG_PB, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        (DAG_PB, b"\x12\x00" * (MAX_BLOCK_BYTES // 2)),
    ],
)
def test_depth_bombs_and_lengths_that_lie(codec: int, data: bytes) -> None:
    with little(), pytest.raises(DfsError):
        dag.decode(Cid.of(codec, data), data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x08",
        b"\x08\x63",  # a kind that there is not
        b"\x08\x02\x12\xff\xff\xff\xff\x07",  # two gigabytes of data, it says
        b"\x08\x02\x22\xff\xff\xff\xff\x07\x01",  # as many packed sizes
        b"\x08\x02\x18" + b"\xff" * 10 + b"\x01",
        b"\x08\x05\x30" + varint.encode(1 << 40),  # a shard without its hash type
        b"\x18\x01",  # no kind at all
        b"\x08\x01\x42\x05\x15\x01\x00\x00\x00",  # a time without seconds
        b"\x08\x01\x42\x07\x08\x01\x15\xff\xff\xff\xff",  # and one of too many nanoseconds
        b"\x08\x01\x38" + b"\xff" * 9 + b"\x01",  # a mode of 64 bits
        b"",
    ],
)
def test_unixfs_that_is_cut_or_lies(data: bytes) -> None:
    block = dag_pb.encode([], data)
    with little(), pytest.raises(DfsError):
        drive(
            iter(dag.entries(dag.entity(Cid.of(DAG_PB, block), block))),
            dict[Cid, bytes]().__getitem__,
        )


# --- DAGs ---


class Made(dict[Cid, bytes]):
    def add(self, links: list[PBLink], value: UnixFs) -> Cid:
        block = dag_pb.encode(links, unixfs.encode(value))
        cid = Cid.of(DAG_PB, block)
        self[cid] = block
        return cid


SHARD = UnixFs(kind=Kind.HAMT_SHARD, data=b"\xff" * 32, hash_type=0x22, fanout=256)


@pytest.mark.parametrize("named", [True, False])
def test_a_directory_that_claims_billions_of_entries(named: bool) -> None:
    """Every slot of every shard leads to one shard below: 256**4 of them by five blocks."""
    made = Made()
    links = [PBLink(Cid.of(RAW, b"x"), f"{n:02X}name-{n}", 1) for n in range(256)] if named else []
    cid = made.add(links, SHARD)
    for _ in range(4):
        cid = made.add([PBLink(cid, f"{n:02X}", 1) for n in range(256)], SHARD)
    with little(), pytest.raises(InvalidContent, match="twice"):
        drive(dag.entries(dag.entity(cid, made[cid])), made.__getitem__)


def test_a_file_that_claims_an_exbibyte() -> None:
    """Each node has its child 1024 times: whoever reads gets what he asked for, and pays for no more."""
    made = Made()
    leaf = Cid.of(RAW, bytes(1 << 20))
    cid, size = leaf, 1 << 20
    for _ in range(4):
        cid = made.add(
            [PBLink(cid, "", size)] * 1024,
            UnixFs(kind=Kind.FILE, filesize=size * 1024, blocksizes=[size] * 1024),
        )
        size *= 1024
    asked: list[Cid] = []

    def get(wanted: Cid) -> bytes:
        asked.append(wanted)
        return made[wanted]

    with little():
        parts = dag.file_parts(dag.entity(cid, made[cid]), size - 5, size)
        drive(iter(parts), get)
        assert len(asked) == 3
    with little(), pytest.raises(InvalidContent):
        made.add([], UnixFs(kind=Kind.FILE, filesize=0))
        top = made.add(
            [PBLink(cid, "", size)] * 64,
            UnixFs(kind=Kind.FILE, filesize=None, blocksizes=[size] * 64),
        )
        dag.entity(top, made[top])


@pytest.mark.parametrize("kind", [Kind.DIRECTORY, Kind.HAMT_SHARD, Kind.FILE])
def test_cycles_by_claimed_links(kind: Kind) -> None:
    """Who believes a peer unhashed could be led in circles; no walk goes round for ever even so."""
    one, other = Cid.of(DAG_PB, b"one"), Cid.of(DAG_PB, b"other")

    def node(cid: Cid) -> bytes:
        if kind == Kind.FILE:
            value = UnixFs(kind=kind, filesize=1, blocksizes=[1])
            return dag_pb.encode([PBLink(cid, "", 1)], unixfs.encode(value))
        value = SHARD if kind == Kind.HAMT_SHARD else UnixFs(kind=kind)
        name = "00" if kind == Kind.HAMT_SHARD else "a"
        return dag_pb.encode([PBLink(cid, name, 1)], unixfs.encode(value))

    blocks = {one: node(other), other: node(one)}
    with little():
        drive(dag.walk(one, max_blocks=100_000), blocks.__getitem__)
        with pytest.raises(DagTooLarge):
            drive(dag.walk(one, max_blocks=100_000, unique=False), blocks.__getitem__)
        with pytest.raises(DfsError):
            dag.run(dag.resolve(one, ["a"] * 2_000), blocks.__getitem__)
        found = dag.entity(one, blocks[one])
        if kind == Kind.FILE:
            with pytest.raises(DagTooLarge):
                drive(iter(dag.file_parts(found)), blocks.__getitem__)
        if kind == Kind.HAMT_SHARD:
            with pytest.raises(InvalidContent):
                drive(dag.entries(found), blocks.__getitem__)


# --- CARs ---

ROOT = Cid.of(RAW, b"root")


@pytest.mark.parametrize(
    "tail",
    [
        b"\x00",
        b"\xff" * 9 + b"\x01",  # a frame of 2**63 bytes
        b"\x80\x80\x00",  # a length of three bytes where one would do
        varint.encode(MAX_BLOCK_BYTES * 2),
        varint.encode(36) + bytes(ROOT)[:-1] + b"\x00",
        car.frame(ROOT, b"other"),  # the bytes of another block
        car.frame(ROOT, b"root")[:-1],
        varint.encode(3) + b"\x01\x55\x1e",
    ],
)
def test_cars_with_bad_varints_and_wrong_bytes(tail: bytes) -> None:
    """What came before the bad frame was given; never the bad one."""
    reader = car.Reader()
    got = [block.data for block in reader.feed(car.header([ROOT]) + car.frame(ROOT, b"root"))]
    with little(), pytest.raises(DfsError):
        for block in reader.feed(tail):
            got.append(block.data)
        reader.finish()
    assert got == [b"root"]


def test_a_car_that_never_ends_its_frame_costs_no_memory() -> None:
    reader = car.Reader()
    with little(), pytest.raises(DfsError):
        list(reader.feed(car.header([ROOT]) + varint.encode(1 << 40)))
        for _ in range(1_000):
            list(reader.feed(bytes(1 << 20)))


@pytest.mark.parametrize("count", [10_000, 1_000_000])
def test_a_car_header_of_too_many_roots(count: int) -> None:
    header = dag_cbor.encode({"roots": [ROOT] * 2, "version": 1})
    claimed = header.replace(b"\x82", b"\x9a" + count.to_bytes(4, "big"), 1)
    with little(), pytest.raises(DfsError):
        car.read_all(varint.encode(len(claimed)) + claimed)


def test_texts_that_are_no_dag_json() -> None:
    for text in ('{"/": {"bytes": "==="}}', '{"/": "b"}', '{"a": 1, "a": 2}', "NaN", "\ufeff1"):
        with little(), pytest.raises(DfsError):
            dag_json.decode(text)

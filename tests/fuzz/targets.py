"""What is tried with arbitrary bytes: each target either does its work right or raises a typed error. Anything else is a find.

Run with hypothesis (`test_targets.py`) and, for longer, with atheris, which looks for inputs that reach new lines (`__main__.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from twinfs.client.content_reader import read_file
from twinfs.client.extract import Extractor
from twinfs.common import peerid
from twinfs.common.errors import ContentNotFound, DfsError
from twinfs.common.ipld import car, dag, dag_cbor, dag_json, dag_pb, forms, unixfs, varint
from twinfs.common.ipld.cid import CODECS, DAG_PB, RAW, SHA2_256, Cid
from twinfs.common.ipld.dag_pb import PBLink
from twinfs.common.ipld.unixfs import Kind, UnixFs
from twinfs.common.ipns import make_record, read_record
from twinfs.common.routing_v1 import filtered, peer_json, read_peer
from twinfs.datanode.gateway import asked
from twinfs.datanode.gateway.values import answer, is_value

MAX_WISHES = 5_000  # blocks that one input of a few kilobytes may make a walk ask for
IDENTITY = peerid.Identity(bytes(range(32)))


class Tape:
    """Choices read off a string of bytes; zeros after its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def ended(self) -> bool:
        return self._at >= len(self._data)

    def number(self, below: int) -> int:
        size = 1 if below <= 256 else 2 if below <= 65_536 else 8
        return int.from_bytes(self.take(size).ljust(size, b"\0"), "big") % below

    def take(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        self._at += size
        return found

    def some(self, most: int) -> bytes:
        return self.take(self.number(most + 1))

    def rest(self) -> bytes:
        return self.take(len(self._data))

    def text(self, most: int) -> str:
        return self.some(most).decode("utf-8", "replace")


# --- codecs ---


def cids(data: bytes) -> None:
    """A CID has one binary form, and its texts lead back to it."""
    with contextlib.suppress(DfsError):
        cid = Cid.from_bytes(data)
        assert bytes(cid) == data
        assert Cid.parse(str(cid)) == cid
    with contextlib.suppress(DfsError):
        named = Cid.parse(data.decode("utf-8", "replace"))
        assert Cid.from_bytes(bytes(named)) == named
    with contextlib.suppress(DfsError):
        assert peerid.parse(peerid.shown(found := peerid.parse(data.decode("latin-1")))) == found


def nodes(data: bytes) -> None:
    """A dag-pb node has one encoding."""
    with contextlib.suppress(DfsError):
        node = dag_pb.decode(data)
        again = dag_pb.decode(dag_pb.encode(node.links, node.data))
        assert again == node
        assert dag_json.to_node(dag_json.decode(dag_json.encode(dag_json.node_of(node)))) == node


def files(data: bytes) -> None:
    with contextlib.suppress(DfsError):
        value = unixfs.decode(data)
        assert unixfs.decode(unixfs.encode(value)) == value


def values(data: bytes) -> None:
    """A dag-cbor block is the one encoding of its value; a dag-json one of a value that has one."""
    with contextlib.suppress(DfsError):
        assert dag_cbor.encode(dag_cbor.decode(data)) == data
    with contextlib.suppress(DfsError):
        once = dag_json.encode(dag_json.decode(data))
        assert dag_json.encode(dag_json.decode(once)) == once


def cars(data: bytes) -> None:
    """However a CAR is cut, each block that comes out is what its CID says."""
    tape = Tape(data)
    cut, mend, body = tape.number(1024), tape.number(2), tape.rest()
    if mend:  # a right header and frames that claim what they like, so that the inside is reached
        inner = Tape(body)
        body = car.header([Cid.of(RAW, b"root")])
        while not inner.ended:
            block = inner.some(64)
            frame = bytes(Cid.of(RAW, block)) + (block if inner.number(4) else inner.some(64))
            body += varint.encode(len(frame) if inner.number(4) else inner.number(1 << 60)) + frame
    reader = car.Reader()
    with contextlib.suppress(DfsError):
        for piece in (body[:cut], body[cut:]):
            for block in reader.feed(piece):
                block.cid.verify(block.data)
        reader.finish()


# --- DAGs ---


class Blocks(dict[bytes, bytes]):
    """Blocks at hand, as a reader of content. Counts what is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def keep(self, codec: int, block: bytes, hash_code: int = SHA2_256) -> Cid:
        cid = Cid.of(codec, block, hash_code)
        self[cid.multihash] = block
        return cid

    def block(self, cid: Cid) -> bytes:
        self.asked += 1
        assert self.asked <= MAX_WISHES, "a small input makes a walk without end"
        if cid.is_identity:
            return cid.digest
        if cid.multihash not in self:
            raise ContentNotFound(str(cid))
        return self[cid.multihash]

    async def get(self, cid: Cid) -> bytes:
        return self.block(cid)

    async def find(self, cid: Cid) -> None:
        return

    async def prefetch(self, wanted: Sequence[Cid]) -> None:
        return

    def forget(self) -> None:
        return

    async def entity(self, cid: Cid) -> dag.Entity:
        return dag.entity(cid, self.block(cid))

    async def entries(self, found: dag.Entity) -> list[dag.Entry]:
        return await dag.run_async(dag.entries(found), self.get)

    def read(
        self, found: dag.Entity, start: int = 0, end: int | None = None
    ) -> AsyncIterator[dag.Block]:
        return read_file(self.get, found, start, end)


NAMES = ("a", "..", ".", "", "a/b", "/etc/x", "a\0b", "00", "FFname", "00x", "x" * 300)
TARGETS = ("a", "../../x", "/etc", "", "..", "a\0b", "sub/../../../x")


def dag_of(tape: Tape) -> tuple[Blocks, Cid]:
    """A DAG as *tape* says: true and lying nodes over each other."""
    blocks = Blocks()
    known = [blocks.keep(RAW, b"leaf")]
    while not tape.ended and len(known) < 40:
        kind = tape.number(8)
        links = []
        for _ in range(tape.number(6)):
            name = NAMES[tape.number(len(NAMES))] if tape.number(2) else tape.text(9)
            links.append(PBLink(known[tape.number(len(known))], name, tape.number(1 << 62)))
        sizes = [tape.number(9) if tape.number(4) else tape.number(1 << 63) for _ in links]
        if kind == 0:
            known.append(blocks.keep(RAW, tape.some(40)))
        elif kind == 1:
            known.append(blocks.keep(DAG_PB, tape.some(80)))
        elif kind == 2:
            target = TARGETS[tape.number(len(TARGETS))].encode()
            known.append(_node(blocks, [], UnixFs(kind=Kind.SYMLINK, data=target)))
        elif kind == 3:
            total = sum(sizes) if tape.number(4) else tape.number(1 << 63)
            if total < 1 << 63:
                made = UnixFs(kind=Kind.FILE, filesize=total, blocksizes=sizes)
                known.append(_node(blocks, links, made))
        elif kind == 4:
            fanout = (256, 8, 1024, tape.number(1 << 40))[tape.number(4)]
            made = UnixFs(kind=Kind.HAMT_SHARD, data=tape.some(32), hash_type=0x22, fanout=fanout)
            known.append(_node(blocks, links, made))
        elif kind == 5:
            codec = list(CODECS.values())[tape.number(len(CODECS))]
            known.append(blocks.keep(codec, tape.some(60)))
        elif kind == 6:
            known.append(Cid(1, DAG_PB, b"\0" + bytes((len(inline := tape.some(40)),)) + inline))
        else:
            known.append(_node(blocks, links, UnixFs(kind=Kind.DIRECTORY)))
    return blocks, known[-1]


def _node(blocks: Blocks, links: list[PBLink], value: UnixFs) -> Cid:
    return blocks.keep(DAG_PB, dag_pb.encode(links, unixfs.encode(value)))


def walks(data: bytes) -> None:
    """Resolving, listing, reading and walking end soon, whatever a DAG claims, and files have the size that they say."""
    tape = Tape(data)
    path = [tape.text(6) for _ in range(tape.number(4))]
    blocks, root = dag_of(tape)
    with contextlib.suppress(DfsError):
        dag.run(dag.resolve(root, path), blocks.block)
    with contextlib.suppress(DfsError):
        dag.run(dag.entries(dag.entity(root, blocks.block(root)), max_entries=1000), blocks.block)
    with contextlib.suppress(DfsError):
        for _ in _driven(dag.walk(root, max_blocks=1000), blocks):
            pass
    with contextlib.suppress(DfsError):
        found = dag.entity(root, blocks.block(root))
        if found.kind in (Kind.FILE, Kind.RAW) and found.size < 10_000:

            async def whole() -> int:
                return sum(
                    [len(piece) async for piece in read_file(blocks.get, found, 0, found.size)]
                )

            assert asyncio.run(whole()) == found.size


def _driven(walk: object, blocks: Blocks) -> list[Cid]:
    passed: list[Cid] = []
    wish = next(walk, None)  # type: ignore[call-overload]
    while wish is not None:
        passed.append(wish)
        try:
            wish = walk.send(blocks.block(wish))  # type: ignore[attr-defined]
        except StopIteration:
            break
    return passed


def extraction(data: bytes) -> None:
    """Nothing is ever written outside of the target, and no link in it leads out."""
    blocks, root = dag_of(Tape(data))
    place = Path(tempfile.mkdtemp(prefix="twinfs-fuzz-"))
    try:
        inside = place / "deep" / "out"
        inside.parent.mkdir()
        extractor = Extractor(blocks, overwrite=False, progress=lambda size: None)
        with contextlib.suppress(DfsError):
            asyncio.run(extractor.extract(root, inside))
        assert [path.name for path in place.iterdir()] == ["deep"]
        assert {path.name for path in inside.parent.iterdir()} <= {"out"}
        for path in inside.rglob("*") if inside.is_dir() and not inside.is_symlink() else ():
            assert not path.is_symlink() or path.resolve().is_relative_to(inside), path
    finally:
        shutil.rmtree(place)


# --- records ---


def names(data: bytes) -> None:
    """IPNS records: as they come, and with a right signature over whatever they say."""
    with contextlib.suppress(DfsError):
        read_record(IDENTITY.peer_id, data)
    tape = Tape(data)
    body = tape.some(200) if tape.number(2) else _record_body(tape)
    signature = IDENTITY.sign(b"ipns-signature:" + body)
    raw = b"".join(
        varint.encode(number << 3 | 2) + varint.encode(len(part)) + part
        for number, part in ((9, body), (8, signature))
    )
    with contextlib.suppress(DfsError):
        found = read_record(IDENTITY.peer_id, raw + tape.some(60))
        assert found.sequence >= 0 and found.ttl_s >= 0


def _record_body(tape: Tape) -> bytes:
    values: dict[str, object] = {
        "Value": tape.some(40),
        "Validity": b"2030-01-01T00:00:00.000000000Z" if tape.number(2) else tape.some(40),
        "ValidityType": tape.number(2),
        "Sequence": tape.number(1 << 64),
        "TTL": tape.number(1 << 64),
    }
    for _ in range(tape.number(3)):
        values.pop(list(values)[tape.number(len(values))])
    return dag_cbor.encode(values)


def routing(data: bytes) -> None:
    """Records of other routers, and the filters of those who ask."""
    with contextlib.suppress(DfsError):
        found = read_peer(data)
        assert found is None or found[1]
    tape = Tape(data)
    host, port = tape.text(20), tape.text(8)
    address = f"/{('ip4', 'ip6', 'dns')[tape.number(3)]}/{host}/tcp/{port}/http"
    record = {"Schema": "peer", "ID": "x", "Addrs": [address, tape.text(30)]}
    with contextlib.suppress(DfsError):
        read_peer(json.dumps(record).encode())
    query = {"filter-addrs": tape.text(40), "filter-protocols": tape.text(40)}
    filtered(peer_json("x", ["127.0.0.1:1"]), query)


def requests(data: bytes) -> None:
    """What a gateway is asked for."""
    tape = Tape(data)
    kinds = list(asked.TYPES)
    accept = kinds[tape.number(len(kinds))] if tape.number(2) else ""
    query = {
        "format": list(asked.Form)[tape.number(len(asked.Form))].value,
        "entity-bytes": tape.text(44),
        "dag-scope": tape.text(8),
        "filename": tape.text(20),
    }
    query = {name: value for name, value in query.items() if tape.number(2)}
    size = tape.number(1 << 62)
    with contextlib.suppress(DfsError):
        found = asked.parse_form(query, accept + tape.text(30))
        start, end = asked.entity_range(found.car, size)
        assert 0 <= start <= end <= size
        header = asked.disposition("inline", found.filename)
        assert header.isascii() and "\n" not in header and "\r" not in header
        blocks, root = dag_of(Tape(tape.some(200)))
        if is_value(found.form, root.codec):
            block = blocks.block(root)
            shown = answer(root, block, found, html=bool(tape.number(2)), path="/ipfs/x")
            assert len(shown.body) < 20 * len(block) + 20_000
    with contextlib.suppress(DfsError, asked.OutsideRange):
        part = asked.byte_range(f"bytes={tape.text(44)}", size)
        assert part is None or 0 <= part[0] < part[1] <= size
    with contextlib.suppress(DfsError):
        root_text, found_names, _ = asked.parse_path("/ipfs/" + tape.text(60), "/ipfs/")
        assert not {".", ".."} & set(found_names)
        asked.parse_cid(root_text)


def conversions(data: bytes) -> None:
    """A block in another codec and back is the same value."""
    tape = Tape(data)
    codec = list(CODECS.values())[tape.number(len(CODECS))]
    block = tape.rest()
    with contextlib.suppress(DfsError):
        value = forms.value_of(Cid.of(codec, block), block)
        for decode, form in (
            (dag_json.decode, CODECS["dag-json"]),
            (dag_cbor.decode, CODECS["dag-cbor"]),
        ):
            once = forms.encoded(value, form)
            assert forms.encoded(decode(once), form) == once


ALL: dict[str, Callable[[bytes], None]] = {
    function.__name__: function
    for function in (
        cids,
        nodes,
        files,
        values,
        cars,
        walks,
        extraction,
        names,
        routing,
        requests,
        conversions,
    )
}


def seeds() -> list[bytes]:
    """Inputs to begin with."""
    leaf = Cid.of(RAW, b"leaf")
    value = {"a": [1, 2.5, None, True, leaf], "b": b"bytes", "c": {"d": "é"}}
    links = [PBLink(leaf, "a", 4), PBLink(leaf, "b", 4)]
    shard = UnixFs(kind=Kind.HAMT_SHARD, data=b"\1", hash_type=0x22, fanout=256)
    record = make_record(IDENTITY, "/ipfs/bafkqaaa", 1, expires_ms=2_000_000_000_000, ttl_s=60.0)
    return [
        bytes(leaf),
        str(leaf).encode(),
        leaf.encode("base36").encode(),
        dag_pb.encode(links, unixfs.DIRECTORY_DATA),
        unixfs.encode_file(8, [4, 4]),
        unixfs.encode(shard),
        dag_cbor.encode(value),
        dag_json.encode(value),
        car.header([leaf]) + car.frame(leaf, b"leaf"),
        car.v2_header(0),
        record,
        json.dumps(peer_json("12D3KooW", ["127.0.0.1:80"])).encode(),
        bytes(range(256)),
    ]


__all__ = ["ALL", "seeds"]

"""Walking DAGs: what a block links to, where a path leads, which blocks make a range of a file.

Nothing here fetches. `resolve`, `entries`, `walk` and `file_blocks` are generators of wishes: they yield the CID of a block
they need and are sent its bytes (verified by whoever sent them). `run` and `run_async` drive them. Whatever a hostile DAG claims, a
walk is bounded: in depth, and in blocks.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from ..errors import (
    DagTooLarge,
    InvalidContent,
    IsADirectory,
    LinkNotFound,
    NotADirectory,
    Unsupported,
)
from . import dag_cbor, dag_json, dag_pb, hamt, unixfs
from .cid import CBOR, DAG_CBOR, DAG_JSON, DAG_PB, JSON, RAW, Cid
from .dag_pb import PBNode
from .directory import check_name
from .murmur3 import hash64
from .unixfs import Kind, UnixFs

MAX_DEPTH = 64  # nodes above each other in a file, shards in a directory
MAX_TREE_DEPTH = 1_000  # folders in folders, as paths have it
OPAQUE = frozenset((RAW, JSON, CBOR))  # codecs whose blocks have no links
_INDEX = re.compile(r"[0-9]{1,18}")
T = TypeVar("T")
Block = bytes | memoryview
Wish = Generator[Cid, Block, T]


def run(wish: Wish[T], get: Callable[[Cid], Block]) -> T:
    """Drive a generator of wishes; what it returns."""
    try:
        cid = next(wish)
        while True:
            cid = wish.send(get(cid))
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def run_async(wish: Wish[T], get: Callable[[Cid], Awaitable[Block]]) -> T:
    """As `run`, where getting a block has to be waited for."""
    try:
        cid = next(wish)
        while True:
            cid = wish.send(await get(cid))
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


# --- one block ---------------------------------------------------------------------------------


def decode(cid: Cid, block: Block) -> Any:
    """The data model's value of a block: PBNode, or what dag-cbor and dag-json hold, or bytes. Unsupported for another codec."""
    if cid.codec == RAW:
        return bytes(block)
    if cid.codec == DAG_PB:
        return dag_pb.decode(block)
    if cid.codec == DAG_CBOR:
        return dag_cbor.decode(block)
    if cid.codec == DAG_JSON:
        return dag_json.decode(block)
    raise Unsupported(f"there is no codec {cid.codec_name} here")


def links_of(cid: Cid, block: Block) -> list[Cid]:
    """Every CID that a block links to, in order, repeated where it repeats them."""
    if cid.codec in OPAQUE:
        return []
    value = decode(cid, block)
    if isinstance(value, PBNode):
        return [link.cid for link in value.links]
    return list(_links_in(value))


def _links_in(value: Any) -> Iterator[Cid]:
    if isinstance(value, Cid):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _links_in(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _links_in(entry)


class Entity(NamedTuple):
    """A UnixFS file, directory or symlink, by its root block. *node* is None for a raw leaf."""

    cid: Cid
    kind: Kind
    size: int  # bytes of a file or a symlink's target; 0 for directories
    node: PBNode | None
    value: UnixFs | None
    block: Block


def entity(cid: Cid, block: Block) -> Entity:
    """What a block is in UnixFS. InvalidContent if it is nothing, Unsupported for another codec."""
    if cid.codec == RAW:
        return Entity(cid, Kind.FILE, len(block), None, None, block)
    if cid.codec != DAG_PB:
        raise Unsupported(f"a block of codec {cid.codec_name} is no file and no directory")
    node = dag_pb.decode(block)
    value = unixfs.decode(node.data)
    if value.kind == Kind.METADATA:
        raise Unsupported("UnixFS metadata nodes are not supported")
    size = 0
    if value.is_file:
        if len(value.blocksizes) != len(node.links):
            raise InvalidContent("a file's node has not as many block sizes as links")
        size = len(value.data or b"") + sum(value.blocksizes)
        if size >> 63 or (value.filesize is not None and value.filesize != size):
            raise InvalidContent("a file's node says another size than its parts have")
    elif value.kind == Kind.SYMLINK:
        size = len(value.data or b"")
    elif value.kind == Kind.HAMT_SHARD:
        hamt.fanout_of(value)
    return Entity(cid, value.kind, size, node, value, block)


# --- directories -------------------------------------------------------------------------------


def lookup(found: Entity, name: str) -> Wish[Cid]:
    """The CID of the entry *name* of a directory. LinkNotFound, NotADirectory."""
    node, value = found.node, found.value
    if node is None or value is None or not value.is_directory:
        raise NotADirectory(f"{found.cid} is no directory")
    if value.kind == Kind.DIRECTORY:
        for link in node.links:
            if link.name == name:
                return link.cid
        raise LinkNotFound(f"there is no entry {name!r} in {found.cid}")
    hashed = hash64(name.encode("utf-8", "surrogateescape"))
    for depth in range(MAX_DEPTH):
        link_found, deeper = hamt.find(node, value, name, hashed, depth)
        if link_found is None:
            break
        if not deeper:
            return link_found.cid
        block = yield link_found.cid
        node, value = _shard(link_found.cid, block)
    raise LinkNotFound(f"there is no entry {name!r} in {found.cid}")


def _shard(cid: Cid, block: Block) -> tuple[PBNode, UnixFs]:
    if cid.codec != DAG_PB:
        raise InvalidContent("a shard of a directory is no dag-pb node")
    node = dag_pb.decode(block)
    value = unixfs.decode(node.data)
    hamt.fanout_of(value)
    return node, value


class Entry(NamedTuple):
    name: str
    cid: Cid
    tsize: int


def entries(found: Entity, *, max_entries: int = 10_000_000) -> Generator[Cid, Block, list[Entry]]:
    """All entries of a directory, plain or sharded. DagTooLarge beyond *max_entries*; names are checked."""
    node, value = found.node, found.value
    if node is None or value is None or not value.is_directory:
        raise NotADirectory(f"{found.cid} is no directory")
    listed: list[Entry] = []
    names: set[str] = set()

    def add(name: str, cid: Cid, tsize: int | None) -> None:
        check_name(name)
        if name in names:
            raise InvalidContent(f"a directory has the entry {name!r} twice")
        names.add(name)
        listed.append(Entry(name, cid, tsize or 0))
        if len(listed) > max_entries:
            raise DagTooLarge(f"the directory {found.cid} has more than {max_entries} entries")

    if value.kind == Kind.DIRECTORY:
        for link in node.links:
            add(link.name or "", link.cid, link.tsize)
        return listed
    waiting: list[tuple[PBNode, UnixFs, int]] = [(node, value, 0)]
    # A name's hash says in which shard it is, so no shard is in a directory twice: whoever claims billions must send them.
    shards = {found.cid.multihash}
    while waiting:
        node, value, depth = waiting.pop()
        fanout = hamt.fanout_of(value)
        for link in node.links:
            _, name = hamt.split_link(link, fanout)
            if name:
                add(name, link.cid, link.tsize)
                continue
            if link.cid.multihash in shards:
                raise InvalidContent(f"the directory {found.cid} has a shard twice")
            shards.add(link.cid.multihash)
            if depth + 1 >= MAX_DEPTH or len(shards) > max_entries:
                raise DagTooLarge(f"the directory {found.cid} has too many shards")
            block = yield link.cid
            inner, inside = _shard(link.cid, block)
            waiting.append((inner, inside, depth + 1))
    return listed


class EndsInside(Unsupported):
    """A path that leads to a value inside of a block."""


class Resolved(NamedTuple):
    """Where a path leads. *steps*: the CIDs of every step, the root first. *passed*: every block that was needed on the
    way to the last one, that one not included, in order."""

    cid: Cid
    steps: list[Cid]
    passed: list[Cid]


def resolve(root: Cid, names: list[str]) -> Wish[Resolved]:
    """Follow *names* from *root*. LinkNotFound, NotADirectory, InvalidContent, DagTooLarge.

    Through dag-cbor and dag-json values a name is a key or an index, and a link is followed.
    """
    if len(names) > MAX_TREE_DEPTH:
        raise DagTooLarge(f"a path of {len(names)} names is too deep")
    cid, steps, passed = root, [root], []
    rest = list(names)
    while rest:
        block = yield cid
        passed.append(cid)
        if cid.codec in (DAG_CBOR, DAG_JSON):
            value, used = decode(cid, block), 0
            while used < len(rest) and not isinstance(value, Cid):
                value = _inside(cid, value, rest[used])
                used += 1
            if not isinstance(value, Cid):
                raise EndsInside("the path ends inside a block, not at a block")
            cid, rest = value, rest[used:]
        else:
            search = lookup(entity(cid, block), rest.pop(0))
            try:
                wanted = next(search)
                while True:
                    passed.append(wanted)
                    wanted = search.send((yield wanted))
            except StopIteration as stop:
                cid = stop.value
        steps.append(cid)
    return Resolved(cid, steps, passed)


def _inside(cid: Cid, value: Any, name: str) -> Any:
    if isinstance(value, dict) and name in value:
        return value[name]
    if isinstance(value, list) and _INDEX.fullmatch(name) and int(name) < len(value):
        return value[int(name)]
    raise LinkNotFound(f"there is no {name!r} in {cid}")


# --- files -------------------------------------------------------------------------------------


class Part(NamedTuple):
    """A piece of a file. Either *data*, or the raw leaf *cid* of *length* bytes, not fetched yet."""

    offset: int  # in the file
    length: int
    cid: Cid | None
    data: Block | None


def file_parts(
    found: Entity, start: int = 0, end: int | None = None
) -> Generator[Cid | Part, Block, None]:
    """The pieces of bytes *start* to *end* of a file, in order; raw leaves are named, not fetched.

    A generator of two things: a Cid is a wish for a dag-pb node, a Part is a piece found (send None after it). Sizes
    that nodes claim are held against what is below them: InvalidContent where they lie. Keeps one node a level.
    """
    size = found.size
    end = size if end is None else min(end, size)
    if found.kind not in (Kind.FILE, Kind.RAW):
        raise IsADirectory(f"{found.cid} is no file")
    if found.node is None:
        if start < end:
            yield Part(0, size, None, found.block)
        return
    # Of each level: links with sizes still to come, reversed, and where the next one begins.
    stack: list[Iterator[tuple[Cid, int, int]]] = []

    def opened(at: Entity, offset: int) -> tuple[Part | None, Iterator[tuple[Cid, int, int]]]:
        value, node = at.value, at.node
        assert value is not None and node is not None
        inline = value.data or b""
        part = Part(offset, len(inline), None, inline) if inline else None
        places = []
        place = offset + len(inline)
        for link, length in zip(node.links, value.blocksizes, strict=True):
            if place < end and place + length > start:
                places.append((link.cid, place, length))
            place += length
        return part, iter(places)

    part, links = opened(found, 0)
    if part is not None and part.offset < end and part.offset + part.length > start:
        yield part
    stack.append(links)
    while stack:
        following = next(stack[-1], None)
        if following is None:
            stack.pop()
            continue
        cid, offset, length = following
        if cid.codec == RAW and not cid.is_identity:
            yield Part(offset, length, cid, None)
            continue
        block: Block = cid.digest if cid.is_identity else (yield cid)
        inner = entity(cid, block)
        if inner.kind not in (Kind.FILE, Kind.RAW) or inner.size != length:
            raise InvalidContent("a part of a file is not what its node says")
        if inner.node is None:
            yield Part(offset, length, None, block)
            continue
        if len(stack) >= MAX_DEPTH:
            raise DagTooLarge(f"the file {found.cid} is more than {MAX_DEPTH} nodes deep")
        part, links = opened(inner, offset)
        if part is not None and part.offset < end and part.offset + part.length > start:
            yield part
        stack.append(links)


# --- whole DAGs --------------------------------------------------------------------------------


def walk(root: Cid, *, max_blocks: int, unique: bool = True) -> Generator[Cid, Block | None, None]:
    """Every CID of a DAG depth first, the root first, identity CIDs left out; send each block, or None for one whose links
    are not wanted.

    *unique*: each block once (by multihash and codec). DagTooLarge beyond *max_blocks* or MAX_TREE_DEPTH levels.
    """
    seen: set[tuple[int, bytes]] = set()
    stack: list[Iterator[Cid]] = [iter([root])]
    count = 0
    while stack:
        cid = next(stack[-1], None)
        if cid is None:
            stack.pop()
            continue
        key = (cid.codec, cid.multihash)
        if unique and key in seen:
            continue
        if cid.is_identity:
            block: Block | None = cid.digest
        else:
            count += 1
            if count > max_blocks:
                raise DagTooLarge(f"the DAG under {root} has more than {max_blocks} blocks")
            if unique:
                seen.add(key)
            block = yield cid
        if block is None or cid.codec in OPAQUE:
            continue
        links = links_of(cid, block)
        if links:
            if len(stack) >= MAX_TREE_DEPTH + MAX_DEPTH:
                raise DagTooLarge(f"the DAG under {root} is too deep")
            stack.append(iter(links))


def children_first(nodes: Mapping[bytes, tuple[Cid, Block]]) -> list[tuple[Cid, Block]]:
    """*nodes* (by multihash) in an order in which each comes after all of them that are below it."""
    ordered: list[tuple[Cid, Block]] = []
    done: set[bytes] = set()
    for start in nodes:
        stack: list[tuple[bytes, Iterator[Cid]]] = []

        def enter(key: bytes, stack: list[tuple[bytes, Iterator[Cid]]] = stack) -> None:
            if key in nodes and key not in done:
                done.add(
                    key
                )  # hashes make no cycles: what is being visited can't be met below itself
                stack.append((key, iter(links_of(*nodes[key]))))

        enter(start)
        while stack:
            key, links = stack[-1]
            child = next(links, None)
            if child is None:
                stack.pop()
                ordered.append(nodes[key])
            else:
                enter(child.multihash)
    return ordered

"""Local files into a peer: hashed here, so that only what it lacks is sent. Blocking.

Files of more than one chunk travel as ranges of the file, in replicas of up to 128 chunks; small files and the nodes above
travel as CARs. The peer hashes what it gets again, and what both found must agree.
"""

from __future__ import annotations

import collections
import functools
import os
import queue
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from ..common.errors import ChecksumMismatch, InvalidRequest, StorageError, Unsupported
from ..common.ipld import car, directory, layout, multihash
from ..common.ipld.cid import Cid
from ..common.ipld.layout import Layout, Made, Node, Profile
from .peer_client import PeerClient

SEGMENT_CHUNKS = 128
BATCH_BYTES = 4 * 1024 * 1024
BATCH_BLOCKS = 1024
SENDERS = 2
MAX_DEPTH = 1_000


class Added(NamedTuple):
    """*sent_bytes*: what the peer did not have."""

    root: Cid
    size_bytes: int
    sent_bytes: int
    files: int
    node: Node


class Importer:
    """Adds trees of local files under one profile. With no *client* it only computes CIDs."""

    def __init__(
        self,
        client: PeerClient | None,
        profile: Profile,
        *,
        told: Callable[[int], None] = lambda size: None,
        named: Callable[[str, Node], None] = lambda name, node: None,
        hidden: bool = True,
    ) -> None:
        """*told* is called with bytes that were read, *named* with each path and its root, children before their folder."""
        self._client = client
        self._profile = profile
        self._told = told
        self._named = named
        self._hidden = hidden
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="hash")
        # Each sends on a connection of its own: while the peer makes one part durable, it takes the next.
        self._idle: queue.SimpleQueue[PeerClient] = queue.SimpleQueue()
        self._senders = ThreadPoolExecutor(SENDERS, thread_name_prefix="send")
        self._sending: collections.deque[Future[int]] = collections.deque()
        for _ in range(SENDERS if client is not None else 0):
            assert client is not None
            self._idle.put(client.another())
        self._batch: dict[bytes, tuple[Cid, bytes]] = {}
        self._batch_bytes = 0
        self._size_bytes = self._sent_bytes = self._files = 0

    def add(self, path: Path, name: str = "") -> Added:
        """A file, a folder or a symlink; all of it is durable on the peer when this returns. *name*: what `named` hears it called.

        Raises StorageError for what can't be read, Unsupported for what content can't be (sockets, devices).
        """
        self._size_bytes = self._sent_bytes = self._files = 0
        node = self._any(path, 0, name or path.name)
        self._finish()
        return Added(node.cid, self._size_bytes, self._sent_bytes, self._files, node)

    def add_bytes(self, data: bytes) -> Added:
        """As `add`, of bytes at hand."""
        self._size_bytes = self._sent_bytes = 0
        node = self._small(data)
        self._finish()
        return Added(node.cid, len(data), self._sent_bytes, 1, node)

    def add_stream(self, pieces: Iterable[bytes]) -> Added:
        """As `add`, of a file that comes in pieces of any size; a few chunks of it are in memory at a time."""
        self._size_bytes = self._sent_bytes = 0
        size = self._profile.chunk_bytes
        tree = Layout(self._profile)
        gathered, empty = bytearray(), True
        for piece in pieces:
            gathered += piece
            while len(gathered) >= size:
                empty = False
                self._queue_all(tree.add(self._leaf(bytes(gathered[:size]))))
                del gathered[:size]
        if gathered or empty:
            self._queue_all(tree.add(self._leaf(bytes(gathered))))
        self._queue_all(tree.finish())
        self._finish()
        root = tree.root
        assert root is not None
        self._named("", root)
        return Added(root.cid, self._size_bytes, self._sent_bytes, 1, root)

    def wrap(self, entries: dict[str, Node]) -> Added:
        """A folder of what was added before."""
        self._size_bytes = self._sent_bytes = 0
        for name in entries:
            directory.check_name(name)
        node, made = directory.build(self._profile, entries)
        self._queue_all(made)
        self._finish()
        self._named("", node)
        return Added(node.cid, 0, self._sent_bytes, 0, node)

    def _leaf(self, data: bytes) -> Node:
        self._size_bytes += len(data)
        self._told(len(data))
        return self._small(data)

    def close(self) -> None:
        self._threads.shutdown()
        self._senders.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().close()

    # --- sending ---

    def _submit(self, send: Callable[[PeerClient], int]) -> None:
        """Have *send* run beside; a few at a time, so that memory stays bounded. What it sent is counted."""

        def run() -> int:
            client = self._idle.get()
            try:
                return send(client)
            finally:
                self._idle.put(client)

        while len(self._sending) >= SENDERS:
            self._sent_bytes += self._sending.popleft().result()
        self._sending.append(self._senders.submit(run))

    def _settle(self) -> None:
        while self._sending:
            self._sent_bytes += self._sending.popleft().result()

    def _finish(self) -> None:
        self._flush()
        self._settle()

    # --- what is there ---

    def _any(self, path: Path, depth: int, name: str) -> Node:
        node = self._made(path, depth, name)
        self._named(name, node)
        return node

    def _made(self, path: Path, depth: int, name: str) -> Node:
        if depth > MAX_DEPTH:
            raise InvalidRequest(f"{path} is too deep")
        try:
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                node, made = directory.symlink(self._profile, str(path.readlink()))
                self._queue(made.cid, made.block)
                return node
            if stat.S_ISDIR(mode):
                return self._folder(path, depth, name)
            if stat.S_ISREG(mode):
                return self._file(path)
        except OSError as error:
            raise StorageError(f"{error.filename or path}: {error.strerror}") from None
        raise Unsupported(f"{path} is neither a file nor a folder nor a symlink")

    def _folder(self, path: Path, depth: int, called: str) -> Node:
        entries: dict[str, Node] = {}
        with os.scandir(path) as found:
            names = sorted(entry.name for entry in found)
        for name in names:
            if name.startswith(".") and not self._hidden:
                continue
            directory.check_name(name)
            entries[name] = self._any(path / name, depth + 1, f"{called}/{name}")
        node, made = directory.build(self._profile, entries)
        self._queue_all(made)
        return node

    def _file(self, path: Path) -> Node:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            size = os.fstat(descriptor).st_size
            self._files += 1
            chunk = self._profile.chunk_bytes
            if size <= chunk:
                data = os.pread(descriptor, chunk, 0)
                self._size_bytes += len(data)
                self._told(len(data))
                return self._small(data)
            if self._profile.raw_leaves and chunk == layout.MIB:
                try:
                    return self._long(descriptor, size)
                finally:
                    # Nobody reads from the file any more, or from what gets its number next.
                    wait(self._sending)
            return self._leaves(descriptor, size)
        finally:
            os.close(descriptor)

    def _small(self, data: bytes) -> Node:
        node, block = layout.leaf(self._profile, data)
        self._queue(node.cid, bytes(block))
        return node

    def _leaves(self, descriptor: int, size: int) -> Node:
        """A file whose leaves are no ranges of it, or not of whole chunks: block by block."""
        chunk = self._profile.chunk_bytes

        def nodes() -> Iterator[Node]:
            for offset in range(0, size, chunk):
                data = self._read(descriptor, offset, min(chunk, size - offset))
                node, block = layout.leaf(self._profile, data)
                self._queue(node.cid, bytes(block))
                yield node

        root, made = layout.build(self._profile, nodes())
        self._queue_all(made)
        return root

    def _read(self, descriptor: int, offset: int, length: int) -> bytes:
        data = os.pread(descriptor, length, offset)
        if len(data) != length:
            raise StorageError("the file became shorter while it was read")
        self._size_bytes += length
        self._told(length)
        return data

    # --- large files ---

    def _long(self, descriptor: int, size: int) -> Node:
        """Segment after segment: while one is sent, the next is hashed."""
        segment = SEGMENT_CHUNKS * layout.MIB
        tree = Layout(self._profile)
        hashed = self._hash_ahead(descriptor, 0, min(segment, size))
        for offset in range(0, size, segment):
            length = min(segment, size - offset)
            digests = [digest for half in hashed for digest in half.result()]
            following = offset + length
            if following < size:
                hashed = self._hash_ahead(descriptor, following, min(segment, size - following))
            leaves = [
                layout.raw_leaf(
                    self._profile, digest, min(layout.MIB, length - number * layout.MIB)
                )
                for number, digest in enumerate(digests)
            ]
            if self._client is not None:
                self._submit(functools.partial(self._send, descriptor, offset, leaves, digests))
            self._size_bytes += length
            self._told(length)
            for leaf in leaves:
                self._queue_all(tree.add(leaf))
        self._queue_all(tree.finish())
        self._settle()  # the parts are read from the open file
        assert tree.root is not None
        return tree.root

    def _hash_ahead(self, descriptor: int, offset: int, length: int) -> list[Future[list[bytes]]]:
        """The digests of a segment's chunks, computed by two threads: a half each."""
        chunks = -(-length // layout.MIB)
        half = -(-chunks // 2) * layout.MIB
        parts = [(offset, min(half, length)), (offset + half, length - half)]
        return [
            self._threads.submit(self._hash, descriptor, *part) for part in parts if part[1] > 0
        ]

    def _hash(self, descriptor: int, offset: int, length: int) -> list[bytes]:
        found = []
        buffer = memoryview(bytearray(layout.MIB))
        for at in range(offset, offset + length, layout.MIB):
            view = buffer[: min(layout.MIB, offset + length - at)]
            if os.preadv(descriptor, [view], at) != len(view):
                raise StorageError("the file became shorter while it was read")
            found.append(multihash.digest(self._profile.hash_code, view)[2:])
        return found

    def _send(
        self,
        descriptor: int,
        offset: int,
        leaves: list[Node],
        digests: list[bytes],
        client: PeerClient,
    ) -> int:
        have = client.have([leaf.cid for leaf in leaves])
        missing = [number for number, known in enumerate(have) if not known]
        if not missing:
            return 0
        runs = [(offset + number * layout.MIB, leaves[number].filesize) for number in missing]
        name = multihash.NAME_OF[self._profile.hash_code]
        found = client.send_leaves(descriptor, runs, name)
        if found != [digests[number] for number in missing]:
            raise ChecksumMismatch("the file changed while it was read; add it again")
        return sum(length for _, length in runs)

    # --- blocks ---

    def _queue_all(self, made: list[Made]) -> None:
        for entry in made:
            self._queue(entry.cid, entry.block)

    def _queue(self, cid: Cid, block: bytes) -> None:
        if self._client is None or cid.multihash in self._batch:
            return
        self._batch[cid.multihash] = (cid, block)
        self._batch_bytes += len(block)
        if self._batch_bytes >= BATCH_BYTES or len(self._batch) >= BATCH_BLOCKS:
            self._flush()

    def _flush(self) -> None:
        if self._client is None or not self._batch:
            return
        blocks = list(self._batch.values())
        self._batch, self._batch_bytes = {}, 0
        self._submit(functools.partial(_send_blocks, blocks))


def _send_blocks(blocks: list[tuple[Cid, bytes]], client: PeerClient) -> int:
    have = client.have([cid for cid, _ in blocks])
    wanted = [entry for entry, known in zip(blocks, have, strict=True) if not known]
    if wanted:
        client.import_car(_car(wanted))
    return sum(len(block) for _, block in wanted)


def _car(blocks: list[tuple[Cid, bytes]]) -> Iterator[bytes]:
    """In pieces of some size: each is a chunk of HTTP."""
    out = bytearray(car.header([blocks[0][0]]))
    for cid, block in blocks:
        out += car.frame(cid, block)
        if len(out) >= 1024 * 1024:
            yield bytes(out)
            out.clear()
    if out:
        yield bytes(out)


__all__ = ["Added", "Importer"]

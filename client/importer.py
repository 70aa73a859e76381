"""From files, folders and streams to DAGs: hashing, and putting what the cluster does not have yet.

An `Importer` works on local files and gives a sink what it makes; the sink stores it (`ClusterSink`) or only counts (`NoSink`).
Children reach the sink before their parents.
"""

from __future__ import annotations

import asyncio
import os
import stat as stat_bits
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..common.checksum import CHUNK_BYTES
from ..common.errors import StorageError, Unsupported
from ..common.ipld import directory, layout
from ..common.ipld.cid import BLAKE3, Cid
from ..common.ipld.layout import Layout, Made, Node, Profile

READ_AHEAD = 4  # chunks hashed at once
FILES_AHEAD = 256  # small files read and hashed at once
Progress = Callable[[int], None]
Told = Callable[[str, Node], None]


class Sink(Protocol):
    """Takes the blocks of DAGs."""

    async def raw(self, cid: Cid, data: bytes) -> None:
        """A block without links. May return before it is stored."""

    async def nodes(self, made: list[Made]) -> None:
        """Blocks with links, children first; all that is below them was given before. May return before they are stored."""

    async def file(self, local: Path, root: Node, digests: bytes, length: int) -> bool:
        """A BLAKE3 file of more than one chunk, whole. False: it is to be given block by block instead."""

    async def finish(self) -> None:
        """Everything given is stored when this returns."""


class NoSink:
    """Stores nothing: for CIDs alone."""

    async def raw(self, cid: Cid, data: bytes) -> None:
        return

    async def nodes(self, made: list[Made]) -> None:
        return

    async def file(self, local: Path, root: Node, digests: bytes, length: int) -> bool:
        return True

    async def finish(self) -> None:
        return


@dataclass(slots=True)
class Added:
    """What an import came to."""

    files: int = 0
    directories: int = 0
    bytes: int = 0


class Importer:
    """Makes DAGs by a profile."""

    def __init__(
        self,
        profile: Profile,
        sink: Sink,
        *,
        progress: Progress | None = None,
        told: Told | None = None,
        hidden: bool = True,
    ) -> None:
        """*told* is called with each path and its root, children before their folder. *hidden*: names that begin with a dot, too."""
        self._profile = profile
        self._sink = sink
        self._progress: Progress = progress or _no_progress
        self._told: Told = told or _not_told
        self._hidden = hidden
        self.added = Added()

    async def path(self, local: Path, name: str) -> Node:
        """A file, symlink or folder with all that is in it; *name* is what it is called to the listener."""
        try:
            facts = await asyncio.to_thread(local.lstat)
        except OSError as error:
            raise _local_error(error, local) from None
        if stat_bits.S_ISDIR(facts.st_mode):
            return await self._directory(local, name)
        return await self._other(local, name, facts)

    async def _other(self, local: Path, name: str, facts: os.stat_result) -> Node:
        if stat_bits.S_ISLNK(facts.st_mode):
            try:
                target = await asyncio.to_thread(os.readlink, local)
            except OSError as error:
                raise _local_error(error, local) from None
            node, made = directory.symlink(self._profile, target)
            await self._sink.nodes([made])
        elif stat_bits.S_ISREG(facts.st_mode):
            node = await self._file(local, facts.st_size)
        else:
            raise Unsupported(f"{local} is no file, no folder and no symlink")
        self.added.files += 1
        self.added.bytes += node.filesize
        self._told(name, node)
        return node

    async def _directory(self, local: Path, name: str) -> Node:
        names = await asyncio.to_thread(_names_in, local)
        entries: dict[str, Node] = {}
        for start in range(0, len(names), FILES_AHEAD):
            part = names[start : start + FILES_AHEAD]
            found = await asyncio.to_thread(_small_files, local, part)
            for entry in part:
                if not self._hidden and entry.startswith("."):
                    continue
                directory.check_name(entry)
                full = f"{name}/{entry}" if name else entry
                data = found.get(entry)
                if data is None or len(data) > self._profile.chunk_bytes:
                    entries[entry] = await self.path(local / entry, full)
                    continue
                node = await self._chunk(data)
                self.added.files += 1
                self.added.bytes += len(data)
                self._progress(len(data))
                self._told(full, node)
                entries[entry] = node
        root, made = directory.build(self._profile, entries)
        await self._sink.nodes(made)
        self.added.directories += 1
        self._told(name, root)
        return root

    async def _chunk(self, data: bytes) -> Node:
        node, block = layout.leaf(self._profile, data)
        await self._sink.raw(node.cid, bytes(block))
        return node

    async def _file(self, local: Path, length: int) -> Node:
        try:
            descriptor = os.open(local, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _local_error(error, local) from None
        try:
            if self._profile.hash_code == BLAKE3 and length > CHUNK_BYTES:
                return await self._hashed(local, descriptor, length)
            size = self._profile.chunk_bytes

            async def chunks() -> AsyncIterator[bytes]:
                for at in range(0, max(1, length), size):
                    wanted = min(size, length - at)
                    yield await asyncio.to_thread(_read, descriptor, at, wanted, local)

            return await self._stream(chunks())
        finally:
            os.close(descriptor)

    async def _hashed(self, local: Path, descriptor: int, length: int) -> Node:
        """All digests first, several chunks at a time; the bytes go to the sink whole, if it wants them."""

        def digest(at: int) -> bytes:
            data = _read(descriptor, at, min(CHUNK_BYTES, length - at), local)
            self._progress(len(data))
            return Cid.of(0x55, data).digest

        def several(starts: Sequence[int]) -> list[bytes]:
            return [digest(at) for at in starts]

        digests = bytearray()
        starts = range(0, length, CHUNK_BYTES)
        for first in range(0, len(starts), 64):
            group = starts[first : first + 64]
            lanes = [group[lane::READ_AHEAD] for lane in range(min(READ_AHEAD, len(group)))]
            done = await asyncio.gather(*(asyncio.to_thread(several, lane) for lane in lanes))
            digests += b"".join(done[n % len(lanes)][n // len(lanes)] for n in range(len(group)))
        root, _ = await asyncio.to_thread(
            layout.root_of_digests, self._profile, bytes(digests), length
        )
        if not await self._sink.file(local, root, bytes(digests), length):
            raise StorageError(f"{local} could not be stored")
        return root

    async def stream(self, pieces: AsyncIterator[bytes], name: str) -> Node:
        """Bytes that come in pieces of any size, as one file."""

        async def chunks() -> AsyncIterator[bytes]:
            size, gathered = self._profile.chunk_bytes, bytearray()
            empty = True
            async for piece in pieces:
                gathered += piece
                while len(gathered) >= size:
                    empty = False
                    yield bytes(gathered[:size])
                    del gathered[:size]
            if gathered or empty:
                yield bytes(gathered)

        node = await self._stream(chunks())
        self.added.files += 1
        self.added.bytes += node.filesize
        self._told(name, node)
        return node

    async def _stream(self, chunks: AsyncIterator[bytes]) -> Node:
        """Leaf by leaf. The nodes follow their leaves."""
        tree = Layout(self._profile)
        async for chunk in chunks:
            node, block = await asyncio.to_thread(layout.leaf, self._profile, chunk)
            await self._sink.raw(node.cid, bytes(block))
            self._progress(len(chunk))
            made = tree.add(node)
            if made:
                await self._sink.nodes(made)
        made = tree.finish()
        if made:
            await self._sink.nodes(made)
        assert tree.root is not None
        return tree.root


def _no_progress(count: int) -> None:
    return


def _not_told(name: str, node: Node) -> None:
    return


def _names_in(local: Path) -> list[str]:
    try:
        with os.scandir(local) as entries:
            return sorted((entry.name for entry in entries), key=os.fsencode)
    except OSError as error:
        raise _local_error(error, local) from None


def _small_files(local: Path, names: list[str]) -> dict[str, bytes]:
    """The bytes of those of *names* that are regular files of at most a chunk; others are left to be looked at one by one."""
    found = {}
    for name in names:
        try:
            descriptor = os.open(
                local / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            )
        except OSError:
            continue
        try:
            facts = os.fstat(descriptor)
            if stat_bits.S_ISREG(facts.st_mode) and facts.st_size <= CHUNK_BYTES // 4:
                data = os.read(descriptor, facts.st_size + 1)
                if len(data) == facts.st_size:
                    found[name] = data
        except OSError:
            continue
        finally:
            os.close(descriptor)
    return found


def _read(descriptor: int, at: int, size: int, local: Path) -> bytes:
    try:
        data = os.pread(descriptor, size, at)
    except OSError as error:
        raise _local_error(error, local) from None
    if len(data) != size:
        raise StorageError(f"{local}: the file shrank while it was read")
    return data


def _local_error(error: OSError, path: Path) -> StorageError:
    return StorageError(f"{path}: {error.strerror or error}")


__all__ = ["Added", "Importer", "NoSink", "Sink"]

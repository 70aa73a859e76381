"""One file from all of its replicas at once, chunk by chunk, each chunk verified, going on after interruptions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from ..common.checksum import CHUNK_BYTES
from ..common.errors import BlockUnavailable, DfsError
from ..common.messages import Locate
from ..common.model import FileBlocks, LocatedBlock, NodeAddress
from .block_reader import Attempt
from .part_file import PartFile
from .session import Session
from .shares import Piece, Shares
from .upload import Progress

LEAST_BYTES = 64 * 1024 * 1024  # of files that come from all replicas without being asked to
PIECE_CHUNKS = 8
MAX_FLYING = 16
MAX_AT_A_SOURCE = 4
SEARCHES = 3  # for new places of blocks that nobody gives
SEARCH_PAUSE_S = 1.0


def pays(session: Session, blocks: Sequence[LocatedBlock]) -> bool:
    """Whether a file's bytes are to come from all replicas: as configured, or if it is large and no replica is on this machine."""
    wanted = session.config.all_replicas
    if wanted == "never" or any(located.block.digest is None for located in blocks):
        return False
    length = sum(located.block.length for located in blocks)
    if wanted == "always":
        return length > CHUNK_BYTES
    if length < LEAST_BYTES or all(len(located.nodes) < 2 for located in blocks):
        return False
    return not any(session.pool.is_local(node) for located in blocks for node in located.nodes)


class _Abandoned(Exception):
    """Somebody else has brought this piece."""


class _Source:
    """A DataNode: how many pieces it is asked for at a time."""

    def __init__(self, node: NodeAddress) -> None:
        self.node = node
        self.flying = 0
        self.most = 1

    def took(self, first_s: float, rest_s: float, chunks: int) -> None:
        """Another piece beside, where waiting for the first byte takes longer than a chunk does."""
        if chunks > 1 and first_s > 2.5 * rest_s / (chunks - 1) and self.most < MAX_AT_A_SOURCE:
            self.most += 1


class Swarm:
    """One fetch into a `PartFile`."""

    def __init__(
        self,
        session: Session,
        path: str,
        blocks: Sequence[LocatedBlock],
        part: PartFile,
        progress: Progress | None,
    ) -> None:
        """*path*: asked for again where blocks have moved; "" is never asked for."""
        self._session = session
        self._path = path
        self._blocks = list(blocks)
        self._part = part
        self._progress = progress
        self._open = True
        self._sources: list[_Source] = []
        self._numbers: dict[int, int] = {}
        self._running: dict[asyncio.Future[tuple[float, float]], tuple[Piece, int, Attempt]] = {}
        self._searches = 0

    async def run(self) -> None:
        """BlockUnavailable when a block is nowhere to be had; what came stays."""
        await self._session.run(self._recall)
        pieces = [
            Piece(index, start, size)
            for index in range(len(self._blocks))
            for start, size in self._part.missing(index, PIECE_CHUNKS)
        ]
        holders = [[self._number(node) for node in located.nodes] for located in self._blocks]
        self._shares = Shares(pieces, holders)
        try:
            while not self._shares.finished:
                self._begin()
                if not self._running:
                    await self._search(self._shares.lost())
                    continue
                done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    self._settle(task)
        finally:
            self._open = False
            for _, _, attempt in self._running.values():
                attempt.abort()
            await asyncio.gather(*self._running, return_exceptions=True)

    def _number(self, node: NodeAddress) -> int:
        number = self._numbers.setdefault(node.node_id, len(self._sources))
        if number == len(self._sources):
            self._sources.append(_Source(node))
        return number

    def _recall(self) -> None:
        """What an earlier try has left counts if it is right."""
        for index, located in enumerate(self._blocks):
            if not self._part.claimed(index):
                continue
            try:
                right = self._part.check(index, self._session.blocks.digests(located))
            except BlockUnavailable:
                self._part.forget(index)
                continue
            if self._progress is not None:
                self._progress(right)

    def _begin(self) -> None:
        now_s = self._session.clock.monotonic_s()
        begun = True
        while begun:
            begun = False
            for number, source in enumerate(self._sources):
                if source.flying >= source.most or len(self._running) >= MAX_FLYING:
                    continue
                piece = self._shares.take(number, now_s)
                if piece is None:
                    continue
                attempt = Attempt()
                source.flying += 1
                task = self._session.start(self._fetch, piece, source, attempt)
                self._running[task] = (piece, number, attempt)
                begun = True

    def _settle(self, task: asyncio.Future[tuple[float, float]]) -> None:
        piece, number, _ = self._running.pop(task)
        source = self._sources[number]
        source.flying -= 1
        try:
            source.took(*task.result(), -(-piece.size // CHUNK_BYTES))
        except (_Abandoned, BlockUnavailable):
            if self._shares.wanted(piece):
                self._shares.failed(piece, number)
            return
        self._searches = 0
        if self._shares.brought(piece, number):
            for other, _, attempt in self._running.values():
                if other == piece:
                    attempt.abort()

    def _fetch(self, piece: Piece, source: _Source, attempt: Attempt) -> tuple[float, float]:
        """In a thread. Seconds until the first chunk, and for the others."""
        clock = self._session.clock
        began_s = clock.monotonic_s()
        first_s = 0.0

        def take(at: int, chunk: memoryview) -> None:
            nonlocal first_s
            first_s = first_s or clock.monotonic_s() - began_s
            if not self._open or not self._shares.wanted(piece):
                raise _Abandoned
            if self._part.put(piece.block, at, chunk) and self._progress is not None:
                self._progress(len(chunk))

        located = self._blocks[piece.block]
        self._session.blocks.read(
            located, piece.start, piece.size, take, nodes=[source.node], attempt=attempt
        )
        return first_s, clock.monotonic_s() - began_s - first_s

    async def _search(self, piece: Piece | None) -> None:
        """Ask the NameNode where the blocks are now."""
        self._searches += 1
        index = piece.block if piece is not None else 0
        if not self._path or self._searches > SEARCHES:
            block = self._blocks[index].block
            raise BlockUnavailable(f"block {block.block_id} can't be read from any DataNode")
        if self._searches > 1:
            await asyncio.sleep(SEARCH_PAUSE_S)
        fresh: FileBlocks = await self._session.namenode.call("locate", Locate(path=self._path))
        known = {located.block.block_id: located for located in fresh.blocks}
        for number, located in enumerate(self._blocks):
            found = known.get(located.block.block_id)
            if found is not None and found.block.generation == located.block.generation:
                self._shares.found(number, [self._number(node) for node in found.nodes])


async def fetch(
    session: Session,
    path: str,
    blocks: Sequence[LocatedBlock],
    local: Path,
    progress: Progress | None,
) -> PartFile:
    """The whole file as a `PartFile`, the caller's to name and close. What failed leaves it where it is, to go on from."""
    part = PartFile(local, blocks)
    try:
        await Swarm(session, path, blocks, part, progress).run()
    except BaseException as error:
        if isinstance(error, DfsError) and not any(part.present):
            part.remove()
        part.close()
        raise
    return part


__all__ = ["Swarm", "fetch", "pays"]

"""Evening out how full the volumes of one DataNode are, by moving replicas between them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from ..common.errors import DfsError
from ..common.runtime import Clock
from .blockstore import BlockStore
from .moving import move_replica
from .pacing import Pace
from .volumes import Volume

log = logging.getLogger(__name__)
T = TypeVar("T")
PAGE: Final = 200


class Fill(NamedTuple):
    """How full a volume is."""

    used_bytes: int
    capacity_bytes: int


@dataclass(frozen=True, slots=True)
class DiskMove:
    """Move about *size_bytes* from one volume to another (their places in the list)."""

    source: int
    target: int
    size_bytes: int


def plan(fills: Sequence[Fill], threshold_percent: float) -> DiskMove | None:
    """The next move from the fullest volume to the emptiest; None if all are within the threshold of their average. Pure."""
    capacity = sum(fill.capacity_bytes for fill in fills)
    if len(fills) < 2 or not capacity:
        return None
    average = sum(fill.used_bytes for fill in fills) / capacity
    excess = [fill.used_bytes - average * fill.capacity_bytes for fill in fills]
    off = [
        abs(over) / fill.capacity_bytes * 100 if fill.capacity_bytes else 0.0
        for over, fill in zip(excess, fills, strict=True)
    ]
    if max(off) <= threshold_percent:
        return None
    source = max(range(len(fills)), key=lambda i: (excess[i], -i))
    target = min(range(len(fills)), key=lambda i: (excess[i], i))
    size_bytes = int(min(excess[source], -excess[target]))
    return DiskMove(source, target, size_bytes) if size_bytes > 0 else None


class DiskBalancer:
    """Carries out `plan` until it asks for nothing more."""

    def __init__(
        self,
        store: BlockStore,
        clock: Clock,
        threads: ThreadPoolExecutor,
        stopping: threading.Event,
        busy: Callable[[], int],
    ) -> None:
        """*stopping* is set when the process ends; *busy* counts clients' requests under way, which are yielded to."""
        self._store = store
        self._clock = clock
        self._threads = threads
        self._stopping = stopping
        self._busy = busy
        self._orders: asyncio.Queue[tuple[float, int]] = asyncio.Queue(maxsize=16)
        self.moved_bytes = 0

    def order(self, threshold_percent: float, bytes_per_s: int) -> None:
        if not self._orders.full():
            self._orders.put_nowait((threshold_percent, bytes_per_s))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            threshold_percent, bytes_per_s = await self._orders.get()
            try:
                await self._balance(threshold_percent, Pace(bytes_per_s))
            except (DfsError, OSError) as error:
                log.warning("the volumes could not be balanced: %s", error)

    async def _balance(self, threshold_percent: float, pace: Pace) -> None:
        loop = asyncio.get_running_loop()
        while True:
            volumes = [volume for volume in self._store.volumes if volume.takes_bytes]
            fills = [
                Fill(max(0, volume.used_bytes), (await asyncio.to_thread(volume.space))[0])
                for volume in volumes
            ]
            move = plan(fills, threshold_percent)
            if move is None:
                log.info("the volumes are balanced; %d bytes were moved", self.moved_bytes)
                return
            moved = await loop.run_in_executor(
                self._threads,
                self._carry_out,
                volumes[move.source],
                volumes[move.target],
                move,
                pace,
            )
            if not moved:
                log.info("nothing that is small enough can be moved between the volumes")
                return

    def _carry_out(self, source: Volume, target: Volume, move: DiskMove, pace: Pace) -> int:
        """Move replicas worth at most what was planned; their bytes."""

        def paced(size_bytes: int) -> None:
            wait_s = pace.take(size_bytes, self._clock.monotonic_s(), self._busy())
            if wait_s > 0:
                self._stopping.wait(wait_s)

        moved, after = 0, -1
        while page := source.index.page(after, PAGE):
            if not (source.takes_bytes and target.takes_bytes):
                break
            for replica in page:
                if moved >= move.size_bytes or self._stopping.is_set():
                    return moved
                if (
                    replica.length
                    and replica.length <= move.size_bytes - moved
                    and replica.block_id not in source.index.damaged
                    and move_replica(self._store, source, target, replica, paced)
                ):
                    moved += replica.length
                    self.moved_bytes += replica.length
            after = page[-1].block_id
        return moved

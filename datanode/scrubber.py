"""Reading everything that is here, again and again, to find what the disks have changed.

`Pass` is what a pass over a volume has done so far, kept on the volume, so that a restart goes on where it was. The loop reads
at the configured rate, yields to clients, and reports what it finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from ..common import disk
from ..common.errors import DfsError
from ..common.messages import ReplicaReport
from ..common.model import BlockId, BlockRef, GenerationStamp
from ..common.runtime import Clock
from . import quarantine
from .blockstore import BlockStore
from .index import FIRST_LOCAL_BLOCK, Replica
from .pacing import Pace, stand_back
from .replicas import report_finalized
from .volumes import Volume

log = logging.getLogger(__name__)
T = TypeVar("T")
PAGE: Final = 64  # replicas looked at before the place is written down
SAVE_S: Final = 10.0  # and so often at least, if they are large
START_DELAY_S: Final = 30.0  # a pass that is due waits so long after the start
IDLE_S: Final = 5.0
FREE_PIECES: Final = (
    64  # that a pass without a limit reads between its waits for clients, if they are small ...
)
FREE_BYTES: Final = 4 * 1024 * 1024  # ... and so much at most
LEAST_BYTES: Final = (
    16 * 1024
)  # that a replica counts as: to find one and to look at it costs as much, however small it is
STRANGER_AGE_MS: Final = (
    600_000  # a file that nobody has recorded for so long is none that is being published
)


class Pass(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of a volume. *after*: the block verified last; *ended_ms* 0: not at its end yet; *ordered*: at how many bytes a
    second, if somebody ordered it."""

    number: int = 0
    after: int = -1
    began_ms: int = 0
    ended_ms: int = 0
    checked: int = 0
    checked_bytes: int = 0
    damaged: int = 0
    ordered: float | None = None

    @property
    def running(self) -> bool:
        return self.began_ms > 0 and not self.ended_ms

    def due(self, now_ms: int, interval_s: float) -> bool:
        """Whether to read on: in the middle of a pass, or so long after the last one began."""
        return self.running or now_ms - self.began_ms >= interval_s * 1000

    def next(self, now_ms: int, ordered: float | None = None) -> Pass:
        return Pass(number=self.number + 1, began_ms=now_ms, ordered=ordered)

    def verified(self, replica: Replica, *, good: bool) -> Pass:
        return msgspec.structs.replace(
            self,
            after=replica.block_id,
            checked=self.checked + 1,
            checked_bytes=self.checked_bytes + replica.length,
            damaged=self.damaged + (not good),
        )

    def end(self, now_ms: int) -> Pass:
        return msgspec.structs.replace(self, ended_ms=now_ms, after=-1)


def read_pass(folder: Path) -> Pass:
    """What was written down on a volume; from the beginning if that can't be read."""
    try:
        return msgspec.json.decode((folder / "scrub.json").read_bytes(), type=Pass)
    except (OSError, msgspec.DecodeError):
        return Pass()


def save(volume: Volume, state: Pass) -> None:
    temporary = volume.path / "scrub.json.new"
    temporary.write_bytes(msgspec.json.encode(state))
    disk.rename(temporary, volume.path / "scrub.json", "scrub.rename")


class BrokenOff(Exception):
    """Something else is to be done."""


class Scrubber:
    """The paced loop over all volumes."""

    def __init__(
        self,
        store: BlockStore,
        clock: Clock,
        threads: ThreadPoolExecutor,
        *,
        bytes_per_s: int,
        interval_s: float,
        busy: Callable[[], int],
        bad: Callable[[BlockRef], None],
        missing: Callable[[BlockRef], None],
        received: Callable[[ReplicaReport], None],
        renewed: Callable[[], None],
    ) -> None:
        """*busy* counts clients' requests under way; *bad*, *missing* and *received* tell the NameNodes of replicas,
        *renewed* of a volume whose index was made anew."""
        self._store = store
        self._clock = clock
        self._threads = threads
        self._bytes_per_s = bytes_per_s
        self._interval_s = interval_s
        self._busy = busy
        self._bad = bad
        self._missing = missing
        self._received = received
        self._renewed = renewed
        self._pace = Pace(bytes_per_s)
        self._wanted: dict[
            str, Pace
        ] = {}  # volumes that were ordered to be read from the beginning
        self._resumed: dict[
            str, Pace
        ] = {}  # volumes in the middle of a pass that a former process was ordered
        self._news = asyncio.Event()
        # A thread of its own: it waits in the middle of replicas, which others must not have to wait for.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="scrub", initializer=stand_back)
        self._changed = threading.Event()  # for that thread: look what is to be done
        self._closing = False
        self._since = (0, 0)  # (pieces, bytes) read since clients were waited for
        self.passes: dict[str, Pass] = {}  # by volume id

    def order(self, bytes_per_s: int) -> None:
        """Read everything now, from the beginning."""
        for volume in self._store.volumes:
            self._wanted[volume.volume_id] = Pace(bytes_per_s)
        self._changed.set()
        self._news.set()

    async def run(self) -> None:
        """Until cancelled, once."""
        try:
            await self._run()
        finally:
            self._closing = True
            self._changed.set()
            # Not here: whoever looks at a large index is at it for seconds.
            await asyncio.to_thread(self._reader.shutdown)

    async def _run(self) -> None:
        began_s = self._clock.monotonic_s()
        while True:
            self._news.clear()
            early = self._clock.monotonic_s() - began_s < START_DELAY_S
            for volume in self._store.volumes:
                try:
                    await self._volume(volume, early=early)
                except (DfsError, OSError) as error:
                    log.warning("scrubbing %s has to wait: %s", volume.path, error)
            # Also with orders left over: one for a volume out of service must not keep the event loop from all else.
            try:
                async with asyncio.timeout(IDLE_S):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def _volume(self, volume: Volume, *, early: bool) -> None:
        """One pass, or what is left of it."""
        if volume.failure:
            return
        key = volume.volume_id
        state = self.passes.get(key)
        if state is None:
            state = self.passes[key] = await self._in_thread(lambda: read_pass(volume.path))
            if state.running and state.ordered is not None:
                self._resumed[key] = Pace(max(0.0, state.ordered))
        now_ms = self._clock.wall_ms()
        ordered = self._wanted.get(key)
        if ordered is not None:
            self._resumed.pop(key, None)
            state = state.next(now_ms, ordered.bytes_per_s)
            await self._in_thread(lambda found=state: save(volume, found))  # type: ignore[misc]
        elif early:
            return
        elif key not in self._resumed:
            if not self._bytes_per_s or not state.due(now_ms, self._interval_s):
                return
            if not state.running:
                state = state.next(now_ms)
        self.passes[key] = state
        pace = ordered or self._resumed.get(key) or self._pace
        saved_s = self._clock.monotonic_s()
        if state.after < 0:
            with contextlib.suppress(BrokenOff):
                await self._structure(volume, pace, ordered)
        while not volume.failure and self._wanted.get(key) is ordered:
            page = await self._in_thread(
                lambda after=state.after: volume.index.look_at(after, PAGE)  # type: ignore[misc]
            )
            for replica, as_written in page:
                if not as_written:
                    volume.index.suspect = f"the row of block {replica.block_id} has changed"
                    await self.renew(volume)
                    return
                try:
                    state = await self._replica(volume, state, replica, pace, ordered)
                except BrokenOff:
                    break
                self.passes[key] = state
                if self._clock.monotonic_s() - saved_s >= SAVE_S:
                    saved_s = self._clock.monotonic_s()
                    await self._in_thread(lambda found=state: save(volume, found))  # type: ignore[misc]
            if self._wanted.get(key) is ordered and len(page) < PAGE:
                await self._strangers(volume)
                state = state.end(self._clock.wall_ms())
                self._resumed.pop(key, None)
                log.info(
                    "%s is scrubbed: %d replicas, %d bytes, %d damaged",
                    *(volume.path, state.checked, state.checked_bytes, state.damaged),
                )
                if self._wanted.get(key) is ordered:
                    self._wanted.pop(key, None)
            self.passes[key] = state
            saved_s = self._clock.monotonic_s()
            await self._in_thread(lambda found=state: save(volume, found))  # type: ignore[misc]
            if not state.running:
                return

    async def _structure(self, volume: Volume, pace: Pace, ordered: Pace | None) -> None:
        """The index as a file: its pages, and whether they fit together. Raises BrokenOff as `_replica` does."""
        wrong = await asyncio.get_running_loop().run_in_executor(
            self._reader, volume.index.inspect, self._pauses(volume, pace, ordered)
        )
        if wrong:
            volume.index.suspect = volume.index.suspect or wrong
            await self.renew(volume)

    async def renew(self, volume: Volume) -> None:
        """Replace a damaged index."""
        await self._in_thread(volume.renew_index)
        self._news.set()  # a pass that this broke off begins again at once
        self._renewed()

    async def _replica(
        self, volume: Volume, state: Pass, replica: Replica, pace: Pace, ordered: Pace | None
    ) -> Pass:
        """Raises BrokenOff if there is another order than *ordered* for the volume."""
        block = BlockRef(
            block_id=BlockId(replica.block_id), generation=GenerationStamp(replica.generation)
        )
        verdict = await asyncio.get_running_loop().run_in_executor(
            self._reader,
            quarantine.verify,
            self._store,
            block,
            self._pauses(volume, pace, ordered),
        )
        if verdict == "corrupt" and replica.block_id < FIRST_LOCAL_BLOCK:
            self._bad(block)
        elif verdict == "missing" and replica.block_id < FIRST_LOCAL_BLOCK:
            # Deleted meanwhile, most likely; else its row leads nowhere. The NameNode has to know in both cases.
            self._missing(block)
        return state.verified(replica, good=verdict in ("good", "unknown"))

    def _pauses(self, volume: Volume, pace: Pace, ordered: Pace | None) -> Callable[[int], None]:
        """To be called by the reading thread with the size of each piece of *volume* before it is read. Raises BrokenOff."""

        def over() -> bool:
            return self._closing or self._wanted.get(volume.volume_id) is not ordered

        return lambda size_bytes: self._pause(max(size_bytes, LEAST_BYTES), pace, over)

    def _pause(self, size_bytes: int, pace: Pace, over: Callable[[], bool]) -> None:
        """Hold the reading thread up until *size_bytes* more may be read."""
        now_s = self._clock.monotonic_s()
        until_s = now_s + self._wait_s(size_bytes, pace, now_s)
        while True:
            if over():
                raise BrokenOff
            left_s = until_s - self._clock.monotonic_s()
            if left_s <= 0:
                return
            if self._changed.wait(left_s):
                self._changed.clear()

    def _wait_s(self, size_bytes: int, pace: Pace, now_s: float) -> float:
        if not pace.bytes_per_s:
            # Clients are waited for by the piece: small blocks by themselves are none.
            pieces, read_bytes = self._since
            self._since = (pieces + 1, read_bytes + size_bytes)
            if pieces < FREE_PIECES and read_bytes < FREE_BYTES:
                return 0.0
            self._since = (0, 0)
        return pace.take(size_bytes, now_s, self._busy())

    async def _strangers(self, volume: Volume) -> None:
        """Files that no row of the index leads to: recorded again, for the NameNode to say what they are."""
        strangers = await self._in_thread(
            lambda: volume.strangers(self._clock.wall_ms() - STRANGER_AGE_MS)
        )
        for block_id in strangers:
            stored = await self._in_thread(lambda b=block_id: volume.index.get(b))  # type: ignore[misc]
            if stored is not None and block_id < FIRST_LOCAL_BLOCK:
                self._received(report_finalized(stored, damaged=False))

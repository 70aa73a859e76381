"""Events pushed to others: webhooks and sinks. One loop a target, each with a consumer group of its own.

A target gets every event that it asked for at least once and in order; its offset is committed after it has taken them. One that is
slow or away holds up itself alone. A webhook that refuses an event again and again loses it to its dead-letter list and goes on;
a sink is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ..common.errors import DfsError, EventsGone
from ..common.metrics import Counts
from ..common.retry import backoff_s
from ..common.runtime import Clock
from .groups import committed_offset, set_offset
from .store.base import MetadataStore
from .tail import CHUNK, Entry, Tail, matches

log = logging.getLogger(__name__)
BATCH: Final = 100
WAIT_S: Final = 10.0
GATHER_S: Final = 0.02
SAID_EVERY: Final = 50  # failures in a row between two lines of the log
COMMIT_S: Final = 5.0  # how often the offset of a target that nothing matches is written down


class Refused(Exception):
    """A target did not take a batch; *poison*: the same batch will not do, whenever it is sent."""

    def __init__(self, reason: str, *, poison: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.poison = poison


class Target(Protocol):
    """Whom events are pushed to."""

    async def send(self, entries: Sequence[Entry]) -> None:
        """Return once the target has taken all of them; Refused if it did not."""

    async def close(self) -> None: ...


class Letters(Protocol):
    """Where events go that a target would not take, and what becomes of the attempts."""

    async def bury(self, entry: Entry, attempts: int, reason: str) -> None: ...

    async def noted(self, failures: int, reason: str) -> None:
        """*failures* attempts in a row; 0: it works (again)."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a target is tried: *attempts* (0: for ever), with growing pauses between."""

    attempts: int
    base_s: float = 0.5
    cap_s: float = 60.0


class Pusher:
    """One target's loop."""

    def __init__(
        self,
        group: str,
        target: Target,
        tail: Tail,
        store: MetadataStore,
        clock: Clock,
        rng: random.Random,
        patience: Patience,
        *,
        prefix: str = "",
        kinds: Sequence[str] = (),
        letters: Letters | None = None,
        outcomes: Counts | None = None,
    ) -> None:
        """*outcomes* counts events "taken" and "buried", and attempts "refused"."""
        self.group = group
        self.offset = 0
        self._target = target
        self._tail = tail
        self._store = store
        self._clock = clock
        self._rng = rng
        self._patience = patience
        self._prefix = prefix
        self._kinds = kinds
        self._letters = letters
        self._outcomes = outcomes if outcomes is not None else Counts()

    async def run(self) -> None:
        """Until cancelled. Begins where the group has come to."""
        name = self.group
        self.offset = await self._store.read(lambda tx: committed_offset(tx, name))
        written, written_s = self.offset, self._clock.monotonic_s()
        try:
            while True:
                part = await self._next()
                chosen = [e for e in part if matches(e.event, self._prefix, self._kinds)]
                for start in range(0, len(chosen), BATCH):
                    await self._deliver(chosen[start : start + BATCH])
                if part:
                    self.offset = part[-1].event.offset
                now_s = self._clock.monotonic_s()
                if self.offset != written and (chosen or now_s - written_s > COMMIT_S):
                    await self.settle()
                    written, written_s = self.offset, now_s
                if not part:
                    await self._tail.wait(self.offset, WAIT_S)
                    await asyncio.sleep(GATHER_S)
        finally:
            await self._target.close()

    async def _next(self) -> list[Entry]:
        while True:
            try:
                return await self._tail.read(self.offset, CHUNK)
            except EventsGone:
                first = self._tail.first
                log.error(
                    "%s fell so far behind that events %d to %d are gone; it goes on after them",
                    self.group,
                    self.offset + 1,
                    first - 1,
                )
                self.offset = max(self.offset + 1, first - 1)
            except DfsError as error:
                log.warning("%s has to wait: %s", self.group, error)
                await asyncio.sleep(1.0)

    async def settle(self) -> None:
        name, offset, now_ms = self.group, self.offset, self._clock.wall_ms()
        await self._store.run(lambda tx: set_offset(tx, name, offset, now_ms))

    async def _deliver(self, batch: Sequence[Entry]) -> None:
        """Bring *batch* to the target. What it keeps refusing is buried, one by one, so that the others get through."""
        failures = 0
        while True:
            try:
                await self._target.send(batch)
            except Refused as refused:
                failures += 1
                self._outcomes.add("refused")
                if failures == 1 or failures % SAID_EVERY == 0:
                    log.warning(
                        "%s did not take events (attempt %d): %s",
                        self.group,
                        failures,
                        refused.reason,
                    )
                if self._letters is not None:
                    await self._letters.noted(failures, refused.reason)
                final = refused.poison or (
                    self._patience.attempts and failures >= self._patience.attempts
                )
                if final and self._letters is not None:
                    if len(batch) > 1:
                        for entry in batch:
                            await self._deliver([entry])
                        return
                    log.warning(
                        "%s gave up event %d: %s", self.group, batch[0].event.offset, refused.reason
                    )
                    await self._letters.bury(batch[0], failures, refused.reason)
                    self._outcomes.add("buried")
                    return
                pause_s = backoff_s(
                    failures - 1,
                    self._rng,
                    base_s=self._patience.base_s,
                    cap_s=self._patience.cap_s,
                )
                # Never at once: what has failed needs a moment.
                await asyncio.sleep(pause_s / 2 + self._patience.base_s / 2)
                continue
            self._outcomes.add("taken", len(batch))
            if failures and self._letters is not None:
                await self._letters.noted(0, "")
            return


class Pushers:
    """The loops that run in this process."""

    def __init__(self) -> None:
        self._tasks: dict[str, tuple[Pusher, asyncio.Task[None]]] = {}

    def names(self) -> set[str]:
        return set(self._tasks)

    def start(self, pusher: Pusher) -> None:
        task = asyncio.create_task(self._guard(pusher), name=pusher.group)
        self._tasks[pusher.group] = (pusher, task)

    async def _guard(self, pusher: Pusher) -> None:
        while True:
            try:
                await pusher.run()
            except asyncio.CancelledError:
                raise
            except DfsError as error:
                log.warning("%s has to wait: %s", pusher.group, error)
            except Exception:
                log.exception("%s failed; it is tried again", pusher.group)
            await asyncio.sleep(1.0)

    async def stop(self, name: str) -> None:
        found = self._tasks.pop(name, None)
        if found is not None:
            found[1].cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await found[1]

    async def close(self) -> None:
        for name in list(self._tasks):
            await self.stop(name)

    def lags(self, last: int) -> dict[str, int]:
        return {name: max(0, last - pusher.offset) for name, (pusher, _) in self._tasks.items()}

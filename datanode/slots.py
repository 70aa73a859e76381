"""How many transfers a DataNode makes over HTTP at once, and how long one may be silent before it loses its place."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

# Programs write to a stream whenever they have something, so one may pause for long. But not in the way of those who wait: Hadoop's client
# gives up after a minute. A client whose machine is gone is found by TCP, much sooner.
PAUSE_LIMIT_S: Final = 1800.0
CROWDED_PAUSE_S: Final = 20.0


class Slots:
    """At most so many at once, in the order of their coming."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)
        self._waiting = 0

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """A place, for a `with` block."""
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()

    def patience_s(self) -> float:
        """How long a client that sends nothing is to be borne with now. From any thread."""
        return CROWDED_PAUSE_S if self._waiting else PAUSE_LIMIT_S

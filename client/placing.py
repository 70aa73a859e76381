"""Finding DataNodes for new copies while some of them die: whom to leave out, how long to go on looking.

A node that failed is left out of what this client places for a while. That is a suspicion, not a fact: a node is also blamed for
what others did (it could not fetch from a dead one, say). So where too few nodes are left, all are forgiven, and what is really
dead fails again, at the cost of one more attempt, until the NameNode has noticed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol

from ..common.errors import DfsError, NotEnoughDataNodes
from ..common.model import NodeId, Struct
from ..common.retry import backoff_s
from ..common.runtime import Clock

FORGET_S: Final = 30.0  # by then the NameNode knows what is dead
ATTEMPTS: Final = 5  # at least, however long each takes
AT_ONCE: Final = 2  # attempts that wait for nothing: mostly one node is dead, and others are not
BASE_S, CAP_S = 0.1, 2.0
# A third of the retry time is spent on a cluster that has too few nodes, whoever is left out.
EMPTY_PART: Final = 3


class Caller(Protocol):
    """The part of a NameNode that is needed here."""

    async def call(self, operation: str, request: Struct) -> Any: ...


class Blame:
    """Who failed lately. Pure: time comes in."""

    def __init__(self) -> None:
        self._until_s: dict[NodeId, float] = {}

    def add(self, nodes: Iterable[NodeId], now_s: float) -> None:
        for node_id in nodes:
            self._until_s[node_id] = now_s + FORGET_S

    def excluded(self, now_s: float) -> list[NodeId]:
        self._until_s = {node: until for node, until in self._until_s.items() if until > now_s}
        return sorted(self._until_s)

    def forgive(self) -> None:
        self._until_s.clear()


class Patience:
    """How often something is tried again on other nodes: ATTEMPTS times at least, and on until *retry_s* have passed.

    The first attempts follow each other at once, later ones after growing pauses. Pure: time comes in.
    """

    def __init__(self, retry_s: float, now_s: float, rng: random.Random) -> None:
        self._deadline_s = now_s + retry_s
        self._rng = rng
        self._attempts = 0

    def pause_s(self, now_s: float) -> float | None:
        """Another attempt has failed: how long to wait before the next; None if it was the last."""
        self._attempts += 1
        if self._attempts >= ATTEMPTS and now_s >= self._deadline_s:
            return None
        if self._attempts < AT_ONCE:
            return 0.0
        return backoff_s(self._attempts - AT_ONCE, self._rng, base_s=BASE_S, cap_s=CAP_S)


class Placing:
    """One client's search for DataNodes. What one of its writes finds out, all of them know."""

    def __init__(
        self,
        namenode: Caller,
        *,
        retry_s: float,
        clock: Clock,
        rng: random.Random,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._namenode = namenode
        self._retry_s = retry_s
        self._clock = clock
        self._rng = rng
        self._sleep = sleep
        self._blame = Blame()

    def blame(self, nodes: Iterable[NodeId]) -> None:
        """Leave *nodes* out from now on."""
        self._blame.add(nodes, self._clock.monotonic_s())

    def excluded(self) -> list[NodeId]:
        return self._blame.excluded(self._clock.monotonic_s())

    async def call(self, operation: str, make: Callable[[list[NodeId]], Struct]) -> Any:
        """Call an operation that chooses nodes; *make* gets those to be left out.

        NotEnoughDataNodes once too few were there for a part of the retry time although nobody was left out.
        """
        deadline_s: float | None = None
        attempt = 0
        while True:
            excluded = self.excluded()
            try:
                return await self._namenode.call(operation, make(excluded))
            except NotEnoughDataNodes:
                now_s = self._clock.monotonic_s()
                if deadline_s is None:
                    deadline_s = now_s + self._retry_s / EMPTY_PART
                if attempt and now_s >= deadline_s:
                    raise
                self._blame.forgive()
            if attempt or not excluded:
                await self._sleep(backoff_s(attempt, self._rng, base_s=BASE_S, cap_s=CAP_S))
            attempt += 1

    def trials(self) -> Trials:
        """For one thing that is to be tried until it is done."""
        now_s = self._clock.monotonic_s()
        return Trials(self, Patience(self._retry_s, now_s, self._rng), self._clock, self._sleep)


class Trials:
    """The attempts at one thing."""

    def __init__(
        self,
        placing: Placing,
        patience: Patience,
        clock: Clock,
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._placing = placing
        self._patience = patience
        self._clock = clock
        self._sleep = sleep

    async def failed(self, error: DfsError, nodes: Iterable[NodeId] = ()) -> None:
        """An attempt has failed, because of *nodes*; returns when the next is due, raises *error* if there is none."""
        self._placing.blame(nodes)
        pause_s = self._patience.pause_s(self._clock.monotonic_s())
        if pause_s is None:
            raise error
        if pause_s > 0:
            await self._sleep(pause_s)

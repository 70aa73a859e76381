"""The job that forgets silent writers."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from twinfs.common.config import NameNodeConfig
from twinfs.common.errors import StoreUnavailable
from twinfs.common.runtime import ManualClock
from twinfs.namenode import leases
from twinfs.namenode.datanodes import DataNodes
from twinfs.namenode.jobs import Jobs
from twinfs.namenode.replication import ReplicationMonitor
from twinfs.namenode.safemode import SafeModeGate
from twinfs.namenode.silence import LOOK_S
from twinfs.namenode.store import open_store

RENEW_S = 20


class World:
    """A NameNode whose database may be away, and a writer."""

    def __init__(self, config: NameNodeConfig, store: Any, clock: ManualClock) -> None:
        self.config, self.store, self.clock = config, store, clock
        self.away = False
        rng = random.Random(1)
        nodes = DataNodes(clock, rng, stale_after_s=10.0, dead_after_s=30.0)
        gate = SafeModeGate(lambda: 1, 0)
        monitor = ReplicationMonitor(rng)
        self.jobs = Jobs(config, self, nodes, monitor, clock, gate, rng, self._learn)  # type: ignore[arg-type]

    async def _learn(self) -> None: ...

    async def run(self, operation: Callable[[Any], Any]) -> Any:
        """The store's."""
        if self.away:
            raise StoreUnavailable("lost the metadata database")
        return await self.store.run(operation)

    async def pass_time(self, seconds: float, *, renewing: bool) -> None:
        for number in range(int(seconds / LOOK_S)):
            self.clock.advance(LOOK_S)
            if renewing and not self.away and number % (RENEW_S / LOOK_S) == RENEW_S / LOOK_S - 1:
                now_ms = self.clock.wall_ms()
                await self.run(lambda tx, now_ms=now_ms: leases.touch_holder(tx, "writer", now_ms))
            await self.jobs._once("leases", self.jobs._leases)

    async def is_known(self) -> bool:
        row = await self.store.read(
            lambda tx: tx.one("SELECT 1 FROM lease_holders WHERE holder = 'writer'")
        )
        return row is not None


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    config, clock = NameNodeConfig(dir=str(tmp_path), user="root"), ManualClock()
    store = await open_store(config, clock)
    found = World(config, store, clock)
    await store.run(lambda tx: leases.touch_holder(tx, "writer", clock.wall_ms()))
    yield found
    await store.close()


async def test_nobody_is_silent_because_the_database_was_away(world: World) -> None:
    await world.pass_time(200, renewing=True)
    world.away = True
    await world.pass_time(2 * world.config.lease_timeout_s, renewing=True)
    world.away = False
    await world.pass_time(RENEW_S - LOOK_S, renewing=True)  # it has not come to it yet
    assert await world.is_known()
    await world.pass_time(200, renewing=True)
    await world.pass_time(world.config.lease_timeout_s - LOOK_S, renewing=False)
    assert await world.is_known()
    await world.pass_time(2 * LOOK_S, renewing=False)
    assert not await world.is_known()

"""A refused create or append begins to close a file whose writer is gone, however the call came in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from twinfs.common.codec import pack
from twinfs.common.config import NameNodeConfig
from twinfs.common.errors import LeaseConflict
from twinfs.common.messages import Append, Create, Stat
from twinfs.common.model import Struct
from twinfs.common.runtime import ManualClock
from twinfs.namenode.datanodes import DataNodes
from twinfs.namenode.dispatch import Dispatcher
from twinfs.namenode.namespace import tree
from twinfs.namenode.permissions import Caller
from twinfs.namenode.safemode import SafeModeGate
from twinfs.namenode.silence import LOOK_S, Silence
from twinfs.namenode.store import open_store
from twinfs.namenode.store.base import RequestId

ROOT = Caller("root", superuser=True, host="127.0.0.1")
LIMIT_S = 30.0


class Sink:
    """What a connection is to the store: told of outcomes, it hands refusals back, as `api/rpc.py` does."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self.calls: dict[int, tuple[str, msgspec.Raw]] = {}
        self.done: dict[int, asyncio.Future[BaseException | None]] = {}

    async def call(self, number: int, name: str, request: Struct) -> BaseException | None:
        raw = msgspec.Raw(pack(request))
        self.calls[number] = name, raw
        self.done[number] = asyncio.get_running_loop().create_future()
        self._dispatcher.write_to(self, ROOT, name, raw, RequestId(b"c" * 16, number), resent=False)
        async with asyncio.timeout(LIMIT_S):
            return await self.done[number]

    def answered(self, answers: Sequence[tuple[int, bytes]]) -> None:
        for number, _ in answers:
            self.done[number].set_result(None)

    def refused(self, call_id: int, error: BaseException) -> None:
        self._dispatcher.refused(ROOT, *self.calls[call_id], error)
        self.done[call_id].set_result(error)


class World:
    def __init__(self, config: NameNodeConfig, store: Any, clock: ManualClock) -> None:
        self.clock = clock
        self.store = store
        self.silence = Silence(
            config.lease_timeout_s, now_ms=clock.wall_ms(), now_s=clock.monotonic_s()
        )
        self.dispatcher = Dispatcher(
            config,
            store,
            cast(DataNodes, None),  # nothing here places or locates a block
            clock,
            SafeModeGate(lambda: 1, 0),
            consider=lambda blocks: None,
            recover=lambda recoveries: None,
            silence=self.silence,
        )
        self.sink = Sink(self.dispatcher)

    def pass_time(self, seconds: float) -> None:
        """As the NameNode sees it that listens all the while."""
        for _ in range(int(seconds / LOOK_S)):
            self.clock.advance(LOOK_S)
            self.silence.look(self.clock.wall_ms(), self.clock.monotonic_s())

    async def is_open(self, path: str) -> bool:
        status = await self.store.read(lambda tx: tree.stat(tx, ROOT, Stat(path=path)))
        return bool(status.under_construction)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    config, clock = NameNodeConfig(dir=str(tmp_path), user="root"), ManualClock()
    store = await open_store(config, clock)
    yield World(config, store, clock)
    await store.close()


@pytest.mark.parametrize(
    ("name", "request_of"),
    [
        ("create", Create(path="/f", holder="second")),
        ("append", Append(path="/f", holder="second")),
    ],
)
async def test_a_silent_writers_file_is_closed_for_the_next_one(
    world: World, name: str, request_of: Struct
) -> None:
    assert await world.sink.call(1, "create", Create(path="/f", holder="first")) is None
    refused = await world.sink.call(2, name, request_of)
    assert isinstance(refused, LeaseConflict)
    await world.store.run(lambda tx: None)  # behind what the refusal began
    assert await world.is_open("/f"), "its writer is still there"

    world.clock.advance(3_600.0)  # the NameNode was away
    refused = await world.sink.call(3, name, request_of)
    assert isinstance(refused, LeaseConflict)
    await world.store.run(lambda tx: None)
    assert await world.is_open("/f"), "nobody could hear its writer"

    world.pass_time(70.0)
    refused = await world.sink.call(4, name, request_of)
    assert isinstance(refused, LeaseConflict)
    await world.store.run(lambda tx: None)
    assert not await world.is_open("/f")


async def test_other_refusals_close_nothing(world: World) -> None:
    assert await world.sink.call(1, "create", Create(path="/f", holder="first")) is None
    world.pass_time(3_600.0)
    assert await world.sink.call(2, "create", Create(path="/f/below", holder="second")) is not None
    await world.store.run(lambda tx: None)
    assert await world.is_open("/f")

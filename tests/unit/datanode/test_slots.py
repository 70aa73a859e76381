"""Whoever sends nothing keeps a place only while nobody else wants it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from twinfs.datanode.api import webhdfs
from twinfs.datanode.direct import ClientGone
from twinfs.datanode.slots import CROWDED_PAUSE_S, PAUSE_LIMIT_S, Slots


def test_patience_ends_when_somebody_waits() -> None:
    async def run() -> None:
        slots = Slots(2)
        entered, leave = asyncio.Semaphore(0), asyncio.Event()

        async def use() -> None:
            async with slots.one():
                entered.release()
                await leave.wait()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(2):
                tasks.create_task(use())
                await entered.acquire()
            assert slots.patience_s() == PAUSE_LIMIT_S
            third, fourth = tasks.create_task(use()), tasks.create_task(use())
            await asyncio.sleep(0)
            assert slots.patience_s() == CROWDED_PAUSE_S
            third.cancel()
            leave.set()
            await fourth
        assert slots.patience_s() == PAUSE_LIMIT_S

    asyncio.run(run())


def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before so much has come that a thread of its own receives it."""

    async def never() -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    content = SimpleNamespace(readany=never)
    call: Any = SimpleNamespace(
        request=SimpleNamespace(content=content),
        slots=SimpleNamespace(patience_s=lambda: 0.03),
    )
    monkeypatch.setattr(webhdfs, "LOOK_S", 0.01)

    async def read() -> list[bytes]:
        return [piece async for piece in webhdfs._pieces(call)]

    with pytest.raises(ClientGone, match="sends nothing"):
        asyncio.run(read())

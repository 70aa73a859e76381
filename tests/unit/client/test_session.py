"""What the parts of a client share."""

from __future__ import annotations

import asyncio

import pytest

from twinfs.client.session import Session
from twinfs.common.config import ClientConfig
from twinfs.common.messages import AbandonBlock


async def test_closing_ends_what_is_begun_because_of_it() -> None:
    session = Session(ClientConfig(namenode="http://127.0.0.1:1", retry_s=0.1))

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            session.give_back([1])

    session.spawn(asyncio.create_task(work()))
    await asyncio.sleep(0)
    await session.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closing_waits_for_what_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(ClientConfig(namenode="http://127.0.0.1:1"))
    arrived: list[tuple[int, int]] = []

    async def call(operation: str, request: AbandonBlock) -> None:
        for _ in range(10):  # until later than anything that does not wait
            await asyncio.sleep(0)
        arrived.append((request.block_id, request.count))

    monkeypatch.setattr(session.namenode, "call", call)

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            session.give_back([5])

    session.give_back([1, 2])
    session.spawn(asyncio.create_task(work()))
    await asyncio.sleep(0)
    await session.close()
    assert sorted(arrived) == [(1, 2), (5, 1)]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closing_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(ClientConfig(namenode="http://127.0.0.1:1"))
    monkeypatch.setattr("twinfs.client.session.GIVE_BACK_S", 0.01)

    async def call(operation: str, request: AbandonBlock) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(session.namenode, "call", call)
    session.give_back([1])
    await session.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}

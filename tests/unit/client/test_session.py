"""What the parts of a client share."""

from __future__ import annotations

import asyncio

from twinfs.client.session import Session
from twinfs.common.config import ClientConfig


async def test_closing_ends_what_is_begun_because_of_it() -> None:
    session = Session(ClientConfig(namenode="http://127.0.0.1:1"))

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            session.give_back([1])

    session.spawn(asyncio.create_task(work()))
    await asyncio.sleep(0)
    await session.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}

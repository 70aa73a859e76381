"""Webhooks against a target of the test's own, on both databases: order, dead letters, hanging, redirects, going on elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from twinfs.common.config import NameNodeConfig
from twinfs.common.follow import (
    AddWebhook,
    GetDeadLetters,
    PauseWebhook,
    SettleDeadLetters,
    Webhook,
    WebhookName,
)
from twinfs.common.messages import Mkdirs
from twinfs.common.runtime import SystemClock
from twinfs.namenode import events, pushing, webhooks
from twinfs.namenode.namespace import tree
from twinfs.namenode.permissions import Caller
from twinfs.namenode.pushing import Pushing
from twinfs.namenode.store.base import MetadataStore, Transaction
from twinfs.namenode.tail import Tail

from ..support.cluster import eventually

ROOT = Caller("root", superuser=True)
SECRET = "a secret of many letters"


class Target:
    """Answers as *answer* says; remembers the events of what it took, and how many requests came."""

    def __init__(self) -> None:
        self.answer: Callable[[list[Any]], int | None] = lambda _: 200  # None: never
        self.taken: list[Any] = []
        self.requests: dict[str, int] = {}
        self._runner: web.AppRunner | None = None
        self._hanging = asyncio.Event()
        self.port = 0

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{name:.*}", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self._hanging.set()
        assert self._runner is not None
        await self._runner.cleanup()
        self._hanging.clear()

    async def _take(self, request: web.Request) -> web.Response:
        self.requests[request.path] = self.requests.get(request.path, 0) + 1
        found = (await request.json())["events"]
        status = self.answer(found)
        if status is None:
            await self._hanging.wait()
            status = 503
        if status == 200:
            self.taken += found
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    def paths(self) -> list[str]:
        return [event["path"] for event in self.taken]


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    found = Target()
    await found.start()
    yield found
    await found.stop()


@contextlib.asynccontextmanager
async def running(store: MetadataStore, config: NameNodeConfig) -> AsyncIterator[Pushing]:
    """What a NameNode runs of it; leaving is as abrupt as its death."""
    tail = Tail(store)
    store.tell_sealed = tail.sealed

    async def holds(job: str) -> bool:
        return True

    async def seal() -> None:
        while True:
            await store.run(events.seal_pending)
            await asyncio.sleep(0)

    found = Pushing(config, store, tail, SystemClock(), random.Random(3), "cluster", holds)
    tasks = [asyncio.create_task(found.run())]
    tasks.append(asyncio.create_task(tail.run(told=not config.database)))
    if config.database:
        tasks.append(asyncio.create_task(seal()))
    try:
        yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def config(config: NameNodeConfig, monkeypatch: pytest.MonkeyPatch) -> NameNodeConfig:
    """Impatient."""
    monkeypatch.setattr(pushing, "LOOK_S", 0.02)
    return dataclasses.replace(config, webhook_attempts=3, webhook_backoff_s=0.01)


async def add(store: MetadataStore, target: Target, name: str, **more: Any) -> None:
    url = f"http://127.0.0.1:{target.port}/{name}"
    request = AddWebhook(name=name, url=url, secret=SECRET, **more)
    await store.run(lambda tx: webhooks.add(tx, ROOT, request, now_ms=1))


async def make(store: MetadataStore, folder: str, first: int, last: int) -> list[str]:
    paths = [f"{folder}/d{n:03}" for n in range(first, last)]

    def work(tx: Transaction) -> None:
        for path in paths:
            tree.mkdirs(tx, ROOT, Mkdirs(path=path, parents=True), now_ms=1)

    await store.run(work)
    return paths


async def hook(store: MetadataStore, name: str) -> Webhook:
    found = await store.read(lambda tx: webhooks.list_hooks(tx, events.ends(tx)[1]))
    return next(one for one in found if one.name == name)


async def until(condition: Callable[[], bool], what: str) -> None:
    async def true() -> bool:
        return condition()

    await eventually(true, what, 60)


async def test_another_namenode_goes_on_where_one_died(
    store: MetadataStore, config: NameNodeConfig, target: Target
) -> None:
    """Nothing is lost though the target and the pushing side go away in turns; the order stays."""
    await add(store, target, "kept", path_prefix="/kept", kinds=["mkdir"])
    wanted: list[str] = []
    for turn in range(4):
        async with running(store, config):
            wanted += await make(store, "/kept", turn * 60, turn * 60 + 30)
            await make(store, "/other", turn * 60, turn * 60 + 30)
            await until(lambda: len(target.taken) > 10, "it has begun")
        await target.stop()
        wanted += await make(store, "/kept", turn * 60 + 30, turn * 60 + 60)
        await target.start()
    async with running(store, config):
        await until(lambda: set(wanted) <= set(target.paths()), "everything has come")
    # `parents` made /kept itself, too. What came again came later than what it followed on.
    assert list(dict.fromkeys(target.paths())) == ["/kept", *wanted]
    assert (await hook(store, "kept")).dead == 0


async def test_refusals_redirects_and_silence_end_in_the_dead_letters(
    store: MetadataStore, config: NameNodeConfig, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How long a target may take.
    monkeypatch.setattr(webhooks.HttpTarget.__init__, "__defaults__", (0.3,))
    bad: dict[str, int | None] = {"/bad/d001": 400, "/bad/d003": 302, "/bad/d005": None}

    def answer(found: list[Any]) -> int | None:
        return next((bad[e["path"]] for e in found if e["path"] in bad), 200)

    target.answer = answer
    await add(store, target, "bad", path_prefix="/bad")
    async with running(store, config):
        wanted = await make(store, "/bad", 0, 8)
        rest = [path for path in wanted if path not in bad]

        async def three_are_dead() -> bool:
            return (await hook(store, "bad")).dead == 3

        await eventually(three_are_dead, "three are dead", 60)
        await until(lambda: set(rest) <= set(target.paths()), "the others get through")
        assert list(dict.fromkeys(target.paths())) == ["/bad", *rest]
        # A redirect is never followed.
        assert set(target.requests) == {"/bad"}
        request = GetDeadLetters(name="bad")
        letters = (await store.read(lambda tx: webhooks.dead_letters(tx, request))).letters
        assert [letter.event.path for letter in letters] == list(bad)
        errors = [letter.error for letter in letters]
        assert errors[:2] == ["it answered 400", "it answered 302"]
        assert "no answer" in errors[2]
        # Poison is not tried again by itself; the others were, as often as configured.
        assert [letter.attempts for letter in letters] == [1, 3, 3]
        # Later it is taken.
        target.answer = lambda _: 200
        again = SettleDeadLetters(name="bad", action="retry")
        settled = await store.run(lambda tx: webhooks.settle(tx, ROOT, again, now_ms=1))
        assert settled.count == 3

        async def none_is_dead() -> bool:
            return (await hook(store, "bad")).dead == 0

        await eventually(none_is_dead, "all were taken", 60)
    assert target.paths()[-3:] == list(bad)


async def test_pausing_replacing_and_deleting(
    store: MetadataStore, config: NameNodeConfig, target: Target
) -> None:
    await add(store, target, "one", path_prefix="/one")
    async with running(store, config) as push:
        first = await make(store, "/one", 0, 3)
        await until(lambda: set(first) <= set(target.paths()), "they come")
        pause = PauseWebhook(name="one", paused=True)
        await store.run(lambda tx: webhooks.pause(tx, ROOT, pause, now_ms=1))
        await until(lambda: not push.lags(), "it has stopped")
        second = await make(store, "/one", 3, 6)
        await add(store, target, "one", path_prefix="/one")  # the same once more: goes on
        await until(lambda: set(second) <= set(target.paths()), "what was missed comes")
        await store.run(lambda tx: webhooks.delete(tx, ROOT, WebhookName(name="one"), now_ms=1))
        await until(lambda: not push.lags(), "it has ended")
        count = len(target.taken)
        await make(store, "/one", 6, 9)
        await add(store, target, "two", path_prefix="/two")
        third = await make(store, "/two", 0, 3)
        await until(lambda: set(third) <= set(target.paths()), "another one works")
    assert not [event for event in target.taken[count:] if event["path"].startswith("/one")]

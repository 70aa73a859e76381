"""Following the change stream inside a NameNode: the shared tail, and who gets to see what."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator

import pytest

from twinfs.common.codec import to_json
from twinfs.common.config import NameNodeConfig
from twinfs.common.errors import EventsGone, PathExists, PermissionDenied
from twinfs.common.messages import Mkdirs, Rename
from twinfs.common.model import INodeId
from twinfs.common.runtime import ManualClock
from twinfs.namenode import events
from twinfs.namenode.namespace import tree
from twinfs.namenode.permissions import Caller
from twinfs.namenode.store.base import MetadataStore, NewEvent, Transaction
from twinfs.namenode.tail import CHUNK, Entry, Tail
from twinfs.namenode.visible import KEPT_S, Visibility

from ..support.cluster import eventually

ROOT = Caller("root", superuser=True)
ANN, BOB = Caller("ann", frozenset({"people"})), Caller("bob")


@contextlib.asynccontextmanager
async def following(store: MetadataStore, config: NameNodeConfig) -> AsyncIterator[Tail]:
    """A tail, told by the store or looking by itself, and a sealer where the store has none."""
    tail = Tail(store)
    store.tell_sealed = tail.sealed

    async def seal() -> None:
        while True:
            await store.run(events.seal_pending)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(tail.run(told=not config.database))]
    if config.database:
        tasks.append(asyncio.create_task(seal()))
    try:
        yield tail
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def write(store: MetadataStore, first: int, last: int) -> None:
    """Events numbered *first* to *last*, in groups of changing size."""
    rng = random.Random(first)
    number = first
    while number < last:
        count = min(last - number, rng.choice((1, 1, 7, 100, 700)))

        def work(tx: Transaction, number: int = number, count: int = count) -> None:
            for n in range(number, number + count):
                tx.emit(NewEvent(n, "mkdir", f"/d{n}", "root", INodeId(n)))

        await store.run(work)
        number += count


async def follow(tail: Tail, upto: int, rng: random.Random) -> list[Entry]:
    found: list[Entry] = []
    after = 0
    while after < upto:
        part = await tail.read(after, rng.choice((3, 300, 1_024)))
        if not part:
            await tail.wait(after, 1.0)
        else:
            found += part
            after = part[-1].event.offset
        if rng.random() < 0.3:
            await asyncio.sleep(0)
    return found


async def test_followers_of_different_speed_all_get_everything_once(
    store: MetadataStore, config: NameNodeConfig
) -> None:
    count = 40 * CHUNK // 3
    async with following(store, config) as tail:
        await write(store, 1, 100)  # while nobody follows
        readers = [follow(tail, count - 1, random.Random(seed)) for seed in range(5)]
        async with asyncio.timeout(120):
            _, *results = await asyncio.gather(write(store, 100, count), *readers)
    for found in results:
        assert [entry.event.offset for entry in found] == list(range(1, count))
        assert [entry.event.path for entry in found] == [f"/d{n}" for n in range(1, count)]
        assert all(
            json.loads(entry.encoded)["offset"] == entry.event.offset for entry in found[::97]
        )


async def test_a_failed_neighbour_leaves_no_gap(
    store: MetadataStore, config: NameNodeConfig
) -> None:
    """A group that is run again, one by one, tells of the events that were kept."""

    def fails(tx: Transaction) -> None:
        tx.emit(NewEvent(1, "mkdir", "/half", "root", INodeId(5)))
        raise PathExists("after writing")

    async with following(store, config) as tail:
        waiting = asyncio.ensure_future(follow(tail, 60, random.Random(1)))
        for number in range(20):
            futures: list[asyncio.Future[None]] = [
                store.submit(
                    lambda tx, n=number, k=k: tx.emit(  # type: ignore[misc]
                        NewEvent(1, "mkdir", f"/d{n}-{k}", "root", INodeId(k))
                    )
                )
                for k in range(3)
            ]
            futures.insert(1, store.submit(fails))
            results = await asyncio.gather(*futures, return_exceptions=True)
            assert [type(result) for result in results if result is not None] == [PathExists]
        async with asyncio.timeout(60):
            found = await waiting
    assert sorted(entry.event.path for entry in found) == sorted(
        f"/d{n}-{k}" for n in range(20) for k in range(3)
    )


async def test_what_was_dropped_is_gone_for_a_follower_too(
    store: MetadataStore, config: NameNodeConfig
) -> None:
    async with following(store, config) as tail:
        await write(store, 1, 4 * CHUNK)
        await follow(tail, 4 * CHUNK - 1, random.Random(2))
        await store.run(lambda tx: events.trim_events(tx, CHUNK, 2 * CHUNK))
    async with following(store, config) as tail:

        async def looked() -> bool:
            return tail.first > 1

        await eventually(looked, "the tail knows what is gone")
        with pytest.raises(EventsGone, match=f"go on after {2 * CHUNK}"):
            await tail.read(5)
        assert (await tail.read(2 * CHUNK))[0].event.offset == 2 * CHUNK + 1


# --- who sees what ---


async def tree_of_rights(store: MetadataStore) -> list[Entry]:
    """Events about directories of different people."""

    def work(tx: Transaction) -> None:
        for path, mode in (("/open", 0o755), ("/closed", 0o700), ("/pass", 0o711)):
            tree.mkdirs(tx, ROOT, Mkdirs(path=path, mode=mode), now_ms=1)
        for folder in ("/open", "/closed", "/pass"):
            tree.mkdirs(tx, ROOT, Mkdirs(path=f"{folder}/a"), now_ms=1)
        tree.mkdirs(tx, ROOT, Mkdirs(path="/open/gone/inside", parents=True), now_ms=1)
        for source, destination in (("/open/a", "/closed/b"), ("/closed/a", "/open/c")):
            tree.rename(tx, ROOT, Rename(source=source, destination=destination), now_ms=1)
        tx.emit(NewEvent(1, "pin", "/ipfs/bafk", "ann", INodeId(0)))

    await store.run(work)
    await store.run(events.seal_pending)
    found = await store.read(lambda tx: events.read_range(tx, 0, 100))
    return [Entry(event, to_json(event)) for event in found]


async def test_everybody_sees_what_a_listing_would_show(store: MetadataStore) -> None:
    entries = await tree_of_rights(store)
    clock = ManualClock()
    visible = Visibility(store, clock, "permitted")

    async def seen(caller: Caller) -> list[tuple[str, str, str]]:
        found = await visible.choose(caller, entries)
        for event, encoded in found:
            told = json.loads(encoded)
            assert (told["path"], told.get("destination", "")) == (event.path, event.destination)
            # With the hash one could try out what the other end is.
            assert bool(event.hash) == bool(
                event.path and (event.destination or event.kind != "rename")
            )
        return [(e.event.kind, e.event.path, e.event.destination) for e in found]

    assert await seen(ROOT) == [(e.event.kind, e.event.path, e.event.destination) for e in entries]
    wanted = [
        ("mkdir", "/open", ""),
        ("mkdir", "/closed", ""),
        ("mkdir", "/pass", ""),
        ("mkdir", "/open/a", ""),
        ("mkdir", "/open/gone", ""),
        ("mkdir", "/open/gone/inside", ""),
        ("rename", "/open/a", ""),  # and not where to
        ("rename", "", "/open/c"),  # and not where from
    ]
    assert await seen(BOB) == wanted
    # What one did oneself is no secret.
    assert await seen(ANN) == [*wanted, ("pin", "/ipfs/bafk", "")]

    await store.run(
        lambda tx: tx.execute("UPDATE inodes SET mode = ? WHERE name = 'closed'", (0o755,))
    )
    clock.advance(KEPT_S + 1)
    assert ("mkdir", "/closed/a", "") in await seen(BOB)


async def test_all_or_nothing_where_it_is_configured(store: MetadataStore) -> None:
    entries = await tree_of_rights(store)
    everybody = Visibility(store, ManualClock(), "everybody")
    everybody.admit(BOB)
    assert await everybody.choose(BOB, entries) == entries
    superusers = Visibility(store, ManualClock(), "superusers")
    superusers.admit(ROOT)
    with pytest.raises(PermissionDenied, match="event_readers"):
        superusers.admit(BOB)

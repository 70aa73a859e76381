"""What both dialects of the metadata store promise."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from twinfs.common.config import NameNodeConfig
from twinfs.common.errors import (
    DfsError,
    EventsGone,
    InternalError,
    InvalidRequest,
    PathExists,
    StoreDamaged,
    StoreError,
    StoreTooNew,
)
from twinfs.common.model import INodeId
from twinfs.common.runtime import SystemClock
from twinfs.namenode import events
from twinfs.namenode.store import migrate, open_store
from twinfs.namenode.store.base import MetadataStore, NewEvent, RequestId, Transaction

CLIENT = b"c" * 16


def put(tx: Transaction, name: str, value: str = "x") -> None:
    tx.execute("INSERT INTO meta (name, value) VALUES (?, ?)", (name, value))


def get(tx: Transaction, name: str) -> str | None:
    row = tx.one("SELECT value FROM meta WHERE name = ?", (name,))
    return None if row is None else row[0]


async def test_what_was_answered_is_there_after_opening_again(config: NameNodeConfig) -> None:
    store = await open_store(config, SystemClock())
    await store.run(lambda tx: put(tx, "kept", "yes"))
    cluster = await store.read(lambda tx: get(tx, "cluster_id"))
    await store.close()
    store = await open_store(config, SystemClock())
    try:
        assert await store.read(lambda tx: get(tx, "kept")) == "yes"
        assert await store.read(lambda tx: get(tx, "cluster_id")) == cluster
    finally:
        await store.close()


async def test_a_failed_operation_leaves_nothing_and_harms_no_neighbour(
    store: MetadataStore,
) -> None:
    def fails(tx: Transaction) -> None:
        put(tx, "half")
        tx.emit(NewEvent(1, "mkdir", "/half", "u", INodeId(5)))
        raise PathExists("after writing")

    futures = [store.submit(lambda tx, n=n: put(tx, f"n{n}")) for n in range(10)]  # type: ignore[misc]
    bad = store.submit(fails)
    futures += [store.submit(lambda tx, n=n: put(tx, f"n{n}")) for n in range(10, 20)]  # type: ignore[misc]
    with pytest.raises(PathExists):
        await bad
    await asyncio.gather(*futures)
    names = await store.read(lambda tx: {row[0] for row in tx.all("SELECT name FROM meta")})
    assert {f"n{n}" for n in range(20)} <= names
    assert "half" not in names
    await seal(store)
    assert (await store.read(lambda tx: events.read_events(tx, 0, 100))).events == []


async def test_an_unexpected_error_is_passed_on_and_undone(store: MetadataStore) -> None:
    def breaks(tx: Transaction) -> None:
        put(tx, "half")
        raise KeyError("our own mistake")

    with pytest.raises(KeyError):
        await store.run(breaks)
    assert await store.read(lambda tx: get(tx, "half")) is None


async def test_a_resent_request_is_answered_and_not_repeated(store: MetadataStore) -> None:
    ran = []

    def operation(tx: Transaction) -> bytes:
        ran.append(1)
        put(tx, "once")
        return b"answer"

    request = RequestId(CLIENT, 7)
    assert await store.answer(operation, request, resent=False) == b"answer"
    assert await store.answer(operation, request, resent=True) == b"answer"
    both = await asyncio.gather(*(store.answer(operation, request, resent=True) for _ in range(5)))
    assert both == [b"answer"] * 5
    assert len(ran) == 1


async def test_a_resend_waits_for_the_original(store: MetadataStore) -> None:
    count = 0

    def operation(tx: Transaction) -> bytes:
        nonlocal count
        count += 1
        put(tx, "counted")
        return b"%d" % count

    request = RequestId(CLIENT, 1)
    first = store.submit_answer(operation, request, resent=False)
    second = store.submit_answer(operation, request, resent=True)
    answers = await asyncio.gather(first, second)
    assert answers[0] == answers[1]


async def test_a_failed_request_may_be_sent_again(store: MetadataStore) -> None:
    def fails(tx: Transaction) -> bytes:
        raise PathExists("no")

    request = RequestId(CLIENT, 2)
    with pytest.raises(PathExists):
        await store.answer(fails, request, resent=False)

    def works(tx: Transaction) -> bytes:
        put(tx, "now")
        return b"done"

    assert await store.answer(works, request, resent=True) == b"done"


async def test_ids_are_never_given_twice(config: NameNodeConfig) -> None:
    seen: set[int] = set()
    for _ in range(3):
        store = await open_store(config, SystemClock())
        try:

            def fails(tx: Transaction) -> None:
                first = tx.new_ids("inode", 10)
                assert not seen & set(range(first, first + 10))
                put(tx, "half")
                raise PathExists("undone")

            with pytest.raises(PathExists):
                await store.run(fails)
            for _ in range(5):
                first = await store.run(lambda tx: tx.new_ids("inode", 3))
                assert not seen & set(range(first, first + 3))
                seen.update(range(first, first + 3))
        finally:
            await store.close()


async def test_a_read_sees_every_answered_write(store: MetadataStore) -> None:
    for number in range(50):
        await store.run(lambda tx, n=number: put(tx, f"w{n}"))  # type: ignore[misc]
        assert await store.read(lambda tx, n=number: get(tx, f"w{n}")) == "x"  # type: ignore[misc]


async def test_reads_of_one_call_share_a_snapshot_and_fail_alone(store: MetadataStore) -> None:
    def fails(tx: Transaction) -> None:
        raise InvalidRequest("this one")

    found = await store.read_each([lambda tx: 1, fails, lambda tx: get(tx, "format_version")])
    assert found[0] == 1
    assert isinstance(found[1], InvalidRequest)
    assert found[2] == str(migrate.latest_version())


async def test_a_reading_operation_can_not_write(store: MetadataStore) -> None:
    with pytest.raises((DfsError, InternalError)):
        await store.read(lambda tx: put(tx, "sneaked"))
    assert await store.read(lambda tx: get(tx, "sneaked")) is None


async def test_concurrent_counters_lose_no_update(store: MetadataStore) -> None:
    await store.run(lambda tx: put(tx, "counter", "0"))

    def add(tx: Transaction) -> None:
        value = int(get(tx, "counter") or 0)
        tx.execute("UPDATE meta SET value = ? WHERE name = ?", (str(value + 1), "counter"))

    await asyncio.gather(*(store.run(add) for _ in range(12)))
    assert await store.read(lambda tx: get(tx, "counter")) == "12"


async def test_a_newer_database_is_refused(config: NameNodeConfig) -> None:
    store = await open_store(config, SystemClock())
    await store.run(
        lambda tx: tx.execute("UPDATE meta SET value = '999' WHERE name = 'format_version'")
    )
    await store.close()
    with pytest.raises(StoreTooNew, match="999"):
        await open_store(config, SystemClock())


async def test_a_second_namenode_on_one_sqlite_file_is_refused(tmp_path: Path) -> None:
    config = NameNodeConfig(dir=str(tmp_path))
    store = await open_store(config, SystemClock())
    try:
        with pytest.raises(StoreError, match="in use"):
            await open_store(config, SystemClock())
    finally:
        await store.close()


async def test_a_damaged_sqlite_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "namespace.db").write_bytes(b"this is no database" * 500)
    with pytest.raises(StoreDamaged):
        await open_store(NameNodeConfig(dir=str(tmp_path)), SystemClock())


# --- the change stream -------------------------------------------------------------------------


async def seal(store: MetadataStore) -> None:
    """On PostgreSQL a job seals; SQLite's writer has done so."""
    while await store.run(events.seal_pending):
        pass


async def emit(store: MetadataStore, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        event = NewEvent(number, "mkdir", f"/d{number}", "u", INodeId(number))
        await store.run(lambda tx, e=event: tx.emit(e))  # type: ignore[misc]
    await seal(store)


async def test_events_are_dense_chained_and_resumable(store: MetadataStore) -> None:
    await emit(store, 25)
    first = await store.read(lambda tx: events.read_events(tx, 0, 10))
    assert [event.offset for event in first.events] == list(range(1, 11))
    rest = await store.read(lambda tx: events.read_events(tx, first.next_after, 100))
    assert [event.path for event in rest.events] == [f"/d{n}" for n in range(10, 25)]
    assert rest.last_offset == rest.next_after == 25
    assert await store.read(lambda tx: events.verify_chain(tx)) == 25


async def test_the_chain_goes_on_after_a_restart(config: NameNodeConfig) -> None:
    for start in (0, 5):
        store = await open_store(config, SystemClock())
        await emit(store, 5, start)
        assert await store.read(lambda tx: events.verify_chain(tx)) == start + 5
        await store.close()


async def test_changed_history_is_found(store: MetadataStore) -> None:
    await emit(store, 10)
    await store.run(
        lambda tx: tx.execute("UPDATE events SET path = '/forged' WHERE event_offset = 4")
    )
    with pytest.raises(StoreDamaged, match="event 4"):
        await store.read(lambda tx: events.verify_chain(tx))
    await store.run(lambda tx: tx.execute("DELETE FROM events WHERE event_offset = 4"))
    with pytest.raises(StoreDamaged, match="missing"):
        await store.read(lambda tx: events.verify_chain(tx))


async def test_trimmed_events_are_an_error_and_the_rest_verifies(store: MetadataStore) -> None:
    await emit(store, 20)
    assert await store.run(lambda tx: events.trim_events(tx, 8)) == 12
    with pytest.raises(EventsGone, match="no longer kept"):
        await store.read(lambda tx: events.read_events(tx, 5, 10))
    assert len((await store.read(lambda tx: events.read_events(tx, 12, 10))).events) == 8
    assert await store.read(lambda tx: events.verify_chain(tx)) == 20


async def test_events_are_filtered_by_path(store: MetadataStore) -> None:
    for path, goal in (("/a/x", ""), ("/ab", ""), ("/b", "/a/y"), ("/a", "")):
        event = NewEvent(1, "rename", path, "u", INodeId(1), goal)
        await store.run(lambda tx, e=event: tx.emit(e))  # type: ignore[misc]
    await seal(store)
    page = await store.read(lambda tx: events.read_events(tx, 0, 10, "/a"))
    assert [event.path for event in page.events] == ["/a/x", "/b", "/a"]
    assert page.next_after == 4

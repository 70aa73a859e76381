"""The change stream: dense, ordered, readable in pages, and no past event can be changed unnoticed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinfs.common.errors import EventsGone, StoreDamaged
from twinfs.common.model import INodeId
from twinfs.namenode.events import (
    GENESIS,
    INSERT,
    INSERT_PENDING,
    Sealer,
    read_events,
    seal_pending,
    trim_events,
    verify_chain,
)
from twinfs.namenode.store.base import NewEvent, Row, Transaction

from .memory import memory_transaction


def event(number: int, path: str = "", kind: str = "create", destination: str = "") -> NewEvent:
    return NewEvent(
        time_ms=1_000 + number,
        kind=kind,
        path=path or f"/f{number}",
        user="ann",
        inode_id=INodeId(number),
        destination=destination,
        detail="{}",
    )


@pytest.fixture
def tx() -> Iterator[Transaction]:
    with memory_transaction() as found:
        yield found


def fill(tx: Transaction, count: int) -> None:
    tx.many(INSERT, Sealer.load(tx).seal([event(number) for number in range(1, count + 1)]))


def rows(tx: Transaction) -> list[Row]:
    return tx.all("SELECT event_offset, path, hash FROM events ORDER BY event_offset")


# --- sealing ---


def test_offsets_are_dense_from_one(tx: Transaction) -> None:
    fill(tx, 5)
    assert [row[0] for row in rows(tx)] == [1, 2, 3, 4, 5]


@given(st.integers(0, 6), st.integers(0, 6))
def test_the_hashes_do_not_depend_on_how_events_are_grouped(first: int, second: int) -> None:
    events = [event(number) for number in range(first + second)]
    together, parts = Sealer(0, GENESIS), Sealer(0, GENESIS)
    assert together.seal(events) == parts.seal(events[:first]) + parts.seal(events[first:])
    assert (together.offset, together.last_hash) == (parts.offset, parts.last_hash)


def test_a_restart_goes_on_with_the_chain(tx: Transaction) -> None:
    fill(tx, 3)
    sealer = Sealer.load(tx)
    assert sealer.offset == 3
    tx.many(INSERT, sealer.seal([event(4)]))
    assert verify_chain(tx) == 4


def test_every_field_is_part_of_the_hash() -> None:
    plain = event(1)
    changes: dict[str, object] = {
        "time_ms": 5,
        "kind": "unlink",
        "path": "/other",
        "user": "bob",
        "inode_id": 9,
        "destination": "/x",
        "detail": "{1}",
    }
    assert set(changes) == set(NewEvent._fields)
    hashes = {Sealer(0, GENESIS).seal([plain])[0][-1]}
    for name, value in changes.items():
        changed = plain._replace(**{name: value})
        hashes.add(Sealer(0, GENESIS).seal([changed])[0][-1])
    hashes.add(Sealer(1, GENESIS).seal([plain])[0][-1])
    hashes.add(Sealer(0, bytes(31) + b"x").seal([plain])[0][-1])
    assert len(hashes) == len(changes) + 3


def test_pending_events_are_sealed_in_their_order_and_in_portions(tx: Transaction) -> None:
    """What several writers committed becomes one chain, the same as if it had been sealed at once."""
    pending = [
        (number, e.time_ms, e.kind, e.path, e.destination, e.user, e.inode_id, e.detail)
        for number, e in ((n, event(n)) for n in (3, 1, 2, 5, 4))
    ]
    tx.many(INSERT_PENDING, pending)
    assert [seal_pending(tx, limit=2) for _ in range(4)] == [2, 2, 1, 0]
    assert tx.one("SELECT COUNT(*) FROM pending_events") == (0,)
    whole = Sealer(0, GENESIS).seal([event(number) for number in range(1, 6)])
    assert rows(tx) == [(row[0], row[3], row[-1]) for row in whole]


# --- verifying ---


def test_an_untouched_stream_is_right_whole_and_in_pages(tx: Transaction) -> None:
    assert verify_chain(tx) == 0
    fill(tx, 7)
    assert verify_chain(tx) == 7
    after, seen = 0, []
    while after < 7:
        after = verify_chain(tx, after, limit=3)
        seen.append(after)
    assert seen == [3, 6, 7]


@pytest.mark.parametrize(
    "change",
    [
        "time_ms = time_ms + 1",
        "kind = 'unlink'",
        "path = '/other'",
        "destination = '/other'",
        "user_name = 'mallory'",
        "inode_id = 77",
        "detail = ''",
        "hash = zeroblob(32)",
    ],
)
@pytest.mark.parametrize("offset", [1, 4, 7])
def test_an_edited_event_is_found(tx: Transaction, change: str, offset: int) -> None:
    fill(tx, 7)
    tx.execute(f"UPDATE events SET {change} WHERE event_offset = ?", (offset,))
    with pytest.raises(StoreDamaged, match=f"event {offset} "):
        verify_chain(tx)


@pytest.mark.parametrize("offset", [2, 4, 6])
def test_a_removed_event_is_found(tx: Transaction, offset: int) -> None:
    fill(tx, 7)
    tx.execute("DELETE FROM events WHERE event_offset = ?", (offset,))
    with pytest.raises(StoreDamaged, match=f"event {offset} is missing"):
        verify_chain(tx)


def test_a_removed_event_is_found_where_a_page_begins(tx: Transaction) -> None:
    fill(tx, 7)
    tx.execute("DELETE FROM events WHERE event_offset = 4")
    with pytest.raises(StoreDamaged, match="event 4 is missing"):
        verify_chain(tx, after=4)


def test_a_removed_event_is_found_though_the_gap_was_closed(tx: Transaction) -> None:
    fill(tx, 7)
    tx.execute("DELETE FROM events WHERE event_offset = 4")
    for offset in (5, 6, 7):
        tx.execute(
            "UPDATE events SET event_offset = ? WHERE event_offset = ?", (offset - 1, offset)
        )
    with pytest.raises(StoreDamaged, match="event 4 "):
        verify_chain(tx)


def test_two_events_that_changed_places_are_found(tx: Transaction) -> None:
    fill(tx, 7)
    for old, new in ((3, 100), (4, 3), (100, 4)):
        tx.execute("UPDATE events SET event_offset = ? WHERE event_offset = ?", (new, old))
    with pytest.raises(StoreDamaged, match="event 3 "):
        verify_chain(tx)


def test_an_event_put_in_between_is_found(tx: Transaction) -> None:
    """Even with a right hash of its own: the one after it does not follow from it."""
    fill(tx, 7)
    for offset in (7, 6, 5, 4):
        tx.execute(
            "UPDATE events SET event_offset = ? WHERE event_offset = ?", (offset + 1, offset)
        )
    tx.many(INSERT, Sealer(3, rows(tx)[2][2]).seal([event(99)]))
    assert verify_chain(tx, limit=4) == 4
    with pytest.raises(StoreDamaged, match="event 5 "):
        verify_chain(tx)


def test_a_trimmed_stream_is_verified_from_its_first_event(tx: Transaction) -> None:
    fill(tx, 9)
    assert trim_events(tx, keep=4) == 5
    assert verify_chain(tx) == 9
    tx.execute("UPDATE events SET path = '/other' WHERE event_offset = 8")
    with pytest.raises(StoreDamaged, match="event 8 "):
        verify_chain(tx)


# --- trimming ---


def test_trimming_drops_the_oldest_in_portions(tx: Transaction) -> None:
    assert trim_events(tx, keep=3) == 0
    fill(tx, 9)
    assert trim_events(tx, keep=9) == 0
    assert [trim_events(tx, keep=3, limit=4) for _ in range(3)] == [4, 2, 0]
    assert [row[0] for row in rows(tx)] == [7, 8, 9]


# --- reading ---


def test_pages_join_to_the_whole_stream(tx: Transaction) -> None:
    fill(tx, 7)
    after, seen = 0, []
    while True:
        page = read_events(tx, after, 3)
        assert page.last_offset == 7
        if not page.events:
            break
        seen += [(e.offset, e.path, e.user, e.inode_id) for e in page.events]
        after = page.next_after
    assert seen == [(n, f"/f{n}", "ann", n) for n in range(1, 8)]
    assert after == 7


def test_a_reader_ahead_of_the_stream_stays_where_it_is(tx: Transaction) -> None:
    assert read_events(tx, 0, 5).next_after == 0
    fill(tx, 2)
    page = read_events(tx, 2, 5)
    assert (page.events, page.next_after, page.last_offset) == ([], 2, 2)


def test_a_reader_of_one_folder_sees_moves_in_and_out_and_advances_past_the_rest(
    tx: Transaction,
) -> None:
    events = [
        event(1, "/a"),
        event(2, "/a/x"),
        event(3, "/ab"),
        event(4, "/b/y", "rename", "/a/y"),
        event(5, "/a/y", "rename", "/b/y"),
        event(6, "/b"),
    ]
    tx.many(INSERT, Sealer(0, GENESIS).seal(events))
    for prefix in ("/a", "/a/"):
        page = read_events(tx, 0, 10, prefix)
        assert [e.offset for e in page.events] == [1, 2, 4, 5]
        assert page.next_after == 6
    page = read_events(tx, 2, 1, "/a")
    assert (page.events, page.next_after) == ([], 3)
    assert len(read_events(tx, 0, 10, "/").events) == 6


def test_a_reader_that_missed_trimmed_events_is_told_so(tx: Transaction) -> None:
    """From the very beginning one reads what there is; in the middle a gap must not pass unnoticed."""
    fill(tx, 9)
    trim_events(tx, keep=4)
    assert [e.offset for e in read_events(tx, 0, 2).events] == [6, 7]
    assert [e.offset for e in read_events(tx, 5, 1).events] == [6]
    with pytest.raises(EventsGone, match="go on after 5"):
        read_events(tx, 4, 1)

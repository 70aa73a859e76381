"""The change stream: sealed events have dense offsets and a hash that chains each to the one before (`common/chain.py`)."""

from __future__ import annotations

from collections.abc import Iterable

from ..common.chain import GENESIS, chain
from ..common.errors import EventsGone, StoreDamaged
from ..common.messages import EventPage
from ..common.model import Event, INodeId
from .store.base import NewEvent, Row, Transaction

COLUMNS = "event_offset, time_ms, kind, path, destination, user_name, inode_id, detail, hash"
INSERT = f"INSERT INTO events ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
INSERT_PENDING = (
    "INSERT INTO pending_events (event_id, time_ms, kind, path, destination, user_name, inode_id, detail)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


class Sealer:
    """Gives events their offsets and hashes: the state of the chain's end."""

    def __init__(self, offset: int, last_hash: bytes) -> None:
        self.offset = offset
        self.last_hash = last_hash

    @classmethod
    def load(cls, tx: Transaction) -> Sealer:
        row = tx.one("SELECT event_offset, hash FROM events ORDER BY event_offset DESC LIMIT 1")
        return cls(0, GENESIS) if row is None else cls(int(row[0]), bytes(row[1]))

    def seal(self, events: Iterable[NewEvent]) -> list[Row]:
        """Rows for `INSERT`, in order; moves the chain's end."""
        rows: list[Row] = []
        offset, last = self.offset, self.last_hash
        for event in events:
            offset += 1
            fields = (
                offset,
                event.time_ms,
                event.kind,
                event.path,
                event.destination,
                event.user,
                event.inode_id,
                event.detail,
            )
            last = chain(last, fields)
            rows.append((*fields, last))
        self.offset, self.last_hash = offset, last
        return rows


def seal_pending(tx: Transaction, limit: int = 2_000) -> int:
    """Move up to *limit* committed events into the sealed stream. For the one holder of the job's lease."""
    rows = tx.all(
        "SELECT event_id, time_ms, kind, path, destination, user_name, inode_id, detail"
        " FROM pending_events ORDER BY event_id LIMIT ?",
        (limit,),
    )
    if rows:
        sealer = Sealer.load(tx)
        events = [
            NewEvent(
                time_ms=row[1],
                kind=row[2],
                path=row[3],
                destination=row[4],
                user=row[5],
                inode_id=INodeId(row[6]),
                detail=row[7],
            )
            for row in rows
        ]
        tx.many(INSERT, sealer.seal(events))
        tx.many("DELETE FROM pending_events WHERE event_id = ?", [(row[0],) for row in rows])
    return len(rows)


def event_of(row: Row) -> Event:
    """What a row of `COLUMNS` says."""
    return Event(
        offset=row[0],
        time_ms=row[1],
        kind=row[2],
        path=row[3],
        destination=row[4],
        user=row[5],
        inode_id=INodeId(row[6]),
        detail=row[7],
        hash=bytes(row[8]),
    )


def ends(tx: Transaction) -> tuple[int, int]:
    """The first and the last offset there are; (1, 0) when there is none."""
    first = tx.one("SELECT MIN(event_offset) FROM events")
    last = tx.one("SELECT MAX(event_offset) FROM events")
    return (
        first[0] if first is not None and first[0] is not None else 1,
        last[0] if last is not None and last[0] is not None else 0,
    )


def read_range(tx: Transaction, after: int, upto: int) -> list[Event]:
    """Events after offset *after*, up to *upto*."""
    rows = tx.all(
        f"SELECT {COLUMNS} FROM events WHERE event_offset > ? AND event_offset <= ?"
        " ORDER BY event_offset",
        (after, upto),
    )
    return [event_of(row) for row in rows]


def is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else prefix + "/")


def read_events(tx: Transaction, after: int, limit: int, path_prefix: str = "") -> EventPage:
    """A page of sealed events after offset *after*, of those about *path_prefix* or below it.

    EventsGone if events right after *after* have been trimmed away.
    """
    first, last = ends(tx)
    if after + 1 < first and after != 0:
        raise EventsGone(f"events up to {first - 1} are no longer kept; go on after {first - 1}")
    rows = tx.all(
        f"SELECT {COLUMNS} FROM events WHERE event_offset > ? ORDER BY event_offset LIMIT ?",
        (after, limit),
    )
    events = [event_of(row) for row in rows]
    next_after = events[-1].offset if events else max(after, last if after > last else after)
    if path_prefix not in ("", "/"):
        prefix = path_prefix.rstrip("/")
        events = [
            event
            for event in events
            if is_below(event.path, prefix)
            or (event.destination and is_below(event.destination, prefix))
        ]
    return EventPage(events=events, last_offset=last, next_after=next_after)


def verify_chain(tx: Transaction, after: int = 0, limit: int = 10_000) -> int:
    """Recompute the hashes of up to *limit* events after offset *after*; the last offset checked.

    Raises StoreDamaged at the first event that does not follow from the one before it.
    """
    row = tx.one("SELECT hash FROM events WHERE event_offset = ?", (after,))
    previous = GENESIS if row is None else bytes(row[0])
    rows = tx.all(
        f"SELECT {COLUMNS} FROM events WHERE event_offset > ? ORDER BY event_offset LIMIT ?",
        (after, limit),
    )
    if row is None and tx.one("SELECT 1 FROM events WHERE event_offset < ? LIMIT 1", (after,)):
        raise StoreDamaged(f"event {after} is missing from the change stream")
    if rows and row is None and rows[0][0] != 1:
        # Older events were trimmed: the first one kept is the checkpoint.
        after, previous = rows[0][0], bytes(rows[0][8])
        rows = rows[1:]
    for found in rows:
        if found[0] != after + 1:
            raise StoreDamaged(f"event {after + 1} is missing from the change stream")
        if chain(previous, tuple(found[:8])) != bytes(found[8]):
            raise StoreDamaged(f"event {found[0]} does not match its hash: history was changed")
        after, previous = found[0], bytes(found[8])
    return after


def trim_events(tx: Transaction, keep: int, limit: int = 5_000) -> int:
    """Drop the oldest events beyond the newest *keep*, at most *limit* of them."""
    ends = tx.one("SELECT MIN(event_offset), MAX(event_offset) FROM events")
    if ends is None or ends[0] is None or ends[1] - ends[0] + 1 <= keep:
        return 0
    upto = min(ends[1] - keep, ends[0] + limit - 1)
    return tx.execute("DELETE FROM events WHERE event_offset <= ?", (upto,))

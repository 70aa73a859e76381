"""Consumer groups: how far each has come. Names with a colon belong to webhooks and sinks."""

from __future__ import annotations

from ..common.errors import InvalidRequest, PermissionDenied
from ..common.follow import MAX_GROUPS, CommitOffset, DeleteGroup
from . import events
from .permissions import Caller
from .store.base import Transaction


def _admit(caller: Caller, restricted: bool) -> None:
    if restricted and not caller.superuser:
        raise PermissionDenied("following events is for superusers here (event_readers)")


def committed_offset(tx: Transaction, name: str) -> int:
    """0 for a group that has committed nothing yet."""
    row = tx.one("SELECT event_offset FROM event_groups WHERE name = ?", (name,))
    return 0 if row is None else int(row[0])


def list_groups(tx: Transaction) -> list[tuple[str, int, int]]:
    """(name, offset, when it was committed) of every group."""
    rows = tx.all("SELECT name, event_offset, committed_ms FROM event_groups ORDER BY name")
    return [(row[0], row[1], row[2]) for row in rows]


def set_offset(tx: Transaction, name: str, offset: int, now_ms: int) -> None:
    """For a name that has been checked."""
    tx.execute(
        "INSERT INTO event_groups (name, event_offset, committed_ms) VALUES (?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET event_offset = excluded.event_offset,"
        " committed_ms = excluded.committed_ms",
        (name, offset, now_ms),
    )


def commit_offset(
    tx: Transaction, caller: Caller, request: CommitOffset, *, now_ms: int, restricted: bool = False
) -> None:
    """*restricted*: only superusers follow, and so only they have groups."""
    _admit(caller, restricted)
    _, last = events.ends(tx)
    if request.offset > last:
        raise InvalidRequest(f"there is no event {request.offset} yet: the last one is {last}")
    if tx.one("SELECT 1 FROM event_groups WHERE name = ?", (request.group,)) is None:
        row = tx.one("SELECT COUNT(*) FROM event_groups")
        if row is not None and row[0] >= MAX_GROUPS:
            raise InvalidRequest(f"there are {MAX_GROUPS} consumer groups already: delete some")
    set_offset(tx, request.group, request.offset, now_ms)


def delete_group(
    tx: Transaction, caller: Caller, request: DeleteGroup, *, now_ms: int, restricted: bool = False
) -> None:
    _admit(caller, restricted)
    if tx.one("SELECT 1 FROM event_groups WHERE name = ?", (request.group,)) is None:
        raise InvalidRequest(f"there is no consumer group {request.group!r}")
    tx.execute("DELETE FROM event_groups WHERE name = ?", (request.group,))

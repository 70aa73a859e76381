"""Consumer groups: how far each has come, and whose they are. Names with a colon belong to webhooks and sinks."""

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


def list_groups(tx: Transaction) -> list[tuple[str, int, int, str]]:
    """(name, offset, when it was committed, owner) of every group."""
    rows = tx.all("SELECT name, event_offset, committed_ms, owner FROM event_groups ORDER BY name")
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def _is_there(tx: Transaction, caller: Caller, name: str) -> bool:
    """Whether there is such a group. PermissionDenied where it is somebody else's: who moves it makes its owner miss events."""
    row = tx.one("SELECT owner FROM event_groups WHERE name = ?", (name,))
    if row is None:
        return False
    if row[0] not in ("", caller.user) and not caller.superuser:
        raise PermissionDenied(f"the consumer group {name!r} belongs to {row[0]}")
    return True


def set_offset(tx: Transaction, name: str, offset: int, now_ms: int, owner: str = "") -> None:
    """For a name that has been checked. *owner*: of a group that has none yet."""
    tx.execute(
        "INSERT INTO event_groups (name, event_offset, committed_ms, owner) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET event_offset = excluded.event_offset,"
        " committed_ms = excluded.committed_ms,"
        " owner = CASE event_groups.owner WHEN '' THEN excluded.owner ELSE event_groups.owner END",
        (name, offset, now_ms, owner),
    )


def commit_offset(
    tx: Transaction, caller: Caller, request: CommitOffset, *, now_ms: int, restricted: bool = False
) -> None:
    """*restricted*: only superusers follow, and so only they have groups. A group is its first committer's."""
    _admit(caller, restricted)
    _, last = events.ends(tx)
    if request.offset > last:
        raise InvalidRequest(f"there is no event {request.offset} yet: the last one is {last}")
    if not _is_there(tx, caller, request.group):
        row = tx.one("SELECT COUNT(*) FROM event_groups")
        if row is not None and row[0] >= MAX_GROUPS:
            raise InvalidRequest(f"there are {MAX_GROUPS} consumer groups already: delete some")
    set_offset(tx, request.group, request.offset, now_ms, caller.user)


def delete_group(
    tx: Transaction, caller: Caller, request: DeleteGroup, *, now_ms: int, restricted: bool = False
) -> None:
    _admit(caller, restricted)
    if not _is_there(tx, caller, request.group):
        raise InvalidRequest(f"there is no consumer group {request.group!r}")
    tx.execute("DELETE FROM event_groups WHERE name = ?", (request.group,))

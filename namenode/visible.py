"""Which events a caller gets to see. The stream tells of everybody's files, so it follows the permissions on their directories.

Superusers see everything. Others see (as `event_readers` says) nothing, everything, or what a listing would show them *now*: an event
about a path is theirs if they may list the directory that the path is in, or if they did it themselves. Of a rename or copy
that leads from or to where they may not look, they see the end that they may see. What was in a directory that is gone by now
can't be judged, and is not shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from ..common.codec import to_json
from ..common.errors import DfsError, PermissionDenied
from ..common.model import Event
from ..common.runtime import Clock
from .namespace.walk import walk
from .permissions import EXECUTE, READ, Caller, allowed
from .store.base import MetadataStore, Transaction
from .tail import Entry

KEPT_S: Final = (
    5.0  # how long an answer holds, and so how long a right outlives its being taken away
)
MAX_KEPT: Final = 20_000


class Visibility:
    """Judges events for callers, a page at a time."""

    def __init__(self, store: MetadataStore, clock: Clock, readers: str) -> None:
        """*readers*: as `event_readers` of the configuration."""
        self._store = store
        self._clock = clock
        self._readers = readers
        self._known: dict[tuple[str, frozenset[str], str], tuple[float, bool]] = {}

    def admit(self, caller: Caller) -> None:
        """PermissionDenied if *caller* may not follow at all."""
        if self._readers == "superusers" and not caller.superuser:
            raise PermissionDenied("following events is for superusers here (event_readers)")

    def sees_all(self, caller: Caller) -> bool:
        return caller.superuser or self._readers == "everybody"

    async def choose(self, caller: Caller, entries: Sequence[Entry]) -> list[Entry]:
        """Of *entries* those that *caller* may see, and of these what he may see."""
        if self.sees_all(caller):
            return list(entries)
        wanted: set[str] = set()
        for event, _ in entries:
            if event.user != caller.user:
                wanted.update(_directories(event))
        listable = await self._listable(caller, wanted)
        found = []
        for entry in entries:
            seen = entry if entry.event.user == caller.user else _shown(entry, listable)
            if seen is not None:
                found.append(seen)
        return found

    async def _listable(self, caller: Caller, directories: Iterable[str]) -> set[str]:
        """Those of *directories* that *caller* may list."""
        now_s = self._clock.monotonic_s()
        user, groups, known = caller.user, caller.groups, self._known
        good: set[str] = set()
        unknown: list[str] = []
        for directory in directories:
            until_s, may = known.get((user, groups, directory), (0.0, False))
            if until_s <= now_s:
                unknown.append(directory)
            elif may:
                good.add(directory)
        if unknown:
            answers = await self._store.read(
                lambda tx: [may_list(tx, caller, directory) for directory in unknown]
            )
            if len(known) + len(unknown) > MAX_KEPT:
                known.clear()
            for directory, may in zip(unknown, answers, strict=True):
                known[(user, groups, directory)] = (now_s + KEPT_S, may)
                if may:
                    good.add(directory)
        return good


def directory_of(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _directories(event: Event) -> list[str]:
    return [directory_of(path) for path in (event.path, event.destination) if path]


def may_list(tx: Transaction, caller: Caller, directory: str) -> bool:
    """Whether a listing of *directory* would be answered."""
    try:
        node = walk(tx, caller, directory).node
    except DfsError:
        return False
    return node is not None and node.is_directory and allowed(caller, node, READ | EXECUTE)


def _shown(entry: Entry, listable: set[str]) -> Entry | None:
    event = entry.event
    ends = [path and directory_of(path) in listable for path in (event.path, event.destination)]
    if all(ends) or (ends[0] and not event.destination):
        return entry
    if not any(ends):
        return None
    # One end of two. The hash can't be checked without the other, and would tell whether a guess at it is right.
    half = msgspec.structs.replace(
        event,
        path=event.path if ends[0] else "",
        destination=event.destination if ends[1] else "",
        detail="",
        hash=b"",
    )
    return Entry(half, to_json(half))

"""The end of the change stream, for all who follow it: read once, encoded once, handed to everybody.

Whoever follows asks for events after an offset and waits when there are none yet. While somebody does, a store that can tell hands
over what it has just made durable, so that those at the end never touch the database: reading there would take the
interpreter's lock from the writer at every row. Full chunks never change, so a few of them are kept; a follower that is far
behind reads from the database and takes nothing from the others.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

from ..common.codec import to_json
from ..common.errors import DfsError, EventsGone
from ..common.model import Event
from ..common.runtime import elapsed_timer, to_next_tick_s
from . import events
from .store.base import MetadataStore, Row, Transaction

log = logging.getLogger(__name__)
CHUNK: Final = 256
KEPT_CHUNKS: Final = 64
KEPT_PAGES: Final = 16
MOST: Final = 1_024  # events that are read at a time
POLL_S: Final = 0.25  # where the store can't tell of new events (several NameNodes on one database)
IDLE_POLL_S: Final = 2.0


class Entry(NamedTuple):
    """An event, and the same as JSON."""

    event: Event
    encoded: bytes


def matches(event: Event, prefix: str, kinds: Sequence[str]) -> bool:
    """Whether *event* is about *prefix* (no slash at its end) or below it, and of one of *kinds* (none: of any)."""
    if kinds and event.kind not in kinds:
        return False
    return (
        not prefix
        or events.is_below(event.path, prefix)
        or bool(event.destination and events.is_below(event.destination, prefix))
    )


def page_of(entries: Sequence[Entry], last: int, next_after: int) -> bytes:
    """An `EventPage` as JSON, of what is encoded already."""
    return _framed(b",".join([entry.encoded for entry in entries]), last, next_after)


def _framed(body: bytes, last: int, next_after: int) -> bytes:
    return b'{"events":[%b],"last_offset":%d,"next_after":%d}' % (body, last, next_after)


def entry_of(row: Row) -> Entry:
    """Of a row of `events.COLUMNS`."""
    event = events.event_of(row)
    return Entry(event, to_json(event))


class Tail:
    """Reads for all followers of this process."""

    def __init__(self, store: MetadataStore) -> None:
        self._store = store
        self._chunks: collections.OrderedDict[int, list[Entry]] = collections.OrderedDict()
        self._growing: tuple[int, list[Entry]] = (-1, [])  # the last chunk, as far as it was read
        self._pages: dict[tuple[int, int], bytes] = {}  # the last that were put together
        self._reading: dict[tuple[int, int], asyncio.Future[list[Entry]]] = {}
        self._news = asyncio.Event()
        self._waiting = 0
        self._wanted = False  # somebody has read lately
        self._exact = (
            False  # whoever has the answer to a mutation finds its event at or below `last`
        )
        self.last = 0  # the newest offset that has been heard of
        self.first = 1  # the oldest that is kept, as far as known
        self.followers = 0
        self.reads = 0  # pages that were asked for, by all
        self.loads = 0  # chunks that came from the database for them

    # --- what there is ---

    def heard(self, offset: int) -> None:
        """There are durable events up to *offset*."""
        if offset > self.last:
            self.last = offset
            news, self._news = self._news, asyncio.Event()
            news.set()

    def sealed(self, rows: Sequence[Row]) -> None:
        """*rows* of events follow on what has been told before, and are durable."""
        if self._wanted or self._waiting or self.followers:
            self._grow(rows)
        self.heard(rows[-1][0])

    def _grow(self, rows: Sequence[Row]) -> None:
        """Keep *rows*, if they follow on what is at hand; else from where a chunk begins."""
        number, known = self._growing
        first = rows[0][0]
        if not known or known[-1].event.offset + 1 != first:
            skipped = (1 - first) % CHUNK
            if skipped >= len(rows):
                return
            rows = rows[skipped:]
            number, known = (first + skipped) // CHUNK, []
        entries = [entry_of(row) for row in rows]
        while entries:
            room = CHUNK - len(known)
            # Another list: somebody may be adding what he reads to the old one.
            known = known + entries[:room]
            entries = entries[room:]
            if len(known) == CHUNK:
                self._keep(number, known)
                number, known = number + 1, []
        self._growing = (number, known)

    def _keep(self, number: int, chunk: list[Entry]) -> None:
        self._chunks[number] = chunk
        while len(self._chunks) > KEPT_CHUNKS:
            self._chunks.popitem(last=False)

    async def run(self, *, told: bool) -> None:
        """Keep `last` up to date where nobody tells (*told* False), and `first`; until cancelled."""
        while True:
            self._wanted = False
            try:
                first, last = await self._store.read(events.ends)
                self.first = first
                for number in [n for n in self._chunks if (n + 1) * CHUNK < first]:
                    del self._chunks[number]
                self.heard(last)
                self._exact = told  # the store tells before it answers
            except DfsError as error:
                log.warning("the end of the change stream can't be read: %s", error)
            await asyncio.sleep(
                POLL_S
                if self._waiting and not told
                else to_next_tick_s(elapsed_timer(), IDLE_POLL_S)
            )

    async def wait(self, after: int, timeout_s: float) -> bool:
        """Wait for events after *after*; False when none came in time."""
        if self.last > after:
            return True
        self._waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                while self.last <= after:
                    await self._news.wait()
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1
        return True

    # --- reading ---

    async def read(self, after: int, limit: int = MOST) -> list[Entry]:
        """Events after *after*, oldest first: at most *limit*, perhaps fewer although there are more.

        EventsGone if the first of them is no longer kept.
        """
        self._wanted = True
        self.reads += 1
        if after + 1 < self.first:
            raise gone(self.first)  # though a copy may still be at hand: retention has decided
        if self._exact and after >= self.last:
            return []
        number = after // CHUNK
        chunk = self._at_hand(number)
        if not chunk or chunk[-1].event.offset <= after:
            chunk = await self._load(number, self.last)
        # Offsets are dense, so that an event's place tells where the others are.
        found = chunk[max(0, after + 1 - chunk[0].event.offset) :] if chunk else []
        if found and found[0].event.offset != after + 1:
            raise gone(found[0].event.offset)
        while 0 < len(found) < limit and found[-1].event.offset % CHUNK == 0:
            number += 1
            more = self._at_hand(number)
            if not more:
                break
            found += more
        return found[:limit]

    def _at_hand(self, number: int) -> list[Entry] | None:
        """A chunk without reading, as far as it is known."""
        chunk = self._chunks.get(number)
        if chunk is not None:
            self._chunks.move_to_end(number)
        elif self._growing[0] == number:
            chunk = self._growing[1]
        return chunk

    async def _load(self, number: int, upto: int) -> list[Entry]:
        """One chunk from the database; those who ask at the same time share the reading."""
        key = (number, upto)
        reading = self._reading.get(key)
        if reading is None:
            reading = asyncio.ensure_future(self._read_chunk(number))
            self._reading[key] = reading
            reading.add_done_callback(lambda _: self._reading.pop(key, None))
        return await asyncio.shield(reading)

    async def _read_chunk(self, number: int) -> list[Entry]:
        self.loads += 1
        start = number * CHUNK
        # Somebody may ask for what comes after the last number there is.
        end = min(start + CHUNK, 2**63 - 1)
        # What was sealed does not change: only what has come since is read.
        known = self._growing[1] if self._growing[0] == number else []
        after = known[-1].event.offset if known else start

        def read(tx: Transaction) -> list[Entry]:
            found = events.read_range(tx, after, end)
            return [Entry(event, to_json(event)) for event in found]

        chunk = known + await self._store.read(read)
        if len(chunk) == CHUNK:
            self._keep(number, chunk)
        elif chunk and (number, len(chunk)) > (self._growing[0], len(self._growing[1])):
            # Else the store has told of more meanwhile.
            self._growing = (number, chunk)
        if chunk:
            self.heard(chunk[-1].event.offset)
        return chunk

    def page(self, entries: Sequence[Entry], last: int, next_after: int) -> bytes:
        """`page_of` events that follow on each other, unchanged: those who ask for the same share the work."""
        key = (entries[0].event.offset, entries[-1].event.offset)
        body = self._pages.get(key)
        if body is None:
            body = b",".join([entry.encoded for entry in entries])
            while len(self._pages) >= KEPT_PAGES:
                del self._pages[next(iter(self._pages))]
            self._pages[key] = body
        return _framed(body, last, next_after)

    @contextlib.contextmanager
    def following(self) -> collections.abc.Iterator[None]:
        """Counts a follower while it follows."""
        self.followers += 1
        try:
            yield
        finally:
            self.followers -= 1


def gone(first: int) -> EventsGone:
    return EventsGone(
        f"events up to {first - 1} are no longer kept; go on after {first - 1}, and look at the "
        "namespace itself for what was missed"
    )

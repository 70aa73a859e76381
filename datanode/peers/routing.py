"""The routing table and the search of Kademlia. Pure: events and times in, decisions out.

Source: Maymounkov and Mazieres, "Kademlia", 2002, with what libp2p's kad-dht made of it (k = 20, SHA-256 points).
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ...common.peering import PeerRecord, point_of_peer

BITS = 256


class Contact(NamedTuple):
    """A peer that can be asked. *point*: where it lies in the key space."""

    point: int
    record: PeerRecord

    @property
    def peer(self) -> bytes:
        return self.record.peer


def contact_of(record: PeerRecord) -> Contact:
    return Contact(int.from_bytes(point_of_peer(record.peer), "big"), record)


class _Entry:
    __slots__ = ("contact", "failures", "seen_s")

    def __init__(self, contact: Contact, seen_s: float) -> None:
        self.contact = contact
        self.seen_s = seen_s
        self.failures = 0


class RoutingTable:
    """Peers by their distance from us: at most *width* of each power of two, those that were alive longest.

    A bucket that is full keeps what it has, for who was there for long will be there for longer; peers that failed make room.
    """

    def __init__(self, me: bytes, *, width: int = 20, max_failures: int = 2) -> None:
        self.point = int.from_bytes(point_of_peer(me), "big")
        self._me = me
        self._width = width
        self._max_failures = max_failures
        self._buckets: dict[int, dict[bytes, _Entry]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __contains__(self, peer: bytes) -> bool:
        return self._entry(peer) is not None

    def _entry(self, peer: bytes) -> _Entry | None:
        point = int.from_bytes(point_of_peer(peer), "big")
        return self._buckets.get((point ^ self.point).bit_length(), {}).get(peer)

    def get(self, peer: bytes) -> Contact | None:
        entry = self._entry(peer)
        return None if entry is None else entry.contact

    def wants(self, peer: bytes) -> bool:
        """Whether a peer that proves itself would be taken in."""
        if peer == self._me:
            return False
        point = int.from_bytes(point_of_peer(peer), "big")
        bucket = self._buckets.get((point ^ self.point).bit_length(), {})
        return (
            peer in bucket
            or len(bucket) < self._width
            or any(entry.failures for entry in bucket.values())
        )

    def alive(self, contact: Contact, now_s: float) -> bool:
        """The peer answered. False if there is no room for it."""
        if contact.peer == self._me:
            return False
        number = (contact.point ^ self.point).bit_length()
        bucket = self._buckets.setdefault(number, {})
        entry = bucket.pop(contact.peer, None)
        if entry is None:
            if len(bucket) >= self._width:
                failed = next((e for e in bucket.values() if e.failures), None)
                if failed is None:
                    return False
                del bucket[failed.contact.peer]
                self._size -= 1
            entry = _Entry(contact, now_s)
            self._size += 1
        elif contact.record.sequence > entry.contact.record.sequence:
            entry.contact = contact
        entry.seen_s, entry.failures = now_s, 0
        bucket[contact.peer] = entry  # at the end: the last that was seen
        return True

    def failed(self, peer: bytes) -> bool:
        """The peer did not answer; after a few times it is dropped. True when that is now."""
        entry = self._entry(peer)
        if entry is None:
            return False
        entry.failures += 1
        if entry.failures < self._max_failures:
            return False
        self.drop(peer)
        return True

    def drop(self, peer: bytes) -> None:
        point = int.from_bytes(point_of_peer(peer), "big")
        if self._buckets.get((point ^ self.point).bit_length(), {}).pop(peer, None):
            self._size -= 1

    def nearest(self, target: int, count: int) -> list[Contact]:
        """The *count* known peers nearest to *target*, nearest first."""
        # Whole buckets in the order of their distance from the target, until there are enough: those of our own bits where
        # the target has them differ. All contacts of a bucket are nearer than those of the next.
        distance = target ^ self.point
        found: list[Contact] = []
        numbers = sorted(
            self._buckets,
            key=lambda n: _least_distance(distance, n),
        )
        for number in numbers:
            bucket = self._buckets[number]
            if not bucket:
                continue
            found += sorted(
                (entry.contact for entry in bucket.values()), key=lambda c: c.point ^ target
            )
            if len(found) >= count:
                break
        return found[:count]

    def contacts(self) -> list[Contact]:
        return [e.contact for bucket in self._buckets.values() for e in bucket.values()]

    def quiet(self, before_s: float, limit: int) -> list[Contact]:
        """Peers that were not heard of since *before_s*, those that are quiet for longest first."""
        entries = [
            e for bucket in self._buckets.values() for e in bucket.values() if e.seen_s < before_s
        ]
        entries.sort(key=lambda entry: entry.seen_s)
        return [entry.contact for entry in entries[:limit]]

    def refresh_points(self, draw: int) -> list[int]:
        """A point in each bucket that is not full, near ones last; *draw*: random bits."""
        points = []
        farthest = BITS
        deepest = min((n for n, bucket in self._buckets.items() if bucket), default=BITS)
        for number in range(farthest, max(deepest - 1, 0), -1):
            if len(self._buckets.get(number, {})) < self._width:
                low = draw & ((1 << (number - 1)) - 1)
                points.append(self.point ^ (1 << (number - 1)) ^ low)
        return points


def _least_distance(distance: int, number: int) -> int:
    """The least distance from a target (at *distance* from us) of any point in our bucket *number*."""
    if number == 0:
        return distance
    bit = 1 << (number - 1)
    # In the bucket, the bits above are ours, this one is not, and those below are free.
    return ((distance ^ bit) >> (number - 1)) << (number - 1)


class Search:
    """One iterative search for the peers nearest to a target.

    `next` says whom to ask now; `answered`, `failed` and `slow` tell what became of it. Done when the *width* nearest
    that are known all answered, or when whoever drives it has what it was after.
    """

    def __init__(
        self,
        target: int,
        seeds: Iterable[Contact],
        *,
        me: bytes,
        width: int = 20,
        parallel: int = 3,
        max_asked: int = 500,
    ) -> None:
        self.target = target
        self._me = me
        self._width = width
        self._parallel = parallel
        self._max_asked = max_asked
        self._known: set[bytes] = set()
        self._order: list[tuple[int, bytes]] = []  # not failed, by distance
        self._contacts: dict[bytes, Contact] = {}
        self._asked: set[bytes] = set()
        self._answered: set[bytes] = set()
        self._open: set[bytes] = set()  # asked, not answered, not slow
        self._slow: set[bytes] = set()
        self.messages = 0
        self.rounds = 0
        self._depth: dict[bytes, int] = {}
        self._add(seeds, 0)

    def _add(self, contacts: Iterable[Contact], depth: int) -> None:
        for contact in contacts:
            peer = contact.peer
            if peer in self._known or peer == self._me:
                continue
            self._known.add(peer)
            self._contacts[peer] = contact
            self._depth[peer] = depth
            bisect.insort(self._order, (contact.point ^ self.target, peer))

    def next(self) -> list[Contact]:
        """Whom to ask now."""
        found: list[Contact] = []
        for _, peer in self._order[: self._width]:
            if len(self._open) >= self._parallel or len(self._asked) >= self._max_asked:
                break
            if peer not in self._asked:
                self._asked.add(peer)
                self._open.add(peer)
                self.messages += 1
                found.append(self._contacts[peer])
        return found

    def answered(self, contact: Contact, nearer: Sequence[Contact]) -> None:
        peer = contact.peer
        self._open.discard(peer)
        self._slow.discard(peer)
        self._answered.add(peer)
        depth = self._depth.get(peer, 0) + 1
        self.rounds = max(self.rounds, depth)
        # A peer that names hundreds could crowd all others out of our memory.
        self._add(nearer[: self._width + 12], depth)

    def failed(self, contact: Contact) -> None:
        peer = contact.peer
        self._open.discard(peer)
        self._slow.discard(peer)
        place = bisect.bisect_left(self._order, (contact.point ^ self.target, peer))
        if place < len(self._order) and self._order[place][1] == peer:
            del self._order[place]

    def slow(self, contact: Contact) -> None:
        """It takes long: ask another one meanwhile, and take its answer if it comes."""
        if contact.peer in self._open:
            self._open.discard(contact.peer)
            self._slow.add(contact.peer)

    @property
    def done(self) -> bool:
        if self._open:
            return False
        return (
            all(
                peer in self._answered or peer in self._slow
                for _, peer in self._order[: self._width]
            )
            or len(self._asked) >= self._max_asked
        )

    def nearest(self, count: int) -> list[Contact]:
        """Those that answered, nearest first."""
        near = (peer for _, peer in self._order if peer in self._answered)
        return [self._contacts[peer] for peer, _ in zip(near, range(count), strict=False)]

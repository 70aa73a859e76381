"""Pins that peers keep together: who is alive, which pins there are, and who has to hold which. Pure.

Everybody knows all pins and all peers of the group (up to `MAX_MEMBERS`), so everybody computes the same: a pin with N
copies belongs to the N living peers with the highest scores for its CID (rendezvous hashing). When a peer goes, each of its
pins falls to the next in the order; when one comes, it takes over what it now leads, and nothing else moves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ...common.errors import InvalidRequest
from ...common.peering import MAX_MEMBERS, PeerRecord, SharedPin

MAX_PINS = 100_000
FORGET_REMOVED_MS = 7 * 24 * 3600 * 1000


def score(peer: bytes, cid: bytes) -> bytes:
    """The higher, the sooner *peer* is to hold *cid*. Depends on nothing else, so that peers need not agree on anything else."""
    return hashlib.sha256(peer + cid).digest()


def holders(peers: Iterable[bytes], cid: bytes, replicas: int) -> list[bytes]:
    """Who of *peers* is to hold it."""
    return sorted(peers, key=lambda peer: score(peer, cid), reverse=True)[:replicas]


class _Member:
    __slots__ = ("heard_s", "record")

    def __init__(self, record: PeerRecord, heard_s: float | None) -> None:
        self.record = record
        self.heard_s = heard_s


class Group:
    """What one peer knows of the group. Members count as alive by what this peer heard of them itself."""

    def __init__(self, me: PeerRecord, *, dead_after_s: float) -> None:
        self.me = me
        self._dead_after_s = dead_after_s
        self._members: dict[bytes, _Member] = {}
        self._pins: dict[tuple[bytes, bytes], SharedPin] = {}
        self._digest: bytes | None = None

    # --- members ---

    def meet(self, record: PeerRecord) -> bool:
        """Somebody names a peer; its record was checked. True if it is new here."""
        if record.peer == self.me.peer:
            return False
        known = self._members.get(record.peer)
        if known is None:
            if len(self._members) >= MAX_MEMBERS:
                return False
            self._members[record.peer] = _Member(record, None)
            return True
        if record.sequence > known.record.sequence:
            known.record = record
        return False

    def heard(self, record: PeerRecord, now_s: float) -> None:
        """The peer itself answered."""
        self.meet(record)
        member = self._members.get(record.peer)
        if member is not None:
            member.heard_s = now_s

    def alive(self, now_s: float) -> list[PeerRecord]:
        """Living peers, ourselves first."""
        return [
            self.me,
            *(
                member.record
                for member in self._members.values()
                if member.heard_s is not None and now_s - member.heard_s < self._dead_after_s
            ),
        ]

    def members(self) -> list[PeerRecord]:
        return [member.record for member in self._members.values()]

    def forget_silent(self, now_s: float, after_s: float) -> None:
        """Drop peers that were not heard of for long, so that others find room."""
        for peer in [
            peer
            for peer, member in self._members.items()
            if member.heard_s is not None and now_s - member.heard_s > after_s
        ]:
            del self._members[peer]

    # --- pins ---

    def pins(self) -> list[SharedPin]:
        """Those that hold, in a fixed order."""
        return [self._pins[key] for key in sorted(self._pins) if self._pins[key].replicas]

    def all_pins(self) -> list[SharedPin]:
        """With those that were removed: others must learn of that too."""
        return [self._pins[key] for key in sorted(self._pins)]

    def learn(self, pin: SharedPin) -> bool:
        """A pin whose signature was checked. True if it is news."""
        known = self._pins.get(pin.key)
        if known is not None and (known.changed_ms, known.signature) >= (
            pin.changed_ms,
            pin.signature,
        ):
            return False
        if known is None and len(self._pins) >= MAX_PINS:
            raise InvalidRequest(f"a group keeps at most {MAX_PINS} pins")
        self._pins[pin.key] = pin
        self._digest = None
        return True

    def forget_removed(self, now_ms: int) -> None:
        for key in [
            key
            for key, pin in self._pins.items()
            if not pin.replicas and now_ms - pin.changed_ms > FORGET_REMOVED_MS
        ]:
            del self._pins[key]
            self._digest = None

    def digest(self) -> bytes:
        """Equal where two peers know the same pins."""
        if self._digest is None:
            hasher = hashlib.sha256()
            for pin in self.all_pins():
                hasher.update(pin.signature)
            self._digest = hasher.digest()
        return self._digest

    def wanted(self, now_s: float) -> dict[bytes, int]:
        """cid -> copies, the most that anybody wants."""
        found: dict[bytes, int] = {}
        for pin in self.pins():
            found[pin.cid] = max(found.get(pin.cid, 0), pin.replicas)
        return found

    def holders_of(self, cid: bytes, replicas: int, now_s: float) -> list[bytes]:
        return holders((record.peer for record in self.alive(now_s)), cid, replicas)

    def mine(self, now_s: float) -> set[bytes]:
        """The CIDs that this peer has to hold."""
        peers = [record.peer for record in self.alive(now_s)]
        return {
            cid
            for cid, replicas in self.wanted(now_s).items()
            if self.me.peer in holders(peers, cid, replicas)
        }

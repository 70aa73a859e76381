"""What a peer keeps for others: who provides what, and records of names. In memory, bounded, each until it expires. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterable

from ...common.ipns import IpnsRecord
from ...common.peering import PeerRecord

MAX_PAIRS = 200_000
MAX_PAIRS_OF_PEER = 50_000
MAX_PROVIDERS_OF_KEY = 256
MAX_NAMES = 20_000
MAX_TTL_MS = 48 * 3600 * 1000


class ProviderStore:
    """multihash -> peers that say they have it."""

    def __init__(self) -> None:
        self._providers: dict[bytes, dict[bytes, int]] = {}  # key -> peer -> expires, wall ms
        self._keys_of: dict[bytes, set[bytes]] = {}
        self._records: dict[bytes, PeerRecord] = {}
        self._pairs = 0

    def __len__(self) -> int:
        return self._pairs

    def add(self, record: PeerRecord, keys: Iterable[bytes], expires_ms: int, now_ms: int) -> int:
        """How many of *keys* are noted; fewer than all where the store, or the peer's share of it, is full."""
        expires_ms = min(expires_ms, now_ms + MAX_TTL_MS)
        if expires_ms <= now_ms:
            return 0
        peer = record.peer
        mine = self._keys_of.setdefault(peer, set())
        self.learn(record)
        stored = 0
        for key in keys:
            holders = self._providers.setdefault(key, {})
            if peer not in holders:
                full = self._pairs >= MAX_PAIRS or len(mine) >= MAX_PAIRS_OF_PEER
                if full or len(holders) >= MAX_PROVIDERS_OF_KEY:
                    if not holders:
                        del self._providers[key]
                    continue
                self._pairs += 1
                mine.add(key)
            holders[peer] = expires_ms
            stored += 1
        if not mine:
            self.forget_peer(peer)
        return stored

    def learn(self, record: PeerRecord) -> None:
        """A provider's newer addresses."""
        if record.peer in self._keys_of:
            known = self._records.get(record.peer)
            if known is None or record.sequence > known.sequence:
                self._records[record.peer] = record

    def withdraw(self, peer: bytes, keys: Iterable[bytes]) -> None:
        for key in keys:
            holders = self._providers.get(key)
            if holders is not None and holders.pop(peer, None) is not None:
                self._pairs -= 1
                self._keys_of[peer].discard(key)
                if not holders:
                    del self._providers[key]

    def of(self, key: bytes, now_ms: int, limit: int, rng: random.Random) -> list[PeerRecord]:
        """Providers of a key; by chance where there are more than *limit*, so that none is asked by all."""
        holders = self._providers.get(key, {})
        peers = sorted(peer for peer, expires_ms in holders.items() if expires_ms > now_ms)
        if len(peers) > limit:
            peers = rng.sample(peers, limit)
        return [self._records[peer] for peer in peers]

    def peers(self) -> list[PeerRecord]:
        """Everybody who provides something."""
        return list(self._records.values())

    def forget_peer(self, peer: bytes) -> None:
        """The peer is gone."""
        self.withdraw(peer, list(self._keys_of.get(peer, ())))
        self._keys_of.pop(peer, None)
        self._records.pop(peer, None)

    def expire(self, now_ms: int) -> int:
        """Drop what is over; how many pairs."""
        before = self._pairs
        for key in list(self._providers):
            over = [p for p, until_ms in self._providers[key].items() if until_ms <= now_ms]
            for peer in over:
                self.withdraw(peer, [key])
        for peer in [peer for peer, keys in self._keys_of.items() if not keys]:
            self.forget_peer(peer)
        return before - self._pairs


class NameStore:
    """Name -> its record of the highest rank."""

    def __init__(self) -> None:
        self._records: dict[bytes, IpnsRecord] = {}

    def __len__(self) -> int:
        return len(self._records)

    def offer(self, record: IpnsRecord, now_ms: int) -> bool:
        """Whether it is the one that counts now."""
        known = self._records.get(record.peer_id)
        if record.expires_ms <= now_ms:
            return False
        if known is not None and known.rank >= record.rank:
            return known.rank == record.rank
        if known is None and len(self._records) >= MAX_NAMES:
            return False
        self._records[record.peer_id] = record
        return True

    def get(self, name: bytes, now_ms: int) -> IpnsRecord | None:
        found = self._records.get(name)
        return None if found is None or found.expires_ms <= now_ms else found

    def all(self, now_ms: int) -> list[IpnsRecord]:
        """Those that hold; the others are dropped."""
        for name in [n for n, r in self._records.items() if r.expires_ms <= now_ms]:
            del self._records[name]
        return list(self._records.values())

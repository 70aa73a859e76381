"""Which peer to ask for the next block: by measured speed, past failures, and what it is busy with. Pure: time comes in."""

from __future__ import annotations

import random
from collections.abc import Iterable

FIRST_GUESS_BYTES_S = 20e6  # of a peer that was never asked: optimistic, so that it gets its trial
SMOOTHING = 0.3
MAX_PEERS = 64
MAX_LIARS = 1024
BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.5, 30.0
MAX_MISSING = 4096  # remembered of each peer


class PeerState:
    """What is known of one peer."""

    __slots__ = (
        "blocks",
        "bytes_s",
        "failures",
        "flying",
        "flying_bytes",
        "lies",
        "missing",
        "received_bytes",
        "until_s",
    )

    def __init__(self) -> None:
        self.bytes_s = 0.0  # 0: not measured
        self.flying = 0
        self.flying_bytes = 0
        self.failures = 0  # in a row
        self.until_s = 0.0  # not asked before
        self.lies = 0
        self.blocks = 0
        self.received_bytes = 0
        self.missing: dict[bytes, None] = {}

    @property
    def speed(self) -> float:
        return self.bytes_s or FIRST_GUESS_BYTES_S

    @property
    def uselessness(self) -> tuple[bool, int, int, int]:
        return bool(self.lies), self.failures, len(self.missing), -self.blocks


class Ranking:
    """All peers of an exchange. Names are base URLs."""

    def __init__(self, rng: random.Random, *, per_peer: int = 4) -> None:
        self.peers: dict[str, PeerState] = {}
        self._liars: dict[str, None] = {}
        self._rng = rng
        self._per_peer = per_peer

    def add(self, peer: str) -> bool:
        """Whether the peer is new here. Where there are too many, the one of least use makes room; who lied is remembered."""
        if peer in self.peers or peer in self._liars:
            return False
        if len(self.peers) >= MAX_PEERS:
            idle = [name for name, state in self.peers.items() if not state.flying]
            if not idle:
                return False
            useless = max(idle, key=lambda name: self.peers[name].uselessness)
            if self.peers[useless].lies:
                self._liars[useless] = None
                while len(self._liars) > MAX_LIARS:
                    del self._liars[next(iter(self._liars))]
            del self.peers[useless]
        self.peers[peer] = PeerState()
        return True

    def usable(self, now_s: float) -> list[str]:
        """Peers that may be asked now or soon."""
        return [name for name, peer in self.peers.items() if not peer.lies]

    def choose(
        self, key: bytes, size_bytes: int, now_s: float, *, without: Iterable[str] = ()
    ) -> str | None:
        """The peer that would have the block here first; None if none can be asked now."""
        excluded = set(without)
        best: tuple[float, float, str] | None = None
        for name, peer in self.peers.items():
            if name in excluded or peer.lies or peer.until_s > now_s or key in peer.missing:
                continue
            if peer.flying >= self._per_peer:
                continue
            expected_s = (peer.flying_bytes + size_bytes) / peer.speed
            candidate = (expected_s, self._rng.random(), name)
            if best is None or candidate < best:
                best = candidate
        return None if best is None else best[2]

    def hopeless(self, key: bytes) -> bool:
        """Whether every peer is known not to have the block, or not to be trusted."""
        return all(peer.lies or key in peer.missing for peer in self.peers.values())

    def next_chance_s(self, key: bytes, now_s: float) -> float | None:
        """How long until a peer that failed may be asked again; None if nobody waits."""
        waits = [
            peer.until_s - now_s
            for peer in self.peers.values()
            if not peer.lies and key not in peer.missing and peer.until_s > now_s
        ]
        return min(waits, default=None)

    # --- what became of a request ---

    def began(self, name: str, size_bytes: int) -> None:
        peer = self.peers[name]
        peer.flying += 1
        peer.flying_bytes += size_bytes

    def ended(self, name: str, size_bytes: int) -> None:
        peer = self.peers[name]
        peer.flying -= 1
        peer.flying_bytes -= size_bytes

    def received(self, name: str, size_bytes: int, took_s: float) -> None:
        """A good block. Several at a time share the line, so each shows only its share of the speed."""
        peer = self.peers[name]
        peer.failures = 0
        peer.blocks += 1
        peer.received_bytes += size_bytes
        if size_bytes >= 16_384:
            measured = size_bytes * max(1, peer.flying) / max(took_s, 1e-4)
            peer.bytes_s = (
                measured
                if not peer.bytes_s
                else peer.bytes_s + SMOOTHING * (measured - peer.bytes_s)
            )

    def failed(self, name: str, now_s: float) -> None:
        """It did not answer, stalled or broke off: leave it alone for a while, longer each time."""
        peer = self.peers[name]
        peer.failures += 1
        ceiling = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2.0 ** min(peer.failures, 10))
        peer.until_s = now_s + self._rng.uniform(ceiling / 2, ceiling)
        peer.bytes_s /= 2

    def lied(self, name: str) -> None:
        """It sent other bytes than the hash names: never again in this exchange."""
        self.peers[name].lies += 1

    def lacks(self, name: str, key: bytes) -> None:
        """It does not have the block."""
        missing = self.peers[name].missing
        missing[key] = None
        while len(missing) > MAX_MISSING:
            del missing[next(iter(missing))]

    def patience_s(self, name: str, size_bytes: int) -> float:
        """After how long a second peer is asked for the same block."""
        peer = self.peers[name]
        return 0.25 + 4 * (peer.flying_bytes + size_bytes) / peer.speed

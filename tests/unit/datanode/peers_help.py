"""A network of peers in one process: questions are calls, some peers are dead, some links are cut."""

from __future__ import annotations

import random

from twinfs.common.errors import Unavailable
from twinfs.common.peerid import Identity
from twinfs.common.peering import Answer, Question
from twinfs.common.runtime import ManualClock
from twinfs.datanode.peers.node import PeerNode, PeerSettings


class Network:
    """Everybody, by address. *side* of a peer: who is on another side can't be reached."""

    def __init__(self, seed: int = 1, settings: PeerSettings | None = None) -> None:
        self.rng = random.Random(seed)
        self.clock = ManualClock()
        self.settings = settings or PeerSettings()
        self.nodes: dict[str, PeerNode] = {}
        self.dead: set[str] = set()
        self.side: dict[str, int] = {}
        self.messages = 0

    def add(self) -> PeerNode:
        address = f"127.0.0.1:{10_000 + len(self.nodes)}"
        node = PeerNode(
            Identity(self.rng.randbytes(32)),
            [address],
            _Wire(self, address),
            clock=self.clock,
            rng=random.Random(self.rng.random()),
            settings=self.settings,
        )
        self.nodes[address] = node
        return node

    async def grow(self, count: int) -> None:
        """Peers that join one after the other, each through one that is there."""
        for _ in range(count):
            there = [a for a in self.nodes if a not in self.dead]
            node = self.add()
            if there:
                await node.join([self.rng.choice(there)])

    def living(self) -> list[PeerNode]:
        return [node for address, node in self.nodes.items() if address not in self.dead]

    def kill(self, count: int) -> None:
        alive = [address for address in self.nodes if address not in self.dead]
        self.dead.update(self.rng.sample(alive, count))

    async def close(self) -> None:
        for node in self.nodes.values():
            await node.close()


class _Wire:
    def __init__(self, network: Network, source: str) -> None:
        self._network = network
        self._source = source

    async def ask(self, address: str, question: Question) -> Answer:
        network = self._network
        network.messages += 1
        cut = network.side.get(address, 0) != network.side.get(self._source, 0)
        if address in network.dead or cut or self._source in network.dead:
            raise Unavailable("nobody answers")
        return await network.nodes[address].answer(question)

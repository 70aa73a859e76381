"""Which nodes get new replicas: HDFS's default policy, weighed by free space and load. Pure."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from ..common.model import NodeId

EXACT = 64  # among so many nodes, all are looked at; among more, draws are tried first
DRAWS = 24


class Standing(enum.IntEnum):
    """What a node's replicas are worth, and what may be asked of it."""

    SERVING = 0  # alive, in service: read, written to, counted
    STALE = 1  # silent for a while: counted and read, but not written to, and nothing is given up because of it
    RESTING = 2  # alive, in maintenance or entering it: read; its copies stand in for all but one
    AWAY = 3  # in maintenance and silent: not read; its copies stand in for all but one
    LEAVING = 4  # alive, being decommissioned: read, not counted


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node as placement sees it."""

    node_id: NodeId
    host: str
    rack: str
    remaining_bytes: int
    load: int  # transfers going on, and blocks given out lately
    standing: Standing = Standing.SERVING

    @property
    def readable(self) -> bool:
        return self.standing is not Standing.AWAY


class Pool:
    """Nodes that may get new replicas, prepared once for many choices."""

    def __init__(self, candidates: Sequence[Candidate], racks: Collection[str] = ()) -> None:
        """*racks* are there, too, even if no candidate is in them: the policy counts them."""
        serving = [c for c in candidates if c.standing is Standing.SERVING]
        self.nodes = sorted(serving, key=lambda c: c.node_id)
        self.by_rack: dict[str, list[Candidate]] = {rack: [] for rack in racks}
        for candidate in self.nodes:
            self.by_rack.setdefault(candidate.rack, []).append(candidate)
        self.by_host: dict[str, list[Candidate]] = {}
        for candidate in self.nodes:
            self.by_host.setdefault(candidate.host, []).append(candidate)


def choose_targets(
    candidates: Sequence[Candidate] | Pool,
    count: int,
    rng: random.Random,
    *,
    client_host: str = "",
    client_node: NodeId | None = None,
    length: int = 0,
    exclude: Collection[NodeId] = (),
    having: Sequence[Candidate] = (),
    allowed: Callable[[Candidate], bool] | None = None,
) -> list[NodeId]:
    """Nodes for *count* new replicas of *length* bytes, in pipeline order; fewer if no more qualify.

    The first goes to *client_node*, which writes itself, or to the client's own host where a node is there, the second to another rack than the first, the third to
    the rack of the second, further ones anywhere, but not too many to one rack; *having* hold a replica already and count
    as placed. *allowed* can rule out more nodes. Among equals the choice falls on the better of two drawn at random, which
    spreads load without herding.
    Source: HDFS architecture guide, "Replica Placement"; Mitzenmacher, "The Power of Two Choices".
    """
    pool = candidates if isinstance(candidates, Pool) else Pool(candidates)
    taken = {candidate.node_id for candidate in having} | set(exclude)
    placed = list(having)
    chosen: list[NodeId] = []
    # HDFS's getMaxNodesPerRack: as even as can be, and two more.
    per_rack = (len(having) + count - 1) // max(1, len(pool.by_rack)) + 2

    def fits(candidate: Candidate) -> bool:
        return (
            candidate.node_id not in taken
            and candidate.remaining_bytes > 2 * length
            and (allowed is None or allowed(candidate))
        )

    while len(chosen) < count:
        pick = None
        for source, wish in _wishes(pool, placed, client_host, client_node, per_rack):
            pick = _better_of_two(source, lambda c, wish=wish: fits(c) and wish(c), rng)  # type: ignore[misc]
            if pick is not None:
                break
        if pick is None:
            break
        taken.add(pick.node_id)
        placed.append(pick)
        chosen.append(pick.node_id)
    return chosen


_Wish = tuple[Sequence[Candidate], Callable[[Candidate], bool]]


def _wishes(
    pool: Pool, placed: list[Candidate], client_host: str, client_node: NodeId | None, per_rack: int
) -> Iterator[_Wish]:
    """Where the next replica should go: (nodes to look among, which of them), the best first."""
    if not placed:
        if client_node:
            yield [c for c in pool.nodes if c.node_id == client_node], lambda c: True
        if client_host in pool.by_host:
            yield pool.by_host[client_host], lambda c: True
        yield pool.nodes, lambda c: True
        return
    hosts = {candidate.host for candidate in placed}
    racks = [candidate.rack for candidate in placed]
    if len(pool.by_rack) > 1:
        if len(set(racks)) == 1 and len(racks) < 3:
            yield pool.nodes, lambda c: c.host not in hosts and c.rack != racks[0]
        elif len(racks) == 2:
            yield pool.by_rack.get(racks[1], []), lambda c: c.host not in hosts
        yield (
            pool.nodes,
            lambda c: c.host not in hosts and racks.count(c.rack) < per_rack,
        )
    # Not two on one host, as long as there are others.
    yield pool.nodes, lambda c: c.host not in hosts
    if len(set(racks)) == 1 and len(pool.by_rack) > 1:
        yield pool.nodes, lambda c: c.rack != racks[0]
    yield pool.nodes, lambda c: True


def _better_of_two(
    source: Sequence[Candidate], fits: Callable[[Candidate], bool], rng: random.Random
) -> Candidate | None:
    """The better of two that fit, drawn at random; None if none fits."""
    drawn: list[Candidate] = []
    if len(source) > EXACT:
        for _ in range(DRAWS):
            candidate = source[rng.randrange(len(source))]
            if candidate not in drawn and fits(candidate):
                drawn.append(candidate)
                if len(drawn) == 2:
                    break
    if len(drawn) < 2:
        free = [candidate for candidate in source if fits(candidate)]
        if not free:
            return None
        drawn = rng.sample(free, min(2, len(free)))
    return min(drawn, key=lambda c: (c.load, -c.remaining_bytes))


def rack_spread(racks: Collection[str], wanted: int, racks_there: int) -> bool:
    """Whether copies on *racks* are spread as the policy asks: over two, where there are two and two copies are wanted."""
    return len(set(racks)) >= min(2, wanted, racks_there, max(1, len(racks)))


def choose_excess(
    holders: Sequence[Candidate], count: int, prefer: Collection[NodeId] = ()
) -> list[NodeId]:
    """Which *count* of the good *holders* to give up: never the last of a rack while another rack has two.

    Among those, the ones of *prefer* (a balancer's move has just replaced them), then the node with the
    least free space. Source: HDFS's chooseReplicasToDelete.
    """
    left = sorted(holders, key=lambda c: (c.node_id not in prefer, c.remaining_bytes, c.node_id))
    dropped: list[NodeId] = []
    while len(dropped) < count and len(left) > 1:
        per_rack: dict[str, int] = {}
        for candidate in left:
            per_rack[candidate.rack] = per_rack.get(candidate.rack, 0) + 1
        crowded = [candidate for candidate in left if per_rack[candidate.rack] > 1]
        pick = (crowded or left)[0]
        left.remove(pick)
        dropped.append(pick.node_id)
    return dropped

"""Which nodes get new replicas: HDFS's default policy, weighed by free space and load. Pure."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..common.model import NodeId


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node as placement sees it."""

    node_id: NodeId
    host: str
    rack: str
    remaining_bytes: int
    load: int  # transfers going on, and blocks given out lately


def choose_targets(
    candidates: Sequence[Candidate],
    count: int,
    rng: random.Random,
    *,
    client_host: str = "",
    length: int = 0,
    exclude: Collection[NodeId] = (),
    having: Sequence[Candidate] = (),
) -> list[NodeId]:
    """Nodes for *count* new replicas of *length* bytes, in pipeline order; fewer if no more qualify.

    The first goes to the client's own host where a node is there, the second to another rack than the first, the third to
    the rack of the second, further ones anywhere; *having* hold a replica already and count as placed.
    Among equals the choice falls on the better of two drawn at random, which spreads load without herding.
    Source: HDFS architecture guide, "Replica Placement"; Mitzenmacher, "The Power of Two Choices".
    """
    taken = {candidate.node_id for candidate in having}
    free = [
        candidate
        for candidate in sorted(candidates, key=lambda c: c.node_id)
        if candidate.node_id not in taken
        and candidate.node_id not in exclude
        and candidate.remaining_bytes > 2 * length
    ]
    placed = list(having)
    chosen: list[NodeId] = []
    racks = {candidate.rack for candidate in candidates}
    while free and len(chosen) < count:
        preferred = _preferred(free, placed, client_host, len(racks))
        pick = _better_of_two(preferred or free, rng)
        free.remove(pick)
        placed.append(pick)
        chosen.append(pick.node_id)
    return chosen


def _preferred(
    free: list[Candidate], placed: list[Candidate], client_host: str, racks: int
) -> list[Candidate]:
    if not placed:
        return [candidate for candidate in free if candidate.host == client_host]
    # Not two on one host, as long as there are others.
    hosts = {candidate.host for candidate in placed}
    free = [candidate for candidate in free if candidate.host not in hosts] or free
    if racks < 2:
        return free
    used = [candidate.rack for candidate in placed]
    if len(set(used)) == 1 and len(used) < 3:
        return [candidate for candidate in free if candidate.rack != used[0]] or free
    if len(used) == 2:
        return [candidate for candidate in free if candidate.rack == used[1]] or free
    return free


def _better_of_two(pool: list[Candidate], rng: random.Random) -> Candidate:
    if len(pool) == 1:
        return pool[0]
    first, second = rng.sample(pool, 2)
    key = (first.load, -first.remaining_bytes)
    return first if key <= (second.load, -second.remaining_bytes) else second


def choose_excess(holders: Sequence[Candidate], count: int) -> list[NodeId]:
    """Which *count* of the good *holders* to give up: never the last of a rack while another rack has two.

    Among those, the node with the least free space. Source: HDFS's chooseReplicasToDelete.
    """
    left = sorted(holders, key=lambda c: (c.remaining_bytes, c.node_id))
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

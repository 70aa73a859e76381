"""A random but replayable course of faults, within what replication promises to survive. Pure: a seed in, a plan out.

A run is a row of rounds. In each, faults come and go; at its end all are taken back, and the cluster has to be whole again before
the next begins. Of the faults that destroy bytes, all of one round hit one DataNode, since that many losses are survived with
certainty (a write is acknowledged with two copies). Faults that only make a node unreachable hit two at a time at most.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from twinfs.common.disk import POINTS

NAMENODE = "namenode"
ROUND_S = 20.0
# Points that a NameNode has; all others are DataNodes' alone.
NAMENODE_POINTS = ("database.commit", "database.sync", "database.checkpoint")
DATANODE_POINTS = tuple(
    name
    for name in POINTS
    if name.split(".")[0]
    in ("replica", "batch", "base", "reopen", "recovery", "database", "blocks")
)
DESTRUCTIVE = ("flip", "truncate", "delete-volume", "damage-index")
ON_DATANODES = (
    *("kill", "term", "pause", "power-loss", "crash-point", "slow-disk", "failing-disk"),
    *("full-disk", "cut", "half-open", "slow-link", "lossy-link", "refuse", "clock"),
)
ON_NAMENODE = ("kill", "kill", "pause", "power-loss", "crash-point", "clock", "cut", "slow-disk")
KINDS = tuple(sorted({*DESTRUCTIVE, *ON_DATANODES, *ON_NAMENODE}))


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: from *at_s* after its round began, for *for_s*."""

    at_s: float
    for_s: float
    kind: str
    target: str
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        words = " ".join(f"{key}={value}" for key, value in self.options.items())
        return (
            f"{self.at_s:5.1f} s +{self.for_s:4.1f} s  {self.kind} {self.target} {words}".rstrip()
        )


def schedule(
    seed: int, minutes: float, nodes: int, *, without: Sequence[str] = ()
) -> list[list[Fault]]:
    """The rounds of a run with DataNodes 1 to *nodes*. The NameNode is killed in the first and the last at least.

    *without* leaves kinds out; all others stay as they are.
    """
    rng = random.Random(f"chaos {seed}")
    count = max(1, round(minutes * 60 / ROUND_S))
    datanodes = [f"datanode{number}" for number in range(1, nodes + 1)]
    rounds = []
    for number in range(count):
        faults = _round(rng, datanodes)
        kills = [2.0, 11.0] if count == 1 else [rng.uniform(2.0, 6.0)]
        if number in (0, count - 1):
            faults = [f for f in faults if f.target != NAMENODE or f.kind not in _ENDING]
            faults += [Fault(at_s, rng.uniform(0.0, 3.0), "kill", NAMENODE) for at_s in kills]
        faults = [fault for fault in faults if fault.kind not in without]
        rounds.append(sorted(faults, key=lambda fault: fault.at_s))
    return rounds


_ENDING = ("kill", "term", "power-loss", "crash-point", "pause")


def _round(rng: random.Random, datanodes: Sequence[str]) -> list[Fault]:
    """Two slots of DataNode trouble, one of destruction, one of the NameNode's."""
    faults: list[Fault] = []
    weak = rng.sample(list(datanodes), min(2, max(1, len(datanodes) - 2)))
    for node in weak:
        at_s = rng.uniform(0.5, 4.0)
        while at_s < ROUND_S - 4.0:
            kind = rng.choice(ON_DATANODES)
            for_s = rng.uniform(1.0, 6.0)
            faults.append(Fault(at_s, for_s, kind, node, _options(rng, kind, node, datanodes)))
            at_s += for_s + rng.uniform(0.5, 5.0)
    if rng.random() < 0.7:
        victim = rng.choice(weak)
        for _ in range(rng.randrange(1, 3)):
            kind = rng.choice(DESTRUCTIVE)
            at_s = rng.uniform(3.0, ROUND_S - 4.0)
            faults.append(Fault(at_s, 1.0, kind, victim, _options(rng, kind, victim, datanodes)))
    if rng.random() < 0.6:
        kind = rng.choice(ON_NAMENODE)
        at_s, for_s = rng.uniform(1.0, ROUND_S - 6.0), rng.uniform(0.5, 5.0)
        faults.append(Fault(at_s, for_s, kind, NAMENODE, _options(rng, kind, NAMENODE, datanodes)))
    return faults


def _options(
    rng: random.Random, kind: str, target: str, datanodes: Sequence[str]
) -> dict[str, Any]:
    if kind in ("cut", "half-open", "slow-link", "lossy-link", "refuse"):
        others = [NAMENODE, "client*", *datanodes]
        if target == NAMENODE:
            others = ["client*", *datanodes]
        others = [name for name in others if name != target]
        options: dict[str, Any] = {
            "other": rng.choice(others),
            "one_way": rng.random() < 0.4,
            "inward": rng.random() < 0.5,
        }
        if kind == "slow-link":
            options |= {"kib_s": rng.choice([200, 2_000]), "latency_ms": rng.choice([20, 300])}
        if kind == "lossy-link":
            options["loss"] = rng.choice([0.05, 0.3])
        return options
    if kind == "clock":
        return {
            "offset_s": rng.choice([-3600.0, -30.0, 5.0, 90.0]),
            "rate": rng.choice([0.5, 0.9, 1.1, 2.0]),
        }
    if kind == "crash-point":
        points = NAMENODE_POINTS if target == NAMENODE else DATANODE_POINTS
        return {
            "point": rng.choice(points),
            "after": rng.random() < 0.5,
            "skip": rng.randrange(12),
            "power_loss": rng.random() < 0.5,
        }
    if kind == "slow-disk":
        return {"delay_s": rng.choice([0.02, 0.2, 0.8])}
    if kind == "failing-disk":
        return {
            "errno": rng.choice(["EIO", "EROFS"]),
            "probability": rng.choice([0.05, 0.5]),
            "only": rng.choice(["reads", "writes"]),
            "seed": rng.randrange(1_000),
        }
    if kind in ("flip", "truncate"):
        return {"count": rng.randrange(1, 4), "seed": rng.randrange(1 << 30)}
    if kind == "damage-index":
        return {"volume": rng.randrange(1, 3), "seed": rng.randrange(1 << 30)}
    if kind in ("delete-volume", "full-disk"):
        return {"volume": rng.randrange(1, 3)}
    return {}

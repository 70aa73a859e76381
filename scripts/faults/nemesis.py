"""Carries out a schedule's faults on a cluster, each with its beginning and its end. Blocking; used in a thread."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable

from . import clock, corrupt, crash, kill, link, pause, slow_disk, volume
from .local import LocalFaultyCluster
from .schedule import Fault
from .targets import CantBreak, Target

LINK_KINDS = {
    "cut": "cut",
    "half-open": "half-open",
    "slow-link": "slow",
    "lossy-link": "lossy",
    "refuse": "refuse",
}


class Nemesis:
    """Begins and ends faults. What can't be done any more (its target is dead) is skipped, and said."""

    def __init__(self, cluster: LocalFaultyCluster, say: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._say = say
        self._links: dict[int, str] = {}  # by the fault's identity
        self.done: dict[str, int] = {}

    def begin(self, fault: Fault) -> None:
        self._try(f"begin {fault.kind} {fault.target} {fault.options}", self._begin, fault)

    def end(self, fault: Fault) -> None:
        self._try(f"end {fault.kind} {fault.target}", self._end, fault)

    def _try(self, what: str, act: Callable[[Fault], None], fault: Fault) -> None:
        self._cluster.reap()
        try:
            act(fault)
        except (CantBreak, FileNotFoundError, ProcessLookupError) as error:
            self._say(f"{what}: skipped, {error}")
            return
        if act == self._begin:
            self.done[fault.kind] = self.done.get(fault.kind, 0) + 1
        self._say(what)

    def _begin(self, fault: Fault) -> None:
        cluster, options = self._cluster, fault.options
        target = cluster.target(fault.target)
        if fault.kind in ("kill", "term"):
            kill.kill(target, term=fault.kind == "term")
        elif fault.kind == "pause":
            pause.pause(target)
        elif fault.kind == "power-loss":
            self._require_running(target)
            crash.power_loss(target)
        elif fault.kind == "crash-point":
            crash.arm(target, **options)
        elif fault.kind == "slow-disk":
            slow_disk.slow(target, options["delay_s"])
        elif fault.kind == "failing-disk":
            slow_disk.fail(
                target,
                what=(options["only"],),
                errno=options["errno"],
                probability=options["probability"],
                seed=options["seed"],
            )
        elif fault.kind == "full-disk":
            volume.fill(target, options["volume"])
        elif fault.kind == "clock":
            clock.skew(target, **options)
        elif fault.kind in LINK_KINDS:
            ends = [fault.target, options["other"]]
            self._links[id(fault)] = link.break_link(
                cluster,
                *(reversed(ends) if options["inward"] else ends),
                LINK_KINDS[fault.kind],
                one_way=options["one_way"],
                kib_s=options.get("kib_s", 0.0),
                latency_ms=options.get("latency_ms", 0.0),
                loss=options.get("loss", 0.0),
            )
        else:
            self._destroy(fault, target)

    @staticmethod
    def _require_running(target: Target) -> None:
        if not target.alive:
            raise CantBreak(f"{target.name} is not running")

    def _destroy(self, fault: Fault, target: Target) -> None:
        cluster, options = self._cluster, fault.options
        if fault.kind in ("flip", "truncate"):
            rng = random.Random(options["seed"])
            for _ in range(options["count"]):
                place = corrupt.pick(target, None, rng)
                with contextlib.suppress(corrupt.CutShort):
                    if fault.kind == "flip":
                        corrupt.flip(target, place, rng.randrange(place.length * 8))
                    else:
                        corrupt.truncate(target, place, rng.randrange(place.length))
        elif fault.kind == "delete-volume":
            kept = volume.delete(target, options["volume"])
            shutil.rmtree(kept)
        else:
            if target.alive:
                kill.kill(target)
                cluster.reap()
            rng = random.Random(options["seed"])
            corrupt.damage_index(target, target.volumes[options["volume"] - 1], rng)

    def _end(self, fault: Fault) -> None:
        cluster = self._cluster
        target = cluster.target(fault.target)
        if fault.kind == "pause":
            pause.resume(target)
        elif fault.kind in ("slow-disk", "failing-disk", "full-disk"):
            slow_disk.heal(target)
        elif fault.kind == "clock":
            clock.skew(target)
        elif fault.kind in LINK_KINDS:
            link.heal(cluster, self._links.pop(id(fault)))
        elif fault.kind == "crash-point":
            crash.disarm(target)
        if fault.kind not in ("flip", "truncate", "delete-volume") and not target.alive:
            cluster.restart(fault.target)

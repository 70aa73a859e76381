"""Flip bits in replicas and volume indexes of a cluster, one after the other, and see that each is found, never read, and healed.

python scripts/flips.py --flips 1000 --seed 1

In rounds: on one DataNode, bits of replicas; on another, one bit of each volume's index, at a restart (as a disk would, beside a
process that has nothing of it in memory). Then everything is scrubbed, and the next round waits until the disks are whole again. In
every second round, clients read all files between the flips and the scrub.
"""

from __future__ import annotations

import asyncio
import random
import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from scripts.checker import audit
from scripts.faults import corrupt, facts, kill, scrub
from scripts.faults.local import LocalFaultyCluster
from scripts.faults.targets import wait_until
from twinfs.client.filesystem import FileSystem
from twinfs.common.config import ClientConfig
from twinfs.common.runtime import elapsed_timer

KIB = 1024
SIZES = (3 * KIB, 40 * KIB, 90 * KIB, 700 * KIB, 2_500 * KIB)  # the first two live inside an index
LIMIT_S = 120.0
DAMAGED = re.compile(r"the replica of block (\d+) in (\S+) is damaged")


@dataclass(slots=True)
class Found:
    """What became of the flips."""

    flips: int = 0
    by_readers: int = 0
    by_scrubbers: int = 0
    at_start: int = 0  # an index that could not even be opened
    missed: list[str] = field(default_factory=list)
    wrong_reads: list[str] = field(default_factory=list)
    reads: int = 0
    longest_heal_s: float = 0.0

    @property
    def good(self) -> bool:
        return not self.missed and not self.wrong_reads

    def __str__(self) -> str:
        found = self.by_readers + self.by_scrubbers + self.at_start
        lines = [
            f"{self.flips} bits flipped: {found} found ({self.by_scrubbers} by scrubbers, {self.by_readers} by readers "
            f"before them, {self.at_start} when the index was opened)",
            f"{self.reads} files read meanwhile, {len(self.wrong_reads)} with wrong bytes",
            f"all healed, at most {self.longest_heal_s:.1f} s after the scrub",
        ]
        lines += [f"MISSED: {line}" for line in self.missed]
        lines += [f"WRONG: {line}" for line in self.wrong_reads]
        return "\n".join(lines)


class Flipper:
    """The rounds on one cluster."""

    def __init__(self, cluster: LocalFaultyCluster, seed: int) -> None:
        self._cluster = cluster
        self._rng = random.Random(seed)
        self._contents: dict[str, bytes] = {}
        self.found = Found()

    def _fs(self) -> FileSystem:
        return FileSystem(ClientConfig(namenode=self._cluster.url))

    async def fill(self, files: int) -> None:
        async with self._fs() as fs:
            for number in range(files):
                size = SIZES[number % len(SIZES)]
                data = self._rng.randbytes(self._rng.randrange(size // 2, size))
                await fs.write_bytes(f"/f{number}", data)
                self._contents[f"/f{number}"] = data

    async def round(self, replicas: int, indexes: int, *, read_first: bool) -> None:
        """Flip a bit in each of so many replicas, and of so many indexes; scrub, and wait until all is whole."""
        one, other = self._rng.sample(self._cluster.datanodes, 2)
        logs = {name: len(self._cluster.log_text(name)) for name in (one, other)}
        aside = self._aside(other)
        flipped_indexes = self._flip_indexes(other, indexes)
        flipped = self._flip_replicas(one, replicas)
        self.found.flips += len(flipped) + len(flipped_indexes)
        opened = {
            volume for volume in flipped_indexes if self._aside(other)[volume] > aside[volume]
        }
        if read_first:
            await self._read_everything()
        by_readers = flipped & self._damaged(one, logs[one])
        late = await asyncio.to_thread(
            scrub.everything, self._cluster, self._cluster.url, limit_s=LIMIT_S
        )
        assert not late, f"not scrubbed within {LIMIT_S} s: {late}"
        found = flipped & self._damaged(one, logs[one])
        after = self._aside(other)
        renewed = {volume for volume in flipped_indexes if after[volume] > aside[volume]}
        self.found.at_start += len(opened)
        self.found.by_readers += len(by_readers)
        self.found.by_scrubbers += len(found - by_readers) + len(renewed - opened)
        self.found.missed += [f"block {block_id} on {one}" for block_id in sorted(flipped - found)]
        self.found.missed += [
            f"bit {bit} of {volume}/index.db"
            for volume, bit in flipped_indexes.items()
            if volume not in renewed
        ]
        began_s = elapsed_timer()
        await asyncio.to_thread(wait_until, self._whole, "the disks are whole again", LIMIT_S)
        self.found.longest_heal_s = max(self.found.longest_heal_s, elapsed_timer() - began_s)

    def _flip_replicas(self, name: str, count: int) -> set[int]:
        """One bit in each of *count* replicas; their block ids."""
        target = self._cluster.target(name)
        there = [place for place in corrupt.places(target) if place.length]
        chosen = self._rng.sample(there, min(count, len(there)))
        for place in chosen:
            corrupt.flip(target, place, self._rng.randrange(place.length * 8))
        return {place.block_id for place in chosen}

    def _flip_indexes(self, name: str, count: int) -> dict[Path, int]:
        """One bit in each of *count* indexes of a node, which is stopped for it in the usual way: volume -> bit."""
        if not count:
            return {}
        target = self._cluster.target(name)
        kill.kill(target, term=True)
        wait_until(lambda: self._ended(name), f"{name} has ended", LIMIT_S)
        done: dict[Path, int] = {}
        for volume in target.volumes[:count]:
            file = volume / "index.db"
            bit = done[volume] = self._rng.randrange(file.stat().st_size * 8)
            with file.open("r+b") as opened:
                opened.seek(bit // 8)
                (byte,) = opened.read(1)
                opened.seek(bit // 8)
                opened.write(bytes([byte ^ 1 << bit % 8]))
        self._cluster.restart(name)
        self._cluster.wait_live(len(self._cluster.datanodes))
        return done

    def _ended(self, name: str) -> bool:
        self._cluster.reap()
        return not self._cluster.target(name).alive

    def _damaged(self, name: str, since: int) -> set[int]:
        """Blocks of which the node has said that they are damaged."""
        return {int(match[1]) for match in DAMAGED.finditer(self._cluster.log_text(name)[since:])}

    def _aside(self, name: str) -> dict[Path, int]:
        """How many indexes were put aside on each volume."""
        volumes = self._cluster.target(name).volumes
        return {volume: len(list(volume.glob("quarantine/index.db.*"))) for volume in volumes}

    async def _read_everything(self) -> None:
        async with self._fs() as fs:
            for path, data in self._contents.items():
                self.found.reads += 1
                if await fs.read_bytes(path) != data:
                    self.found.wrong_reads.append(path)

    def _whole(self) -> bool:
        return not audit.check(facts.gather(self._cluster))

    async def run(self, flips: int, files: int, *, replicas: int = 18, indexes: int = 2) -> Found:
        await self.fill(files)
        number = 0
        while self.found.flips < flips:
            left = flips - self.found.flips
            await self.round(
                min(replicas, max(left - indexes, 0)),
                min(indexes, left),
                read_first=number % 2 == 1,
            )
            number += 1
        await self._read_everything()
        return self.found


@click.command()
@click.option("--flips", type=click.IntRange(1), default=1_000, help="Bits.", show_default=True)
@click.option("--files", type=click.IntRange(1), default=60, help="Files.", show_default=True)
@click.option("--seed", default=1, help="Of what is left to chance.", show_default=True)
def main(flips: int, files: int, seed: int) -> None:
    """Flip bits in replicas and volume indexes of a cluster, and see that each is found, never read, and healed.

    Exit 1 if one was not found, or read. A round of some twenty flips takes some seconds.
    """
    with tempfile.TemporaryDirectory(prefix="twinfs-flips-") as folder:
        place = Path(folder) / "cluster"
        with LocalFaultyCluster(place, datanodes=4, volumes=2, proxy=False) as cluster:
            found = asyncio.run(Flipper(cluster, seed).run(flips, files))
    print(f"seed {seed}")
    print(found)
    sys.exit(0 if found.good else 1)


if __name__ == "__main__":
    main()

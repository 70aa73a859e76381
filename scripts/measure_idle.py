"""What a cluster costs that nobody uses: processor time, memory and disk of each process, minute by minute.

python scripts/measure_idle.py --minutes 60          a NameNode, three DataNodes and a plain peer, with some files stored
python scripts/measure_idle.py --minutes 60 --json idle.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "bench"))

from cluster import Server, resident_mib, running

from twinfs.client.filesystem import FileSystem
from twinfs.common.config import ClientConfig
from twinfs.common.runtime import elapsed_timer

KIB = 1024
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SETTLE_S = 60.0  # what the start leaves to be done: first reports, first counts, a checkpoint


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one moment."""

    at_s: float
    processor_s: float  # used since it began
    resident_mib: float
    threads: int
    descriptors: int
    disk_kib: int  # allocated below its directory


def look(server: Server, folder: Path, began_s: float) -> Sample:
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    allocated = 0
    for path in folder.rglob("*"):
        try:
            allocated += path.lstat().st_blocks // 2
        except FileNotFoundError:
            continue  # a temporary file that went meanwhile
    return Sample(
        at_s=elapsed_timer() - began_s,
        processor_s=(int(fields[11]) + int(fields[12])) / TICKS_PER_S,
        resident_mib=resident_mib(server.pid),
        threads=int(fields[17]),
        descriptors=sum(1 for _ in Path(f"/proc/{server.pid}/fd").iterdir()),
        disk_kib=allocated,
    )


async def fill(url: str, files: int, seed: int) -> None:
    """Files as somebody may have left them: small ones, and some of several chunks."""
    rng = random.Random(seed)
    async with FileSystem(ClientConfig(namenode=url)) as fs:
        for number in range(files):
            size = rng.randrange(100_000) if number % 10 else rng.randrange(3_000_000)
            await fs.write_bytes(f"/kept/{number % 20}/{number}", rng.randbytes(size))


@contextmanager
def peer(folder: Path) -> Iterator[Server]:
    server = Server(
        folder,
        "peer",
        [
            *("twinfs.datanode", "--bootstrap", "none", "--dir", str(folder / "peer")),
            *("--port", "0", "--data-port", "0"),
        ],
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()


def slope_per_hour(samples: Sequence[tuple[float, float]]) -> float:
    """Of the line through *samples* (seconds, value), by least squares, per hour."""
    if len(samples) < 3:
        return 0.0
    return statistics.linear_regression(*zip(*samples, strict=True)).slope * 3600.0


def verdict(name: str, samples: list[Sample]) -> str:
    first, last = samples[0], samples[-1]
    share = (last.processor_s - first.processor_s) / (last.at_s - first.at_s)
    half = samples[len(samples) // 2 :]
    memory = slope_per_hour([(s.at_s, s.resident_mib) for s in half])
    return (
        f"{name:<10} {100 * share:5.2f} %  {first.resident_mib:6.1f} -> {last.resident_mib:6.1f} MiB"
        f" ({memory:+5.1f} MiB/h in the second half)  {first.disk_kib:7d} -> {last.disk_kib:7d} KiB"
        f"  threads {first.threads} -> {last.threads}  files open {first.descriptors} -> {last.descriptors}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every-s", type=float, default=60.0)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", help="write every sample to this file")
    given = parser.parse_args()
    # Whoever ends it wants the cluster to end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    pause = threading.Event()
    with (
        tempfile.TemporaryDirectory(prefix="twinfs-idle-") as place,
        running(Path(place)) as cluster,
        peer(Path(place)) as alone,
    ):
        folder = Path(place)
        asyncio.run(fill(cluster.url, given.files, given.seed))
        kept = {"namenode": (cluster.namenode, folder / "nn")}
        for number, node in enumerate(cluster.datanodes, 1):
            kept[f"datanode{number}"] = (node, folder / f"dn{number}")
        kept["peer"] = (alone, folder / "peer")
        pause.wait(SETTLE_S)
        began_s = elapsed_timer()
        samples: dict[str, list[Sample]] = {name: [] for name in kept}
        print(f"seed {given.seed}: {given.files} files, {given.minutes:g} minutes", flush=True)
        while True:
            line = []
            for name, (server, directory) in kept.items():
                sample = look(server, directory, began_s)
                samples[name].append(sample)
                line.append(
                    f"{name} {sample.processor_s:.2f} s {sample.resident_mib:.1f} MiB {sample.disk_kib} KiB"
                )
            now_s = elapsed_timer() - began_s
            print(f"{now_s / 60:5.1f} min  " + "; ".join(line), flush=True)
            if now_s >= given.minutes * 60 - 1:
                break
            pause.wait(max(0.0, len(samples["namenode"]) * given.every_s - now_s))
    for name, seen in samples.items():
        print(verdict(name, seen))
    if given.json:
        shown = {name: [asdict(s) for s in seen] for name, seen in samples.items()}
        Path(given.json).write_text(json.dumps(shown), encoding="utf-8")


if __name__ == "__main__":
    main()

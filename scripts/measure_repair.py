"""How quickly a cluster heals, and what its clients notice of it. Prints seed, sizes and what was measured.

python scripts/measure_repair.py heal --blocks 2000     one of four DataNodes is killed beside a reading client
python scripts/measure_repair.py two                    two of five are killed at once under reads and writes
python scripts/measure_repair.py namenode               the NameNode is killed under 64 writers and comes back --away s later
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "bench"))

from bounds import use_memory
from cluster import Cluster, running

from twinfs.client.filesystem import FileSystem
from twinfs.client.http_namenode import HttpNameNode
from twinfs.common.admin import CheckCluster, ClusterCheck
from twinfs.common.checksum import digest_of
from twinfs.common.config import ClientConfig
from twinfs.common.errors import DfsError
from twinfs.common.runtime import elapsed_timer
from twinfs.datanode.pacing import BEHIND_CLIENTS

MIB = 1024 * 1024
QUICK = ("--heartbeat-interval-s", "1", "--stale-after-s", "2.5", "--dead-after-s", "6")


def sizes(rng: random.Random, count: int) -> list[int]:
    """Mixed: six of ten up to 64 KiB, three up to 1 MiB, one up to 3 MiB."""
    bounds = ((1, 64 * 1024),) * 6 + ((64 * 1024, MIB),) * 3 + ((MIB, 3 * MIB),)
    return [rng.randint(*rng.choice(bounds)) for _ in range(count)]


class Watch:
    """What the NameNode says, asked often."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._namenode = HttpNameNode(cluster.url, user="root")

    async def dead(self, count: int) -> None:
        await self._until(
            lambda: sum(n.state == "dead" for n in self._cluster.report().nodes) >= count
        )

    async def healed(self) -> None:
        """No block has too few copies. Asked of the rows, which are counted anew when a node has died."""

        def whole() -> bool:
            # The cheaper question first: asking costs what is measured. This one is answered from counts that are kept for
            # twenty times as long as counting takes.
            if self._cluster.report().under_replicated:
                return False
            check: ClusterCheck = self._namenode.call("check_cluster", CheckCluster())
            return not check.waiting and not check.copying

        await self._until(whole)

    async def _until(self, fact: object) -> None:
        assert callable(fact)
        while not await asyncio.to_thread(fact):
            await asyncio.sleep(0.05)

    def close(self) -> None:
        self._namenode.close()


def lost_files(folder: Path) -> list[Path]:
    """What a DataNode's volume held: files of blocks, and the index with the small ones."""
    return [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        and (file.parent.parent.name == "blocks" or file.name.startswith("index.db"))
    ]


def raw_copy(files: Sequence[Path], target: Path, *, verify: bool = False) -> None:
    """Copy files one after the other, each made durable; with *verify*, every MiB is hashed on the way."""
    target.mkdir()
    buffer = memoryview(bytearray(MIB))
    for number, file in enumerate(files):
        copy = target / f"{number}"
        if verify:
            with file.open("rb", buffering=0) as old, copy.open("wb", buffering=0) as new:
                while count := old.readinto(buffer):
                    digest_of(buffer[:count])
                    new.write(buffer[:count])
                os.fdatasync(new.fileno())
        else:
            shutil.copyfile(file, copy)
            with copy.open("rb") as done:
                os.fsync(done.fileno())


def raw_copies(files: Sequence[Path], target: Path, processes: int) -> float:
    """The same by several processes that verify and stand back as repair does, each a share of the files; seconds."""
    began_s = elapsed_timer()
    children = [
        multiprocessing.Process(target=_raw_share, args=(files[n::processes], target / str(n)))
        for n in range(processes)
    ]
    target.mkdir()
    for child in children:
        child.start()
    for child in children:
        child.join()
    return elapsed_timer() - began_s


def _raw_share(files: Sequence[Path], target: Path) -> None:
    os.setpriority(os.PRIO_PROCESS, 0, BEHIND_CLIENTS)
    raw_copy(files, target, verify=True)


class Reader:
    """A reading client in a process of its own. `rates` lists (when a read began, how long it took, MiB/s)."""

    def __init__(self, url: str, path: str) -> None:
        command = [sys.executable, __file__, "read", "--url", url, "--path", path]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def stop(self) -> list[tuple[float, float, float]]:
        found, _ = self.process.communicate("stop\n")
        return [tuple(float(word) for word in line.split()) for line in found.splitlines()]  # type: ignore[misc]


async def read(url: str, path: str) -> None:
    """Read a file again and again until a line comes in, then say how it went."""
    rates: list[tuple[float, float, float]] = []
    async with FileSystem(ClientConfig(namenode=url)) as fs:
        stop = asyncio.ensure_future(asyncio.to_thread(sys.stdin.readline))
        while not stop.done():
            began_s = elapsed_timer()
            data = await fs.read_bytes(path)
            took_s = elapsed_timer() - began_s
            rates.append((began_s, took_s, len(data) / MIB / took_s))
    print("\n".join(" ".join(map(str, entry)) for entry in rates))


def rate(reads: Sequence[tuple[float, float, float]], from_s: float, to_s: float) -> float:
    """MiB a second in that time: of the reads that lie in it, by their part of it."""
    moved = 0.0
    for began, took, speed in reads:
        inside = min(began + took, to_s) - max(began, from_s)
        moved += max(0.0, inside) * speed
    return moved / (to_s - from_s)


def cpu_s(pid: int) -> float:
    """What a process has used of the processors, its threads and the kernel's work for it included."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Used:
    """Processor time of processes since this was made."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._before = {name: cpu_s(pid) for name, pid in pids.items()}

    def __str__(self) -> str:
        used = {name: cpu_s(pid) - self._before[name] for name, pid in self._pids.items()}
        return ", ".join(f"{name} {seconds:.2f} s" for name, seconds in used.items())


async def heal(folder: Path, seed: int, blocks: int) -> None:
    rng = random.Random(seed)
    with running(folder, 4, namenode_options=QUICK) as cluster:
        watch = Watch(cluster)
        async with FileSystem(ClientConfig(namenode=cluster.url)) as fs:
            await fs.mkdirs("/f")
            given = sizes(rng, blocks)
            for start in range(0, blocks, 20):
                part = given[start : start + 20]
                await asyncio.gather(
                    *(
                        fs.write_bytes(f"/f/{start + n}", rng.randbytes(size))
                        for n, size in enumerate(part)
                    )
                )
            await fs.write_bytes("/read", rng.randbytes(64 * MIB))
        use_memory(folder, 2 * sum(given))
        victim, lost = cluster.datanodes[-1], folder / f"dn{len(cluster.datanodes)}"
        reader = Reader(cluster.url, "/read")
        await asyncio.sleep(6.0)
        victim.kill()
        killed_s = elapsed_timer()
        await watch.dead(1)
        dead_s = elapsed_timer()
        used = Used(
            {
                "NameNode": cluster.namenode.pid,
                **{f"DataNode {n}": d.pid for n, d in enumerate(cluster.datanodes[:-1], 1)},
                "reader": reader.process.pid,
                "this": os.getpid(),
            }
        )
        await watch.healed()
        healed_s = elapsed_timer()
        processors = str(used)
        reads = reader.stop()
        watch.close()
        # The bounds, in the same pages, with the same servers idle beside them.
        files = lost_files(lost)
        size_bytes = sum(file.stat().st_size for file in files)
        began_s = elapsed_timer()
        raw_copy(files, folder / "raw")
        raw_s = elapsed_timer() - began_s
        shutil.rmtree(folder / "raw")
        reader = Reader(cluster.url, "/read")
        await asyncio.sleep(3.0)
        began_s = elapsed_timer()
        await asyncio.to_thread(raw_copies, files, folder / "raw", len(cluster.datanodes) - 1)
        beside_s = elapsed_timer() - began_s
        raw_reads = reader.stop()
    before = rate(reads, killed_s - 4.0, killed_s)
    during, waiting = rate(reads, dead_s, healed_s), rate(reads, killed_s + 1.0, dead_s)
    raw_before = rate(raw_reads, began_s - 2.0, began_s)
    raw_kept = rate(raw_reads, began_s, began_s + beside_s)
    took_s = healed_s - dead_s
    print(f"seed {seed}: {blocks} blocks, {sum(given) / MIB:.0f} MiB; one of four DataNodes killed")
    print(
        f"  lost {size_bytes / MIB:.0f} MiB in {len(files)} files; detected after {dead_s - killed_s:.1f} s"
    )
    print(f"  healed {took_s:.2f} s after that; processors meanwhile: {processors}")
    for what, bound_s in (
        ("by one process on the idle machine", raw_s),
        ("verified, by three processes beside the reader, at the priority of repair", beside_s),
    ):
        kept = "kept" if took_s <= 1.5 * bound_s else "MISSED"
        print(f"  raw copy {what}: {bound_s:.2f} s; 1.5 times that: {1.5 * bound_s:.2f} s: {kept}")
    print(
        f"  reader: {before:.0f} MiB/s before, {waiting:.0f} while the node was missed, "
        f"{during:.0f} during repair: {100 * during / before:.0f} % (goal 70 %)"
    )
    print(f"  beside that raw copy it kept {100 * raw_kept / raw_before:.0f} %")


async def two(folder: Path, seed: int, seconds: float) -> None:
    rng = random.Random(seed)
    failures: list[str] = []
    reads: list[float] = []
    writes: list[float] = []
    with running(folder, 5, namenode_options=QUICK) as cluster:
        config = ClientConfig(namenode=cluster.url)
        watch = Watch(cluster)
        async with FileSystem(config) as fs:
            contents = {f"/r{n}": rng.randbytes(rng.randrange(1, 6 * MIB)) for n in range(30)}
            for path, data in contents.items():
                await fs.write_bytes(path, data)
            stop = asyncio.Event()
            written: dict[str, bytes] = {}

            async def read(number: int) -> None:
                own = random.Random(seed + number)
                while not stop.is_set():
                    path = own.choice(sorted(contents))
                    began_s = elapsed_timer()
                    try:
                        if await fs.read_bytes(path) != contents[path]:
                            failures.append(f"wrong bytes in {path}")
                    except DfsError as error:
                        failures.append(f"read {path}: {error.code}: {error}")
                    reads.append(elapsed_timer() - began_s)

            async def write(number: int) -> None:
                own, serial = random.Random(seed - 1 - number), 0
                while not stop.is_set():
                    path, data = f"/w{number}-{serial}", own.randbytes(own.randrange(1, 4 * MIB))
                    serial += 1
                    began_s = elapsed_timer()
                    try:
                        async with await fs.open(path, "xb") as file:
                            for start in range(0, len(data), 700_000):
                                await file.write(data[start : start + 700_000])
                        written[path] = data
                    except DfsError as error:
                        failures.append(f"write {path}: {error.code}: {error}")
                    writes.append(elapsed_timer() - began_s)

            tasks = [asyncio.create_task(read(n)) for n in range(3)]
            tasks += [asyncio.create_task(write(n)) for n in range(3)]
            await asyncio.sleep(seconds / 3)
            quiet = max(reads)
            reads.clear()
            writes.clear()
            for victim in rng.sample(cluster.datanodes, 2):
                victim.kill()
            killed_s = elapsed_timer()
            await asyncio.sleep(seconds)
            stop.set()
            await asyncio.gather(*tasks)
            await watch.healed()
            healed_s = elapsed_timer() - killed_s
            for path, data in written.items():
                if await fs.read_bytes(path) != data:
                    failures.append(f"wrong bytes in {path}")
        watch.close()
    print(f"seed {seed}: two of five DataNodes killed at once under 3 readers and 3 writers")
    print(f"  reads: {len(reads)}, the longest {max(reads):.2f} s ({quiet:.2f} s before); goal 2 s")
    print(f"  writes: {len(writes)}, the longest {max(writes):.2f} s; {len(written)} files whole")
    print(f"  healed after {healed_s:.1f} s; failures: {len(failures)}")
    for line in failures[:10]:
        print(f"    {line}")


class Writers:
    """Programs that write file after file, and what became of it."""

    def __init__(self, url: str, seed: int, *, count: int, sessions: int) -> None:
        self._files = [FileSystem(ClientConfig(namenode=url)) for _ in range(sessions)]
        self._seed = seed
        self._count = count
        self.written: dict[str, bytes] = {}
        self.failures: list[str] = []
        self.took: list[tuple[float, float]] = []  # when each was begun, how long it took
        self._stop = asyncio.Event()

    async def run(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for fs in self._files:
                await stack.enter_async_context(fs)
            await asyncio.gather(*(self._write(number) for number in range(self._count)))

    async def _write(self, number: int) -> None:
        rng, fs = random.Random(f"{self._seed} {number}"), self._files[number % len(self._files)]
        serial = 0
        while not self._stop.is_set():
            path = f"/w/{number}-{serial}"
            serial += 1
            streamed = (
                number % 4 == 0
            )  # through a pipeline, with a flush on the way; the others whole
            data = rng.randbytes(rng.randrange(1, 400_000 if streamed else 64 * 1024))
            began_s = elapsed_timer()
            try:
                if streamed:
                    async with await fs.open(path, "xb") as file:
                        await file.write(data[: len(data) // 2])
                        await file.flush()
                        await file.write(data[len(data) // 2 :])
                else:
                    await fs.write_bytes(path, data)
                self.written[path] = data
            except DfsError as error:
                self.failures.append(f"{path}: {error.code}: {error}")
            self.took.append((began_s, elapsed_timer() - began_s))

    def stop(self) -> None:
        self._stop.set()

    def finished(self, from_s: float, to_s: float) -> float:
        """Writes a second that came to their end in that time."""
        count = sum(from_s <= began + took < to_s for began, took in self.took)
        return count / (to_s - from_s)


async def namenode(folder: Path, seed: int, seconds: float, away_s: float) -> None:
    with running(folder, 3) as cluster:
        async with FileSystem(ClientConfig(namenode=cluster.url)) as fs:
            await fs.mkdirs("/w")
            writers = Writers(cluster.url, seed, count=64, sessions=8)
            task = asyncio.create_task(writers.run())
            await asyncio.sleep(2.0)
            began_s = elapsed_timer()
            await asyncio.sleep(seconds)
            cluster.namenode.kill()
            killed_s = elapsed_timer()
            await asyncio.sleep(away_s)
            # Where its clients look for it.
            port = cluster.namenode.facts["http"].rpartition(":")[2]
            cluster.namenode.arguments += ["--port", port]
            await asyncio.to_thread(cluster.namenode.start)
            back_s = elapsed_timer()
            await asyncio.sleep(2.0 * seconds)
            writers.stop()
            await task
            ended_s = elapsed_timer()
            lost = [p for p, data in writers.written.items() if await fs.read_bytes(p) != data]
    finishes = sorted(began + took for began, took in writers.took)
    first = next((end for end in finishes if end > back_s), ended_s)
    before = writers.finished(began_s, killed_s)
    after = writers.finished(ended_s - seconds, ended_s)
    print(f"seed {seed}: the NameNode killed under 64 writers, started again {away_s:.0f} s later")
    print(f"  {len(writers.written)} files written, {len(writers.failures)} errors (goal 0)")
    print(f"  {len(lost)} acknowledged files lost or wrong (goal 0)")
    print(
        f"  away {back_s - killed_s:.1f} s; the first write {first - back_s:.1f} s after that; "
        f"the longest write {max(took for _, took in writers.took):.1f} s"
    )
    print(f"  {before:.0f} writes/s before, {after:.0f} writes/s in the last {seconds:.0f} s")
    for line in [*writers.failures, *lost][:10]:
        print(f"    {line}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["heal", "two", "namenode", "read"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--away", type=float, default=5.0)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.what == "read":
        asyncio.run(read(given.url, given.path))
        return
    with tempfile.TemporaryDirectory(prefix="twinfs-repair-") as folder:
        place = Path(folder) / "cluster"
        if given.what == "heal":
            asyncio.run(heal(place, given.seed, given.blocks))
        elif given.what == "namenode":
            asyncio.run(namenode(place, given.seed, given.seconds, given.away))
        else:
            asyncio.run(two(place, given.seed, given.seconds))


if __name__ == "__main__":
    main()

"""`scripts/chaos.py --seed N --minutes M --nodes K`: break a cluster under concurrent clients, heal it, and judge.

A seed fixes the course of faults and what each client tries; the history of what was asked and answered, the faults and what lay on
the disks at the end go to a file, which `python scripts/checker FILE` judges again at any time.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from scripts.checker import audit
from scripts.checker.history import Recorder
from scripts.checker.verdict import Verdict, judge
from scripts.faults import facts, scrub
from scripts.faults.local import LocalFaultyCluster
from scripts.faults.nemesis import Nemesis
from scripts.faults.schedule import KINDS, ROUND_S, Fault, schedule
from scripts.faults.workload import Client, Shared, read_everything, settle
from twinfs.client.cli.cluster import named_proxy
from twinfs.client.http_namenode import HttpNameNode
from twinfs.common.config import ClientConfig
from twinfs.common.messages import BadReplica, ReportBadReplicas
from twinfs.common.model import BlockId, BlockRef, GenerationStamp, NodeId
from twinfs.common.runtime import SystemClock

HEAL_LIMIT_S = 240.0
SETTLE_LIMIT_S = 120.0
SCRUB_LIMIT_S = 240.0  # scrubbers leave the processors and disks to clients, whose load goes on
RETRY_S = 60.0


@dataclass(slots=True)
class Outcome:
    """What a run came to."""

    verdict: Verdict
    complaints: list[str] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    slowest_s: float = 0.0
    healed_s: float = 0.0

    @property
    def clean(self) -> bool:
        return self.verdict.clean and not self.complaints

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items()))
        lines = [
            f"faults: {counts or 'none'}",
            f"slowest answer {self.slowest_s:.1f} s, whole again {self.healed_s:.1f} s after the last fault",
            *self.complaints,
            str(self.verdict),
        ]
        if self.verdict.clean and self.complaints:
            lines.append(f"NOT CLEAN: {len(self.complaints)} complaints besides")
        return "\n".join(lines)


class Run:
    """One chaos run."""

    def __init__(
        self,
        cluster: LocalFaultyCluster,
        recorder: Recorder,
        *,
        seed: int,
        rounds: list[list[Fault]],
        clients: int,
        say: bool = True,
    ) -> None:
        self._cluster = cluster
        self._clock = SystemClock()
        self._start_s = self._clock.monotonic_s()
        self._shared = Shared(recorder, self._clock, seed)
        self._recorder = recorder
        self._seed = seed
        self._rounds = rounds
        self._count = clients
        self._loud = say
        self._nemesis = Nemesis(cluster, self._say)
        self._complaints: list[str] = []
        self._healed_s = 0.0

    def _say(self, what: str) -> None:
        at_s = self._clock.monotonic_s() - self._start_s
        self._recorder.fault(what, at_s)
        if self._loud:
            print(f"{at_s:7.1f} s  {what}", flush=True)

    def _config(self, name: str) -> ClientConfig:
        proxy = named_proxy(self._cluster.proxy_url, name) if self._cluster.proxy_url else ""
        return ClientConfig(
            namenode=self._cluster.url,
            user="root",
            retry_s=RETRY_S,
            read_timeout_s=5.0,
            ack_timeout_s=10.0,
            proxy=proxy,
        )

    async def run(self) -> Outcome:
        clients = [
            Client(
                name,
                self._shared,
                self._config(name),
                random.Random(f"{self._seed} {name}"),
            )
            for name in (f"client{number}" for number in range(self._count))
        ]
        stop = asyncio.Event()
        self._shared.going.set()
        await clients[0].fs.mkdirs("/chaos")
        await self._new_arenas(clients[0])
        tasks = [asyncio.create_task(client.run(stop)) for client in clients]
        try:
            for number, faults in enumerate(self._rounds):
                self._say(f"round {number + 1} of {len(self._rounds)}")
                await self._round(faults)
                await self._new_arenas(clients[0])
        finally:
            stop.set()
            self._shared.going.set()
            done, late = await asyncio.wait(tasks, timeout=SETTLE_LIMIT_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for client in clients:
                await client.close()
        for task in done:
            task.result()
        if late:
            self._complaints.append(f"{len(late)} clients did not come to an end")
        return await self._judge()

    async def _new_arenas(self, client: Client) -> None:
        """Fresh names now and then keep the groups that the checker searches small."""
        new = [f"/chaos/arena{len(self._shared.arenas) + number}" for number in range(3)]
        for path in new:
            await client.mkdir(path)
        self._shared.arenas += new

    async def _round(self, faults: list[Fault]) -> None:
        """All faults of a round, then everything taken back, and the wait until the cluster is whole."""
        steps = [(fault.at_s, 0, fault) for fault in faults]
        steps += [(fault.at_s + fault.for_s, 1, fault) for fault in faults]
        began_s = self._clock.monotonic_s()
        for at_s, ending, fault in sorted(steps, key=lambda step: step[:2]):
            await asyncio.sleep(max(0.0, began_s + at_s - self._clock.monotonic_s()))
            await asyncio.to_thread(self._nemesis.end if ending else self._nemesis.begin, fault)
        await asyncio.sleep(max(0.0, began_s + ROUND_S - self._clock.monotonic_s()))
        await asyncio.to_thread(self._cluster.heal)
        self._say("all faults are taken back")
        if any(fault.kind == "damage-index" for fault in faults):
            # Nobody meets all of an index by reading files: that is the scrubber's work, and the next round may hit other nodes.
            await self._scrub()
        await self._report_damage()
        # New blocks would be short of copies for a moment, again and again.
        self._shared.going.clear()
        await self._whole()
        self._shared.going.set()

    async def _scrub(self) -> None:
        late = await asyncio.to_thread(
            scrub.everything, self._cluster, self._cluster.url, limit_s=SCRUB_LIMIT_S
        )
        self._say("everything is scrubbed")
        self._complaints += [f"the scrubber did not get through {volume}" for volume in late]

    async def _report_damage(self) -> None:
        """Tell the NameNode of damaged replicas that no reader happened to meet, as one who met them would."""
        found = await asyncio.to_thread(facts.gather, self._cluster)
        bad = [
            BadReplica(
                block=BlockRef(
                    block_id=BlockId(block_id), generation=GenerationStamp(replica.generation)
                ),
                node_id=NodeId(node),
                reason="corrupt",
            )
            for node, replicas in found.replicas.items()
            for block_id, replica in replicas.items()
            if block_id in found.blocks
            and replica.finalized
            and replica.generation == found.blocks[block_id].generation
            and replica.digest != found.blocks[block_id].digest
        ]
        if bad:
            self._say(f"{len(bad)} damaged replicas are reported")
            namenode = HttpNameNode(self._cluster.url, user="root")
            try:
                await asyncio.to_thread(
                    namenode.call, "report_bad_replicas", ReportBadReplicas(replicas=bad)
                )
            finally:
                namenode.close()

    async def _whole(self) -> None:
        """Until no block is short of copies, so that the next round may destroy others."""
        began_s = self._clock.monotonic_s()
        while self._clock.monotonic_s() < began_s + HEAL_LIMIT_S:
            report = await asyncio.to_thread(self._cluster.report)
            if not (report.safe_mode or report.under_replicated or report.missing):
                return
            await asyncio.sleep(0.5)
        self._complaints.append(
            f"{report.under_replicated} blocks were still short of copies {HEAL_LIMIT_S:.0f} s after a round"
        )

    async def _judge(self) -> Outcome:
        reader = Client("final", self._shared, self._config("final"), random.Random(0))
        try:
            try:
                async with asyncio.timeout(SETTLE_LIMIT_S):
                    await settle(reader.fs, self._shared)
            except TimeoutError:
                self._complaints.append("a file that lost its writer could not be closed")
            await self._wait_until_healed()
            await read_everything(reader, self._shared)
        finally:
            await reader.close()
        self._complaints += [f"a client saw {line}" for line in self._shared.surprises]
        self._complaints += [f"{name} logged a traceback" for name in self._cluster.tracebacks()]
        self._complaints += await asyncio.to_thread(fsck, self._cluster)
        verdict = await asyncio.to_thread(judge, self._recorder.history())
        return Outcome(
            verdict,
            self._complaints,
            self._nemesis.done,
            self._shared.slowest_s,
            self._healed_s,
        )

    async def _wait_until_healed(self) -> None:
        """Until the disks are as they should be; what is still wrong at the limit is for the verdict."""
        began_s = self._clock.monotonic_s()
        while True:
            await self._report_damage()
            found = await asyncio.to_thread(facts.gather, self._cluster)
            self._healed_s = self._clock.monotonic_s() - began_s
            if not audit.check(found) or self._healed_s > HEAL_LIMIT_S:
                self._recorder.facts(audit.to_json(found))
                return
            await asyncio.sleep(1.0)


def fsck(cluster: LocalFaultyCluster) -> list[str]:
    """What `dfs fsck` complains of."""
    dfs = [sys.executable, "-c", "from twinfs.client.cli import main; main()"]
    done = subprocess.run(
        [*dfs, "--namenode", cluster.url, "fsck", "/"], capture_output=True, text=True, check=False
    )
    return [] if done.returncode == 0 else [f"fsck: {done.stdout[-2000:]}{done.stderr[-500:]}"]


def chaos(
    folder: Path,
    history: Path | None,
    *,
    seed: int,
    minutes: float,
    nodes: int,
    clients: int,
    without: Sequence[str] = (),
    say: bool = True,
) -> Outcome:
    """A whole run in *folder*."""
    rounds = schedule(seed, minutes, nodes, without=without)
    recorder = Recorder(history, seed=seed, minutes=minutes, nodes=nodes, clients=clients)
    try:
        with LocalFaultyCluster(folder, datanodes=nodes, volumes=2, seed=seed) as cluster:
            run = Run(cluster, recorder, seed=seed, rounds=rounds, clients=clients, say=say)
            return asyncio.run(run.run())
    finally:
        recorder.close()


@click.command(context_settings={"show_default": True})
@click.option("--seed", default=1, help="Fixes the course of faults and what clients try.")
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    default=3.0,
    help="How long faults happen, in rounds of 20 s.",
)
@click.option("--nodes", type=click.IntRange(3), default=5, help="DataNodes.")
@click.option("--clients", type=click.IntRange(1), default=6, help="Concurrent clients.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, writable=True, path_type=Path),
    default=None,
    help="Where everything lies, kept afterwards [default: a temporary folder; of a clean run, its history stays].",
)
@click.option(
    "--history",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="File of the history.",
)
@click.option("--without", multiple=True, type=click.Choice(KINDS), help="Leave out this kind.")
@click.option("--plan", is_flag=True, help="Only print the schedule.")
def main(
    seed: int,
    minutes: float,
    nodes: int,
    clients: int,
    folder: Path | None,
    history: Path | None,
    without: tuple[str, ...],
    plan: bool,
) -> None:
    """Break a cluster under concurrent clients, heal it, and print a verdict; exit 1 if it is not clean."""
    if plan:
        for number, faults in enumerate(schedule(seed, minutes, nodes, without=without), 1):
            print(f"round {number}")
            for fault in faults:
                print(f"  {fault}")
        return
    kept = folder or Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    history = history or kept / "history.jsonl"
    kept.mkdir(parents=True, exist_ok=True)
    outcome = chaos(
        kept / "cluster",
        history,
        seed=seed,
        minutes=minutes,
        nodes=nodes,
        clients=clients,
        without=without,
    )
    print(outcome)
    print(json.dumps({"seed": seed, "clean": outcome.clean, "history": str(history)}))
    if outcome.clean and folder is None:
        shutil.rmtree(kept / "cluster")
    sys.exit(0 if outcome.clean else 1)


if __name__ == "__main__":
    main()

"""A checker that can't fail is worth nothing: it must say no to a cluster with any of these bugs, and yes without.

Each scenario provokes one bug for certain. All of them together, on the servers as they are, have to be clean.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scripts.checker import audit
from scripts.checker.history import Recorder
from scripts.checker.pieces import piece
from scripts.checker.verdict import Verdict, judge
from scripts.faults import corrupt, crash, facts, link
from scripts.faults.local import LocalFaultyCluster
from scripts.faults.workload import Client, Shared
from twinfs.client import block_reader
from twinfs.client.cli.cluster import named_proxy
from twinfs.common.config import ClientConfig
from twinfs.common.runtime import SystemClock

from ..support.cluster import eventually
from .planted import BUGS

pytestmark = pytest.mark.timeout(400)  # clusters start and heal; a slow machine is no failure
ROOT = Path(__file__).resolve().parents[2]
HEAL_LIMIT_S = 60.0
STILL_WRONG_S = 6.0  # a bug that keeps a cluster from healing has been given this long
LARGE = 150_000  # bytes: a file of its own on the disk


class Stage:
    """A cluster, a client whose every step is written down, and what scenarios do with them."""

    def __init__(self, cluster: LocalFaultyCluster, recorder: Recorder, loaded: Client) -> None:
        self.cluster = cluster
        self.recorder = recorder
        self.client = loaded
        self.fs = loaded.fs
        self._number = 0
        self.heals = True  # whether waiting for the cluster to heal is worth while

    async def put(self, path: str, length: int = LARGE, replication: int | None = None) -> None:
        self._number += 1
        number = self._number

        async def call() -> None:
            await self.fs.write_bytes(path, piece(7, number, length), replication=replication)

        outcome = await self.client.attempt("put", call, path=path, write=number, length=length)
        assert outcome == ("ok", None)

    async def append(self, path: str, length: int = 1_000) -> None:
        self._number += 1
        number = self._number

        async def call() -> None:
            async with await self.fs.open(path, "ab") as file:
                await file.write(piece(7, number, length))

        await self.client.attempt("append", call, path=path, write=number, length=length)

    async def rename(self, source: str, destination: str) -> None:
        async def call() -> None:
            await self.fs.rename(source, destination)

        await self.client.attempt("rename", call, source=source, destination=destination)

    async def delete(self, path: str) -> None:
        await self.client.attempt(
            "delete", lambda: self.fs.delete(path), path=path, recursive=False
        )

    async def read(self, path: str, client: Client | None = None) -> None:
        await (client or self.client).read(path)

    async def kill(self, name: str) -> None:
        await asyncio.to_thread(self.cluster.kill, name)

    async def restart(self, *names: str) -> None:
        for name in names:
            await asyncio.to_thread(self.cluster.restart, name)
        await asyncio.to_thread(self.cluster.wait_live, len(self.cluster.datanodes))

    async def lose_power(self, *names: str) -> None:
        for name in names:
            await asyncio.to_thread(crash.power_loss, self.cluster.target(name))
        await self.restart(*names)

    async def holders(self, path: str) -> list[str]:
        """Names of the DataNodes that hold the (one) block of a file."""
        (located,) = (await self.fs.locate(path)).blocks
        by_data = {self.cluster.entry(name)["data"]: name for name in self.cluster.datanodes}
        return [by_data[node.data] for node in located.nodes]

    async def damage(self, name: str, path: str) -> dict[str, Any]:
        """Flip a bit in the replica of a file's block; what undoes it."""
        (located,) = (await self.fs.locate(path)).blocks
        target = self.cluster.target(name)
        place = corrupt.pick(target, located.block.block_id, random.Random(1))
        return corrupt.flip(target, place, 800_001)

    async def until_healed(self) -> None:
        clock = SystemClock()
        limit_s = clock.monotonic_s() + (HEAL_LIMIT_S if self.heals else STILL_WRONG_S)

        async def healed() -> bool:
            found = await asyncio.to_thread(facts.gather, self.cluster)
            return not audit.check(found) or clock.monotonic_s() > limit_s

        await eventually(healed, "the cluster is healed", HEAL_LIMIT_S + 5.0)
        found = await asyncio.to_thread(facts.gather, self.cluster)
        self.recorder.facts(audit.to_json(found))


# --- scenarios: each ends with the cluster as healthy as it can be ---


async def power_lost(stage: Stage) -> None:
    """Every machine with bytes loses power right after the answer."""
    await stage.put("/power/large")
    await stage.put("/power/small", 300)
    await stage.lose_power(*stage.cluster.datanodes)
    await stage.read("/power/large")
    await stage.read("/power/small")


async def stale_generation(stage: Stage) -> None:
    """A node dies in the middle of a write, the write goes on without it, and it comes back."""
    length = 200_000
    path, data = "/stale/file", piece(7, 900, length)

    async def write() -> None:
        async with await stage.fs.open(path, "xb", replication=3) as file:
            await file.write(data[:100_000])
            await file.sync()
            (victim, *_) = reversed(await stage.holders(path))
            await stage.kill(victim)
            await file.write(data[100_000:])
            dead.append(victim)

    dead: list[str] = []
    outcome = await stage.client.attempt("put", write, path=path, write=900, length=length)
    assert outcome[0] == "ok"
    await stage.restart(*dead)
    await stage.until_healed()
    await stage.read(path)


async def wrong_byte(stage: Stage) -> None:
    """The only copy of a file is damaged when it is read."""
    await stage.put("/wrong/file", replication=1)
    (holder,) = await stage.holders("/wrong/file")
    await stage.damage(holder, "/wrong/file")
    await stage.read("/wrong/file")
    await stage.delete("/wrong/file")


async def too_many_copies(stage: Stage) -> None:
    """A node is given up, its blocks are copied, and it comes back with them."""
    await stage.put("/excess/file")
    victim = (await stage.holders("/excess/file"))[0]
    await stage.kill(victim)

    async def copied() -> bool:
        holders = await stage.holders("/excess/file")
        return len(set(holders) - {victim}) == 3

    await eventually(copied, "the block has a third copy", HEAL_LIMIT_S)
    await stage.restart(victim)
    await stage.until_healed()


async def deleted_while_away(stage: Stage) -> None:
    """A file is deleted while a node that holds it is dead."""
    await stage.put("/gone/file")
    victim = (await stage.holders("/gone/file"))[0]
    block_id = (await stage.fs.locate("/gone/file")).blocks[0].block.block_id
    await stage.kill(victim)
    await stage.delete("/gone/file")

    async def deleted() -> bool:
        found = await asyncio.to_thread(facts.gather, stage.cluster)
        holding = [node for node, replicas in found.replicas.items() if block_id in replicas]
        return block_id not in found.blocks and len(holding) == 1

    await eventually(deleted, "the other nodes have deleted it", HEAL_LIMIT_S)
    await stage.restart(victim)
    await stage.until_healed()
    await stage.read("/gone/file")


async def read_again(stage: Stage) -> None:
    """A file is read, grows, and is read again."""
    await stage.put("/again/file", 2_000)
    await stage.read("/again/file")
    await stage.append("/again/file")
    await stage.read("/again/file")


async def renamed(stage: Stage) -> None:
    """The NameNode's machine loses power right after a rename was answered."""
    await stage.put("/renamed/a", 2_000)
    await stage.rename("/renamed/a", "/renamed/b")
    await stage.lose_power("namenode")
    await stage.read("/renamed/b")
    await stage.read("/renamed/a")


async def damaged_source(stage: Stage) -> None:
    """Of two copies one is lost and the other is damaged when it is to be copied.

    The node that copies is the only one who looks at the damage: it has to tell, or nothing will heal.
    """
    await stage.put("/source/file", replication=2)
    damaged, lost = await stage.holders("/source/file")
    block_id = (await stage.fs.locate("/source/file")).blocks[0].block.block_id
    await stage.damage(damaged, "/source/file")
    await stage.kill(lost)
    if stage.heals:
        # Nothing can be copied before the good copy is back. What would be, by mistake, is time enough for.
        await eventually(lambda: refused(stage, block_id), "a copy was refused", HEAL_LIMIT_S)
    else:
        await eventually(lambda: copied_damage(stage), "the damage is copied", HEAL_LIMIT_S)
    await stage.restart(lost)
    await stage.until_healed()
    await stage.read("/source/file")


async def refused(stage: Stage, block_id: int) -> bool:
    """A copy of the block was tried, and did not pass."""
    return any(
        f"block {block_id}: " in line and "does not match its digest" in line
        for name in stage.cluster.datanodes
        for line in stage.cluster.log_text(name).splitlines()
    )


async def copied_damage(stage: Stage) -> bool:
    found = await asyncio.to_thread(facts.gather, stage.cluster)
    return sum("other bytes" in line for line in audit.check(found)) > 1


async def appended_to_damage(stage: Stage) -> None:
    """A file grows whose last bytes have changed on the disks (but for one copy, where it is to heal)."""
    await stage.put("/grown/file", replication=3 if stage.heals else 1)
    holders = await stage.holders("/grown/file")
    for name in holders[:2]:
        await stage.damage(name, "/grown/file")
    await stage.append("/grown/file")
    await stage.read("/grown/file")


async def answer_lost(stage: Stage) -> None:
    """The answer to a rename does not come through, so the client sends it again."""
    cluster = stage.cluster
    await stage.put("/lost/a", 2_000)
    # Another client, not by way of the proxy, sees whether the rename has happened.
    async with Witness(cluster) as witness:
        id = await asyncio.to_thread(link.break_link, cluster, "namenode", "client", one_way=True)
        renaming = asyncio.ensure_future(stage.rename("/lost/a", "/lost/b"))

        async def happened() -> bool:
            return await witness.fs.exists("/lost/b")

        await eventually(happened, "the rename has happened")
        reset = await asyncio.to_thread(link.break_link, cluster, "namenode", "client", "refuse")
        await asyncio.to_thread(link.heal, cluster, id)
        await asyncio.to_thread(link.heal, cluster, reset)
        await renaming


async def copy_broken_off(stage: Stage) -> None:
    """A node dies in the middle of a copy, and the file is deleted meanwhile: what is there of it may not stay."""
    await stage.put("/broken/file")
    holders = await stage.holders("/broken/file")
    (other,) = set(stage.cluster.datanodes) - set(holders)
    target = stage.cluster.target(other)
    await asyncio.to_thread(crash.arm, target, "replica.rename")
    await stage.kill(holders[0])

    async def crashed() -> bool:
        return not target.alive

    block_id = (await stage.fs.locate("/broken/file")).blocks[0].block.block_id
    await eventually(crashed, "the copying node has crashed", HEAL_LIMIT_S)
    await stage.delete("/broken/file")

    async def forgotten() -> bool:
        found = await asyncio.to_thread(facts.gather, stage.cluster)
        return block_id not in found.blocks

    await eventually(forgotten, "the NameNode knows nothing of the block any more", HEAL_LIMIT_S)
    await asyncio.to_thread(crash.disarm, target)
    await stage.restart(holders[0], other)
    await stage.until_healed()


async def put_in_vain(stage: Stage) -> None:
    """Files are written where there are some already: what was sent of them may not stay, though the client that sent it lives on."""
    for name, length in (("small", 300), ("large", 150_000), ("blocks", 2_500_000)):
        path = f"/vain/{name}"
        await stage.put(path, length)
        data = piece(7, 901, length)
        call = lambda path=path, data=data: stage.fs.write_bytes(path, data)  # noqa: E731
        outcome = await stage.client.attempt("put", call, path=path, write=901, length=length)
        assert outcome == ("fail", "path-exists")
    await stage.until_healed()


class Witness:
    """A client that talks to the cluster directly."""

    def __init__(self, cluster: LocalFaultyCluster) -> None:
        shared = Shared(Recorder(), SystemClock(), 7)
        self._client = Client("witness", shared, config(cluster, ""), random.Random(0))
        self.fs = self._client.fs

    async def __aenter__(self) -> Witness:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()


Scenario = Callable[[Stage], Awaitable[None]]
# What provokes each bug, a word of the complaint, and how many DataNodes it takes.
CASES: dict[str, tuple[Scenario, str, int]] = {
    "acknowledge_before_fsync": (power_lost, "can't be read", 2),
    "skip_the_generation_check": (stale_generation, "on node", 3),
    "drop_the_digest_check": (wrong_byte, "wrong bytes", 1),
    "forget_the_excess_check": (too_many_copies, "4 copies, 3 are asked for", 4),
    "resurrect_on_restart": (deleted_while_away, "orphan", 3),
    "serve_stale_locations_for_ever": (read_again, "no order explains", 1),
    "lose_the_rename_on_crash": (renamed, "no order explains", 1),
    "repair_from_the_corrupt_copy": (damaged_source, "other bytes", 3),
    "hash_damage_again": (appended_to_damage, "wrong bytes", 1),
    "carry_out_resent_requests_again": (answer_lost, "no order explains", 1),
}


def config(cluster: LocalFaultyCluster, name: str) -> ClientConfig:
    proxy = named_proxy(cluster.proxy_url, name) if name else ""
    return ClientConfig(
        namenode=cluster.url,
        user="root",
        retry_s=30.0,
        read_timeout_s=5.0,
        proxy=proxy,
        short_circuit=False,
    )


@contextmanager
def cluster_with(folder: Path, bug: str, datanodes: int = 4) -> Iterator[LocalFaultyCluster]:
    modules = {role: f"tests.faults.planted.{role}" for role in ("namenode", "datanode")}
    with LocalFaultyCluster(
        folder,
        datanodes=datanodes,
        # What a scenario damages is for those to find whom it is about.
        datanode_options=("--scrub-bytes-per-s", "0"),
        modules=modules,
        environment={"PYTHONPATH": str(ROOT), "PLANTED_BUG": bug},
    ) as cluster:
        try:
            yield cluster
        except BaseException:
            for name in cluster.names:
                print(f"--- {name}\n{cluster.log_text(name)[-3000:]}")
            raise


async def played(cluster: LocalFaultyCluster, scenarios: list[Scenario], *, heals: bool) -> Verdict:
    """The verdict on a history with these scenarios in it."""
    recorder = Recorder(seed=7)
    shared = Shared(recorder, SystemClock(), 7)
    client = Client("client", shared, config(cluster, "client"), random.Random(0))
    stage = Stage(cluster, recorder, client)
    stage.heals = heals
    try:
        for scenario in scenarios:
            await scenario(stage)
        if heals:
            await stage.until_healed()
    finally:
        await client.close()
    last = Client("final", shared, config(cluster, "final"), random.Random(0))
    paths = {line["args"]["path"] for line in recorder.lines if line.get("kind") in ("put", "read")}
    try:
        for path in sorted(paths):
            await last.read(path)
    finally:
        await last.close()
    return judge(recorder.history())


async def test_the_servers_as_they_are_pass_every_scenario(tmp_path: Path) -> None:
    with cluster_with(tmp_path, "none") as cluster:
        # The client lives through all of it: what it leaves behind must not wait for its end.
        scenarios = [copy_broken_off, *(case[0] for case in CASES.values()), put_in_vain]
        verdict = await played(cluster, scenarios, heals=True)
        assert verdict.clean, str(verdict)
        assert verdict.blocks >= 7
        assert cluster.tracebacks() == []


@pytest.mark.parametrize("bug", CASES)
async def test_a_planted_bug_is_found(
    tmp_path: Path, bug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario, word, datanodes = CASES[bug]
    if bug == "drop_the_digest_check":
        # The one bug of the client, which is here.
        monkeypatch.setattr(block_reader, "digest_matches", lambda *_: True)
        monkeypatch.setattr(block_reader, "digest_of", AnyDigest)
    planted = bug if bug in BUGS else "none"
    with cluster_with(tmp_path, planted, datanodes) as cluster:
        verdict = await played(cluster, [scenario], heals=False)
    assert not verdict.clean
    assert any(word in line for line in verdict.complaints), str(verdict)


class AnyDigest:
    """Equal to every digest."""

    def __init__(self, data: object) -> None: ...

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def test_every_planted_bug_has_a_scenario() -> None:
    assert set(BUGS) - {"none"} <= set(CASES)
    assert len(CASES) >= 8

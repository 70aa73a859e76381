"""Talking to one NameNode: registering, heartbeats, reports, and doing what the answers command."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from .. import __version__
from ..client.namenode_api import RpcNameNode
from ..common.checksum import block_digest
from ..common.config import DataNodeConfig
from ..common.errors import DfsError, InvalidRequest, VersionMismatch
from ..common.framing import ask
from ..common.messages import (
    WIRE_VERSION,
    BadReplica,
    BalanceDisks,
    BlockCommit,
    BlockReportPage,
    Command,
    CommitRecovery,
    CopyReplica,
    DeleteReplicas,
    Heartbeat,
    HeartbeatAnswer,
    IncrementalReport,
    ManageVolume,
    RecoverBlock,
    Register,
    Registered,
    ReplicaReport,
    ReportBadReplicas,
    ReportBlocks,
    ScrubVolumes,
    VerifyReplicas,
    VolumeAnswer,
)
from ..common.model import BlockRef, NodeAddress, NodeId
from ..common.runtime import Clock, new_uuid
from ..common.transfer import BeginRecovery, FinishRecovery, ReadReady, WriteDone
from . import quarantine
from .blockstore import BlockStore
from .copies import COPIES_AT_ONCE, Copies
from .pacing import Pace
from .pipeline import Peers

log = logging.getLogger(__name__)
T = TypeVar("T")
MAX_REPORT = 10_000
COMPLAIN_EVERY_S = 60.0
DELETION_S = 0.2  # deletions that are not reported by then may be ordered again
RETRY_S = 1.0
COMMANDS_AT_ONCE = 4  # besides copies


@dataclass(frozen=True, slots=True)
class Workings:
    """What commands set to work besides the store."""

    pace: Pace  # of all copies to this node
    copiers: ThreadPoolExecutor  # copies take long: others do not wait for them
    stopping: threading.Event  # set when the process ends
    scrub: Callable[[int], None]  # bytes a second
    balance_disks: Callable[[float, int], None]  # threshold in percent, bytes a second
    manage_volume: Callable[[ManageVolume], Awaitable[None]]


class Reporter:
    """One NameNode's side of a DataNode."""

    def __init__(
        self,
        url: str,
        config: DataNodeConfig,
        store: BlockStore,
        peers: Peers,
        clock: Clock,
        *,
        uuid: str,
        address: NodeAddress,
        cluster_id: str,
        active: Callable[[], int],
        traffic: Callable[[], dict[str, int]],
        joined: Callable[[str, NodeId], Awaitable[None]],
        threads: ThreadPoolExecutor,
        workings: Workings,
    ) -> None:
        """*traffic* says what the counters of a heartbeat are. *joined* is called with the cluster's id and this node's after registration."""
        self._namenode = RpcNameNode(
            [url], user="datanode", software=f"datanode/{__version__}", proxy=config.proxy
        )
        self._url = url
        self._config = config
        self._store = store
        self._peers = peers
        self._clock = clock
        self._uuid = uuid
        self._address = address
        self._cluster_id = cluster_id
        self._active = active
        self._traffic = traffic
        self.last_answer_s: float | None = None
        self._complained_s = float("-inf")
        self.page_key = b""  # checks tokens of the NameNode's pages
        self._joined = joined
        self._threads = threads
        self._work_for = workings
        self._node_id: NodeId | None = None
        self._registered = asyncio.Event()
        self._interval_s = 3.0
        self._report_interval_s = 3600.0
        self._received: list[ReplicaReport] = []
        self._removed: list[BlockRef] = []
        self._bad: list[BlockRef] = []
        self._failed: list[BlockRef] = []
        self._news = asyncio.Event()
        self._report_wanted = asyncio.Event()
        self._work: asyncio.Queue[Command] = asyncio.Queue(maxsize=10_000)
        self._copies = Copies(
            store,
            peers,
            clock,
            workings.copiers,
            pace=workings.pace,
            stopping=workings.stopping,
            done=self._copied,
            bad=self._blame,
        )
        self._answer_seen = 0

    async def run(self) -> None:
        """Until cancelled. A NameNode that is away is waited for; one that refuses this node ends it."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._heartbeats(), name="heartbeat")
            tasks.create_task(self._incremental(), name="incremental reports")
            tasks.create_task(self._full_reports(), name="full reports")
            for number in range(COMMANDS_AT_ONCE):
                tasks.create_task(self._worker(), name=f"commands {number}")
            for number in range(COPIES_AT_ONCE):
                tasks.create_task(self._copies.worker(), name=f"copies {number}")

    @property
    def url(self) -> str:
        """The NameNode's."""
        return self._url

    async def close(self) -> None:
        await self._namenode.close()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        def run() -> T:
            return call()

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    # --- signs of life ---

    async def _register(self) -> None:
        volumes = [volume.report() for volume in self._store.volumes]
        request = Register(
            wire_version=WIRE_VERSION,
            version=__version__,
            uuid=self._uuid,
            address=self._address,
            cluster_id=self._cluster_id,
            volumes=volumes,
        )
        answer: Registered = await self._namenode.call("register", request)
        self._node_id = answer.node_id
        self._answer_seen = 0
        self._peers.node_id = answer.node_id
        self._interval_s = answer.heartbeat_interval_s
        self._report_interval_s = answer.block_report_interval_s
        self.page_key = answer.page_key
        await self._joined(answer.cluster_id, answer.node_id)
        self._cluster_id = answer.cluster_id
        self.last_answer_s = self._clock.monotonic_s()
        log.info("registered as DataNode %d with %s", answer.node_id, self._url)
        self._registered.set()
        self._report_wanted.set()

    def _complain(self, error: DfsError | TimeoutError) -> None:
        """Say that there is no answer: at once, and then once a minute, so that an hour without a NameNode does not fill the journal."""
        now_s = self._clock.monotonic_s()
        if now_s - self._complained_s >= COMPLAIN_EVERY_S:
            self._complained_s = now_s
            why = str(error) or "it took too long"
            log.warning("no answer from the NameNode %s: %s", self._url, why)

    async def _heartbeats(self) -> None:
        while True:
            try:
                if self._node_id is None or not self._registered.is_set():
                    await self._register()
                assert self._node_id is not None
                volumes = await self._in_thread(
                    lambda: [volume.report() for volume in self._store.volumes]
                )
                beat = Heartbeat(
                    node_id=self._node_id,
                    uuid=self._uuid,
                    wait_s=self._interval_s,
                    active_transfers=self._active(),
                    blocks=self._store.totals(),
                    answer_seen=self._answer_seen,
                    volumes=volumes,
                    **self._traffic(),
                )
                began_s = self._clock.monotonic_s()
                async with asyncio.timeout(self._interval_s + 10.0):
                    answer: HeartbeatAnswer = await self._namenode.call("heartbeat", beat)
            except (VersionMismatch, InvalidRequest):
                raise
            except (DfsError, TimeoutError) as error:
                self._complain(error)
                await asyncio.sleep(RETRY_S)
                continue
            self.last_answer_s = self._clock.monotonic_s()
            if self._complained_s > float("-inf"):
                log.info("the NameNode %s answers again", self._url)
                self._complained_s = float("-inf")
            if answer.register_again:
                self._registered.clear()
                continue
            self._answer_seen = answer.number or self._answer_seen
            for command in answer.commands:
                if isinstance(command, CopyReplica):
                    self._copies.order(command)
                else:
                    await self._work.put(command)
            if any(isinstance(command, DeleteReplicas) for command in answer.commands):
                # Let them end first, so that they are not given out twice.
                await asyncio.sleep(DELETION_S)
            elif answer.commands:
                continue
            elif self._clock.monotonic_s() - began_s < self._interval_s / 2:
                await asyncio.sleep(self._interval_s / 2)

    # --- reports ---

    def received(self, replica: ReplicaReport) -> None:
        self._received.append(replica)
        self._news.set()

    def removed(self, blocks: list[BlockRef]) -> None:
        self._removed += blocks
        self._news.set()

    def bad(self, block: BlockRef) -> None:
        self._bad.append(block)
        self._news.set()

    async def _incremental(self) -> None:
        await self._registered.wait()
        while True:
            # What comes while a report is under way travels together, in the next one.
            await self._news.wait()
            self._news.clear()
            received, self._received = self._received, []
            removed, self._removed = self._removed, []
            bad, self._bad = self._bad, []
            failed, self._failed = self._failed, []
            if not (received or removed or bad or failed):
                continue
            assert self._node_id is not None
            report = IncrementalReport(
                node_id=self._node_id,
                received=received[:MAX_REPORT],
                removed=removed[:MAX_REPORT],
                bad=bad[:MAX_REPORT],
                failed=failed[:MAX_REPORT],
            )
            try:
                await self._namenode.call("incremental_report", report)
            except DfsError as error:
                log.warning("a report did not get through: %s", error)
                self._received, self._removed = received + self._received, removed + self._removed
                self._bad, self._failed = bad + self._bad, failed + self._failed
                await asyncio.sleep(RETRY_S)
                self._news.set()
                continue
            self._received = received[MAX_REPORT:] + self._received
            self._removed = removed[MAX_REPORT:] + self._removed
            self._bad = bad[MAX_REPORT:] + self._bad
            self._failed = failed[MAX_REPORT:] + self._failed
            if self._received or self._removed or self._bad or self._failed:
                self._news.set()

    async def _full_reports(self) -> None:
        while True:
            await self._registered.wait()
            try:
                async with asyncio.timeout(self._report_interval_s):
                    await self._report_wanted.wait()
            except TimeoutError:
                pass
            self._report_wanted.clear()
            try:
                await self._full_report()
            except DfsError as error:
                log.warning("a full block report did not get through: %s", error)
                await asyncio.sleep(RETRY_S)
                self._report_wanted.set()

    async def _full_report(self) -> None:
        assert self._node_id is not None
        report_id = new_uuid()
        pages = self._store.pages(self._config.report_page)
        while True:
            page = await self._in_thread(lambda: next(pages, None))
            if page is None:
                return
            after, replicas, last = page
            await self._namenode.call(
                "block_report",
                BlockReportPage(
                    node_id=self._node_id,
                    report_id=report_id,
                    start_after=after,
                    replicas=replicas,
                    last=last,
                ),
            )

    # --- commands ---

    async def _worker(self) -> None:
        while True:
            command = await self._work.get()
            try:
                await self._obey(command)
            except DfsError as error:
                log.warning("a command could not be carried out: %s", error)
            except Exception:
                log.exception("a command failed")

    async def _obey(self, command: Command) -> None:
        if isinstance(command, DeleteReplicas):
            self.removed(await self._in_thread(lambda: self._store.remove(command.blocks)))
        elif isinstance(command, RecoverBlock):
            commit = await self._in_thread(lambda: recover_block(self._peers, command))
            await self._namenode.call("commit_recovery", commit)
        elif isinstance(command, VerifyReplicas):
            await self.verify(command.blocks)
        elif isinstance(command, ScrubVolumes):
            self._work_for.scrub(command.bytes_per_s)
        elif isinstance(command, BalanceDisks):
            self._work_for.balance_disks(command.threshold_percent, command.bytes_per_s)
        elif isinstance(command, ManageVolume):
            await self._manage_volume(command)
        else:
            assert isinstance(command, ReportBlocks)
            self._report_wanted.set()

    async def _manage_volume(self, order: ManageVolume) -> None:
        problem = ""
        try:
            await self._work_for.manage_volume(order)
        except DfsError as error:
            problem = error.message
        assert self._node_id is not None
        volumes = await self._in_thread(lambda: [v.report() for v in self._store.volumes])
        answer = VolumeAnswer(
            node_id=self._node_id, order_id=order.order_id, problem=problem, volumes=volumes
        )
        await self._namenode.call("volume_answer", answer)

    def _copied(self, here: Sequence[ReplicaReport], failed: Sequence[BlockRef]) -> None:
        self._received += here
        self._failed += failed
        self._news.set()

    async def _blame(self, bad: list[BadReplica]) -> None:
        await self._namenode.call("report_bad_replicas", ReportBadReplicas(replicas=bad))

    def report_now(self) -> None:
        """Send a full block report soon."""
        self._report_wanted.set()

    async def verify(self, blocks: list[BlockRef]) -> None:
        """Look at replicas, and report what is there."""
        for block in blocks:
            verdict = await self._in_thread(
                lambda block=block: quarantine.verify(self._store, block)  # type: ignore[misc]
            )
            if verdict == "missing":
                self.removed([block])
            elif verdict == "corrupt":
                self.bad(block)
            elif verdict == "good":
                replica = await self._in_thread(
                    lambda block=block: self._store.report_of(block)  # type: ignore[misc]
                )
                if replica is not None and replica.finalized:
                    self.received(replica)


def recover_block(peers: Peers, command: RecoverBlock) -> CommitRecovery:
    """Lead the recovery of a block: agree on a length among those that answer, finalize there.

    A finalized replica's length stands. Otherwise the shortest of those of the newest generation; what was synced is in all of them,
    because a sync is acknowledged by all. Replicas shorter than that are left out.
    """
    found: list[tuple[NodeAddress, ReadReady]] = []
    begin = BeginRecovery(block=command.block, new_generation=command.new_generation)
    for address in command.nodes:
        try:
            connection = peers.open(address)
        except DfsError as error:
            log.info("recovery of block %d: %s", command.block.block_id, error.message)
            continue
        try:
            found.append((address, ask(connection, begin, ReadReady)))
        except DfsError as error:
            log.info("recovery of block %d: %s", command.block.block_id, error.message)
        finally:
            connection.close()
    # A node that dropped out of the pipeline has an older generation: its word counts after the others'.
    found.sort(key=lambda entry: (not entry[1].finalized, -entry[1].generation))
    enough = [entry for entry in found if entry[1].block_length >= command.minimum_length]
    none = CommitRecovery(block=command.block, new_generation=command.new_generation)
    if not enough:
        if command.minimum_length:
            raise InvalidRequest("no replica with the synced bytes answers yet; tried again later")
        return none
    finalized = [ready.block_length for _, ready in enough if ready.finalized]
    newest = max(ready.generation for _, ready in enough)
    current = [ready.block_length for _, ready in enough if ready.generation == newest]
    length = finalized[0] if finalized else min(current)
    if length == 0:
        return none
    nodes: list[NodeId] = []
    digests = b""
    finish = FinishRecovery(
        block=command.block, new_generation=command.new_generation, length=length
    )
    for address, ready in enough:
        if ready.block_length < length:
            continue
        try:
            connection = peers.open(address)
        except DfsError:
            continue
        try:
            done = ask(connection, finish, WriteDone)
            if not digests:
                digests = done.digests
            if done.digests == digests:
                nodes.append(address.node_id)
        except DfsError as error:
            log.warning("recovery of block %d: %s", command.block.block_id, error.message)
        finally:
            connection.close()
    if not nodes:
        raise InvalidRequest("no node could finalize the block; tried again later")
    return CommitRecovery(
        block=command.block,
        new_generation=command.new_generation,
        commit=BlockCommit(
            block_id=command.block.block_id,
            generation=command.new_generation,
            length=length,
            digest=block_digest(digests),
            nodes=nodes,
        ),
    )

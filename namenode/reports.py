"""What DataNodes say: registration, heartbeats, block reports; and what operators ask of the whole cluster."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from ..common.checksum import DIGEST_BYTES
from ..common.config import NameNodeConfig
from ..common.errors import InvalidConfig, InvalidRequest, VersionMismatch
from ..common.messages import (
    WIRE_VERSION,
    BlockReportPage,
    ClusterReport,
    CommitRecovery,
    DeleteReplicas,
    Done,
    GetReport,
    GetServerInfo,
    Heartbeat,
    HeartbeatAnswer,
    IncrementalReport,
    Register,
    Registered,
    ReplicaReport,
    ReportBadReplicas,
    ServerInfo,
    VerifyReplicas,
)
from ..common.model import BlockId, BlockRef, GenerationStamp, NodeAddress, NodeId
from ..common.runtime import Clock
from . import backup, leases
from .blockmap import CORRUPT, GOOD, IN_LIMIT, IS_TO_DELETE, TO_DELETE
from .datanodes import DataNodes
from .permissions import Caller
from .replication import ReplicationMonitor
from .safemode import SafeModeGate
from .store.base import MetadataStore, Transaction
from .store.sql import marks
from .topology import Topology, check_rack

log = logging.getLogger(__name__)
COMMANDS_PER_ANSWER = 500
DELETIONS_PER_ANSWER = 1_000
MAX_HOLD_S = 10.0
COUNTS_MEMORY_S = 2.0
COUNTING_SHARE = (
    20  # counts are kept so many times as long as counting took, and no longer than that
)
NOT_COUNTED = (0,) * 6


class Reports:
    """Handlers of the operations that are not plain reads or writes of the namespace."""

    def __init__(
        self,
        config: NameNodeConfig,
        store: MetadataStore,
        nodes: DataNodes,
        monitor: ReplicationMonitor,
        gate: SafeModeGate,
        topology: Topology,
        clock: Clock,
        *,
        cluster_id: str,
        version: str,
        page_key: bytes = b"",
        wake: Callable[[], None] = lambda: None,
        consider: Callable[[Sequence[int]], None] | None = None,
    ) -> None:
        """*wake* is called when repair has something to look at; *consider* gets blocks of which this NameNode alone may know that
        something is wrong with them."""
        self._config = config
        self._store = store
        self._nodes = nodes
        self._monitor = monitor
        self._gate = gate
        self._topology = topology
        self._clock = clock
        self._cluster_id = cluster_id
        self._version = version
        self._page_key = page_key
        self._wake = wake
        self._consider = consider or monitor.consider
        self._counts: tuple[tuple[NodeId, ...], float, tuple[int, ...]] = ((), float("-inf"), ())
        self._counting = asyncio.Lock()
        self._verifying: dict[NodeId, float] = {}

    def handlers(self) -> dict[str, Callable[[Caller, Any], Any]]:
        return {
            "register": self.register,
            "heartbeat": self.heartbeat,
            "block_report": self.block_report,
            "incremental_report": self.incremental_report,
            "commit_recovery": self.commit_recovery,
            "report_bad_replicas": self.report_bad_replicas,
            "report": self.report,
            "server_info": self.server_info,
        }

    # --- DataNodes ---

    async def register(self, caller: Caller, request: Register) -> Registered:
        if request.wire_version != WIRE_VERSION:
            raise VersionMismatch(
                f"this NameNode speaks wire version {WIRE_VERSION}, the DataNode {request.wire_version}"
            )
        if request.cluster_id and request.cluster_id != self._cluster_id:
            raise InvalidRequest(
                f"the DataNode's volumes belong to the cluster {request.cluster_id}; "
                f"this is {self._cluster_id}"
            )
        request = await self._placed(request)
        node_id = await self._store.run(lambda tx: _remember_node(tx, request, self._clock))
        address = msgspec.structs.replace(request.address, node_id=node_id)
        self._nodes.register(node_id, request.uuid, address, request.version, request.volumes)
        # Copies it was told to make went with its former process.
        self._monitor.forget(node_id)
        self._wake()
        log.info("DataNode %d registered: %s", node_id, address.data)
        return Registered(
            node_id=node_id,
            cluster_id=self._cluster_id,
            heartbeat_interval_s=self._config.heartbeat_interval_s,
            block_report_interval_s=self._config.block_report_interval_s,
            page_key=self._page_key,
        )

    async def _placed(self, request: Register) -> Register:
        """*request* with the rack that the configured topology says; the node's own word where it says nothing."""
        address = request.address
        rack: str | None = check_rack(address.rack)
        if self._topology.configured:
            try:
                rack = (await self._topology.racks([(address, request.uuid)]))[0] or rack
            except InvalidConfig as error:
                known = [n.address.rack for n in self._nodes.all() if n.uuid == request.uuid]
                rack = known[0] if known else rack
                log.error("DataNode %s counts as on %s: %s", address.data, rack, error.message)
        placed = msgspec.structs.replace(address, rack=rack)
        return msgspec.structs.replace(request, address=placed)

    async def heartbeat(self, caller: Caller, request: Heartbeat) -> HeartbeatAnswer:
        """Answered at once with what there is to do, or held back up to `wait_s` until there is something."""
        node = self._nodes.heartbeat(request)
        if node is None:
            return HeartbeatAnswer(commands=[], register_again=True)
        deletions = await self._store.read(
            lambda tx: tx.all(
                f"SELECT block_id, generation FROM replicas WHERE node_id = ? AND {IS_TO_DELETE} LIMIT ?",
                (request.node_id, DELETIONS_PER_ANSWER),
            )
        )
        if not node.commands and not deletions and request.wait_s > 0:
            node.waiting.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(request.wait_s, MAX_HOLD_S)):
                    await node.waiting.wait()
        number, commands = self._nodes.give_out(node, COMMANDS_PER_ANSWER)
        if deletions:
            commands.append(DeleteReplicas(blocks=[_ref(row[0], row[1]) for row in deletions]))
        return HeartbeatAnswer(commands=commands, number=number)

    async def incremental_report(self, caller: Caller, request: IncrementalReport) -> Done:
        short, unwanted = await self._store.run(lambda tx: _apply_incremental(tx, request))
        arrived = [replica.block_id for replica in request.received]
        for block_id in arrived:
            self._monitor.received(block_id, request.node_id)
        for ref in request.failed:
            self._monitor.failed(ref.block_id, request.node_id, self._clock.monotonic_s())
        self._monitor.consider([*short, *arrived])
        if request.bad:
            # Said to whoever asked the node to look, unlike arrivals, which every NameNode is told of.
            self._consider([ref.block_id for ref in request.bad])
        self._wake()
        self._delete(request.node_id, unwanted)
        return Done()

    async def block_report(self, caller: Caller, request: BlockReportPage) -> Done:
        found = await self._store.read(lambda tx: _compare_page(tx, request))
        self._delete(request.node_id, found.unwanted)
        if found.news:
            report = IncrementalReport(node_id=request.node_id, received=found.news)
            await self.incremental_report(caller, report)
        # A commit may have crossed this report, so the node is asked before a row is dropped.
        asked = [*found.missing, *found.doubtful]
        for start in range(0, len(asked), DELETIONS_PER_ANSWER):
            part = asked[start : start + DELETIONS_PER_ANSWER]
            self._nodes.command(request.node_id, VerifyReplicas(blocks=part))
        return Done()

    def _delete(self, node_id: NodeId, blocks: Sequence[BlockRef]) -> None:
        for start in range(0, len(blocks), DELETIONS_PER_ANSWER):
            part = list(blocks[start : start + DELETIONS_PER_ANSWER])
            self._nodes.command(node_id, DeleteReplicas(blocks=part))

    async def commit_recovery(self, caller: Caller, request: CommitRecovery) -> Done:
        now_ms = self._clock.wall_ms()
        await self._store.run(lambda tx: leases.commit_recovery(tx, caller, request, now_ms=now_ms))
        self._consider([request.block.block_id])
        self._wake()
        return Done()

    async def report_bad_replicas(self, caller: Caller, request: ReportBadReplicas) -> Done:
        """A reader's word: the node is asked to look; it answers with an incremental report."""
        asked: dict[NodeId, list[BlockRef]] = {}
        for entry in request.replicas:
            asked.setdefault(entry.node_id, []).append(entry.block)
        for node_id, blocks in asked.items():
            self._nodes.command(node_id, VerifyReplicas(blocks=blocks))
        return Done()

    # --- operators ---

    async def server_info(self, caller: Caller, request: GetServerInfo) -> ServerInfo:
        config = self._config
        return ServerInfo(
            cluster_id=self._cluster_id,
            version=self._version,
            wire_version=WIRE_VERSION,
            default_replication=config.replication,
            default_block_size=config.block_bytes,
            min_replicas=config.min_replicas,
            small_block_bytes=config.small_block_bytes,
            trash_interval_s=config.trash_interval_s,
            lease_timeout_s=config.lease_timeout_s,
        )

    async def report(self, caller: Caller, request: GetReport) -> ClusterReport:
        counts = await self._counted() if request.counts else NOT_COUNTED
        files, directories, blocks, short, missing, deletions = counts
        nodes = self._nodes.report()
        live = [node for node in nodes if node.state != "dead"]
        return ClusterReport(
            cluster_id=self._cluster_id,
            version=self._version,
            safe_mode=self._gate.reason(),
            files=files,
            directories=directories,
            blocks=blocks,
            under_replicated=short,
            missing=missing,
            pending_deletion=deletions,
            capacity_bytes=sum(node.capacity_bytes for node in live),
            used_bytes=sum(node.used_bytes for node in live),
            remaining_bytes=sum(node.remaining_bytes for node in live),
            nodes=nodes,
        )

    async def _counted(self) -> tuple[int, ...]:
        async with self._counting:  # whoever comes meanwhile takes the same counts
            now_s = self._clock.monotonic_s()
            alive = tuple(sorted(self._nodes.not_dead()))
            if self._counts[0] != alive or self._counts[1] < now_s:
                counts = await self._store.read(lambda tx: _counts(tx, alive))
                ended_s = self._clock.monotonic_s()
                # Where counting is quick, the counts are fresh.
                memory_s = min(COUNTS_MEMORY_S, COUNTING_SHARE * (ended_s - now_s))
                self._counts = (alive, ended_s + memory_s, counts)
            return self._counts[2]


def _ref(block_id: int, generation: int) -> BlockRef:
    return BlockRef(block_id=BlockId(block_id), generation=GenerationStamp(generation))


def _remember_node(tx: Transaction, request: Register, clock: Clock) -> NodeId:
    """The node id that belongs to the node's UUID, for ever."""
    address = request.address
    where = (address.host, address.data, address.http, address.socket, address.rack)
    row = tx.one("SELECT node_id FROM datanodes WHERE uuid = ?", (request.uuid,))
    if row is not None:
        tx.execute(
            "UPDATE datanodes SET host = ?, data_address = ?, http_address = ?, socket_path = ?,"
            " rack = ? WHERE node_id = ?",
            (*where, row[0]),
        )
        return NodeId(row[0])
    node_id = tx.new_ids("node")
    tx.execute(
        "INSERT INTO datanodes (node_id, uuid, host, data_address, http_address, socket_path, rack,"
        " admin_state, registered_ms) VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)",
        (node_id, request.uuid, *where, clock.wall_ms()),
    )
    return NodeId(node_id)


def known_nodes(tx: Transaction) -> list[tuple[NodeId, str, NodeAddress]]:
    """Every node ever registered: (id, uuid, address). What was decided about them: `orders.admin_rows`."""
    return [
        (
            NodeId(row[0]),
            row[1],
            NodeAddress(
                node_id=NodeId(row[0]),
                host=row[2],
                data=row[3],
                http=row[4],
                socket=row[5],
                rack=row[6],
            ),
        )
        for row in tx.all(
            "SELECT node_id, uuid, host, data_address, http_address, socket_path, rack FROM datanodes"
        )
    ]


def _known_blocks(
    tx: Transaction, block_ids: Sequence[int]
) -> dict[int, tuple[int, int, bytes | None]]:
    """block id -> (generation, length, digest)."""
    found: dict[int, tuple[int, int, bytes | None]] = {}
    for start in range(0, len(block_ids), IN_LIMIT):
        part = block_ids[start : start + IN_LIMIT]
        for row in tx.all(
            "SELECT block_id, generation, length, digest FROM blocks"
            f" WHERE block_id IN ({marks(len(part))})",
            part,
        ):
            found[row[0]] = (row[1], row[2], None if row[3] is None else bytes(row[3]))
    return found


def _is_allocated(tx: Transaction, block_id: int) -> bool:
    row = tx.one(
        "SELECT last_block_id FROM allocations WHERE first_block_id <= ?"
        " ORDER BY first_block_id DESC LIMIT 1",
        (block_id,),
    )
    return row is not None and row[0] >= block_id


def _judge(
    tx: Transaction,
    replica: ReplicaReport,
    known: tuple[int, int, bytes | None] | None,
    node_id: NodeId,
) -> Literal["good", "damaged", "unwanted", "wait"]:
    """What a reported replica is. "wait": its block is being written, or nothing better is known of yet."""
    if known is None:
        if _is_allocated(tx, replica.block_id) or backup.is_spared(tx, replica.block_id):
            return "wait"
        return "unwanted"
    generation, length, digest = known
    if digest is None:
        # One of an older generation may be all that is left of the synced bytes.
        return "wait"
    if replica.generation > generation:
        return "wait"
    if not replica.finalized or replica.generation < generation:
        # Old bytes: they go, unless the block has no good copy that anybody knows of.
        other = tx.one(
            f"SELECT 1 FROM replicas WHERE block_id = ? AND state = {GOOD} AND node_id <> ? LIMIT 1",
            (replica.block_id, node_id),
        )
        return "wait" if other is None else "unwanted"
    if replica.damaged or replica.length != length:
        return "damaged"
    if len(replica.digest) == DIGEST_BYTES and replica.digest != digest:
        return "damaged"
    return "good"


def _apply_incremental(
    tx: Transaction, request: IncrementalReport
) -> tuple[list[int], list[BlockRef]]:
    """Bring the rows up to date: (blocks that may be short of copies, replicas the node should delete)."""
    said = [replica.block_id for replica in request.received]
    known = _known_blocks(tx, [*said, *(ref.block_id for ref in request.bad)])
    good: list[tuple[int, int, int]] = []
    damaged = [
        (ref.block_id, request.node_id, ref.generation)
        for ref in request.bad
        if ref.block_id in known
        and known[ref.block_id][2] is not None
        and known[ref.block_id][0] == ref.generation
    ]
    unwanted: list[BlockRef] = []
    for replica in request.received:
        verdict = _judge(tx, replica, known.get(replica.block_id), request.node_id)
        if verdict == "good":
            good.append((replica.block_id, request.node_id, replica.generation))
        elif verdict == "damaged":
            damaged.append((replica.block_id, request.node_id, replica.generation))
        elif verdict == "unwanted":
            unwanted.append(_ref(replica.block_id, replica.generation))
    for state, rows in ((GOOD, good), (CORRUPT, damaged)):
        tx.many(
            f"INSERT INTO replicas (block_id, node_id, state, generation) VALUES (?, ?, {state}, ?)"
            f" ON CONFLICT (block_id, node_id) DO UPDATE SET state = {state},"
            " generation = excluded.generation"
            # A row that says "delete it" stands: only a newer generation is another replica.
            f" WHERE replicas.state <> {TO_DELETE} OR replicas.generation < excluded.generation",
            rows,
        )
    tx.many(
        "DELETE FROM replicas WHERE block_id = ? AND node_id = ? AND generation <= ?"
        " AND state <> 1",
        [(ref.block_id, request.node_id, ref.generation) for ref in request.removed],
    )
    short = [ref.block_id for ref in (*request.removed, *request.bad)]
    return [*short, *(row[0] for row in damaged)], unwanted


def _is_another(replica: ReplicaReport, generation: int) -> bool:
    """Whether a row of *generation* is of a replica that is not there: *replica* is."""
    return replica.generation != generation


class _Compared(NamedTuple):
    """What a page of a full report shows beside the rows."""

    unwanted: list[BlockRef]
    news: list[ReplicaReport]  # good and damaged ones whose rows do not say so
    missing: list[BlockRef]  # rows without a replica
    doubtful: list[BlockRef]  # rows that say something else than the node


def _compare_page(tx: Transaction, request: BlockReportPage) -> _Compared:
    reported = {replica.block_id: replica for replica in request.replicas}
    end = 2**62 if request.last or not reported else max(reported)
    rows = {
        row[0]: (row[1], row[2])
        for row in tx.all(
            "SELECT block_id, state, generation FROM replicas"
            " WHERE node_id = ? AND block_id > ? AND block_id <= ?",
            (request.node_id, request.start_after, end),
        )
    }
    known = _known_blocks(tx, list(reported))
    found = _Compared([], [], [], [])
    for block_id, replica in reported.items():
        state, generation = rows.get(block_id, (None, 0))
        verdict = _judge(tx, replica, known.get(block_id), request.node_id)
        if state in (GOOD, CORRUPT) and _is_another(replica, generation):
            found.doubtful.append(_ref(block_id, generation))
        if verdict == "unwanted":
            found.unwanted.append(_ref(block_id, replica.generation))
        elif verdict == "good" and state is None:
            found.news.append(replica)
        elif verdict == "good" and state == CORRUPT:
            found.doubtful.append(_ref(block_id, replica.generation))
        elif verdict == "damaged" and state in (None, GOOD):
            found.news.append(replica)
    found.missing.extend(
        _ref(block_id, generation)
        for block_id, (state, generation) in rows.items()
        if block_id not in reported and state in (GOOD, TO_DELETE, CORRUPT)
    )
    return found


def _counts(tx: Transaction, alive: Sequence[NodeId]) -> tuple[int, ...]:
    """Files, directories, blocks, short ones, missing ones, replicas to be deleted."""
    kinds = {
        row[0]: row[1]
        for row in tx.all("SELECT kind, COUNT(*) FROM inodes WHERE parent_id <> 2 GROUP BY kind")
    }
    condition = f"r.node_id IN ({marks(len(alive))})" if alive else "1 = 0"
    row = tx.one(
        "SELECT COUNT(*), COALESCE(SUM(CASE WHEN c < w THEN 1 ELSE 0 END), 0),"
        " COALESCE(SUM(CASE WHEN c = 0 THEN 1 ELSE 0 END), 0) FROM"
        " (SELECT b.replication AS w, COUNT(r.node_id) AS c FROM blocks b"
        f" LEFT JOIN replicas r ON r.block_id = b.block_id AND r.state = {GOOD} AND {condition}"
        " WHERE b.digest IS NOT NULL GROUP BY b.block_id, b.replication) counted",
        list(alive),
    )
    deletions = tx.one(f"SELECT COUNT(*) FROM replicas WHERE {IS_TO_DELETE}")
    assert row is not None
    assert deletions is not None
    return (kinds.get(2, 0), kinds.get(1, 0), int(row[0]), int(row[1]), int(row[2]), deletions[0])

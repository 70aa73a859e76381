"""Background work of a NameNode: leases, trash, unlinked trees, repair, old answers and events.

Each job runs in small transactions. What must not be done twice at once holds a row of `jobs`, so that one of several
NameNodes works on it, and any other goes on when that one is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from ..common.config import NameNodeConfig
from ..common.content import Collect
from ..common.errors import Busy, DfsError, StoreUnavailable
from ..common.messages import Delete, RecoverBlock, Rename
from ..common.model import NodeId
from ..common.runtime import Clock, format_time, new_uuid, to_next_tick_s
from . import audit, events, leases, repair_news
from .balancing import Balancing
from .blockmap import IN_LIMIT, IS_CORRUPT
from .contents import collect
from .datanodes import DataNodes
from .draining import Draining
from .leases import Recovery
from .namespace import tree
from .namespace.tree import CURRENT, TRASH
from .namespace.walk import walk
from .permissions import Caller
from .reaper import anything_to_reap, reap
from .repairer import Repairer, block_states
from .replication import BlockState, ReplicationMonitor, View, need_of
from .safemode import SafeModeGate
from .silence import LOOK_S, Silence
from .store import sql
from .store.base import MetadataStore, Transaction

log = logging.getLogger(__name__)
REAP_ROWS: Final = 500
COLLECT_ROWS: Final = 128
SCAN_BLOCKS: Final = 2_000
SCAN_PAGES: Final = 400  # of IN_LIMIT blocks, in one run of the scan
LIVENESS_S: Final = 2.0
IDLE_S: Final = 2.0  # between looks for repair where nothing waits: each wakes a processor
REPAIR_S: Final = 0.25  # copies that do not arrive, and budgets that fill up, tell nobody
BREATH_S: Final = 0.005
MAX_TOLD: Final = (
    10_000  # blocks that wait to be told to whoever repairs; the scan finds what is beyond
)
SYSTEM: Final = Caller("namenode", superuser=True)


class Jobs:
    """The loops, and what they share."""

    def __init__(
        self,
        config: NameNodeConfig,
        store: MetadataStore,
        nodes: DataNodes,
        monitor: ReplicationMonitor,
        clock: Clock,
        gate: SafeModeGate,
        rng: random.Random,
        learn: Callable[[], Awaitable[None]],
    ) -> None:
        """*learn* takes over what operators decided at other NameNodes."""
        self._config = config
        self._gate = gate
        self._learn = learn
        self._store = store
        self._nodes = nodes
        self._monitor = monitor
        self._clock = clock
        self._name = new_uuid()
        self.checkpoint: Callable[[int], Awaitable[object]] | None = None  # signs the stream
        self._repairer = Repairer(store, nodes, monitor, clock.monotonic_s)
        self.balancing = Balancing(store, nodes, monitor, self._repairer, clock, rng)
        self._draining = Draining(store, nodes, monitor, clock)
        self._held_until_s: dict[str, float] = {}
        # A NameNode is given up as soon as a DataNode is.
        self._lease_ms = int(config.dead_after_s * 1000)
        self._scanned_to = 0
        self._to_tell: dict[int, None] = {}
        self._news = asyncio.Event()
        self.silence = Silence(
            config.lease_timeout_s, now_ms=clock.wall_ms(), now_s=clock.monotonic_s()
        )

    async def run(self) -> None:
        """All loops, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_liveness(), name="liveness")
            tasks.create_task(self._watch_repair(), name="repair")
            if self._config.database:  # nobody else writes to the SQLite file
                tasks.create_task(self._loop("orders", 1.0, self._orders), name="orders")
                tasks.create_task(self._loop("sealer", 0.2, self._seal), name="sealer")
            for name, period_s, job in (
                ("draining", 2.0, self._drain),
                ("balancer", 2.0, self._balance),
                ("reaper", 2.0, self._reap),
                ("leases", LOOK_S, self._leases),
                ("trash", 60.0, self._trash),
                ("scan", 30.0, self._scan),
                ("collector", 30.0, self._collect),
                ("pruning", self._config.prune_interval_s, self._prune),
                ("merkle tree", 2.0, self._build_tree),
                ("checkpoints", self._config.checkpoint_interval_s or 3600.0, self._checkpoint),
            ):
                tasks.create_task(self._loop(name, period_s, job), name=name)

    async def _loop(self, name: str, period_s: float, job: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._once(name, job)
            await asyncio.sleep(to_next_tick_s(self._clock.monotonic_s(), period_s))

    @staticmethod
    async def _once(name: str, job: Callable[[], Awaitable[None]]) -> None:
        try:
            await job()
        except DfsError as error:
            log.warning("the job %s has to wait: %s", name, error)
        except Exception:
            log.exception("the job %s failed; it is tried again", name)

    async def _watch_liveness(self) -> None:
        while True:
            await self._once("liveness", self._liveness)
            # Not a moment later than a node becomes dead: its blocks wait for that.
            await asyncio.sleep(
                min(
                    to_next_tick_s(self._clock.monotonic_s(), LIVENESS_S),
                    max(0.01, self._nodes.next_death_s()),
                )
            )

    async def _watch_repair(self) -> None:
        """Repair when something was told, and now and then for what has to be tried again.

        What comes while it works is looked at together; it never takes more than about half of the process's time.
        """
        while True:
            began_s = self._clock.monotonic_s()
            self._news.clear()
            await self._once("repair", self._repair)
            worked_s = self._clock.monotonic_s() - began_s
            busy = bool(self._monitor.waiting or self._monitor.copying or self._to_tell)
            if busy:
                await asyncio.sleep(min(REPAIR_S, max(BREATH_S, worked_s)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(
                    REPAIR_S if busy else to_next_tick_s(self._clock.monotonic_s(), IDLE_S)
                ):
                    await self._news.wait()

    def wake(self) -> None:
        """There is something to be repaired, or room for more."""
        self._news.set()

    def consider(self, block_ids: Sequence[int]) -> None:
        """These blocks may have too few or too many copies. Where another NameNode repairs, it is told."""
        if self._holds_now("repair"):
            self._monitor.consider(block_ids)
        else:
            room = MAX_TOLD - len(self._to_tell)
            self._to_tell.update(dict.fromkeys(block_ids[: max(0, room)]))
        self.wake()

    def _holds_now(self, job: str) -> bool:
        """As far as is known without asking."""
        if not self._config.database:
            return True  # nobody else has the SQLite file
        return self._held_until_s.get(job, 0.0) > self._clock.monotonic_s()

    async def holds(self, job: str) -> bool:
        """Take or renew the lease of *job*."""
        if self._holds_now(job):
            return True
        now_s = self._clock.monotonic_s()
        now_ms, name = self._clock.wall_ms(), self._name

        def take(tx: Transaction) -> bool:
            row = tx.one("SELECT holder, expires_ms FROM jobs WHERE name = ?", (job,))
            if row is not None and row[0] != name and row[1] > now_ms:
                return False
            tx.execute(
                "INSERT INTO jobs (name, holder, expires_ms, cursor) VALUES (?, ?, ?, '')"
                " ON CONFLICT (name) DO UPDATE SET holder = excluded.holder,"
                " expires_ms = excluded.expires_ms",
                (job, name, now_ms + self._lease_ms),
            )
            return True

        held = await self._store.run(take)
        if held:
            # Renewed long before it ends, but not at every step.
            self._held_until_s[job] = now_s + self._lease_ms / 3000
        return held

    # --- nodes and copies ---

    async def _liveness(self) -> None:
        died, back = self._nodes.tick(), self._nodes.returned()
        for node_id in died:
            node = self._nodes.get(node_id)
            log.warning("DataNode %d (%s) is dead", node_id, node.address.data if node else "?")
            self._monitor.forget(node_id)
        for node_id in back:
            log.info("DataNode %d has come back", node_id)
        if (died or back) and await self._repairs():
            for node_id in [*died, *back]:
                await self._consider_blocks_of(node_id)

    async def _orders(self) -> None:
        await self._learn()
        if not self._holds_now("repair"):
            return
        while await self._store.read(repair_news.waiting):
            self.consider(await self._store.run(repair_news.take))

    async def _tell(self) -> None:
        """Hand on what only this NameNode has been told."""
        told = list(self._to_tell)[:SCAN_BLOCKS]
        if told:
            await self._store.run(partial(repair_news.tell, block_ids=told))
            for block_id in told:
                self._to_tell.pop(block_id, None)

    async def _repairs(self) -> bool:
        """Whether this NameNode is the one that repairs."""
        if await self.holds("repair"):
            return True
        self._monitor.clear()
        return False

    async def _drain(self) -> None:
        if await self._repairs() and await self._draining.step():
            await self._learn()
        if self._monitor.unseen:
            self.wake()

    async def _consider_blocks_of(self, node_id: NodeId) -> None:
        after = 0
        while True:
            rows = await self._store.read(
                lambda tx, after=after: tx.all(  # type: ignore[misc]
                    "SELECT block_id FROM replicas WHERE node_id = ? AND block_id > ?"
                    " ORDER BY block_id LIMIT ?",
                    (node_id, after, SCAN_BLOCKS),
                )
            )
            if not rows:
                return
            self.consider([row[0] for row in rows])
            after = rows[-1][0]

    async def _repair(self) -> None:
        # In safe mode by order, nothing is moved or given up.
        if not await self._repairs():
            await self._tell()
            return
        if self._to_tell:
            # It has become this one's affair meanwhile.
            self._monitor.consider(list(self._to_tell))
            self._to_tell.clear()
        if self._gate.ordered:
            return
        while await self._repairer.step():
            await asyncio.sleep(0)

    async def _balance(self) -> None:
        if await self._repairs() and not self._gate.ordered:
            await self.balancing.step()

    async def _scan(self) -> None:
        """Find blocks with too few, too many or badly spread copies that no event told of.

        A bounded number each time, from where the last one ended.
        """
        if not await self._repairs():
            return
        self.consider(await self._store.read(_with_damage))
        for _ in range(SCAN_PAGES):
            view = View(self._nodes.candidates())
            if not view.nodes:
                return
            states = await self._store.read(partial(_page_of_blocks, after=self._scanned_to))
            off = [state.block.block_id for state in states if is_off(state, view)]
            if off:
                self.consider(off)
            if len(states) < IN_LIMIT:
                self._scanned_to = 0
                return
            self._scanned_to = states[-1].block.block_id
            await asyncio.sleep(0)

    # --- leases ---

    def recover(self, recoveries: Sequence[Recovery]) -> None:
        """Have a DataNode lead the recovery of each block; what finds none is tried again by the job."""
        for recovery in recoveries:
            addresses = self._nodes.order(recovery.nodes, "")
            for leader in addresses:
                command = RecoverBlock(
                    block=recovery.block,
                    new_generation=recovery.new_generation,
                    nodes=addresses,
                    minimum_length=recovery.minimum_length,
                )
                if self._nodes.command(leader.node_id, command):
                    break

    async def _leases(self) -> None:
        config, now_ms, now_s = self._config, self._clock.wall_ms(), self._clock.monotonic_s()
        soft_ms = self.silence.before_ms(config.lease_timeout_s, now_ms, now_s)
        hard_ms = self.silence.before_ms(config.lease_hard_timeout_s, now_ms, now_s)

        def work(tx: Transaction) -> list[Recovery]:
            leases.not_of_the_future(tx, now_ms, int(config.lease_timeout_s * 1000))
            found = leases.stalled_recoveries(tx, now_ms - leases.RECOVERY_RETRY_MS, 100)
            if hard_ms is not None:
                found += leases.silent_writers(tx, hard_ms, 100)
            recoveries = []
            for node in found:
                recoveries += leases.begin_recovery(tx, node, now_ms=now_ms)
            if soft_ms is not None:
                leases.expire_holders(tx, soft_ms, 500)
            return recoveries

        try:
            recoveries = await self._store.run(work) if await self.holds("leases") else []
        except (Busy, StoreUnavailable):
            self.silence.deaf(self._clock.monotonic_s())  # nobody could renew either
            raise
        self.recover(recoveries)

    # --- what is no longer wanted ---

    async def _reap(self) -> None:
        if not await self.holds("reaper"):
            return
        before_ms = self._clock.wall_ms() - int(self._config.delete_grace_s * 1000)
        # A look costs a reader's time alone; a transaction wakes the writing threads.
        if not await self._store.read(partial(anything_to_reap, before_ms=before_ms)):
            return
        while await self._store.run(partial(reap, before_ms=before_ms, limit=REAP_ROWS)):
            await asyncio.sleep(0)  # others' operations are in the queue now

    async def _collect(self) -> None:
        """Content that nothing has held for long, in steps between which everybody else gets a turn."""
        if not await self.holds("collector"):
            return
        request = Collect(grace_s=self._config.content_grace_s, limit=COLLECT_ROWS)
        while True:
            now_ms = self._clock.wall_ms()
            done = await self._store.run(
                partial(collect, caller=SYSTEM, request=request, now_ms=now_ms)
            )
            if not done.work:
                return
            await asyncio.sleep(0.05)

    async def _trash(self) -> None:
        """HDFS's trash: Current becomes a dated checkpoint, and checkpoints go after the interval."""
        interval_s = self._config.trash_interval_s
        if interval_s <= 0 or not await self.holds("trash"):
            return
        now_ms = self._clock.wall_ms()
        users = await self._store.read(lambda tx: _users_with_trash(tx))
        for user in users:
            await self._store.run(
                partial(_checkpoint_trash, user=user, now_ms=now_ms, interval_ms=interval_s * 1000)
            )

    async def _seal(self) -> None:
        if await self.holds("sealer"):
            while await self._store.run(events.seal_pending) >= 2_000:
                pass

    async def _prune(self) -> None:
        if not await self.holds("pruning"):
            return
        before_ms = self._clock.wall_ms() - int(self._config.request_memory_s * 1000)
        cursor: tuple[bytes, int] = (b"", 0)
        while True:
            cursor, more = await self._store.run(
                partial(_prune_requests, before_ms=before_ms, cursor=cursor)
            )
            if not more:
                break
            await asyncio.sleep(0.05)
        config = self._config
        policy = audit.Retention(
            count=config.event_retention,
            age_ms=int(config.event_retention_days * 86_400_000),
            size_bytes=config.event_retention_mib * 1024 * 1024,
        )
        now_ms = self._clock.wall_ms()
        while await self._store.run(partial(audit.retain, policy=policy, now_ms=now_ms)):
            await asyncio.sleep(0.05)

    async def _checkpoint(self) -> None:
        """Sign the stream now and then, at sizes that can be proved for ever."""
        if self.checkpoint is None or not self._config.checkpoint_interval_s:
            return
        if (
            await self.holds("checkpoints")
            and await self._store.read(audit.unsigned) >= audit.WIDTH
        ):
            await self.checkpoint(audit.WIDTH)

    async def _build_tree(self) -> None:
        if not await self.holds("merkle tree"):
            return
        # Nothing is written, and so nothing made durable, while nothing has happened.
        while await self._store.read(audit.behind):
            if not await self._store.run(audit.build):
                return
            await asyncio.sleep(0.05)


def _page_of_blocks(tx: Transaction, *, after: int) -> list[BlockState]:
    """The next finalized blocks, ascending."""
    rows = tx.all(
        "SELECT block_id FROM blocks WHERE block_id > ? AND digest IS NOT NULL"
        " ORDER BY block_id LIMIT ?",
        (after, IN_LIMIT),
    )
    return sorted(block_states(tx, [row[0] for row in rows]), key=lambda s: s.block.block_id)


def _with_damage(tx: Transaction) -> list[int]:
    """Blocks that have a damaged replica."""
    rows = tx.all(f"SELECT DISTINCT block_id FROM replicas WHERE {IS_CORRUPT} LIMIT {SCAN_BLOCKS}")
    return [row[0] for row in rows]


def is_off(state: BlockState, view: View) -> bool:
    need = need_of(state, view)
    return bool(need.missing or need.surplus or need.misplaced)


def _prune_requests(
    tx: Transaction, *, before_ms: int, cursor: tuple[bytes, int]
) -> tuple[tuple[bytes, int], bool]:
    """Forget old answers among the next rows after *cursor*; (where to go on, whether there is more)."""
    rows = tx.all(
        "SELECT client_id, first_call, done_ms FROM requests WHERE client_id > ?"
        " OR (client_id = ? AND first_call > ?) ORDER BY client_id, first_call LIMIT 5000",
        (cursor[0], cursor[0], cursor[1]),
    )
    old = [(row[0], row[1]) for row in rows if row[2] < before_ms]
    tx.many("DELETE FROM requests WHERE client_id = ? AND first_call = ?", old)
    if len(rows) < 5000:
        return (b"", 0), False
    return (bytes(rows[-1][0]), rows[-1][1]), True


def _users_with_trash(tx: Transaction) -> list[str]:
    home = walk(tx, SYSTEM, "/user").node
    if home is None or not home.is_directory:
        return []
    users, after = [], ""
    while page := sql.children(tx, home.inode_id, after, 1_000):
        users += [
            node.name
            for node in page
            if node.is_directory and sql.child(tx, node.inode_id, TRASH) is not None
        ]
        after = page[-1].name
    return users


def _checkpoint_trash(tx: Transaction, *, user: str, now_ms: int, interval_ms: int) -> None:
    """One user's trash: date what lies in Current, delete checkpoints older than the interval."""
    base = f"/user/{user}/{TRASH}"
    root = walk(tx, SYSTEM, base).node
    if root is None or not root.is_directory:
        return
    for entry in sql.children(tx, root.inode_id, "", 1_000):
        if entry.name == CURRENT:
            if entry.is_directory and now_ms - entry.mtime_ms >= interval_ms // 10:
                stamp = f"{format_time(now_ms, '%y%m%d%H%M%S')}-{now_ms}"
                tree.rename(
                    tx,
                    SYSTEM,
                    Rename(source=f"{base}/{CURRENT}", destination=f"{base}/{stamp}"),
                    now_ms=now_ms,
                )
            continue
        _, _, made_ms = entry.name.rpartition("-")
        if made_ms.isdigit() and now_ms - int(made_ms) >= interval_ms:
            tree.delete(
                tx, SYSTEM, Delete(path=f"{base}/{entry.name}", recursive=True), now_ms=now_ms
            )

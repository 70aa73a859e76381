"""What everything in a client shares: the NameNode, the DataNodes, threads, the lease."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from ..common import tracing
from ..common.config import ClientConfig
from ..common.errors import DfsError
from ..common.messages import (
    MAX_BATCH,
    AbandonBlock,
    BadReplica,
    GetServerInfo,
    RenewLease,
    ReportBadReplicas,
    ServerInfo,
)
from ..common.model import BlockId, INodeId, NodeId, TargetBlock
from ..common.runtime import Clock, SystemClock, new_uuid, system_random
from .block_reader import BlockReader
from .block_writer import BlockWriter
from .datanode_api import ConnectionPool
from .namenode_api import RpcNameNode
from .placing import Placing

log = logging.getLogger(__name__)
T = TypeVar("T")
THREADS = 32
RENEWALS_PER_TIMEOUT = 4
GIVE_BACK_S = 5.0  # how long a client that ends waits for what it gives back


class LocalWriters(Protocol):
    """Of a client inside a DataNode: blocks whose first copy is there are written without a connection."""

    @property
    def node_id(self) -> NodeId:
        """0: none yet."""

    def writer(
        self, pool: ConnectionPool, config: ClientConfig, target: TargetBlock
    ) -> BlockWriter:
        """For a new block, whose first node is that one."""


class Session:
    """One client's connections and threads. To be closed on the event loop it was made on."""

    def __init__(
        self,
        config: ClientConfig,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        local: LocalWriters | None = None,
    ) -> None:
        self.config = config
        tracing.set_up("client", config.otlp_endpoint, config.trace_share)
        self._local = local
        self.clock = clock or SystemClock()
        self.rng = rng or system_random()
        self.user = config.user_name
        self.holder = f"{self.user[:64]}-{new_uuid()}"
        self.namenode = RpcNameNode(
            config.namenode.split(","),
            user=self.user,
            retry_s=config.retry_s,
            connect_timeout_s=config.connect_timeout_s,
            proxy=config.proxy,
            clock=self.clock,
            rng=self.rng,
        )
        self.placing = Placing(
            self.namenode, retry_s=config.retry_s, clock=self.clock, rng=self.rng
        )
        self.pool = ConnectionPool(config)
        self.blocks = BlockReader(self.pool, self._report_bad)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="dfs")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._returns: set[asyncio.Task[None]] = set()
        self._renewing: asyncio.Task[None] | None = None
        self._info: ServerInfo | None = None

    async def run(self, call: Callable[..., T], *args: object) -> T:
        """Run a blocking call in one of the client's threads."""
        return await self.start(call, *args)

    def start(self, call: Callable[..., T], *args: object) -> asyncio.Future[T]:
        """As `run`, without waiting."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.run_in_executor(self._threads, tracing.carried(call), *args)

    @property
    def near(self) -> NodeId:
        """The DataNode that this client is part of; 0: none."""
        return NodeId(0) if self._local is None else self._local.node_id

    def writer(self, target: TargetBlock, *, resume_at: int | None = None) -> BlockWriter:
        """For one block, through the pipeline of *target*; not opened yet."""
        local = self._local
        fresh = resume_at is None and target.base is None
        if local is not None and fresh and target.nodes[0].node_id == local.node_id:
            return local.writer(self.pool, self.config, target)
        return BlockWriter(self.pool, self.config, target, resume_at=resume_at)

    async def info(self) -> ServerInfo:
        """The cluster's facts and defaults; asked for once."""
        if self._info is None:
            self._info = await self.namenode.call("server_info", GetServerInfo())
        assert self._info is not None
        return self._info

    async def keep_lease(self) -> None:
        """From now on, renew the lease of everything this client writes."""
        if self._renewing is None:
            info = await self.info()
            if self._renewing is None:
                period_s = info.lease_timeout_s / RENEWALS_PER_TIMEOUT
                self._renewing = asyncio.create_task(self._renew(period_s), name="lease renewal")

    async def _renew(self, period_s: float) -> None:
        while True:
            try:
                await self.namenode.call("renew_lease", RenewLease(holder=self.holder))
            except DfsError as error:
                log.warning("the lease could not be renewed: %s", error)
            await asyncio.sleep(period_s)

    def spawn(self, task: asyncio.Task[None]) -> None:
        """Own a background task until it ends."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def give_back(self, block_ids: Iterable[int]) -> None:
        """Blocks allocated to this client that it will not put: what was written of them is deleted.

        Done in the background, once: what is not given back goes with this client's lease.
        """
        for first, count in runs(block_ids):
            task = asyncio.create_task(self._give_back(first, count), name="give back")
            self._returns.add(task)
            task.add_done_callback(self._returns.discard)

    async def _give_back(self, first: int, count: int) -> None:
        request = AbandonBlock(
            inode_id=INodeId(0), holder=self.holder, block_id=BlockId(first), count=count
        )
        with contextlib.suppress(DfsError):
            await self.namenode.call("abandon_block", request)

    def _report_bad(self, replicas: list[BadReplica]) -> None:
        """From any thread; a report that does not get through is no harm."""
        if self._loop is None or self._loop.is_closed():
            return

        async def send() -> None:
            with contextlib.suppress(DfsError):
                await self.namenode.call(
                    "report_bad_replicas", ReportBadReplicas(replicas=replicas)
                )

        def start() -> None:
            self.spawn(asyncio.ensure_future(send()))

        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(start)

    async def close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        await _end(self._tasks)
        if self._returns:  # some of them because a task was ended
            await asyncio.wait(self._returns, timeout=GIVE_BACK_S)
            await _end(self._returns)
        await self.namenode.close()
        self.pool.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self.blocks.close()


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel *tasks*, and what they begin meanwhile; each leaves the set as it ends."""
    while tasks:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def runs(block_ids: Iterable[int]) -> list[tuple[int, int]]:
    """Neighbouring ids together: (first, count), of at most MAX_BATCH."""
    found: list[tuple[int, int]] = []
    for block_id in sorted(set(block_ids)):
        if found and sum(found[-1]) == block_id and found[-1][1] < MAX_BATCH:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((block_id, 1))
    return found

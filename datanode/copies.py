"""Copies that a NameNode has ordered: blocks of one source travel together, large ones by themselves."""

from __future__ import annotations

import asyncio
import collections
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from ..common.errors import DfsError
from ..common.messages import BadReplica, CopyReplica, ReplicaReport
from ..common.model import BlockRef, NodeId
from ..common.runtime import Clock
from ..common.transfer import MAX_MANY_BYTES, MAX_MANY_ITEMS
from .blockstore import BlockStore
from .copying import Copied, Throttle, copy_all
from .pacing import Pace
from .pipeline import Peers

log = logging.getLogger(__name__)
COPIES_AT_ONCE: Final = 4  # enough to keep a disk busy; more only take turns with each other
LOOK_AHEAD: Final = 2 * MAX_MANY_ITEMS  # orders that are looked through for company


def take_batch(orders: collections.deque[CopyReplica], own_id: NodeId) -> list[CopyReplica]:
    """The next of *orders*, taken off it: one, or small ones that can be fetched from the same source in one go.

    The first order is always among them, so that none waits for ever. An order with a speed of its own goes alone.
    """
    batch = [orders.popleft()]
    source = _source_of(batch[0], own_id)
    if not _may_join(batch[0]) or source is None:
        return batch
    left = MAX_MANY_BYTES - batch[0].block.length
    passed: list[CopyReplica] = []
    for _ in range(min(len(orders), LOOK_AHEAD)):
        order = orders.popleft()
        if (
            len(batch) < MAX_MANY_ITEMS
            and order.block.length <= left
            and _may_join(order)
            and _source_of(order, own_id) == source
        ):
            batch.append(order)
            left -= order.block.length
        else:
            passed.append(order)
    orders.extendleft(reversed(passed))
    return batch


def _source_of(order: CopyReplica, own_id: NodeId) -> NodeId | None:
    return next((s.node_id for s in order.sources if s.node_id != own_id), None)


def _may_join(order: CopyReplica) -> bool:
    return order.block.length <= MAX_MANY_BYTES and not order.bytes_per_s


class Copies:
    """The orders that wait, and the workers that carry them out."""

    def __init__(
        self,
        store: BlockStore,
        peers: Peers,
        clock: Clock,
        threads: ThreadPoolExecutor,
        *,
        pace: Pace,
        stopping: threading.Event,
        done: Callable[[Sequence[ReplicaReport], Sequence[BlockRef]], None],
        bad: Callable[[list[BadReplica]], Awaitable[None]],
    ) -> None:
        """*pace* is that of all copies to this node; *stopping* is set when the process ends.

        *done* is told of replicas that are here now, and of blocks that could not be had; *bad* of other nodes' bad replicas.
        """
        self._store = store
        self._peers = peers
        self._clock = clock
        self._threads = threads
        self._pace = pace
        self._stopping = stopping
        self._done = done
        self._bad = bad
        self._orders: collections.deque[CopyReplica] = collections.deque()
        self._waiting = asyncio.Semaphore(0)

    def order(self, command: CopyReplica) -> None:
        self._orders.append(command)
        self._waiting.release()

    async def worker(self) -> None:
        """Until cancelled; `COPIES_AT_ONCE` of them make use of everything."""
        while True:
            await self._waiting.acquire()
            if not self._orders:
                continue  # an earlier batch took it along
            batch = take_batch(self._orders, self._peers.node_id)
            try:
                await self._carry_out(batch)
            except DfsError as error:
                log.warning("a copy went wrong: %s", error)
            except Exception:
                log.exception("a copy failed")
                self._done((), [order.block.ref for order in batch])

    async def _carry_out(self, batch: list[CopyReplica]) -> None:
        throttle = self._throttle(batch[0].bytes_per_s)
        orders = [(order.block, order.sources) for order in batch]

        def work() -> Copied:
            return copy_all(self._store, self._peers, orders, throttle)

        copied = await asyncio.get_running_loop().run_in_executor(self._threads, work)
        self._done(copied.here, copied.failed)
        if copied.bad:
            await self._bad(copied.bad)

    def _throttle(self, bytes_per_s: int) -> Throttle:
        paces = [self._pace, *([Pace(bytes_per_s)] if bytes_per_s else [])]

        def throttle(size_bytes: int) -> None:
            for pace in paces:
                wait_s = pace.take(size_bytes, self._clock.monotonic_s())
                if wait_s > 0:
                    self._stopping.wait(wait_s)

        return throttle

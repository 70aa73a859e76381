"""Taking volumes out of a DataNode that goes on: emptied onto its other volumes, then let go.

A volume in use is never let go. `drain` makes it free: nothing new is put there, and what is there moves to the other
volumes, where readers find it all the while. `keep` takes that back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from ..common.errors import DfsError, DiskFull, InvalidRequest
from ..common.messages import ManageVolume
from ..common.model import BlockId, BlockRef, GenerationStamp
from ..common.runtime import Clock
from . import quarantine
from .blockstore import BlockStore
from .index import FIRST_LOCAL_BLOCK, Replica
from .moving import move_replica
from .pacing import Pace
from .volumes import Volume, choose_volume

log = logging.getLogger(__name__)
PAGE: Final = 200
AGAIN_S: Final = 2.0  # what could not be moved (being written, damaged, no room) is looked at again
CLOSING_S: Final = (
    1.0  # what looked for its place before the volume was let go has found it by then
)


class VolumeOrders:
    """Obeys `ManageVolume`, and empties volumes that are to be drained."""

    def __init__(
        self,
        store: BlockStore,
        clock: Clock,
        threads: ThreadPoolExecutor,
        stopping: threading.Event,
        *,
        busy: Callable[[], int],
        bad: Callable[[BlockRef], None],
        holds: Callable[[Volume], str],
    ) -> None:
        """*busy* counts clients' requests under way, which are yielded to; *bad* tells of damaged replicas; *holds* says what
        besides replicas keeps a volume here ("" for nothing)."""
        self._store = store
        self._clock = clock
        self._threads = threads
        self._stopping = stopping
        self._busy = busy
        self._bad = bad
        self._holds = holds
        self._news = asyncio.Event()
        self._one_by_one = asyncio.Lock()
        self._removed: set[str] = set()

    async def obey(self, order: ManageVolume) -> None:
        """Carry out an order; InvalidRequest, with nothing changed, if it can't be."""
        async with self._one_by_one:
            volume = next((v for v in self._store.volumes if v.volume_id == order.volume_id), None)
            if volume is None:
                if order.action == "remove" and order.volume_id in self._removed:
                    return  # the same order once more
                raise InvalidRequest(f"there is no volume {order.volume_id} on this DataNode")
            call = {"drain": self._drain, "keep": self._keep, "remove": self._remove}[order.action]
            await self._in_thread(lambda: call(volume))
            self._news.set()

    async def _in_thread(self, call: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, call)

    # --- orders; in threads ---

    def _others(self, volume: Volume) -> list[Volume]:
        return [v for v in self._store.volumes if v is not volume and v.takes_bytes]

    def _drain(self, volume: Volume) -> None:
        if volume.failure:
            raise InvalidRequest(
                f"{volume.path} is out of service ({volume.failure}): nothing can be moved from there;"
                " it can be removed as it is"
            )
        others = self._others(volume)
        if not others:
            raise InvalidRequest(
                f"{volume.path} is the only volume in service: what is there has nowhere to go;"
                " decommission the DataNode instead"
            )
        free = sum(other.space()[1] for other in others)
        if volume.used_bytes > free:
            raise InvalidRequest(
                f"{volume.used_bytes} bytes are on {volume.path}, and the other volumes have {free} free"
            )
        volume.set_draining(True)
        log.info("draining %s: %d replicas", volume.path, volume.replicas)

    def _keep(self, volume: Volume) -> None:
        if volume.failure:
            raise InvalidRequest(f"{volume.path} is out of service: {volume.failure}")
        volume.set_draining(False)
        log.info("%s is kept in service", volume.path)

    def _remove(self, volume: Volume) -> None:
        if volume.renewing:
            raise InvalidRequest(f"{volume.path} is in use: its index is being made anew")
        if len(self._store.volumes) == 1:
            raise InvalidRequest(
                f"{volume.path} is the only volume: decommission the DataNode and stop it instead"
            )
        if held := self._holds(volume):
            raise InvalidRequest(f"{volume.path} is in use: {held}")
        if not volume.failure:
            if not self._others(volume):
                raise InvalidRequest(f"{volume.path} is the only volume in service")
            self._close_to_all(volume)
        self._removed.add(volume.volume_id)
        self._store.let_go(volume)
        with contextlib.suppress(OSError):
            volume.set_removed()
        self._stopping.wait(CLOSING_S)
        with contextlib.suppress(DfsError, OSError):
            volume.close()
        log.warning("the volume %s was removed", volume.path)

    def _close_to_all(self, volume: Volume) -> None:
        """Have nobody put anything there any more; InvalidRequest if something is there already."""
        writing = self._store.written_on(volume)
        if writing:
            raise InvalidRequest(
                f"{volume.path} is in use: {writing} blocks are being written there"
            )
        # From here on its index takes nothing, if nothing is in it.
        held = volume.index.seal()
        if held:
            raise InvalidRequest(
                f"{volume.path} is in use: {held} replicas are there;"
                " drain it first (`dfs admin volume drain`)"
            )
        if self._store.written_on(volume):
            volume.index.unseal()
            raise InvalidRequest(f"{volume.path} is in use: blocks are being written there")
        volume.fail("it was removed")

    # --- emptying ---

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            for volume in self._store.volumes:
                if volume.draining and not volume.failure:
                    await self._guarded(lambda volume=volume: self._empty(volume))  # type: ignore[misc]
            self._news.clear()
            draining = any(v.draining and v.replicas for v in self._store.volumes)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S if draining else None):
                    await self._news.wait()

    async def _guarded(self, call: Callable[[], None]) -> None:
        try:
            await self._in_thread(call)
        except (DfsError, OSError) as error:
            log.warning("a volume could not be drained; it is tried again: %s", error)

    def _empty(self, volume: Volume) -> None:
        """Move what can be moved."""
        pace = Pace(0)

        def paced(size_bytes: int) -> None:
            wait_s = pace.take(size_bytes, self._clock.monotonic_s(), self._busy())
            if wait_s > 0:
                self._stopping.wait(wait_s)

        after = -1
        while page := volume.index.page(after, PAGE):
            for replica in page:
                if not volume.draining or volume.failure or self._stopping.is_set():
                    return
                try:
                    target = choose_volume(self._others(volume), replica.length, self._store.rng)
                    if replica.block_id not in volume.index.damaged:
                        move_replica(self._store, volume, target, replica, paced)
                except DiskFull:
                    log.warning("the other volumes are too full to drain %s", volume.path)
                    return
                except DfsError as error:
                    log.warning("block %d stays for now: %s", replica.block_id, error.message)
                    self._look_at(replica)
            after = page[-1].block_id

    def _look_at(self, replica: Replica) -> None:
        """It may be damaged: then the NameNode has it healed, and deletes it here."""
        block = BlockRef(
            block_id=BlockId(replica.block_id), generation=GenerationStamp(replica.generation)
        )
        if (
            quarantine.verify(self._store, block) == "corrupt"
            and replica.block_id < FIRST_LOCAL_BLOCK
        ):
            self._bad(block)

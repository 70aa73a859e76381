"""A DataNode as a peer: wiring only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from ...client.exchange import Exchange, Finder
from ...common.config import DataNodeConfig
from ...common.errors import DfsError
from ...common.hosts import OwnNames
from ...common.ipld.cid import Cid
from ...common.runtime import Clock
from ..content import Content
from ..index import FIRST_LOCAL_BLOCK
from .collector import Collector
from .discovery import Discovery
from .fetching import Fetcher, Progress
from .journal import Journal
from .keeper import Keeper
from .local_api import LocalApi
from .names import Names, load_identity
from .node import PeerNode, PeerSettings
from .partial import write_file
from .routing_api import RoutingApi
from .transport import HttpTransport, PeersApi

log = logging.getLogger(__name__)
T = TypeVar("T")
GIB = 1024**3
REMEMBERED = 128  # peers that a restart tries first


class PeerService:
    """Everything of a peer. `prepare` before the HTTP server starts, `start` when its address is known."""

    node: PeerNode
    keeper: Keeper
    names: Names

    def __init__(
        self,
        config: DataNodeConfig,
        content: Content,
        folder: Path,
        *,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        """*folder*: where the peer keeps its key and what it must not forget."""
        self.content = content
        self._config = config
        self._folder = folder
        self._clock = clock
        self._rng = rng
        self._settings = PeerSettings(
            provider_ttl_s=config.provider_ttl_s,
            provide_every_s=config.provider_ttl_s * 0.45,
            refresh_s=config.peer_refresh_s,
            quiet_s=config.peer_refresh_s,
        )
        self._transport = HttpTransport(timeout_s=self._settings.timeout_s)
        self._discovery: Discovery | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def prepare(self, address: Callable[[], str]) -> list[web.RouteDef]:
        """The routes. *address*: HOST:PORT, known once the server listens."""
        self._address = address
        folder = self._folder
        await asyncio.to_thread(folder.mkdir, mode=0o700, exist_ok=True)
        self._identity = await asyncio.to_thread(load_identity, folder / "peer.key")
        self._journal = await asyncio.to_thread(Journal, folder / "peer.db")
        token_file = folder / "token"
        if not await asyncio.to_thread(token_file.exists):
            await asyncio.to_thread(write_file, token_file, os.urandom(24).hex().encode())
        token = (await asyncio.to_thread(token_file.read_text)).strip()
        self._local = LocalApi(
            self, token, OwnNames((self._config.advertise, *self._config.allowed_hosts))
        )
        return [
            *PeersApi(lambda: self.node).routes(),
            *RoutingApi(self).routes(),
            *self._local.routes(),
        ]

    async def start(self, cluster: Finder | None = None) -> None:
        """*cluster*: finds blocks in the cluster that the DataNode is a member of besides."""
        self._cluster = cluster
        config, folder = self._config, self._folder
        address = self._address()
        self.node = PeerNode(
            self._identity,
            [address],
            self._transport,
            clock=self._clock,
            rng=self._rng,
            settings=self._settings,
            holds=self._holds,
            group=lambda question: self.keeper.answer(question),
        )
        self.names = Names(folder, self.node, self._clock)
        self.exchange = Exchange(self, clock=self._clock, rng=self._rng)
        self.fetcher = Fetcher(self.content, self.exchange)
        await self.fetcher.start()
        self.content.remote = self.exchange
        self.keeper = Keeper(
            self.node,
            self.fetcher,
            self._journal,
            clock=self._clock,
            run=self.content.run,
            dead_after_s=config.pin_dead_after_s,
            accept=config.accept_pins,
            quota_bytes=config.accept_pins_gib * GIB,
        )
        self.collector = Collector(self.content, self._clock, self.keeper.roots)
        self.keeper.protect = self.collector.protect
        await asyncio.to_thread(self.names.load)
        remembered = await asyncio.to_thread(self._recall)
        if config.mdns:
            self._discovery = Discovery(self._identity.peer_id, address, self._met)
            await self._discovery.start()
        wanted = [entry for entry in config.bootstrap if entry != "none"]
        self.spawn(self._live(wanted, remembered))

    async def _live(self, bootstrap: list[str], remembered: list[str]) -> None:
        await self.node.join([*bootstrap, *(a for a in remembered if a not in bootstrap)])
        keys = {*self.keeper.own_roots(), *self.keeper.held}
        await self.node.provide([Cid.from_bytes(cid).multihash for cid in keys])
        for record in self.node.names.all(self._clock.wall_ms()):
            await self.node.publish_name(record.raw, record.peer_id)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.node.run(), name="peer table")
            tasks.create_task(self.keeper.run(), name="shared pins")
            tasks.create_task(self._remember(), name="remembered peers")

    def _met(self, address: str, peer: bytes) -> None:
        """mDNS has heard of a peer."""
        if peer in self.node.table:
            return

        async def greet() -> None:
            with contextlib.suppress(DfsError):
                await self.node.greet(address, peer)
                await self.node.refresh()

        self.spawn(greet())

    # --- what its parts ask for ---

    def now_s(self) -> float:
        return self._clock.monotonic_s()

    def wall_ms(self) -> int:
        return self._clock.wall_ms()

    async def _holds(self, hashed: bytes) -> bool:
        try:
            return await self.content.run(self.content.cids.has, hashed)
        except DfsError:
            return False

    async def providers(self, cid: Cid) -> AsyncIterator[str]:
        """For the exchange: whom to ask for a block."""
        if self._cluster is not None:
            async for url in self._cluster.providers(cid):
                yield url
        async for record in self.node.find_providers(cid.multihash):
            yield f"http://{record.addresses[0]}"

    async def fetch(self, cid: Cid, told: Callable[[Progress], None]) -> Progress:
        """A whole DAG from others; from then on others may have it from us."""
        progress = await self.fetcher.fetch(cid, told=told)
        await self.node.provide([cid.multihash])
        return progress

    async def own_content(self) -> tuple[int, int]:
        """(replicas, bytes) of content that this peer keeps for itself."""

        def count() -> tuple[int, int]:
            volumes = [v for v in self.content.cids.store.volumes if not v.failure]
            found = [volume.index.totals(FIRST_LOCAL_BLOCK) for volume in volumes]
            return sum(count for count, _ in found), sum(size for _, size in found)

        return await self.content.run(count)

    async def withdraw_lost(self) -> None:
        """Take back our word for blocks that were collected."""

        def lost() -> list[bytes]:
            return [key for key in list(self.node.provided) if not self.content.cids.has(key)]

        await self.node.withdraw(await self.content.run(lost))

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_report)
        return task

    async def done_within(self, task: asyncio.Task[Any], seconds: float) -> bool:
        done, _ = await asyncio.wait([task], timeout=seconds)
        return bool(done)

    # --- across restarts ---

    def _recall(self) -> list[str]:
        try:
            found = json.loads((self._folder / "peers.json").read_text(encoding="utf-8"))
            return [str(address) for address in found[:REMEMBERED]]
        except (OSError, ValueError, TypeError):
            return []

    async def _remember(self) -> None:
        while True:
            await asyncio.sleep(self._settings.refresh_s)
            contacts = self.node.table.contacts()
            addresses = [contact.record.addresses[0] for contact in contacts][:REMEMBERED]
            with contextlib.suppress(OSError):
                body = json.dumps(addresses).encode()
                await asyncio.to_thread(write_file, self._folder / "peers.json", body)

    async def close(self) -> None:
        if self._discovery is not None:
            await self._discovery.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if hasattr(self, "node"):
            await self.node.close()
            await self.exchange.close()
            self.fetcher.close()
            await asyncio.to_thread(self._local.leaves.close, self._config.stop_grace_s)
        await self._transport.close()
        await asyncio.to_thread(self._journal.close)


def _report(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        if isinstance(error, DfsError):
            log.warning("a peer's work ended: %s", error.message)
        else:
            log.error("a peer's work failed", exc_info=error)

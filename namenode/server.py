"""A NameNode: configuration -> objects -> routes -> loops. Wiring only."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random

from aiohttp import web

from .. import __version__
from ..common.config import NameNodeConfig
from ..common.errors import InvalidConfig, system_reason
from ..common.hosts import named
from ..common.http_metrics import HttpMetrics
from ..common.metrics import Exposition
from ..common.model import NodeAddress, NodeId
from ..common.request_lines import Runner
from ..common.runtime import Clock, SystemClock, system_random
from . import audit, metrics
from .administration import Administration
from .api.events import EventsApi
from .api.routing import RoutingApi
from .api.rpc import RpcApi
from .api.status import StatusApi
from .api.web import WebApi, same_origin
from .api.webhdfs import WebHdfsApi
from .census import Counting
from .datanodes import DataNodes
from .dispatch import Dispatcher
from .jobs import Jobs
from .keeping import Keeping
from .overview import Watcher
from .pushing import Pushing
from .replication import Limits, ReplicationMonitor
from .reports import Reports, known_nodes
from .safemode import SafeModeGate
from .store import open_store
from .store.base import MetadataStore, Transaction
from .tail import Tail
from .topology import Topology
from .visible import Visibility
from .volume_orders import VolumeOrders

log = logging.getLogger(__name__)


class NameNodeServer:
    """One NameNode process's service."""

    def __init__(
        self,
        config: NameNodeConfig,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._rng = rng or system_random()
        self._store: MetadataStore | None = None
        self._rpc: RpcApi | None = None
        self._web: WebApi | None = None
        self._events: EventsApi | None = None
        self._routing: RoutingApi | None = None
        self._webhdfs: WebHdfsApi | None = None
        self._keeping: Keeping | None = None
        self._runner: web.AppRunner | None = None
        self._jobs: asyncio.Task[None] | None = None
        self._beside: list[asyncio.Task[None]] = []

    async def start(self) -> dict[str, object]:
        config = self._config
        store = self._store = await open_store(config, self._clock)
        cluster_id, known = await store.read(_facts)
        nodes = DataNodes(
            self._clock,
            self._rng,
            stale_after_s=config.stale_after_s,
            dead_after_s=config.dead_after_s,
        )
        for node_id, uuid, address in known:
            nodes.expect(node_id, uuid, address)
        limits = Limits(
            per_node=config.max_transfers_per_node,
            in_all=config.max_transfers,
            bytes_per_s=config.repair_bytes_per_s,
            maintenance_copies=config.maintenance_copies,
        )
        monitor = ReplicationMonitor(self._rng, limits)
        topology = Topology(file=config.topology_file, script=config.topology_script)
        gate = SafeModeGate(nodes.live_count, config.safe_mode_nodes)
        administration = Administration(config, store, nodes, monitor, gate, topology, self._clock)
        await administration.load()
        jobs = Jobs(
            config, store, nodes, monitor, self._clock, gate, self._rng, administration.load
        )
        dispatcher = Dispatcher(
            config,
            store,
            nodes,
            self._clock,
            gate,
            consider=jobs.consider,
            recover=jobs.recover,
            silence=jobs.silence,
        )
        page_key = os.urandom(32)
        reports = Reports(
            config,
            store,
            nodes,
            monitor,
            gate,
            topology,
            self._clock,
            cluster_id=cluster_id,
            version=__version__,
            page_key=page_key,
            wake=jobs.wake,
            consider=jobs.consider,
        )
        dispatcher.specials.update(reports.handlers())
        counting = Counting(store, nodes, self._clock)
        operations = metrics.OperationMetrics(config.slow_operation_s)
        dispatcher.count_failure = operations.failed
        exposition = Exposition("namenode", __version__)
        metrics.register(exposition, operations, store, nodes, monitor, gate)
        exposition.add(counting.families)
        dispatcher.specials.update(administration.handlers())
        dispatcher.specials.update(VolumeOrders(nodes, administration).handlers())
        tail = Tail(store)
        store.tell_sealed = tail.sealed
        self._events = EventsApi(
            store,
            tail,
            self._clock,
            Visibility(store, self._clock, config.event_readers),
            who=dispatcher.caller,
            commit=dispatcher.commit_offset,
        )
        dispatcher.specials.update(events=self._events.read, event_groups=self._events.groups)
        pushing = Pushing(config, store, tail, self._clock, self._rng, cluster_id, jobs.holds)
        dispatcher.specials.update(pushing.handlers())
        exposition.add(lambda: metrics.followers(tail, pushing.lags(), pushing.outcomes))
        audit_key = await asyncio.to_thread(audit.load_key, config)
        auditor = audit.Auditor(store, self._clock, audit_key, cluster_id)
        dispatcher.specials.update(auditor.handlers())
        jobs.checkpoint = auditor.sign if audit_key is not None else None
        watcher = Watcher(
            config,
            nodes,
            monitor,
            gate,
            counting,
            operations,
            self._clock,
            cluster_id=cluster_id,
            version=__version__,
            last_event=lambda: tail.last,
        )
        self._keeping = Keeping(config, store, watcher, self._clock)
        await self._keeping.load()
        self._web = WebApi(watcher, nodes, self._clock, page_key)
        dispatcher.hot = watcher.hot
        dispatcher.specials.update(
            overview=watcher.overview,
            history=watcher.history,
            page_token=self._web.page_token,
        )
        dispatcher.specials.update(jobs.balancing.handlers())
        self._rpc = RpcApi(
            dispatcher,
            cluster_id=cluster_id,
            version=__version__,
            max_request_bytes=config.max_request_bytes,
            metrics=operations,
        )
        app = web.Application(
            client_max_size=config.max_request_bytes,
            middlewares=[
                *named(config.host, config.allowed_hosts, public=("/routing/",)),
                same_origin,
            ],
        )
        app.add_routes(self._rpc.routes())
        self._routing = RoutingApi(store, nodes)
        app.add_routes(self._routing.routes())
        app.add_routes(StatusApi(exposition, store, gate).routes())
        app.add_routes(self._events.routes())
        app.add_routes(self._web.routes())
        self._webhdfs = WebHdfsApi(dispatcher, nodes, config.cors_origins)
        app.add_routes(self._webhdfs.routes())
        http = HttpMetrics()
        exposition.add(http.families)
        self._runner = Runner(
            app,
            counted=http,
            handler_cancellation=True,
            auto_decompress=False,
            shutdown_timeout=config.stop_grace_s,
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, config.host, config.port, backlog=1024, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            raise InvalidConfig(
                f"can't listen on {config.host}:{config.port}: {system_reason(error)}"
            ) from None
        self._jobs = asyncio.create_task(jobs.run(), name="jobs")
        self._beside = [
            asyncio.create_task(exposition.watch_loop(1.0), name="loop watch"),
            asyncio.create_task(counting.run(), name="census"),
            asyncio.create_task(watcher.run(), name="overview"),
            asyncio.create_task(self._keeping.run(), name="keeping"),
            asyncio.create_task(pushing.run(), name="push"),
            asyncio.create_task(tail.run(told=not config.database), name="tail"),
        ]
        host, port = self._runner.addresses[0][:2]
        return {"http": f"{host}:{port}", "cluster_id": cluster_id}

    async def failed(self) -> None:
        assert self._jobs is not None
        await self._jobs

    async def stop(self) -> None:
        if self._web is not None:
            self._web.close()
        if self._events is not None:
            self._events.close()
        if self._rpc is not None:
            await self._rpc.close()
        if self._webhdfs is not None:
            await self._webhdfs.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._routing is not None:
            await self._routing.close()
        if self._keeping is not None and self._beside:
            await self._keeping.save()
        for task in [*self._beside, *([self._jobs] if self._jobs is not None else [])]:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._store is not None:
            await self._store.close()


def _facts(tx: Transaction) -> tuple[str, list[tuple[NodeId, str, NodeAddress]]]:
    row = tx.one("SELECT value FROM meta WHERE name = 'cluster_id'")
    assert row is not None
    return row[0], known_nodes(tx)

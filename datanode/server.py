"""A DataNode: configuration -> objects -> routes -> loops. Wiring only."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aiohttp import web

from .. import __version__
from ..client.exchange import Exchange
from ..client.routing_client import RoutingFinder
from ..common.config import DataNodeConfig
from ..common.errors import DfsError, InvalidConfig, Unsupported, VolumeFailed, system_reason
from ..common.hosts import named
from ..common.http_metrics import HttpMetrics
from ..common.ipld.cid import Cid
from ..common.metrics import Exposition, readiness
from ..common.model import BlockRef, NodeAddress, NodeId
from ..common.proxy import parse_proxy
from ..common.request_lines import Runner
from ..common.runtime import Clock, SystemClock, new_uuid, system_random
from . import metrics
from .api.blocks import BlocksApi
from .api.cids import CidsApi
from .api.status import StatusApi
from .api.web import WebApi
from .api.webhdfs import WebHdfsApi
from .blockstore import BlockStore
from .cidstore import CidStore
from .content import Content
from .copies import COPIES_AT_ONCE
from .disk_balancer import DiskBalancer
from .gateway.server import Gateway
from .local_writer import LocalBlocks
from .pacing import Pace, ServeLimit, stand_back
from .peers.service import PeerService
from .pipeline import Peers
from .reporter import Reporter, Workings
from .scrubber import Scrubber
from .streams import StreamServer
from .users import UserClients
from .volume_orders import VolumeOrders
from .volumes import REMOVED, Volume

log = logging.getLogger(__name__)
VOLUME_CHECK_S = 5.0
NAMENODE_SILENCE_S = 30.0  # after which the node says that it is not ready
PUBLIC = ("/ipfs/", "/ipns/")  # content, under whatever name a site gives its gateway
UPLOAD_BUFFER_BYTES = 512 * 1024  # of one request's body, received and not taken yet


class DataNodeServer:
    """One DataNode process's service."""

    def __init__(
        self,
        config: DataNodeConfig,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._rng = rng or system_random()
        self._store: BlockStore | None = None
        self.content: Content | None = None  # CID blocks, once started
        self._finder: RoutingFinder | None = None
        self._exchange: Exchange | None = None
        self.peer: PeerService | None = None  # where it takes part in a network of peers
        self._streams: StreamServer | None = None
        self._users: UserClients | None = None
        self._nodes: Peers | None = None
        self._local: LocalBlocks | None = None
        self._webhdfs: WebHdfsApi | None = None
        self._runner: web.AppRunner | None = None
        self._reporters: list[Reporter] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="work")
        self._copiers = ThreadPoolExecutor(
            COPIES_AT_ONCE, thread_name_prefix="copy", initializer=stand_back
        )
        self._looking: set[asyncio.Task[None]] = set()
        self._uuid = ""
        self._began_s = self._clock.monotonic_s()
        self._scrubber: Scrubber | None = None
        self._stopping = threading.Event()
        self._lost_volumes = 0  # that could not be opened at the start

    async def start(self) -> dict[str, object]:
        config = self._config
        loop = asyncio.get_running_loop()
        volumes, cluster_id, node_id = await asyncio.to_thread(self._open_volumes)
        store = self._store = BlockStore(
            volumes, small_block_bytes=config.small_block_bytes, rng=self._rng
        )
        peers = Peers(
            node_id=node_id,
            connect_timeout_s=5.0,
            stall_timeout_s=config.stall_timeout_s,
            proxy=parse_proxy(config.proxy),
        )

        def on_bad(block: BlockRef) -> None:
            loop.call_soon_threadsafe(self._look_at, block)

        limit = ServeLimit(config.serve_bytes_per_s, self._clock)
        streams = self._streams = StreamServer(
            store,
            peers,
            max_connections=config.max_connections,
            transfer_memory_bytes=config.transfer_memory_mib * 1024 * 1024,
            idle_timeout_s=config.idle_timeout_s,
            stall_timeout_s=config.stall_timeout_s,
            on_bad=on_bad,
            metrics=metrics.StreamMetrics(config.slow_operation_s),
            limit=limit,
        )
        exposition = Exposition("datanode", __version__)
        metrics.register(
            exposition,
            streams.metrics,
            store,
            connections=lambda: {"busy": streams.active, "open": streams.open},
            free_buffer_bytes=lambda: streams.free_buffer_bytes,
            contact_age_s=self._contact_age_s if config.namenodes else None,
        )
        data_port = streams.listen_tcp(config.host, config.data_port)
        socket_path = ""
        if config.socket != "none":
            wanted = config.socket or str(volumes[0].path.resolve() / "data.sock")
            socket_path = streams.listen_unix(wanted)
        status: dict[str, Any] = {"version": __version__, "uuid": self._uuid}
        traffic = streams.metrics.bytes
        local = self._local = LocalBlocks(
            store, peers, written=lambda size: traffic.add("received", size)
        )
        self._users = UserClients(config, local)
        self._nodes = peers
        http = HttpMetrics()
        exposition.add(http.families)
        self._runner = Runner(
            web.Application(
                middlewares=named(
                    config.host, (config.advertise, *config.allowed_hosts), public=PUBLIC
                )
            ),
            counted=http,
            read_bufsize=UPLOAD_BUFFER_BYTES,
            auto_decompress=False,
            shutdown_timeout=config.stop_grace_s,
        )
        self._runner.app.add_routes(BlocksApi(store, status).routes())
        self._runner.app.add_routes(StatusApi(exposition, self._readiness).routes())
        cids = CidStore(
            store, wall_ms=self._clock.wall_ms, on_bad=on_bad, now_s=self._clock.monotonic_s
        )
        self.content = Content(cids, self._threads)
        if config.is_peer:
            self.peer = PeerService(
                config,
                self.content,
                volumes[0].path / "peer",
                clock=self._clock,
                rng=self._rng,
            )
            routes = await self.peer.prepare(lambda: self._http_address())
            self._runner.app.add_routes(routes)
        self._runner.app.add_routes(CidsApi(self.content).routes())
        gateway = Gateway(self.content, limit, names=self._resolve_name)
        self._runner.app.add_routes(gateway.routes())
        pages = WebApi(config, self._clock, page_keys=self._page_keys, facts=self._page_facts)
        self._runner.app.add_routes(pages.routes())
        self._webhdfs = WebHdfsApi(self._users, config.cors_origins)
        self._runner.app.add_routes(self._webhdfs.routes())
        await self._runner.setup()
        site = web.TCPSite(self._runner, config.host, config.port, backlog=512)
        try:
            await site.start()
        except OSError as error:
            raise InvalidConfig(
                f"can't listen on {config.host}:{config.port}: {system_reason(error)}"
            ) from None
        http_address = self._http_address()
        host = config.reached_at
        address = NodeAddress(
            node_id=NodeId(0),
            host=host,
            data=f"{host}:{data_port}",
            http=http_address,
            socket=socket_path,
            rack=config.rack,
        )

        peers.own = address

        async def joined(joined_id: str, node_id: NodeId) -> None:
            await asyncio.to_thread(self._identify, joined_id, node_id)

        scrubber = Scrubber(
            store,
            self._clock,
            self._threads,
            bytes_per_s=config.scrub_bytes_per_s,
            interval_s=config.scrub_interval_s,
            busy=lambda: streams.active,
            bad=lambda block: self._tell(lambda reporter: reporter.bad(block)),
            missing=lambda block: self._tell(lambda reporter: reporter.removed([block])),
            received=lambda replica: self._tell(lambda reporter: reporter.received(replica)),
            renewed=lambda: self._tell(lambda reporter: reporter.report_now()),
        )
        self._scrubber = scrubber
        exposition.add(lambda: metrics.scrubbing(store, scrubber.passes))
        disks = DiskBalancer(
            store, self._clock, self._threads, self._stopping, lambda: streams.active
        )
        orders = VolumeOrders(
            store,
            self._clock,
            self._threads,
            self._stopping,
            busy=lambda: streams.active,
            bad=lambda block: self._tell(lambda reporter: reporter.bad(block)),
            holds=self._holds,
        )
        workings = Workings(
            pace=Pace(config.copy_bytes_per_s),
            copiers=self._copiers,
            stopping=self._stopping,
            scrub=scrubber.order,
            balance_disks=disks.order,
            manage_volume=orders.obey,
        )
        for url in config.namenodes:
            reporter = Reporter(
                url,
                config,
                store,
                peers,
                self._clock,
                uuid=self._uuid,
                address=address,
                cluster_id=cluster_id,
                active=lambda: streams.active,
                traffic=streams.metrics.traffic,
                joined=joined,
                threads=self._threads,
                workings=workings,
            )
            self._reporters.append(reporter)
            self._tasks.append(asyncio.create_task(reporter.run(), name=f"reporter {url}"))
        self._tasks.append(asyncio.create_task(self._watch_volumes(), name="volume watch"))
        self._tasks.append(asyncio.create_task(scrubber.run(), name="scrubber"))
        self._tasks.append(asyncio.create_task(disks.run(), name="disk balancer"))
        self._tasks.append(asyncio.create_task(orders.run(), name="volume orders"))
        self._tasks.append(asyncio.create_task(exposition.watch_loop(1.0), name="loop watch"))
        if config.namenodes:
            self._finder = RoutingFinder(config.namenodes, without=[f"http://{address.http}"])
        if self.peer is not None:
            await self.peer.start(self._finder)
            node, keeper = self.peer.node, self.peer.keeper
            exposition.add(
                lambda: metrics.network(len(node.table), len(keeper.own_roots()), len(keeper.held))
            )
        elif self._finder is not None:
            # What this node lacks for a file or a folder, the others of its cluster have.
            self._exchange = Exchange(self._finder, clock=self._clock, rng=self._rng)
            self.content.remote = self._exchange
        found, exchange = self.content, self.peer.exchange if self.peer else self._exchange
        exposition.add(lambda: metrics.content(found, exchange, self._threads._work_queue.qsize()))
        return {"http": address.http, "data": address.data, "socket": socket_path}

    def _http_address(self) -> str:
        """HOST:PORT that others reach us at."""
        assert self._runner is not None
        host = self._config.reached_at
        return f"{host}:{self._runner.addresses[0][1]}"

    async def _resolve_name(self, name: str) -> tuple[Cid, list[str], int, bytes]:
        if self.peer is None:
            raise Unsupported("this DataNode is no peer, and knows no mutable names")
        return await self.peer.names.resolve(name)

    def _contact_age_s(self) -> float:
        """Since a NameNode last answered; since the start of the machine, if none did."""
        answered = [r.last_answer_s for r in self._reporters if r.last_answer_s is not None]
        return self._clock.monotonic_s() - max(answered, default=0.0)

    def _page_keys(self) -> list[bytes]:
        return [reporter.page_key for reporter in self._reporters if reporter.page_key]

    def _page_facts(self) -> dict[str, Any]:
        """For the node's own page; in a thread, since volumes are looked at."""
        assert self._store is not None
        assert self._streams is not None
        now_s = self._clock.monotonic_s()
        return {
            "version": __version__,
            "uuid": self._uuid,
            "rack": self._config.rack,
            "peer": self._config.is_peer,
            "time_ms": self._clock.wall_ms(),
            "up_s": round(now_s - self._began_s, 1),
            "blocks": self._store.totals(),
            "connections": self._streams.open,
            "busy": self._streams.active,
            "traffic": self._streams.metrics.traffic(),
            "volumes": [volume.report() for volume in self._store.volumes],
            "namenodes": [
                {
                    "url": reporter.url,
                    "age_s": None
                    if reporter.last_answer_s is None
                    else round(now_s - reporter.last_answer_s, 1),
                }
                for reporter in self._reporters
            ],
        }

    def _readiness(self) -> tuple[int, dict[str, Any]]:
        assert self._store is not None
        problems = []
        failed = [volume for volume in self._store.volumes if volume.failure]
        if len(failed) == len(self._store.volumes):
            problems.append("no volume is in service")
        if self._reporters and self._contact_age_s() > NAMENODE_SILENCE_S:
            problems.append(f"no NameNode has answered for {NAMENODE_SILENCE_S:.0f} s")
        return readiness(problems, failed_volumes=len(failed), blocks=self._store.totals())

    def _open_volumes(self) -> tuple[list[Volume], str, NodeId]:
        """The volumes that work, the cluster they belong to, and this node's id there (0: none yet)."""
        volumes: list[Volume] = []
        failures: list[DfsError] = []
        try:
            for path in self._config.dir:
                if (Path(path) / REMOVED).exists():
                    log.warning(
                        "%s is passed over, since an operator has removed it: take it out of `dir`, or"
                        " delete the file %s there to use it again",
                        *(path, REMOVED),
                    )
                    continue
                try:
                    volumes.append(
                        Volume(
                            Path(path),
                            reserved_bytes=self._config.reserved_bytes,
                            limit_bytes=self._config.volume_bytes,
                        )
                    )
                except VolumeFailed as error:
                    log.error("%s", error.message)
                    failures.append(error)
            if failures and (len(failures) > self._config.failed_volumes_tolerated or not volumes):
                raise failures[0]
            if not volumes:
                raise InvalidConfig("all volumes of this DataNode have been removed")
            self._lost_volumes = len(failures)
            uuids = {str(v.version["node_uuid"]) for v in volumes} - {""}
            clusters = {str(v.version["cluster_id"]) for v in volumes} - {""}
            if len(uuids) > 1 or len(clusters) > 1:
                raise InvalidConfig("the volumes belong to different DataNodes or clusters")
        except BaseException:
            for volume in volumes:
                volume.close()
            raise
        self._uuid = uuids.pop() if uuids else new_uuid()
        cluster_id = clusters.pop() if clusters else ""
        # Known from the start, so that a node that serves before it has registered again can say who it is.
        node_id = NodeId(max(_node_id_of(volume) for volume in volumes))
        for volume in volumes:
            volume.identify(node_uuid=self._uuid, cluster_id=cluster_id, node_id=node_id)
        return volumes, cluster_id, node_id

    def _identify(self, cluster_id: str, node_id: NodeId) -> None:
        assert self._store is not None
        for volume in self._store.volumes:
            if not volume.failure:
                try:
                    volume.identify(node_uuid=self._uuid, cluster_id=cluster_id, node_id=node_id)
                except OSError as error:
                    # It went away since the start; the others serve on.
                    volume.fail(error.strerror or str(error))

    def _tell(self, tell: Callable[[Reporter], None]) -> None:
        for reporter in self._reporters:
            tell(reporter)

    def _look_at(self, block: BlockRef) -> None:
        """A replica could not be served: look whether it is here, and tell the NameNodes."""
        for reporter in self._reporters:
            task = asyncio.ensure_future(reporter.verify([block]))
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)

    def _holds(self, volume: Volume) -> str:
        """What is in *volume* besides replicas that can't be had elsewhere; "" if nothing is."""
        assert self._streams is not None
        if self._config.is_peer and (volume.path / "peer").exists():
            return "the state of this peer is there"
        if any((volume.path / "fetching").glob("*.json")):
            return "content is being fetched there"
        if Path(self._streams.unix_path).parent == volume.path.resolve():
            return "this node's socket is there; start it with --socket PATH (or none) first"
        return ""

    async def _watch_volumes(self) -> None:
        """Take volumes that can't be written any more out of service, and their replicas with them."""
        assert self._store is not None
        assert self._scrubber is not None
        reported: set[str] = set()
        while True:
            await asyncio.sleep(VOLUME_CHECK_S)
            volumes = self._store.volumes
            for volume in volumes:
                await asyncio.to_thread(volume.check)
                if volume.index.suspect and not volume.failure:
                    await self._scrubber.renew(volume)
            failed = {v.volume_id for v in volumes if v.failure and not v.renewing}
            if failed - reported:
                reported |= failed
                # Full reports no longer name the replicas there.
                self._tell(lambda reporter: reporter.report_now())
            if len(failed) == len(volumes):
                raise VolumeFailed("no volume is left in service")
            if len(failed) + self._lost_volumes > self._config.failed_volumes_tolerated:
                raise VolumeFailed(
                    f"{len(failed) + self._lost_volumes} volumes have failed and"
                    f" {self._config.failed_volumes_tolerated} are tolerated (failed_volumes_tolerated)"
                )

    async def failed(self) -> None:
        await asyncio.gather(*self._tasks)

    async def stop(self) -> None:
        self._stopping.set()
        for task in [*self._tasks, *self._looking]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._looking, return_exceptions=True)
        if self._streams is not None:
            await asyncio.to_thread(self._streams.close, self._config.stop_grace_s)
        if self.peer is not None:
            await self.peer.close()
        if self._exchange is not None:
            await self._exchange.close()
        if self._finder is not None:
            await self._finder.close()
        for reporter in self._reporters:
            await reporter.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._webhdfs is not None:
            await self._webhdfs.close()
        if self._users is not None:
            await self._users.close()
        if self._local is not None:
            await asyncio.to_thread(self._local.close)
        for threads in (self._threads, self._copiers):
            threads.shutdown(wait=True, cancel_futures=True)
        if self._nodes is not None:
            self._nodes.close()
        if self._store is not None:
            with contextlib.suppress(DfsError):
                await asyncio.to_thread(self._store.close)


def _node_id_of(volume: Volume) -> int:
    found = volume.version.get("node_id", 0)
    return found if isinstance(found, int) else 0

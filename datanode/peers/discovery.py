"""Peers on the local network, by mDNS (zeroconf, the extra "peers"): says that we are there, hears who else is."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...common.errors import DfsError, InvalidConfig
from ...common.peerid import parse, shown
from ...common.peering import split_address

if TYPE_CHECKING:
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

log = logging.getLogger(__name__)
SERVICE = "_twinfs._tcp.local."
LOOKUP_MS = 3_000


class Discovery:
    """*found* is called with HOST:PORT and the peer id of each peer that shows up. What is heard is proven later, by greeting."""

    def __init__(self, peer: bytes, address: str, found: Callable[[str, bytes], None]) -> None:
        self._peer = peer
        self._address = address
        self._found = found
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """InvalidConfig where the extra is not installed, or the network has no multicast."""
        try:
            from zeroconf import IPVersion
            from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf
        except ImportError:
            raise InvalidConfig(
                '--mdns needs the extra "peers": pip install "twinfs[peers]"'
            ) from None
        host, port = split_address(self._address)
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            ip = ipaddress.ip_address(
                (await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))[
                    0
                ][4][0]
            )
        interfaces: Any = [str(ip)]
        version = IPVersion.V4Only if ip.version == 4 else IPVersion.V6Only
        try:
            self._zeroconf = AsyncZeroconf(interfaces=interfaces, ip_version=version)
            # The first label of a name has 63 bytes; a peer id has 52.
            info = AsyncServiceInfo(
                SERVICE,
                f"{shown(self._peer)}.{SERVICE}",
                addresses=[ip.packed],
                port=port,
                properties={"id": shown(self._peer)},
            )
            await self._zeroconf.async_register_service(info)
        except OSError as error:
            raise InvalidConfig(
                f"mDNS does not work on {host}: {error.strerror or error}"
            ) from None
        self._browser = AsyncServiceBrowser(
            self._zeroconf.zeroconf, SERVICE, handlers=[self._changed]
        )

    def _changed(self, zeroconf: Any, service_type: str, name: str, state_change: Any) -> None:
        if "Removed" in str(state_change) or len(self._tasks) > 64:
            return
        task = asyncio.ensure_future(self._look_up(name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look_up(self, name: str) -> None:
        from zeroconf.asyncio import AsyncServiceInfo

        if self._zeroconf is None:
            return
        info = AsyncServiceInfo(SERVICE, name)
        if not await info.async_request(self._zeroconf.zeroconf, LOOKUP_MS):
            return
        try:
            peer = parse((info.properties.get(b"id") or b"").decode("ascii", "replace"))
        except DfsError:
            return
        for text in info.parsed_addresses()[:4]:
            host = f"[{text}]" if ":" in text else text
            if peer != self._peer and info.port:
                self._found(f"{host}:{info.port}", peer)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._browser is not None:
            await self._browser.async_cancel()
        if self._zeroconf is not None:
            await self._zeroconf.async_unregister_all_services()
            await self._zeroconf.async_close()

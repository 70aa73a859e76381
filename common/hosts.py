"""Which names a server may be called by, so that a page from outside can't make its own name mean this machine.

A browser lets a page ask the host that it came from. Whoever owns that host's name may let it point elsewhere a moment later, at
127.0.0.1 for example (DNS rebinding): to the browser it is the same site still, and what it asks has no Origin, or the right one. The
name in the request gives it away: the attacker has to own it.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from aiohttp import hdrs, web

from .codec import failure_of, to_json
from .errors import PermissionDenied, http_status

log = logging.getLogger(__name__)
NOT_OUR_NAME = "this server does not go by the name in the URL; `allowed_hosts` in its configuration lists more names"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


class OwnNames:
    """Names by which this machine may be called. *more*: what the configuration says; ".example.org" is all below it."""

    def __init__(self, more: Iterable[str] = ()) -> None:
        # Not the machine's full name, which would be looked up, and that may take seconds.
        name = socket.gethostname().lower()
        self._names = {name, f"{name}.local", *(n.lower().rstrip(".") for n in more if n)}
        self._below = (*tuple(n for n in self._names if n.startswith(".")), ".localhost")

    def has(self, header: str) -> bool:
        """Whether a request with this Host may have been meant for us: nobody outside owns addresses and names without a dot."""
        if header.startswith("["):
            return _is_address(header[1:].partition("]")[0])
        name = header.partition(":")[0].lower().rstrip(".")
        return (
            "." not in name
            or name in self._names
            or name.endswith(self._below)
            or _is_address(name)
        )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def named(host: str, allowed: Sequence[str], *, public: tuple[str, ...] = ()) -> list[Any]:
    """Middlewares of a server that listens on *host*: it refuses requests for names that are not its own.

    What listens on more than this machine's own interface may have any name, unless *allowed* says which. Paths that begin
    with one of *public* are for everybody. Programs that send no Host are not concerned: browsers always do.
    """
    if not is_loopback(host) and not allowed:
        return []
    names = OwnNames(allowed)

    @web.middleware
    async def own_name(request: web.Request, handler: Handler) -> web.StreamResponse:
        called = request.headers.get(hdrs.HOST, "")
        if names.has(called) or request.path.startswith(public):
            return await handler(request)
        log.warning("refused a request for the host %.100r, which is not this one", called)
        return web.Response(
            body=to_json(failure_of(PermissionDenied(NOT_OUR_NAME))),
            status=http_status(PermissionDenied(NOT_OUR_NAME)),
            content_type="application/json",
        )

    return [own_name]

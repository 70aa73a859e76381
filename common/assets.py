"""The files of the web pages, and the headers that keep those pages to themselves.

No build step: plain ES modules and CSS, shipped in the package. Pages may load nothing from elsewhere and run nothing that is
not theirs (Content-Security-Policy, Trusted Types); names of files are only ever shown as text.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import PurePath
from typing import Final

from aiohttp import web

KINDS: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self';"
    " worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types twinfs-bytes"
)
# A worker has a policy of its own: it runs nothing but its one file, and may reach the DataNodes that there are.
WORKER_POLICY: Final = "default-src 'none'; connect-src{nodes}; require-trusted-types-for 'script'; trusted-types 'none'"
SECURITY: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the pages, ready to be sent."""

    kind: str
    plain: bytes
    packed: bytes
    tag: str


class Assets:
    """Every file of static/, in memory."""

    def __init__(self) -> None:
        self._files: dict[str, Asset] = {}
        self._load(resources.files(__package__).joinpath("static"), "")

    def _load(self, folder: Traversable, prefix: str) -> None:
        for entry in folder.iterdir():
            if entry.is_dir():
                self._load(entry, f"{prefix}{entry.name}/")
                continue
            kind = KINDS.get(PurePath(entry.name).suffix)
            if kind is not None:
                plain = entry.read_bytes()
                tag = hashlib.sha256(plain).hexdigest()[:20]
                self._files[prefix + entry.name] = Asset(
                    kind, plain, gzip.compress(plain, 6, mtime=0), tag
                )

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/static/{name:.+}", self._asset), web.get("/favicon.ico", self._icon)]

    async def _asset(self, request: web.Request) -> web.Response:
        return self._send(request, request.match_info["name"])

    async def _icon(self, request: web.Request) -> web.Response:
        return self._send(request, "icon.svg")

    def page(self, request: web.Request, name: str) -> web.Response:
        """A page, that may talk to this server alone."""
        response = self._send(request, name)
        response.headers["Content-Security-Policy"] = POLICY
        return response

    def worker(self, request: web.Request, name: str, origins: Iterable[str]) -> web.Response:
        """A worker's script, that may talk to *origins* alone."""
        response = self._send(request, name, fresh=True)
        nodes = "".join(f" {origin}" for origin in origins if _is_origin(origin)) or " 'none'"
        response.headers["Content-Security-Policy"] = WORKER_POLICY.format(nodes=nodes)
        response.headers["Cache-Control"] = "no-store"  # the policy names whom there is now
        return response

    def _send(self, request: web.Request, name: str, *, fresh: bool = False) -> web.Response:
        found = self._files.get(name)
        if found is None:
            raise web.HTTPNotFound(text="there is no such file\n")
        headers = {**SECURITY, "Vary": "Accept-Encoding"}
        if not fresh:
            headers |= {"ETag": f'"{found.tag}"', "Cache-Control": "no-cache"}
            if f'"{found.tag}"' in request.headers.get("If-None-Match", ""):
                return web.Response(status=304, headers=headers)
        headers["Content-Type"] = found.kind
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            return web.Response(body=found.packed, headers=headers)
        return web.Response(body=found.plain, headers=headers)


def _is_origin(text: str) -> bool:
    """Whether *text* can stand in a policy: a DataNode chooses its own address."""
    return text.isascii() and all(c.isalnum() or c in ":/.-_[]" for c in text)

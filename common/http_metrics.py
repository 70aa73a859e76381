"""What a process's HTTP side is asked for: how long answers took, bytes each way, failures.

Counted when an answer is complete, so that what streams is counted whole; a WebSocket and what travels in it is not (its owner counts that).
The label is the first part of the route, of which each process has a handful, and never of the path that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.web_request import BaseRequest
from prometheus_client.metrics_core import Metric

from .metrics import Counts, Histograms, counter

SWITCHING: Final = 101
VERSIONS: Final = ("v0", "v1")


class HttpMetrics:
    """Of one process. All methods are called on its event loop."""

    def __init__(self) -> None:
        self.latencies = Histograms()
        self.bytes = Counts()
        self.answers = Counts()
        self._names: dict[str, str] = {}

    def logger(self) -> type[AbstractAccessLogger]:
        """For aiohttp, which makes one for each connection and tells it of every answer that is out."""
        done = self.done

        class Logger(AbstractAccessLogger):
            def log(self, request: BaseRequest, response: web.StreamResponse, time: float) -> None:
                done(request, response, time)

        return Logger

    def done(self, request: BaseRequest, response: web.StreamResponse, seconds: float) -> None:
        if response.status == SWITCHING:
            return
        try:
            match = request.match_info if isinstance(request, web.Request) else None
        except AssertionError:
            match = None  # what is no HTTP has no route
        resource = match.route.resource if match is not None else None
        self.latencies.observe(
            self._name(resource.canonical) if resource is not None else "none", seconds
        )
        self.answers.add(f"{response.status // 100}xx")
        self.bytes.add("received", request.content_length or 0)
        # What goes past aiohttp, by sendfile or from a thread, is known by its announced length alone.
        announced = 0 if request.method == "HEAD" else response.content_length or 0
        self.bytes.add("sent", max(response.body_length, announced))

    def _name(self, canonical: str) -> str:
        found = self._names.get(canonical)
        if found is None:
            parts = [part for part in canonical.split("/") if part and part not in VERSIONS]
            # A route that begins with what was asked for: the operation of `/v1/{operation}`.
            found = parts[0].strip("{}").partition(":")[0] if parts else "page"
            self._names[canonical] = found
        return found

    def families(self) -> Iterator[Metric]:
        yield self.latencies.family(
            "twinfs_http_request_duration_seconds",
            "HTTP requests, until the answer was out. Those of `events` wait on purpose.",
            "route",
        )
        yield counter(
            "twinfs_http_bytes",
            "Bodies of HTTP requests and answers. WebSockets are not in it.",
            "direction",
            {"received": 0, "sent": 0} | self.bytes.snapshot(),
        )
        yield counter(
            "twinfs_http_answers",
            "HTTP answers, by the first digit of their status.",
            "status",
            self.answers.snapshot(),
        )


__all__ = ["HttpMetrics"]

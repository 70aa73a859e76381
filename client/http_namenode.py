"""Calls to the NameNode one at a time, blocking, over plain HTTP: for commands that make a few of them.

Imports neither aiohttp nor asyncio nor http.client, each of which would take longer than the call.
"""

from __future__ import annotations

import logging
import os
import threading
import urllib.parse
from typing import Any

from ..common import codec, tracing
from ..common.codec import MSGPACK, error_of, pack
from ..common.errors import (
    Busy,
    DfsError,
    InvalidConfig,
    InvalidRequest,
    SafeMode,
    ShuttingDown,
    StoreConflict,
    StoreUnavailable,
    Unavailable,
    system_reason,
)
from ..common.messages import Failure
from ..common.model import Struct
from ..common.operations import OPERATIONS
from ..common.proxy import parse_proxy
from ..common.retry import Patience, backoff_s
from ..common.runtime import SystemClock, elapsed_timer, system_random
from .http_call import HttpConnection

log = logging.getLogger(__name__)
CALL_TIMEOUT_S = 120.0
RETRIED = (Unavailable, SafeMode, ShuttingDown, Busy, StoreConflict, StoreUnavailable)


class HttpNameNode:
    """A kept-alive connection to a NameNode. Not to be shared between threads.

    *url* may be several, joined by commas: NameNodes of one cluster. The next one is asked when one can't be reached.
    """

    def __init__(
        self,
        url: str,
        *,
        user: str,
        retry_s: float = 30.0,
        connect_timeout_s: float = 5.0,
        proxy: str = "",
    ) -> None:
        self._places: list[tuple[str, str, int]] = []  # (url, host, port), the one asked first
        for single in url.split(","):
            parts = urllib.parse.urlsplit(single.strip())
            if parts.scheme != "http" or not parts.hostname:
                raise InvalidConfig(f"the NameNode's URL must be http://HOST:PORT, not {single!r}")
            self._places.append((single.strip(), parts.hostname, parts.port or 9870))
        self._user = user
        self._retry_s = retry_s
        self._connect_timeout_s = connect_timeout_s
        self._proxy = parse_proxy(proxy)
        self._client = os.urandom(16).hex()
        self._count = 0
        self._clock = SystemClock()
        self._rng = system_random()
        self._connection: HttpConnection | None = None

    def call(self, operation: str, request: Struct) -> Any:
        """The operation's response. Raises what the NameNode answers, or Unavailable after `retry_s`."""
        self._count += 1
        name = f"{self._client}-{self._count}"
        patience = Patience(log, self._clock.monotonic_s(), self._retry_s)
        pause = threading.Event()
        attempt = 0
        while True:
            try:
                began_s = elapsed_timer()
                with tracing.span(operation, "client"):
                    answer = self._once(operation, request, name)
                log.debug("%s took %.1f ms", operation, (elapsed_timer() - began_s) * 1e3)
                return answer
            except RETRIED as error:
                self._turn()
                delay_s = backoff_s(attempt, self._rng, base_s=0.05, cap_s=2.0)
                now_s = self._clock.monotonic_s()
                if now_s + delay_s > patience.deadline_s:
                    raise error
                patience.tell(error.message, now_s)
                attempt += 1
                pause.wait(delay_s)

    def _turn(self) -> None:
        """Ask another NameNode next time, if there is one."""
        if len(self._places) > 1:
            self.close()
            self._places.append(self._places.pop(0))

    def _once(self, operation: str, request: Struct, name: str) -> Any:
        headers = {"Content-Type": MSGPACK, "X-TwinFS-Request": name}
        url, host, port = self._places[0]
        try:
            headers["X-TwinFS-User"] = self._user
            origin = tracing.current()
            if origin is not None:
                headers["X-TwinFS-Origin"] = origin.request_id
                if origin.traceparent:
                    headers["traceparent"] = origin.traceparent
            if self._connection is None:
                self._connection = HttpConnection(
                    host,
                    port,
                    connect_timeout_s=self._connect_timeout_s,
                    timeout_s=CALL_TIMEOUT_S,
                    proxy=self._proxy,
                )
            answer = self._connection.post(f"/v1/{operation}", pack(request), headers)
        except OSError as error:
            self.close()
            raise Unavailable(
                f"can't reach the NameNode at {url}: {system_reason(error)}"
            ) from None
        if answer.status == 200:
            return codec.unpack(answer.body, OPERATIONS[operation].response)
        try:
            failure = codec.unpack(answer.body, Failure)
        except InvalidRequest:
            raise DfsError(
                f"{url} answered {answer.status} {answer.reason}: is it a NameNode?"
            ) from None
        raise error_of(failure)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

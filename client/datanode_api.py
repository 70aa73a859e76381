"""Connections to DataNodes: blocking, pooled, used in threads."""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from ..common.config import ClientConfig
from ..common.errors import ConnectionLost, DfsError, TimedOut
from ..common.framing import FrameSocket, connect
from ..common.model import NodeAddress
from ..common.proxy import parse_proxy

MAX_IDLE = 8  # kept for each DataNode


class ConnectionPool:
    """Kept-open connections, by address. A DataNode on this machine is reached through its Unix socket."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._idle: dict[str, collections.deque[FrameSocket]] = {}
        self._local: dict[str, bool] = {}
        self._closed = False
        self._proxy = parse_proxy(config.proxy)

    def endpoint(self, node: NodeAddress) -> str:
        """The Unix socket's path where it can be used, else HOST:PORT."""
        if not node.socket or not self._config.short_circuit or self._proxy is not None:
            return node.data
        known = self._local.get(node.socket)
        if known is None:
            known = self._local[node.socket] = Path(node.socket).is_socket()
        return node.socket if known else node.data

    def is_local(self, node: NodeAddress) -> bool:
        return self.endpoint(node) == node.socket

    def open(self, node: NodeAddress) -> FrameSocket:
        """A new connection. Raises Unavailable."""
        endpoint = self.endpoint(node)
        try:
            return self._connect(endpoint)
        except DfsError:
            self._local.pop(node.socket, None)
            if endpoint == node.data:
                raise
            return self._connect(node.data)

    def _connect(self, endpoint: str) -> FrameSocket:
        return connect(
            endpoint,
            connect_timeout_s=self._config.connect_timeout_s,
            stall_timeout_s=self._config.read_timeout_s,
            proxy=self._proxy,
        )

    def take(self, node: NodeAddress) -> tuple[FrameSocket, bool]:
        """A connection, and whether it is a used one, which the DataNode may have closed meanwhile."""
        endpoint = self.endpoint(node)
        with self._lock:
            idle = self._idle.get(endpoint)
            if idle:
                return idle.pop(), True
        return self.open(node), False

    def give(self, node: NodeAddress, connection: FrameSocket) -> None:
        """Take back a connection on which nothing is under way."""
        endpoint = self.endpoint(node)
        with self._lock:
            idle = self._idle.setdefault(endpoint, collections.deque())
            if not self._closed and len(idle) < MAX_IDLE:
                idle.append(connection)
                return
        connection.close()

    def forget(self, node: NodeAddress) -> None:
        """Close what is kept for a node that has failed."""
        with self._lock:
            idle = self._idle.pop(self.endpoint(node), collections.deque())
        for connection in idle:
            connection.close()

    @contextlib.contextmanager
    def exchange(self, node: NodeAddress) -> Iterator[FrameSocket]:
        """A connection for one request; kept if the block ends without an error."""
        connection, _ = self.take(node)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self.give(node, connection)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()


def broken(error: DfsError) -> bool:
    """Whether *error* says that a connection can't be used any more."""
    return isinstance(error, ConnectionLost | TimedOut)

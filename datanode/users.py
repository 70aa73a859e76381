"""Clients that a DataNode keeps for the people it acts for: one `FileSystem` each, so that the NameNode decides what they may."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator

from ..client.filesystem import FileSystem
from ..common.config import ClientConfig, DataNodeConfig
from ..common.errors import Unsupported
from .local_writer import LocalBlocks

MAX_IDLE = 32
WINDOW_PACKETS = 8  # of 1 MiB, of each upload that other nodes have not acknowledged


class _Entry:
    __slots__ = ("files", "in_use")

    def __init__(self, files: FileSystem) -> None:
        self.files = files
        self.in_use = 0


class UserClients:
    """At most `MAX_IDLE` are kept when nobody uses them; those in use are as many as there are requests."""

    def __init__(self, config: DataNodeConfig, local: LocalBlocks | None = None) -> None:
        self._local = local
        self._proxy = config.proxy
        self._urls = ",".join(config.namenodes)
        self._entries: collections.OrderedDict[str, _Entry] = collections.OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def of(self, user: str) -> AsyncIterator[FileSystem]:
        """The client of *user*, for a `with` block."""
        if not self._urls:
            raise Unsupported("this node belongs to no NameNode: it has no paths")
        entry = self._entries.get(user)
        if entry is None:
            # The requests' own clients decide how long they wait; here a call fails soon.
            config = ClientConfig(
                namenode=self._urls,
                user=user,
                retry_s=10.0,
                proxy=self._proxy,
                ack_window_packets=WINDOW_PACKETS,
            )
            entry = self._entries[user] = _Entry(FileSystem(config, local=self._local))
        self._entries.move_to_end(user)
        entry.in_use += 1
        try:
            yield entry.files
        finally:
            entry.in_use -= 1
            self._trim()

    def _trim(self) -> None:
        idle = [user for user, entry in self._entries.items() if not entry.in_use]
        for user in idle[: max(0, len(idle) - MAX_IDLE)]:
            task = asyncio.ensure_future(self._entries.pop(user).files.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        entries = list(self._entries.values())
        self._entries.clear()
        await asyncio.gather(
            *self._closing, *(entry.files.close() for entry in entries), return_exceptions=True
        )

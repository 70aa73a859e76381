"""What the dashboard's charts show outlives the NameNode: once a minute it is written down, some ten kilobytes, always the same row.

It lies in the table `meta` beside the cluster's id, so that SQLite and PostgreSQL keep it alike and a backup has it. Several NameNodes on
one database have a row each, since each counts the calls that it answers. A kill costs the last minute of the charts.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import zlib
from typing import Final, Protocol

import msgspec

from ..common.config import NameNodeConfig
from ..common.errors import DfsError
from ..common.runtime import Clock
from .history import DAY_S, Kept
from .store.base import MetadataStore, Transaction

log = logging.getLogger(__name__)
INTERVAL_S: Final = 60.0
ROW: Final = "history"
MAX_BYTES: Final = 4 * 1024 * 1024  # unpacked: many times what is ever written


_decoder = msgspec.json.Decoder(Kept)


class Watched(Protocol):
    """Whose past it is: the `Watcher`."""

    def to_keep(self, now_ms: int) -> Kept: ...

    def take_back(self, kept: Kept) -> None: ...


def pack(kept: Kept) -> str:
    return base64.b85encode(zlib.compress(msgspec.json.encode(kept), 6)).decode()


def unpack(text: str) -> Kept:
    """ValueError if it is not what `pack` made."""
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(base64.b85decode(text), MAX_BYTES)
        if not stream.eof:
            raise ValueError("the kept history is incomplete, or far too long")
        return _decoder.decode(data)
    except (zlib.error, msgspec.DecodeError) as error:
        raise ValueError(f"the kept history can't be read: {error}") from None


class Keeping:
    """Brings the history back at the start, and writes it down while the NameNode runs."""

    def __init__(
        self, config: NameNodeConfig, store: MetadataStore, watched: Watched, clock: Clock
    ) -> None:
        self._row = f"{ROW} {config.host}:{config.port}" if config.database else ROW
        self._store = store
        self._watched = watched
        self._clock = clock

    async def load(self) -> None:
        """A history that can't be read is no reason not to serve: it begins anew."""
        try:
            row = await self._store.read(self._find)
            if row is not None:
                self._watched.take_back(unpack(row))
        except (DfsError, ValueError) as error:
            log.warning("the charts begin anew: %s", error)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self.save()

    async def save(self) -> None:
        """Once more before the end, too. What fails here is tried again in a minute, and holds up nobody."""
        try:
            text = await asyncio.to_thread(pack, self._watched.to_keep(self._clock.wall_ms()))
            await self._store.run(lambda tx: self._put(tx, text))
        except DfsError as error:
            log.warning("the charts' history was not written down: %s", error.message)

    def _find(self, tx: Transaction) -> str | None:
        row = tx.one("SELECT value FROM meta WHERE name = ?", (self._row,))
        return None if row is None else str(row[0])

    def _put(self, tx: Transaction, text: str) -> None:
        if not tx.execute("UPDATE meta SET value = ? WHERE name = ?", (text, self._row)):
            # NameNodes that are gone for good leave a row each: beside this one, those of the last day are enough.
            for name, value in tx.all(
                "SELECT name, value FROM meta WHERE name LIKE ?", (f"{ROW} %",)
            ):
                if self._is_old(value):
                    tx.execute("DELETE FROM meta WHERE name = ?", (name,))
            tx.execute("INSERT INTO meta (name, value) VALUES (?, ?)", (self._row, text))

    def _is_old(self, value: str) -> bool:
        try:
            return unpack(value).saved_ms < self._clock.wall_ms() - DAY_S * 1000
        except ValueError:
            return True

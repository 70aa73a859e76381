"""What a peer must not forget: pins, its own and shared ones, and which DAGs it holds. One SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ...common import codec
from ...common.database import Database
from ...common.peering import SharedPin

SCHEMA = """
-- Pins of this peer alone. cid: the binary CID. kind: "recursive" or "direct". One content may be held for several reasons.
CREATE TABLE IF NOT EXISTS own_pins (
    cid        BLOB NOT NULL,
    kind       TEXT NOT NULL,
    name       TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (cid, kind, name)
) WITHOUT ROWID;
-- The last word of each owner on each root, also that it is pinned no more. pin: the signed message.
CREATE TABLE IF NOT EXISTS shared (
    owner BLOB NOT NULL,
    cid   BLOB NOT NULL,
    pin   BLOB NOT NULL,
    PRIMARY KEY (owner, cid)
);
-- Roots whose whole DAG is here because a shared pin fell to this peer.
CREATE TABLE IF NOT EXISTS held (
    cid        BLOB PRIMARY KEY,
    size_bytes INTEGER NOT NULL
);
"""


class LocalPin(NamedTuple):
    cid: bytes
    kind: str
    name: str
    created_ms: int

    @property
    def key(self) -> tuple[bytes, str, str]:
        return self.cid, self.kind, self.name


class Journal:
    """Methods block; writes are durable when they return."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, cache_kib=1024)

        def prepare(connection: sqlite3.Connection) -> None:
            for statement in SCHEMA.split(";"):
                if statement.strip():
                    connection.execute(statement)
            # Journals of before there were several pins of one content have them in another table.
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'pins'").fetchone():
                connection.execute(
                    "INSERT OR IGNORE INTO own_pins SELECT cid, kind, name, created_ms FROM pins"
                )
                connection.execute("DROP TABLE pins")

        self._database.run(prepare)

    def _write(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        listed = list(rows)

        def operation(connection: sqlite3.Connection) -> None:
            connection.executemany(statement, listed)

        self._database.run(operation)

    def _read(self, statement: str) -> list[tuple[object, ...]]:
        return self._database.read(statement)

    def pin(self, pin: LocalPin) -> None:
        self._write("INSERT OR REPLACE INTO own_pins VALUES (?, ?, ?, ?)", [pin])

    def unpin(self, pins: Iterable[LocalPin]) -> None:
        self._write(
            "DELETE FROM own_pins WHERE cid = ? AND kind = ? AND name = ?",
            [pin.key for pin in pins],
        )

    def pins(self) -> list[LocalPin]:
        rows = self._read(
            "SELECT cid, kind, name, created_ms FROM own_pins ORDER BY cid, kind, name"
        )
        return [LocalPin(*row) for row in rows]  # type: ignore[arg-type]

    def share(self, pins: Iterable[SharedPin]) -> None:
        self._write(
            "INSERT OR REPLACE INTO shared VALUES (?, ?, ?)",
            [(pin.owner, pin.cid, codec.pack(pin)) for pin in pins],
        )

    def shared(self) -> list[SharedPin]:
        rows = self._read("SELECT pin FROM shared")
        return [codec.unpack(row[0], SharedPin) for row in rows]  # type: ignore[arg-type]

    def hold(self, cid: bytes, size_bytes: int) -> None:
        self._write("INSERT OR REPLACE INTO held VALUES (?, ?)", [(cid, size_bytes)])

    def release(self, cid: bytes) -> None:
        self._write("DELETE FROM held WHERE cid = ?", [(cid,)])

    def held(self) -> dict[bytes, int]:
        return dict(self._read("SELECT cid, size_bytes FROM held"))  # type: ignore[arg-type]

    def close(self) -> None:
        self._database.close()

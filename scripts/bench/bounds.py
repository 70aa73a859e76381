"""What the machine itself can do: the bounds that figures are held against, in seconds or a second."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from twinfs.common.checksum import digest_of
from twinfs.common.runtime import elapsed_timer

MIB = 1024 * 1024


def use_memory(folder: Path, size_bytes: int) -> None:
    """Write a file of that size and remove it. What writes a file next finds pages that this machine has just used.

    A virtual machine gets each page from its host when it is first touched, and gives free ones back after a while: a copy
    of 1 GiB took 0.7 s in pages that a removed file had left, 2.9 s in fresh ones. Without this, figure and bound would be
    taken in different conditions, by chance.
    """
    piece = bytes(MIB)
    path = folder / "memory"
    with path.open("wb", buffering=0) as file:
        for _ in range(0, size_bytes, MIB):
            file.write(piece)
    path.unlink()


def copy_and_sync_s(source: Path, folder: Path, copies: int = 1) -> float:
    """Copy a file, fsync it, as often as asked, one after the other."""
    began_s = elapsed_timer()
    for number in range(copies):
        target = folder / f"copy-{number}"
        shutil.copyfile(source, target)
        descriptor = os.open(target, os.O_RDWR)
        os.fsync(descriptor)
        os.close(descriptor)
    took_s = elapsed_timer() - began_s
    for number in range(copies):
        (folder / f"copy-{number}").unlink()
    return took_s


def read_and_hash_s(source: Path) -> float:
    """Read a file into one buffer, MiB by MiB, and hash it."""
    buffer = bytearray(MIB)
    view = memoryview(buffer)
    began_s = elapsed_timer()
    with source.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest_of(view[:count])
    return elapsed_timer() - began_s


def stream_and_hash_s(source: Path) -> float:
    """One loopback stream of a file (sendfile), received into memory MiB by MiB and hashed."""
    size = source.stat().st_size
    listener = socket.create_server(("127.0.0.1", 0))

    def send() -> None:
        peer, _ = listener.accept()
        with peer, source.open("rb", buffering=0) as file:
            offset = 0
            while offset < size:
                offset += os.sendfile(peer.fileno(), file.fileno(), offset, size - offset)

    sender = threading.Thread(target=send)
    sender.start()
    view = memoryview(bytearray(MIB))
    with socket.create_connection(listener.getsockname()) as connection:
        began_s = elapsed_timer()
        left = size
        while left:
            count = connection.recv_into(view, min(MIB, left), socket.MSG_WAITALL)
            digest_of(view[:count])
            left -= count
        took_s = elapsed_timer() - began_s
    sender.join()
    listener.close()
    return took_s


def write_small_files_s(folder: Path, count: int, data: bytes) -> float:
    """Write *count* files and fsync each: what one plain local disk takes for small files."""
    folder.mkdir()
    began_s = elapsed_timer()
    for number in range(count):
        descriptor = os.open(folder / f"f{number}", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(descriptor, data)
        os.fsync(descriptor)
        os.close(descriptor)
    took_s = elapsed_timer() - began_s
    shutil.rmtree(folder)
    return took_s


_INODE = (
    "INSERT INTO inodes VALUES (7, ?, ?, 1, 493, 0, 0, 'somebody', 'supergroup',"
    " 1700000000000, 1700000000000, 0, 0)"
)


def sqlite_inserts_per_s(folder: Path, count: int, group: int = 64) -> float:
    """Rows like the NameNode's, in transactions of *group*, each made durable by an fsync of the log."""
    connection = _raw_database(folder)
    began_s = elapsed_timer()
    for start in range(0, count, group):
        connection.execute("BEGIN")
        for number in range(start, min(count, start + group)):
            connection.execute(_INODE, (f"name-{number:08d}", number))
        connection.execute("COMMIT")
    took_s = elapsed_timer() - began_s
    _drop(connection, folder)
    return count / took_s


def sqlite_lookups_per_s(folder: Path, names: int = 10_000, count: int = 50_000) -> float:
    """One row each by parent and name, in transactions of 64."""
    connection = _raw_database(folder)
    connection.execute("BEGIN")
    connection.executemany(_INODE, ((f"name-{n:08d}", n) for n in range(names)))
    connection.execute("COMMIT")
    statement = "SELECT * FROM inodes WHERE parent_id = ? AND name = ?"
    began_s = elapsed_timer()
    for start in range(0, count, 64):
        connection.execute("BEGIN")
        for number in range(start, start + 64):
            connection.execute(statement, (7, f"name-{number % names:08d}")).fetchone()
        connection.execute("COMMIT")
    took_s = elapsed_timer() - began_s
    _drop(connection, folder)
    return count / took_s


def _raw_database(folder: Path) -> sqlite3.Connection:
    folder.mkdir()
    connection = sqlite3.connect(folder / "raw.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TABLE inodes (parent_id INTEGER, name TEXT, inode_id INTEGER, kind INTEGER,"
        " mode INTEGER, flags INTEGER, replication INTEGER, owner TEXT, grp TEXT, mtime_ms INTEGER,"
        " atime_ms INTEGER, length INTEGER, block_size INTEGER, PRIMARY KEY (parent_id, name))"
        " WITHOUT ROWID"
    )
    connection.execute("CREATE UNIQUE INDEX inodes_by_id ON inodes (inode_id)")
    return connection


def _drop(connection: sqlite3.Connection, folder: Path) -> None:
    connection.close()
    shutil.rmtree(folder)


def warm(files: Sequence[Path]) -> None:
    """Bring files into the page cache."""
    for path in files:
        read_and_hash_s(path)

"""Databases that threads share: who lets go of what, in which order."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from twinfs.common.database import Database


def test_a_reader_may_be_released_after_the_database_was_closed(tmp_path: Path) -> None:
    """An index that is found damaged is closed while streams that read it go on to their end."""
    database = Database(tmp_path / "x.db")
    database.run(lambda connection: connection.execute("CREATE TABLE t (n INTEGER)"))
    reading, closed = threading.Event(), threading.Event()
    failed: list[Exception] = []

    def stream() -> None:
        database.reader().execute("SELECT n FROM t").fetchall()
        reading.set()
        closed.wait(30)
        try:
            database.release_reader()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=stream)
    thread.start()
    assert reading.wait(30)
    database.close()
    closed.set()
    thread.join(30)
    assert failed == []


def test_who_reads_while_the_database_is_closed_gets_an_error(tmp_path: Path) -> None:
    """And not the end of the process: SQLite's own objects would be gone under the reading thread."""
    for number in range(20):
        database = Database(tmp_path / f"{number}.db")
        database.run(lambda connection: connection.execute("CREATE TABLE t (n BLOB)"))
        rows = [(bytes(50),)] * 2_000
        database.run(lambda c, rows=rows: c.executemany("INSERT INTO t VALUES (?)", rows))  # type: ignore[misc]
        reading = threading.Event()

        def read(database: Database = database, reading: threading.Event = reading) -> None:
            with pytest.raises(sqlite3.ProgrammingError):
                while True:
                    assert len(database.read("SELECT n FROM t LIMIT 500")) == 500
                    reading.set()

        with ThreadPoolExecutor(3) as threads:
            done = [threads.submit(read) for _ in range(3)]
            assert reading.wait(60)
            database.close()
            for one in done:
                one.result()

"""Databases that threads share: who lets go of what, in which order."""

from __future__ import annotations

import threading
from pathlib import Path

from twinfs.common.sqlite import Database


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

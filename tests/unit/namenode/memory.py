"""A transaction on a database in memory, with the real schema: for cores that read and write rows."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from twinfs.common.runtime import ManualClock
from twinfs.namenode.store import migrate
from twinfs.namenode.store.sqlite import WORDS, Epoch, WriteTransaction


@contextlib.contextmanager
def memory_transaction() -> Iterator[WriteTransaction]:
    """Everything in it is gone afterwards."""
    clock = ManualClock()
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate.migrate(
            connection.execute, 0, WORDS, owner="root", group="root", now_ms=clock.wall_ms()
        )
        yield WriteTransaction(connection, Epoch(), clock)

"""Sums of a database's pages: they fit whatever SQLite writes, and nothing else. Method: real SQLite files, real checkpoints."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
from pathlib import Path

import pytest

from twinfs.common import disk, sqlite
from twinfs.common.database import Database
from twinfs.common.pagesums import CHECKED_AT_ONCE, MAGIC, SUM_BYTES, UNKNOWN, PageSums

PAGE = 4096


def insert(database: Database, count: int, rng: random.Random, size: int = 2_000) -> None:
    def operation(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, data BLOB)")
        connection.executemany(
            "INSERT OR REPLACE INTO t VALUES (?, ?)",
            [(rng.randrange(10_000), rng.randbytes(rng.randrange(size))) for _ in range(count)],
        )
        connection.execute("DELETE FROM t WHERE id % 7 = ?", (rng.randrange(7),))

    database.run(operation)


def opened(path: Path) -> tuple[Database, PageSums]:
    sums = PageSums(path)
    return Database(path, sums=sums), sums


def closed(database: Database, sums: PageSums) -> None:
    database.close()
    sums.close()


def flip(path: Path, bit: int) -> None:
    # A file of its own in this process: closing it would take SQLite's locks away, were it open.
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def known(sums: PageSums) -> int:
    """Pages of which something is known."""
    pages = range(1, len(sums._sums) // SUM_BYTES + 1)
    return sum(sums._get(page) != UNKNOWN for page in pages)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints beside the writer as often as can be."""
    monkeypatch.setattr(sqlite.Checkpointer, "START_BYTES", 64 * 1024)


def test_every_page_is_known_after_closing(path: Path) -> None:
    database, sums = opened(path)
    insert(database, 500, random.Random(1))
    closed(database, sums)
    again = PageSums(path)
    assert known(again) == path.stat().st_size // PAGE
    assert again.check() == ""
    again.close()


def test_each_bit_of_the_file_counts(path: Path) -> None:
    database, sums = opened(path)
    insert(database, 300, random.Random(2))
    closed(database, sums)
    rng = random.Random(3)
    for _ in range(200):
        bit = rng.randrange(path.stat().st_size * 8)
        flip(path, bit)
        looking = PageSums(path)
        assert looking.check() == f"page {bit // 8 // PAGE + 1} has changed"
        looking.close()
        flip(path, bit)
    looking = PageSums(path)
    assert looking.check() == ""
    looking.close()


def test_a_file_that_was_cut_is_noticed(path: Path) -> None:
    database, sums = opened(path)
    insert(database, 300, random.Random(2))
    closed(database, sums)
    os.truncate(path, path.stat().st_size - 3 * PAGE)
    looking = PageSums(path)
    assert looking.check() == "it is cut short"
    looking.close()


@pytest.mark.usefixtures("eager")
def test_checkpoints_beside_a_busy_writer_and_readers(path: Path) -> None:
    """Whatever the writer does meanwhile, the sums fit the file at every moment, and after each opening."""
    rng = random.Random(4)
    for _ in range(2):
        database, sums = opened(path)
        stop = threading.Event()

        def read(database: Database = database, stop: threading.Event = stop) -> None:
            while not stop.is_set():
                database.reader().execute("SELECT COUNT(*), SUM(LENGTH(data)) FROM t").fetchall()
            database.release_reader()

        insert(database, 10, rng)
        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            for _ in range(16):
                insert(database, 8, rng)
            assert sums.check() == ""
        stop.set()
        for thread in threads:
            thread.join()
        assert known(sums) > 10
        closed(database, sums)
        looking = PageSums(path)
        assert looking.check() == ""
        looking.close()


def test_a_crash_between_leaves_pages_unknown_and_nothing_wrong(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It died after the log was copied, before the digests were written down."""
    database, sums = opened(path)
    insert(database, 300, random.Random(5))
    closed(database, sums)
    before = PageSums(path)
    total = known(before)
    database, sums = opened(path)
    insert(database, 3, random.Random(6))
    monkeypatch.setattr(PageSums, "_append", _only_intended(PageSums._append))
    closed(database, sums)
    monkeypatch.undo()
    after = PageSums(path)
    assert 0 < known(after) < total
    assert after.check() == ""
    assert known(after) == path.stat().st_size // PAGE  # taken as they are
    after.close()
    assert known(PageSums(path)) == path.stat().st_size // PAGE


def _only_intended(append):  # type: ignore[no-untyped-def]
    def instead(self, kind, pages, *, durable):  # type: ignore[no-untyped-def]
        if durable:
            append(self, kind, pages, durable=durable)

    return instead


def test_a_file_from_before_there_were_sums_is_taken_as_it_is(path: Path) -> None:
    database = Database(path)
    insert(database, 300, random.Random(7))
    database.close()
    database, sums = opened(path)
    insert(database, 3, random.Random(8))
    closed(database, sums)
    looking = PageSums(path)
    few = known(looking)
    assert looking.check() == ""
    assert known(looking) > few
    looking.close()
    flip(path, path.stat().st_size * 8 - 1)
    looking = PageSums(path)
    assert "has changed" in looking.check()
    looking.close()


def test_a_file_that_nothing_was_copied_into_since_is_known_after_a_look(path: Path) -> None:
    """Of an earlier version, and its volume has had no writes since."""
    database = Database(path)
    insert(database, 300, random.Random(7))
    database.close()
    looking = PageSums(path)
    assert looking.check() == ""
    looking.close()
    flip(path, path.stat().st_size * 8 - 1)
    looking = PageSums(path)
    assert "has changed" in looking.check()
    looking.close()


def test_a_checkpoint_that_a_power_loss_takes_back_accuses_nobody(
    path: Path, tmp_path: Path
) -> None:
    """SQLite makes the file durable only when all of the log is in it. What was copied before may be lost, the log is not."""
    database, sums = opened(path)
    insert(database, 300, random.Random(12))
    closed(database, sums)
    old = path.read_bytes()
    database, sums = opened(path)
    insert(database, 300, random.Random(13))
    held = database.reader()
    held.execute("BEGIN")
    held.execute("SELECT COUNT(*) FROM t").fetchone()
    insert(database, 300, random.Random(14))
    copying = sqlite3.connect(path, isolation_level=None)
    answers = []

    def copy() -> tuple[int, int, int]:
        answers.append(sqlite.checkpoint(copying, path, "PASSIVE"))
        return answers[0]

    sums.checkpoint(held, copy)
    ((_, logged, copied),) = answers
    assert 0 < copied < logged
    assert sums.check() == ""
    lost = tmp_path / "lost" / path.name
    lost.parent.mkdir()
    lost.write_bytes(old)
    for suffix in ("-wal", "-sums"):
        Path(f"{lost}{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())
    held.execute("COMMIT")
    copying.close()
    closed(database, sums)
    assert PageSums(path).check() == ""
    database, sums = opened(lost)
    assert sums.check() == ""
    insert(database, 10, random.Random(15))
    closed(database, sums)
    looking = PageSums(lost)
    assert looking.check() == ""
    looking.close()


@pytest.mark.parametrize("cut", [0, 1, 5, 40])
def test_sums_that_are_cut_off_are_used_up_to_there(path: Path, cut: int) -> None:
    database, sums = opened(path)
    insert(database, 300, random.Random(9))
    closed(database, sums)
    os.truncate(sums.path, sums.path.stat().st_size - cut)
    looking = PageSums(path)
    assert looking.check() == ""
    looking.close()
    database, sums = opened(path)
    insert(database, 300, random.Random(10))
    closed(database, sums)
    looking = PageSums(path)
    assert known(looking) == path.stat().st_size // PAGE
    assert looking.check() == ""
    looking.close()


def test_who_reads_all_may_be_held_up_before_each_piece(path: Path) -> None:
    database, sums = opened(path)
    insert(database, 4_000, random.Random(12))
    closed(database, sums)
    looking = PageSums(path)
    pieces: list[int] = []
    assert looking.check(pieces.append) == ""
    assert sum(pieces) == path.stat().st_size
    assert len(pieces) > 2 and max(pieces) == CHECKED_AT_ONCE * PAGE

    def over(size_bytes: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        looking.check(over)
    assert looking.check() == ""
    looking.close()


def test_sums_of_another_form_say_nothing(path: Path) -> None:
    database, sums = opened(path)
    insert(database, 100, random.Random(11))
    closed(database, sums)
    data = sums.path.read_bytes()
    sums.path.write_bytes(data.replace(MAGIC, b"sums"))
    looking = PageSums(path)
    assert known(looking) == 0
    assert looking.check() == ""
    assert known(looking) == path.stat().st_size // PAGE
    looking.close()
    flip(path, 8 * PAGE + 1)
    looking = PageSums(path)
    assert looking.check() == "page 2 has changed"
    looking.close()


def test_damaged_sums_accuse_nobody(path: Path) -> None:
    for seed in range(30):
        database, sums = opened(path)
        insert(database, 50, random.Random(seed))
        closed(database, sums)
        flip(sums.path, random.Random(seed).randrange(sums.path.stat().st_size * 8))
        looking = PageSums(path)
        assert looking.check() == ""
        looking.close()


@pytest.mark.usefixtures("eager")
def test_the_sums_stay_short(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinfs.common.pagesums.REWRITE_BYTES", 1_000)
    rng = random.Random(11)
    for _ in range(30):
        database, sums = opened(path)
        insert(database, 100, rng)
        closed(database, sums)
    assert sums.path.stat().st_size < 6 * 8 * path.stat().st_size / PAGE + 2_000
    looking = PageSums(path)
    assert looking.check() == ""
    assert known(looking) == path.stat().st_size // PAGE
    looking.close()


def test_where_nothing_can_be_written_down_nothing_is_claimed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, sums = opened(path)
    insert(database, 100, random.Random(12))

    def full(descriptor: int, offset: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "writing", full)
    closed(database, sums)
    monkeypatch.undo()
    looking = PageSums(path)
    assert known(looking) == 0
    assert looking.check() == ""
    looking.close()


def test_a_database_that_is_made_anew_has_no_old_sums(path: Path) -> None:
    database, sums = opened(path)
    insert(database, 100, random.Random(13))
    closed(database, sums)
    path.unlink()
    assert known(PageSums(path)) == 0
    assert not sums.path.exists()


def test_a_reader_may_be_released_after_the_database_is_closed(path: Path) -> None:
    """A thread that ends while the index is made anew."""
    database = Database(path)
    insert(database, 1, random.Random(14))
    database.reader()
    database.close()
    database.release_reader()

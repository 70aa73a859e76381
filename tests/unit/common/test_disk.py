"""Points: every fsync, rename and commit of the servers has one, and a plan makes happen there what it says."""

from __future__ import annotations

import ast
import errno
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from twinfs.common import disk, faults
from twinfs.common.database import Database
from twinfs.common.errors import InvalidConfig, StoreError
from twinfs.common.faults import Durable, Plan, PlannedFaults, Rule, Skew, SkewedClock
from twinfs.common.runtime import ManualClock

ROOT = Path(__file__).resolve().parents[3]
SERVERS = [
    path
    for folder in ("common", "namenode", "datanode")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.name not in ("disk.py", "faults.py")
]
DURABLE = {"fsync", "fdatasync", "fsync_directory", "sync_log", "rename", "link", "commit"}


@pytest.fixture
def plan(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "plan.json"
    faults.write_plan(path, Plan())
    yield path
    disk.install(None)


def install(path: Path, *rules: Rule, track: bool = False) -> PlannedFaults:
    faults.write_plan(path, Plan(rules=list(rules), track=track))
    planned = PlannedFaults(path, ManualClock())
    disk.install(planned)
    return planned


# --- the sources ---


def bare_calls(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Calls that make bytes or names durable without a point."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in (
            "os.fsync",
            "os.fdatasync",
            "os.rename",
            "os.replace",
            "os.link",
        ):
            yield node.lineno, ast.unparse(node)
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name, base = node.func.attr, ast.unparse(node.func.value)
        if base == "disk" or base.endswith("structs") or base == "dataclasses":
            continue
        # str.replace takes two arguments, Path.replace and Path.rename one.
        alone = len(node.args) == 1 and not node.keywords
        if (name in ("rename", "replace", "hardlink_to") and alone) or name == "commit":
            yield node.lineno, ast.unparse(node)
        if any("wal_checkpoint" in ast.unparse(argument) for argument in node.args):
            yield node.lineno, ast.unparse(node)


# Inside the function that a point runs; and what is derived, and made anew unless it was closed in this run of the system.
INSIDE = {
    "common/sqlite.py": {"connection.execute(f'PRAGMA wal_checkpoint({mode})')"},
    "datanode/cidindex.py": {"self._writer.execute('PRAGMA wal_checkpoint(TRUNCATE)')"},
}


def test_every_fsync_rename_and_commit_is_a_point() -> None:
    found = []
    for path in SERVERS:
        name = str(path.relative_to(ROOT))
        for line, what in bare_calls(ast.parse(path.read_text(encoding="utf-8"))):
            if what not in INSIDE.get(name, set()):
                found.append(f"{name}:{line}: {what}: use common/disk.py")
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "os.fsync(x)",
        "threads.submit(os.fdatasync, x)",
        "path.rename(other)",
        "temporary.replace(target)",
        "os.link(a, b)",
        "connection.commit()",
        "connection.execute('PRAGMA wal_checkpoint(FULL)')",
    ],
)
def test_the_rule_sees(line: str) -> None:
    assert list(bare_calls(ast.parse(line)))


def used_points() -> list[str]:
    """The points named in calls of `disk` functions."""
    found = []
    for path in SERVERS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                found += [
                    argument.value
                    for argument in node.args
                    if isinstance(argument, ast.Constant) and argument.value in disk.POINTS
                ]
    return found


def test_every_point_is_somewhere() -> None:
    assert set(disk.POINTS) - {"disk.read", "disk.write"} <= set(used_points())


# --- what happens at a point ---


def test_nothing_happens_without_a_plan(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    disk.rename(tmp_path / "a", tmp_path / "b", "replica.rename")
    disk.fsync_directory(tmp_path, "replica.folder")
    assert (tmp_path / "b").read_text() == "x"


def test_an_error_comes_where_and_as_often_as_the_plan_says(plan: Path, tmp_path: Path) -> None:
    bad, good = tmp_path / "bad", tmp_path / "good"
    for folder in (bad, good):
        folder.mkdir()
        for number in range(4):
            (folder / f"f{number}").touch()
    install(
        plan,
        Rule(
            id="r", point="replica.*", do="error", under=str(bad), skip=1, times=2, errno="ENOSPC"
        ),
    )
    outcomes = []
    for folder in (bad, good):
        for number in range(4):
            try:
                disk.rename(folder / f"f{number}", folder / f"g{number}", "replica.rename")
                outcomes.append(0)
            except OSError as error:
                outcomes.append(error.errno)
    assert outcomes == [0, errno.ENOSPC, errno.ENOSPC, 0, 0, 0, 0, 0]
    assert (bad / "f1").exists()
    assert (bad / "g3").exists()


def test_a_chance_is_replayed_by_its_seed(plan: Path, tmp_path: Path) -> None:
    def course(seed: int) -> list[bool]:
        install(
            plan, Rule(id="r", point="disk.read", do="error", probability=0.5, seed=seed, times=0)
        )
        outcomes = []
        for _ in range(40):
            try:
                disk.reading(tmp_path)
                outcomes.append(True)
            except OSError:
                outcomes.append(False)
        return outcomes

    assert course(1) == course(1)
    assert course(1) != course(2)
    assert 5 < sum(course(3)) < 35


def test_a_commit_that_fails_is_an_error_of_the_database(plan: Path, tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db")
    try:
        database.run(lambda c: c.execute("CREATE TABLE t (n INTEGER)"))
        install(plan, Rule(id="r", point="database.commit", do="error", times=1))
        with pytest.raises(StoreError, match="disk I/O error"):
            database.run(lambda c: c.execute("INSERT INTO t VALUES (1)"))
        database.run(lambda c: c.execute("INSERT INTO t VALUES (2)"))
        rows = database.reader().execute("SELECT n FROM t").fetchall()
        assert rows == [(2,)]
    finally:
        disk.install(None)
        database.close()


CRASHING = """
import sys, threading
from pathlib import Path
from twinfs.common import disk, faults
from twinfs.common.database import Database
folder = Path(sys.argv[1])
faults.set_up(str(folder / "plan.json"))
database = Database(folder / "x.db")
database.run(lambda c: c.execute("CREATE TABLE t (n INTEGER)"))
for number in range(100):
    database.run(lambda c: c.execute("INSERT INTO t VALUES (?)", (number,)))
    print(number, flush=True)
"""


def run_until_crash(folder: Path, program: str, *rules: Rule, track: bool = True) -> list[str]:
    """What a process printed before its plan ended it."""
    faults.write_plan(folder / "plan.json", Plan(rules=list(rules), track=track))
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stdout.split()


def rows_of(database: Path) -> list[int]:
    connection = sqlite3.connect(database)
    try:
        return [row[0] for row in connection.execute("SELECT n FROM t ORDER BY n")]
    finally:
        connection.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_at_the_nth_commit_loses_nothing_acknowledged(tmp_path: Path, when: str) -> None:
    rule = Rule(id="r", point="database.commit", do="crash", when=when, skip=5)  # type: ignore[arg-type]
    printed = run_until_crash(tmp_path, CRASHING, rule)
    assert printed == ["0", "1", "2", "3"]  # the table was the first commit
    kept = rows_of(tmp_path / "x.db")
    assert kept == ([0, 1, 2, 3] if when == "before" else [0, 1, 2, 3, 4])


def test_power_lost_before_the_sync_takes_the_commit_away(tmp_path: Path) -> None:
    # A group that only makes tables waits for the sync of the next one.
    rule = Rule(id="r", point="database.sync", do="power-loss", skip=4)
    assert run_until_crash(tmp_path, CRASHING, rule) == ["0", "1", "2", "3"]
    assert rows_of(tmp_path / "x.db") == [0, 1, 2, 3]
    assert "x.db-wal" in (tmp_path / "plan.json.log").read_text()


WRITING = """
import os, sys
from pathlib import Path
from twinfs.common import disk, faults
folder = Path(sys.argv[1])
faults.set_up(str(folder / "plan.json"))
(folder / "final").mkdir()
descriptor = os.open(folder / "a", os.O_RDWR | os.O_CREAT)
disk.writing(descriptor, 0)
os.write(descriptor, b"synced")
disk.fdatasync(descriptor, "replica.sync")
disk.writing(descriptor, 6)
os.write(descriptor, b"not synced")
disk.rename(folder / "a", folder / "final" / "a", "replica.rename")
print("renamed", flush=True)
disk.fsync_directory(folder / "final", "replica.folder")
disk.fdatasync(descriptor, "replica.sync")
"""


@pytest.mark.parametrize(
    ("point", "skip", "name", "kept"),
    [
        ("replica.sync", 0, "a", b""),
        ("replica.rename", 0, "a", b"synced"),
        ("replica.folder", 0, "a", b"synced"),  # the rename is undone
        ("replica.sync", 1, "final/a", b"synced"),
    ],
)
def test_power_loss_leaves_what_was_synced(
    tmp_path: Path, point: str, skip: int, name: str, kept: bytes
) -> None:
    rule = Rule(id="r", point=point, do="power-loss", skip=skip)
    run_until_crash(tmp_path, WRITING, rule)
    assert (tmp_path / name).read_bytes() == kept
    assert {path.name for path in tmp_path.rglob("*") if path.name == "a"} == {"a"}


LOGGING = """
import logging, os, sys
from pathlib import Path
from twinfs.common import disk, faults
folder = Path(sys.argv[1])
faults.set_up(str(folder / "plan.json"))
kill = os.kill
def last(pid, number):
    logging.error("a thread failed to read what was taken away")
    kill(pid, number)
faults.os.kill = last
logging.error("before")
disk.rename(folder / "plan.json", folder / "plan", "replica.rename")
"""


@pytest.mark.parametrize(("do", "lines"), [("power-loss", 1), ("crash", 2)])
def test_a_machine_without_power_logs_nothing(tmp_path: Path, do: str, lines: int) -> None:
    faults.write_plan(
        tmp_path / "plan.json",
        Plan(rules=[Rule(id="r", point="replica.rename", do=do)], track=True),  # type: ignore[arg-type]
    )
    done = subprocess.run(
        [sys.executable, "-c", LOGGING, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    assert len(done.stderr.splitlines()) == lines, done.stderr


def test_power_loss_takes_links_that_are_not_durable(tmp_path: Path) -> None:
    durable = Durable()
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"x")
    os.link(source, target)
    durable.named(None, target)
    assert durable.lose()
    assert source.exists()
    assert not target.exists()


# --- plans and clocks ---


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"rules": [{"id": "a", "point": "nowhere", "do": "crash"}]}',
        '{"rules": [{"id": "a", "point": "disk.read", "do": "explode"}]}',
        '{"rules": [{"id": "a", "point": "now", "do": "delay"}]}',
        '{"rules": [{"id": "a", "point": "disk.read", "do": "delay", "delay_s": -1}]}',
        '{"clock": {"rate": 0}}',
        '{"surprise": 1}',
    ],
)
def test_a_plan_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(InvalidConfig, match=r"plan\.json"):
        faults.set_up(str(path))
    with pytest.raises(InvalidConfig, match="No such file"):
        faults.set_up(str(tmp_path / "absent.json"))


def test_a_clock_set_wrong_never_goes_back() -> None:
    true = ManualClock(wall_ms=1_000_000)
    clock = SkewedClock(true)
    true.advance(10)
    assert clock.monotonic_s() == 10
    clock.skew(Skew(offset_s=-60, rate=2.0))
    assert clock.monotonic_s() == 10
    assert clock.wall_ms() == 1_000_000 + 10_000 - 60_000
    true.advance(5)
    assert clock.monotonic_s() == 20
    clock.skew(Skew())
    assert clock.monotonic_s() == 20
    true.advance(1)
    assert clock.monotonic_s() == 21


@pytest.mark.parametrize("offset", [None, 100])
def test_a_write_that_the_disk_takes_a_part_of_does_not_count(
    tmp_path: Path, offset: int | None
) -> None:
    """A disk that is nearly full takes what fits, and says nothing: files fetched to one were cut short."""
    content = bytes(range(256)) * 1_000
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (tmp_path / "file").open("wb", buffering=0) as file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            assert os.pwrite(file.fileno(), content, 0) == 100_000  # this is what it does
            with pytest.raises(OSError, match="too large"):
                disk.write_all(file.fileno(), content, offset)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        disk.write_all(file.fileno(), content, offset)
    assert (tmp_path / "file").read_bytes()[offset or 0 :] == content

"""Faults on purpose: a plan in a file says at which points of `common/disk.py` this process crashes, waits or fails.

A process looks at a plan only where its configuration names one (`faults = FILE`). The file may change while the
process runs: it is looked at every POLL_S, and the version taken is written beside it (`FILE.taken`), so that whoever changes it knows when it holds. `FILE.log`
gets a line for each fault that happened.

    {"version": 3,
     "track": true,
     "clock": {"offset_s": -30.0, "rate": 1.1},
     "rules": [{"id": "a", "point": "replica.*", "when": "before", "do": "crash", "skip": 2}]}

With *track*, the process remembers which bytes and names it has made durable, so that "power-loss" can take away all
others before it ends: what a machine would lose, down to the byte.
"""

from __future__ import annotations

import errno
import fnmatch
import logging
import os
import random
import signal
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from . import disk
from .errors import InvalidConfig
from .runtime import Clock, SystemClock

POLL_S = 0.05
NOW = "now"  # a point that is reached when the plan is taken
ERRORS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EROFS": errno.EROFS}
WAL_HEADER_BYTES, WAL_FRAME_HEADER_BYTES = 32, 24

NonNegative = Annotated[float, msgspec.Meta(ge=0)]


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fault. It happens where all of *point*, *when* and *under* fit, *times* times after *skip* fitting visits."""

    id: str
    point: str  # a name or a pattern (`replica.*`) of disk.POINTS, or "now"
    do: Literal["crash", "power-loss", "delay", "error"]
    when: Literal["before", "after"] = "before"
    under: str = ""  # only files below this folder
    delay_s: NonNegative = 0.0
    errno: Literal["EIO", "ENOSPC", "EROFS"] = "EIO"
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    seed: int = 0
    skip: Annotated[int, msgspec.Meta(ge=0)] = 0
    times: Annotated[int, msgspec.Meta(ge=0)] = 0  # 0: for ever


class Skew(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How wrong the process's clock is: *offset_s* shifts dates, *rate* makes durations longer (> 1) or shorter."""

    offset_s: float = 0.0
    rate: Annotated[float, msgspec.Meta(ge=0.01, le=100)] = 1.0


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All faults of one process."""

    version: int = 0
    track: bool = False
    clock: Skew = Skew()
    rules: list[Rule] = []

    def __post_init__(self) -> None:
        for rule in self.rules:
            if rule.point != NOW and not fnmatch.filter(disk.POINTS, rule.point):
                raise ValueError(f"there is no point {rule.point!r}")
            if rule.point == NOW and rule.do not in ("crash", "power-loss"):
                raise ValueError(f"{rule.do!r} can't be done at once")


def read_plan(path: Path) -> Plan:
    """InvalidConfig if it can't be read or says what can't be."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan)
    except OSError as error:
        raise InvalidConfig(f"can't read the fault plan {path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"the fault plan {path} is not valid: {error}") from None


def write_plan(path: Path, plan: Plan) -> None:
    """Atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(plan)))
    os.replace(temporary, path)  # noqa: PTH105


class SkewedClock:
    """A clock that can be set wrong while it runs. Its monotonic reading never goes back."""

    def __init__(self, true: Clock) -> None:
        self._true = true
        self._skew = Skew()
        self._base_s = self._shown_s = true.monotonic_s()

    def skew(self, skew: Skew) -> None:
        self._shown_s = self.monotonic_s()
        self._base_s = self._true.monotonic_s()
        self._skew = skew

    def monotonic_s(self) -> float:
        return self._shown_s + (self._true.monotonic_s() - self._base_s) * self._skew.rate

    def wall_ms(self) -> int:
        return self._true.wall_ms() + int(self._skew.offset_s * 1000)


class Durable:
    """Which bytes and names would survive a loss of power. Files only grow, or are cut by their owner.

    As on ext4 or XFS, an fsync of a new file makes its first name durable, too; a later name only with its directory.
    """

    def __init__(self) -> None:
        self._sizes: dict[tuple[int, int], int] = {}  # (device, inode) -> durable bytes
        self._paths: dict[tuple[int, int], Path] = {}
        self._names: list[tuple[Path | None, Path]] = []  # (old name, new one), not durable
        self._logs: dict[Path, disk.LogMark] = {}  # by database
        self._shared: dict[Path, int] = {}  # open indexes of logs, by database

    def wrote(self, descriptor: int, offset: int) -> None:
        key = _key(descriptor)
        # What was there when it is first seen counts as durable: it is from a former life.
        self._sizes[key] = min(self._sizes.get(key, offset), offset)
        self._paths[key] = _path_of(descriptor)

    def synced(self, descriptor: int, size_bytes: int) -> None:
        key = _key(descriptor)
        self._sizes[key] = max(self._sizes.get(key, 0), size_bytes)
        self._paths[key] = _path_of(descriptor)

    def named(self, source: Path | None, target: Path) -> None:
        self._names.append((source, target))
        for key, path in list(self._paths.items()):
            if path == source:
                self._paths[key] = target

    def folder_synced(self, folder: Path) -> None:
        self._names = [names for names in self._names if names[1].parent != folder]

    def committing(self, database: Path) -> None:
        if database not in self._logs:
            self._logs[database] = self.log_mark(database)

    def log_mark(self, database: Path) -> disk.LogMark:
        salts, frames, _ = self._log_state(database)
        return salts, frames

    def log_synced(self, database: Path, mark: disk.LogMark) -> None:
        known = self._logs.get(database, (b"", 0))
        if known[0] == mark[0]:
            # A checkpoint beside the sync may have brought it further.
            self._logs[database] = (mark[0], max(mark[1], known[1]))
        elif self.log_mark(database)[0] == mark[0]:
            self._logs[database] = mark

    def _log_state(self, database: Path) -> tuple[bytes, int, int]:
        """(salts, frames in use, bytes of a page) of a SQLite write-ahead log, from its index in shared memory.

        Source: "WAL-mode File Format", section 2.1, of the SQLite documentation.
        """
        if database not in self._shared:
            # Stays open: closing it would drop the locks that SQLite has on it in this process.
            try:
                self._shared[database] = os.open(f"{database}-shm", os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return b"", 0, 4096  # not SQLite
        header = os.pread(self._shared[database], 48, 0)
        page_bytes, frames = struct.unpack_from("=HI", header, 14)
        return header[32:40], frames, 65536 if page_bytes == 1 else page_bytes

    def lose(self) -> list[str]:
        """Take away what is not durable; what was taken."""
        lost = []
        for key, path in self._paths.items():
            durable = self._sizes[key]
            try:
                facts = path.stat()
                if (facts.st_dev, facts.st_ino) == key and facts.st_size > durable:
                    os.truncate(path, durable)
                    lost.append(f"{facts.st_size - durable} bytes of {path}")
            except FileNotFoundError:
                continue
        for source, target in reversed(self._names):
            try:
                if source is None:
                    target.unlink()
                else:
                    os.replace(target, source)  # noqa: PTH105
                lost.append(f"the name {target}")
            except FileNotFoundError:
                continue
        for database, (salts, frames) in self._logs.items():
            now, _, page_bytes = self._log_state(database)
            # A log begun anew was copied into the database before, durably.
            keep = WAL_HEADER_BYTES
            if now == salts:
                keep += frames * (page_bytes + WAL_FRAME_HEADER_BYTES)
            log = Path(f"{database}-wal")
            try:
                size_bytes = log.stat().st_size
            except FileNotFoundError:
                continue
            if size_bytes > keep:
                os.truncate(log, keep)
                lost.append(f"{size_bytes - keep} bytes of {log}")
        return lost


def _key(descriptor: int) -> tuple[int, int]:
    facts = os.fstat(descriptor)
    return facts.st_dev, facts.st_ino


def _path_of(where: disk.Where) -> Path:
    return Path(f"/proc/self/fd/{where}").readlink() if isinstance(where, int) else Path(where)


class PlannedFaults:
    """`disk.Faults` by a plan that may change."""

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        """Raises InvalidConfig."""
        self.clock = SkewedClock(clock or SystemClock())
        self._file = path
        self._lock = threading.RLock()
        self._visits: dict[str, int] = {}
        self._rngs: dict[str, random.Random] = {}
        self._durable: Durable | None = None
        self._plan = Plan()
        self._stamp: tuple[int, int] = (0, 0)
        self._take()

    def watch(self) -> None:
        """Take the plan again whenever it changes; for ever, in a thread of its own."""
        pause = threading.Event()

        def run() -> None:
            while True:
                pause.wait(POLL_S)
                try:
                    self._take()
                except InvalidConfig as error:
                    self._note(f"not taken: {error.message}")
                    pause.wait(1.0)

        threading.Thread(target=run, name="fault plan", daemon=True).start()

    def _take(self) -> None:
        try:
            facts = self._file.stat()
        except OSError as error:
            raise InvalidConfig(
                f"can't read the fault plan {self._file}: {error.strerror}"
            ) from None
        stamp = (facts.st_mtime_ns, facts.st_ino)
        if stamp == self._stamp:
            return
        plan = read_plan(self._file)
        with self._lock:
            self._stamp = stamp
            kept = {rule.id for rule in plan.rules}
            self._visits = {key: value for key, value in self._visits.items() if key in kept}
            if plan.track and self._durable is None:
                self._durable = Durable()
            self._plan = plan
            self.clock.skew(plan.clock)
        Path(f"{self._file}.taken").write_text(str(plan.version))
        self._at(NOW, "before", "")

    def _note(self, line: str) -> None:
        with Path(f"{self._file}.log").open("a") as file:
            file.write(f"{self.clock.wall_ms()} {line}\n")

    # --- points ---

    def before(self, point: str, where: disk.Where) -> None:
        self._at(point, "before", where)

    def after(self, point: str, where: disk.Where) -> None:
        self._at(point, "after", where)

    def _at(self, point: str, when: str, where: disk.Where) -> None:
        for rule in self._plan.rules:
            if rule.when != when or not fnmatch.fnmatchcase(point, rule.point):
                continue
            if not rule.under or _path_of(where).is_relative_to(rule.under):
                self._visit(rule, point)

    def _visit(self, rule: Rule, point: str) -> None:
        with self._lock:
            visit = self._visits[rule.id] = self._visits.get(rule.id, 0) + 1
            if visit <= rule.skip or (rule.times and visit > rule.skip + rule.times):
                return
            if rule.probability < 1.0:
                rng = self._rngs.setdefault(rule.id, random.Random(rule.seed))
                if rng.random() >= rule.probability:
                    return
            if rule.do in ("crash", "power-loss"):
                self._end(rule, point)
        if rule.do == "delay":
            threading.Event().wait(rule.delay_s)
        else:
            number = ERRORS[rule.errno]
            raise OSError(number, os.strerror(number))

    def _end(self, rule: Rule, point: str) -> None:
        """Never returns, nor does any point that another thread reaches meanwhile: they wait for the lock."""
        lost: list[str] = []
        if rule.do == "power-loss" and self._durable is not None:
            # Threads that read what is taken away fail in these last moments; a machine without power says nothing of it.
            logging.disable()
            lost = self._durable.lose()
        self._note(f"{rule.do} {rule.when} {point}: {'; '.join(lost) or 'nothing lost'}")
        os.kill(os.getpid(), signal.SIGKILL)
        threading.Event().wait()

    # --- what is durable ---

    def wrote(self, descriptor: int, offset: int) -> None:
        if self._durable is not None:
            with self._lock:
                self._durable.wrote(descriptor, offset)

    def synced(self, descriptor: int, size_bytes: int) -> None:
        if self._durable is not None:
            with self._lock:
                self._durable.synced(descriptor, size_bytes)

    def renamed(self, source: Path, target: Path) -> None:
        if self._durable is not None:
            with self._lock:
                self._durable.named(source, target)

    def linked(self, target: Path) -> None:
        if self._durable is not None:
            with self._lock:
                self._durable.named(None, target)

    def folder_synced(self, folder: Path) -> None:
        if self._durable is not None:
            with self._lock:
                self._durable.folder_synced(folder)

    def committing(self, database: Path) -> None:
        if self._durable is not None:
            with self._lock:
                self._durable.committing(database)

    def log_mark(self, database: Path) -> disk.LogMark:
        if self._durable is None:
            return b"", 0
        with self._lock:
            return self._durable.log_mark(database)

    def log_synced(self, database: Path, mark: disk.LogMark) -> None:
        if self._durable is not None:
            with self._lock:
                self._durable.log_synced(database, mark)

    def checkpoint(self, database: Path, copy: Callable[[], object]) -> None:
        if self._durable is None:
            copy()
            return
        with self._lock:
            mark = self._durable.log_mark(database)
            copy()
            self._durable.log_synced(database, mark)


def set_up(path: str) -> Clock:
    """The clock of this process. With a *path*, faults happen as the plan there says; raises InvalidConfig."""
    if not path:
        return SystemClock()
    faults = PlannedFaults(Path(path).resolve())
    disk.install(faults)
    faults.watch()
    return faults.clock

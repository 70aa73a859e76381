"""`dfs` as its users run it: a process of its own, its output, its exit code."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinfs.client import sync

from ..support.cluster import wait_until

LIMIT_S = 60.0
MIB = 1 << 20
LARGE = random.Random(7).randbytes(3 * MIB + 11)
PROGRAM = Path(sys.executable).with_name("dfs")


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command ended."""

    code: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode()


class Dfs:
    """Runs commands against one cluster, in one local directory."""

    def __init__(self, url: str, folder: Path, **environment: str) -> None:
        self.folder = folder
        self._url = url
        self._environment = environment

    def environment(self) -> dict[str, str]:
        """The test's own, without settings of the user's."""
        kept = {name: value for name, value in os.environ.items() if name[:7] != "TWINFS_"}
        kept |= {"TWINFS_NAMENODE": self._url, "TZ": "UTC", "LC_ALL": "C.UTF-8"}
        return kept | self._environment

    def run(self, *arguments: str | bytes | Path, stdin: bytes = b"") -> Answer:
        ended = subprocess.run(
            [PROGRAM, *arguments],
            input=stdin,
            capture_output=True,
            cwd=self.folder,
            env=self.environment(),
            timeout=LIMIT_S,
        )
        answer = Answer(ended.returncode, ended.stdout, ended.stderr.decode())
        assert "Traceback" not in answer.err, answer.err
        return answer

    def __call__(self, *arguments: str | bytes | Path, stdin: bytes = b"") -> str:
        """What a command that does its work prints; nothing goes to standard error."""
        answer = self.run(*arguments, stdin=stdin)
        assert (answer.code, answer.err) == (0, ""), answer
        return answer.out

    def json(self, *arguments: str | bytes | Path) -> list[Any]:
        """The documents that a command with --json prints, one a line."""
        return [json.loads(line) for line in self(*arguments, "--json").splitlines()]

    def fails(self, *arguments: str | bytes | Path, code: int = 1, stdin: bytes = b"") -> str:
        """What a command that fails with *code* says, without the `dfs: ` in front; it prints nothing."""
        answer = self.run(*arguments, stdin=stdin)
        assert (answer.code, answer.raw) == (code, b""), answer
        lines = answer.err.splitlines()
        assert lines, "it says nothing"
        assert all(line.startswith("dfs: ") for line in lines), answer.err
        return "\n".join(line.removeprefix("dfs: ") for line in lines)

    def misused(self, *arguments: str | bytes | Path) -> str:
        """The last line of what a wrong command line is told; the first says how it is used."""
        answer = self.run(*arguments)
        assert (answer.code, answer.raw) == (2, b""), answer
        lines = answer.err.splitlines()
        assert lines[0].startswith("Usage: dfs "), answer.err
        return lines[-1]

    @contextlib.contextmanager
    def running(self, *arguments: str | Path, **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
        """A command that goes on until it is told to end. Its streams are pipes, unless given."""
        pipes: dict[str, Any] = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        with subprocess.Popen(
            [PROGRAM, *arguments],
            cwd=self.folder,
            env=self.environment(),
            **(pipes | streams),
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()


def ended(process: subprocess.Popen[bytes]) -> int:
    """The exit code of a command that is about to end, whatever its streams are waiting for."""
    wait_until(lambda: process.poll() is not None, "the command ends", LIMIT_S)
    return process.returncode


def interrupted(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C ends the command at once, without a word."""
    process.send_signal(signal.SIGINT)
    assert ended(process) == 130
    assert process.stderr is not None
    assert process.stderr.read().strip() == b""


def names(fs: sync.FileSystem, path: str) -> list[str]:
    """The paths of all that is below *path*, without it."""
    return sorted(status.path.removeprefix(path + "/") for status in fs.walk(path))


def make_tree(folder: Path) -> dict[str, tuple[int, int]]:
    """A local tree; (mode, time of modification) of all that is in it, itself included."""
    (folder / "sub" / "empty").mkdir(parents=True)
    (folder / "small").write_bytes(b"small")
    (folder / "sub" / "large").write_bytes(LARGE)
    (folder / "small").chmod(0o640)
    (folder / "sub" / "large").chmod(0o755)
    (folder / "sub" / "empty").chmod(0o700)
    (folder / "sub").chmod(0o750)
    for number, path in enumerate([*folder.rglob("*"), folder]):
        os.utime(path, (1_500_000_000 + number, 1_500_000_000 + number))
    return {
        str(path.relative_to(folder)): (path.stat().st_mode & 0o7777, int(path.stat().st_mtime))
        for path in [folder, *folder.rglob("*")]
    }

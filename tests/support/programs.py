"""Servers of other makes that tests start beside TwinFS."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path


def free_port() -> int:
    """A port of the loopback that nobody uses just now, for programs that can't choose one themselves and tell it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def program(arguments: Sequence[str | Path], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """It runs inside the block, and writes to *log*."""
    with log.open("wb") as output:
        process = subprocess.Popen(arguments, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)

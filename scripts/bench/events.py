"""The change stream followed while it is written: what three consumers cost the writers, and whether they get everything.

Two writer processes make directories in lists through group commit; a consumer that polls, one on a WebSocket, and one of a group that
commits its offset follow, each a process of its own. Rounds with consumers and rounds without take turns, in changing order.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cluster import Cluster, dfs, running
from figures import Figure, Series
from settings import Settings

from twinfs.client.http_namenode import HttpNameNode
from twinfs.common.messages import ReadEvents
from twinfs.common.runtime import elapsed_timer

WRITERS = 2
SECONDS = 6.0
RATE = 20_000
HOWS = ("poll", "socket", "group")
OPTIONS = ("--safe-mode-nodes", "0")
HERE = Path(__file__).parent


def measure(settings: Settings) -> list[Figure]:
    """At the rate that was asked for, and as fast as writers can."""
    figures = []
    for rate, name in ((RATE, f"events/s at {RATE:,}/s asked"), (0, "events/s, unlimited")):
        alone: list[float] = []
        followed: list[float] = []
        late: list[float] = []
        with running(settings.fresh("events"), datanodes=0, namenode_options=OPTIONS) as cluster:
            dfs(cluster.url, "mkdir", "-p", "/events")
            _round(cluster, rate, "warm", followers=False)
            for number in range(2 * settings.runs):
                # Alone first, then followed first: who comes later meets a larger database.
                for with_them in (False, True) if number % 2 else (True, False):
                    found, late_s = _round(
                        cluster, rate, f"{number}-{with_them}", followers=with_them
                    )
                    (followed if with_them else alone).append(found)
                    if with_them:
                        late.append(late_s)
        figures.append(
            Figure(
                f"{name}, three consumers",
                "/s",
                followed,
                Series("nobody follows", tuple(alone)),
                at_least=0.9,
                of_bound=True,
            )
        )
        figures.append(Figure("the last consumer has the last event after", "s", late))
    return figures


def _round(cluster: Cluster, rate: float, name: str, *, followers: bool) -> tuple[float, float]:
    """(events a second, how long after the writers' end the last consumer had everything)."""
    start = last_offset(cluster.url)
    with contextlib.ExitStack() as stack:
        readers = [
            stack.enter_context(_process("event_reader.py", how, cluster.url, str(start)))
            for how in (HOWS if followers else ())
        ]
        arguments = [str(SECONDS), str(rate / WRITERS), name]
        writers = [
            stack.enter_context(_process("event_writer.py", cluster.url, str(n), *arguments))
            for n in range(WRITERS)
        ]
        _tell(writers, "go")
        made = [_told(writer) for writer in writers]
        ended_s = elapsed_timer()
        last = last_offset(cluster.url)
        _tell(readers, str(last))
        late_s = 0.0
        for how, told in [(how, _told(reader)) for how, reader in zip(HOWS, readers, strict=False)]:
            if told["events"] != last - start or not told["in_order"]:
                raise SystemExit(f"of {last - start} events, the consumer by {how} got {told}")
            late_s = max(late_s, told["ended_s"] - ended_s)
    count = sum(found["events"] for found in made)
    # Each writer makes its directory before.
    if last - start != count + WRITERS:
        raise SystemExit(f"{count} events were written, {last - start} are in the stream")
    return count / max(found["seconds"] for found in made), late_s


@contextlib.contextmanager
def _process(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """One that has said that it is ready."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / program), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise SystemExit(f"{program} did not begin")
            yield process
        finally:
            process.kill()


def _tell(processes: Sequence[subprocess.Popen[str]], line: str) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{line}\n")
        process.stdin.flush()


def _told(process: subprocess.Popen[str]) -> Any:
    """The last line of its output."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{process.args} ended without a result")
    return json.loads(line)


def last_offset(url: str) -> int:
    namenode = HttpNameNode(url, user="root")
    try:
        # What comes after the newest: nothing but its number.
        found: Any = namenode.call("events", ReadEvents(after=2**62, limit=1))
        return int(found.last_offset)
    finally:
        namenode.close()

"""Measure TwinFS on this machine, beside what the machine itself can do: see docs/performance.md."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from figures import Figure, Report, machine
from settings import Settings

# Each can be run alone, most in less than two minutes: name -> (module, function, what it shows).
GROUPS = {
    "large": ("large", "measure", "1 GiB put and get"),
    "trees": ("small", "measure_trees", "put -r, get -r, rm -r of 10,000 small files"),
    "calls": ("small", "measure_calls", "small files, one call each, 16 tasks"),
    "metadata": ("metadata", "measure", "metadata calls from two processes, one stat"),
    "webhdfs": ("webhdfs", "measure", "WebHDFS: 1 GiB written and read, beside the native client"),
    "questions": ("webhdfs", "measure_questions", "WebHDFS: GETFILESTATUS over 32 connections"),
    "command": ("metadata", "measure_command", "dfs ls as a process"),
    "events": ("events", "measure", "the change stream: writers, with three consumers and without"),
    "namenode": ("scale", "measure", "a NameNode with a million files: memory, restart, paging"),
    "dashboard": ("dashboard", "measure", "the dashboard in Chromium, a million files"),
    "metrics": ("scrapes", "measure", "/metrics of processes that hold a million blocks"),
    "peer": ("peers", "measure_add", "content added to a peer"),
    "gateway": ("peers", "measure_gateway", "raw blocks over HTTP"),
    "exchange": ("peers", "measure_exchange", "one DAG from four limited peers"),
    "replicas": ("replicas", "measure", "get from all replicas at once, DataNodes limited and not"),
    "network": ("network", "measure_network", "50 peers as processes, half of them killed"),
    "placement": ("network", "measure_placement", "pins that move when peers come and go"),
    "content": ("content", "measure", "adding by hash, the same again, CIDs, small files"),
    "collecting": (
        "content",
        "measure_collecting",
        "adds while a million CID blocks are collected",
    ),
    "peer-gc": ("collecting", "measure_peer", "adds to a peer that collects, a million CID blocks"),
    "cluster-gc": ("collecting", "measure_cluster", "adds to a cluster that collects, a million"),
    "frames": ("frames", "measure", "fsspec: scattered ranges, pandas read_parquet"),
    "scrub": ("scrubbing", "measure", "a reader beside a pass of the scrubber"),
    "datanode": ("stalled", "measure", "a DataNode's memory, 32 writers, one of them stalled"),
}


def function_of(module: str, name: str) -> Callable[[Settings], list[Figure]]:
    found: Callable[[Settings], list[Figure]] = getattr(import_module(module), name)
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=__doc__,
        epilog="\n".join(f"  {name:10} {about}" for name, (_, _, about) in GROUPS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help="all, unless some are named")
    parser.add_argument("--against", choices=["seaweedfs"], help="run a rival beside us instead")
    parser.add_argument("--runs", type=int, default=3, help="how often each figure is taken (3)")
    parser.add_argument("--seed", type=int, default=1, help="of the bytes that are written (1)")
    parser.add_argument("--dir", type=Path, help="on the disk to measure (a temporary folder)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    found = parser.parse_args()
    unknown = [name for name in found.groups if name not in GROUPS and not found.against]
    if unknown:
        parser.error(f"there is no group {unknown[0]!r}; there are {', '.join(GROUPS)}")
    return found


def main() -> int:
    given = arguments()
    # Whoever ends a benchmark wants its processes to end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="twinfs-bench-", dir=given.dir))
    settings = Settings(folder, runs=given.runs, seed=given.seed)
    report = Report(settings={"runs": given.runs, "seed": given.seed, "groups": given.groups})
    print(", ".join(f"{key} {value}" for key, value in machine().items()), flush=True)
    try:
        if given.against:
            report.figures += import_module("against").measure(settings, given.groups)
        else:
            for name in given.groups or GROUPS:
                module, function, about = GROUPS[name]
                print(f"measuring {name}: {about}", file=sys.stderr, flush=True)
                report.figures += function_of(module, function)(settings)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(report.table())
    if given.json:
        given.json.write_text(report.as_json() + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Nothing that is sent over HTTP makes a server fault, hang or lose its shape. `make fuzz` sends much more."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ..support import routes_fuzz, webhdfs_fuzz
from ..support.cluster import running
from ..support.webhdfs_fuzz import Shot, fire

EXAMPLES = int(os.environ.get("TWINFS_FUZZ_EXAMPLES", "3000"))
SEED = int(os.environ.get("TWINFS_FUZZ_SEED", "1"))
STEP = 5_000


@pytest.mark.timeout(0 if EXAMPLES > STEP else 300)
@pytest.mark.parametrize(
    ("make", "good"),
    [
        pytest.param(webhdfs_fuzz.shot, 0.1, id="webhdfs"),
        pytest.param(routes_fuzz.shot, 0.01, id="others"),
    ],
)
def test_no_request_breaks_a_server(
    tmp_path: Path, make: Callable[[int, int, int], Shot], good: float
) -> None:
    """*good*: the part that gets through at least, else nothing was tried."""
    options = ("--user", "root", "--replication", "1", "--cors-origins", "http://page.example")
    with running(tmp_path, datanodes=2, namenode_options=options) as cluster:
        servers = [cluster.namenode, *cluster.datanodes]
        addresses = [server.facts["http"] for server in servers]
        for start in range(0, EXAMPLES, STEP):
            numbers = range(start, min(EXAMPLES, start + STEP))
            outcome = asyncio.run(fire(addresses, SEED, numbers, make))
            print(start, sorted(outcome.statuses.items()), outcome.unanswered)
            assert not outcome.wrong, "\n\n".join(outcome.wrong[:10])
            served = sum(n for status, n in outcome.statuses.items() if status < 400)
            assert served > good * len(numbers)
        assert all(server.process and server.process.poll() is None for server in servers)
        assert not cluster.tracebacks(), cluster.logs()

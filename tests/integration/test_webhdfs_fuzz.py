"""Nothing that is sent to /webhdfs/v1 makes a server fault, hang or lose its shape. `make fuzz` sends much more."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from ..support.cluster import running
from ..support.webhdfs_fuzz import fire

EXAMPLES = int(os.environ.get("TWINFS_FUZZ_EXAMPLES", "3000"))
SEED = int(os.environ.get("TWINFS_FUZZ_SEED", "1"))
STEP = 5_000


@pytest.mark.timeout(0 if EXAMPLES > STEP else 300)
def test_no_request_breaks_either_half(tmp_path: Path) -> None:
    options = ("--user", "root", "--replication", "1", "--cors-origins", "http://page.example")
    with running(tmp_path, datanodes=2, namenode_options=options) as cluster:
        servers = [cluster.namenode, *cluster.datanodes]
        addresses = [server.facts["http"] for server in servers]
        for start in range(0, EXAMPLES, STEP):
            outcome = asyncio.run(fire(addresses, SEED, range(start, min(EXAMPLES, start + STEP))))
            print(start, sorted(outcome.statuses.items()), outcome.unanswered)
            assert not outcome.wrong, "\n\n".join(outcome.wrong[:10])
            # What is good gets through, or nothing was tried.
            assert (
                outcome.statuses[200] + outcome.statuses[201] + outcome.statuses[307] > STEP // 50
            )
        assert all(server.process and server.process.poll() is None for server in servers)
        assert not cluster.tracebacks(), cluster.logs()

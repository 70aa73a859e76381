"""Two NameNodes on one PostgreSQL: one of them repairs, and when it is killed, the other does."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from twinfs.common.runtime import elapsed_timer

from ..support.cluster import Cluster, Server, wait_until
from .conftest import QUICK, QUICK_WRITES, Bench


def namenode(cluster: Cluster, name: str, database: str) -> Server:
    options = ("--safe-mode-nodes", "4", "--database", database, *QUICK, *QUICK_WRITES)
    arguments = ["--dir", str(cluster.folder / name), "--port", "0", *options]
    return Server(cluster.folder, name, "twinfs.namenode", arguments)


@pytest.mark.timeout(240)
def test_the_other_namenode_goes_on_repairing(tmp_path: Path, postgres_url: str) -> None:
    cluster = Cluster(tmp_path / "cluster")
    first = cluster.namenode = namenode(cluster, "first", postgres_url)
    second = namenode(cluster, "second", postgres_url)
    both = Bench(cluster)
    try:
        cluster.namenode.start()
        second.start()
        other = f"http://{second.facts['http']}"
        for _ in range(4):
            cluster.add_datanode("--namenode", other)
        cluster.wait_live(4)
        data = {f"/f{n}": random.Random(n).randbytes(100_000 * (n + 1)) for n in range(8)}
        for path, content in data.items():
            both.put(path, content)
        lost = both.holders("/f0")[0]
        lost.kill()
        cluster.wait_live(3)
        both.healed("three copies again")
        lost.restart()
        cluster.wait_live(4)
        both.healed("the surplus dropped")
        # What is asked of the NameNode that does not repair is done by the one that does, at once: its scan comes
        # every 30 s, so four changes in a row would take it more than a minute.
        began_s = elapsed_timer()
        for copies in (2, 3, 2, 3):
            both.dfs("--namenode", other, "setrep", str(copies), "/f3")
            wait_until(lambda copies=copies: len(both.holders("/f3")) == copies, "it is done")  # type: ignore[misc]
        assert elapsed_timer() - began_s < 60.0
        both.dfs("admin", "safemode", "enter")
        # Now the NameNode that repairs goes, and a DataNode with it.
        cluster.namenode = second
        wait_until(lambda: "ordered it" in both.dfs("admin", "safemode", "get"), "the order known")
        both.dfs("admin", "safemode", "leave")
        first.kill()
        lost = both.holders("/f1")[0]
        lost.kill()
        cluster.wait_live(3)
        both.healed("three copies again, by the other", 90.0)
        for path, content in data.items():
            assert both.get(path) == content
        assert cluster.tracebacks() == []
        assert "Traceback" not in first.log_text()
    except BaseException:
        print(cluster.logs())
        raise
    finally:
        cluster.stop()
        first.stop()
        second.stop()

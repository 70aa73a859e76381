"""What most of these tests begin with: a cluster for each module, and who uses it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from twinfs.client import sync

from ..support.cluster import Cluster, running
from .commands import Dfs


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("cluster")) as found:
        yield found
        assert found.tracebacks() == []


@pytest.fixture
def dfs(cluster: Cluster, tmp_path: Path) -> Dfs:
    """Commands, run in a folder of the test's own."""
    folder = tmp_path / "here"
    folder.mkdir()
    return Dfs(cluster.url, folder)


@pytest.fixture(scope="module")
def fs(cluster: Cluster) -> Iterator[sync.FileSystem]:
    with sync.FileSystem.connect(cluster.url) as found:
        yield found


@pytest.fixture
def at(fs: sync.FileSystem, request: pytest.FixtureRequest) -> str:
    """An empty directory of the test's own."""
    path = "/" + re.sub(r"\W+", "-", request.node.name)
    fs.mkdirs(path)
    return path

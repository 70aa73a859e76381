"""One cluster for all that is tried with other people's software."""

from __future__ import annotations

from collections.abc import Iterator

import fsspec
import pytest

from twinfs.client.fsspec_adapter import DfsFileSystem

from ..support.cluster import Cluster, running


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("cluster")) as found:
        yield found
        assert found.tracebacks() == []


@pytest.fixture(scope="package")
def address(cluster: Cluster) -> str:
    """HOST:PORT, as in dfs://HOST:PORT/path."""
    return cluster.url.partition("://")[2]


@pytest.fixture(scope="package")
def shared_fs(address: str) -> Iterator[DfsFileSystem]:
    filesystem = fsspec.filesystem("dfs", namenode=f"http://{address}")
    yield filesystem
    filesystem.close()

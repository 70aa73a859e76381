"""One cluster for all tests of seeing and following it, and how to ask it over plain HTTP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from twinfs.client import sync
from twinfs.common.config import ClientConfig

from ..support.cluster import Cluster, running


@dataclass(frozen=True, slots=True)
class Reply:
    """How a server answered."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    url: str,
    *,
    body: bytes | dict[str, Any] | None = None,
    method: str = "",
    headers: dict[str, str] | None = None,
    limit_s: float = 30.0,
) -> Reply:
    """One request; an error status is an answer like any other."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    form = {"Content-Type": "application/json"} if isinstance(body, dict) else {}
    request = urllib.request.Request(
        url, data=data, method=method or None, headers={**form, **(headers or {})}
    )
    try:
        with urllib.request.urlopen(request, timeout=limit_s) as answer:
            return Reply(
                answer.status, answer.read(), {k.lower(): v for k, v in answer.headers.items()}
            )
    except urllib.error.HTTPError as error:
        with error:
            found = {k.lower(): v for k, v in error.headers.items()}
            return Reply(error.code, error.read(), found)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("watched"), datanodes=3) as cluster:
        yield cluster


@pytest.fixture
def fs(cluster: Cluster) -> Iterator[sync.FileSystem]:
    with sync.FileSystem(ClientConfig(namenode=cluster.url, user="root")) as found:
        yield found


@pytest.fixture
def folder(fs: sync.FileSystem, request: pytest.FixtureRequest) -> str:
    """A directory of the cluster for one test alone."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    path = f"/{Path(str(request.path)).stem}-{name}"
    fs.mkdirs(path)
    return path

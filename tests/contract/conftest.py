"""The same suite on every implementation of the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from twinfs.common.config import NameNodeConfig
from twinfs.common.runtime import SystemClock
from twinfs.namenode.store import open_store
from twinfs.namenode.store.base import MetadataStore


@pytest.fixture(params=["sqlite", "postgresql"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> NameNodeConfig:
    """Where the store under test is; opening it again finds the same."""
    url = ""
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    return NameNodeConfig(dir=str(tmp_path / "nn"), database=url, user="root")


@pytest.fixture
async def store(config: NameNodeConfig) -> AsyncIterator[MetadataStore]:
    found = await open_store(config, SystemClock())
    yield found
    await found.close()

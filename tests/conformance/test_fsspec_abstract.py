"""The suite that fsspec ships for implementations."""

from __future__ import annotations

from collections.abc import Callable

import fsspec.tests.abstract as abstract
import pytest

from twinfs.client.fsspec_adapter import DfsFileSystem


class DfsFixtures(abstract.AbstractFixtures):
    """What the suite has to know."""

    @pytest.fixture
    def fs(self, shared_fs: DfsFileSystem) -> DfsFileSystem:
        return shared_fs

    @pytest.fixture
    def fs_path(self, request: pytest.FixtureRequest, shared_fs: DfsFileSystem) -> str:
        path = f"/abstract/{type(self).__name__}"
        shared_fs.makedirs(path, exist_ok=True)
        return path

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)


class TestDfsCopy(abstract.AbstractCopyTests, DfsFixtures):
    pass


class TestDfsGet(abstract.AbstractGetTests, DfsFixtures):
    pass


class TestDfsPut(abstract.AbstractPutTests, DfsFixtures):
    pass


class TestDfsOpen(abstract.AbstractOpenTests, DfsFixtures):
    pass


class TestDfsPipe(abstract.AbstractPipeTests, DfsFixtures):
    pass

"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .support.postgres import PostgresServer, find_binaries


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """No setting of the user's reaches a test."""
    for name in list(os.environ):
        if name.startswith("TWINFS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", f"{tmp_path}/config")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A private server; without PostgreSQL's programs, a failure in CI and a skip elsewhere."""
    binaries = find_binaries()
    if binaries is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is not installed (Debian: postgresql-15)")
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql-15)")
    server = PostgresServer(binaries)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """A fresh database."""
    return postgres.new_database()

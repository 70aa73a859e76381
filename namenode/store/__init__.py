"""The metadata store: SQL transactions on SQLite or on whatever speaks PostgreSQL's protocol."""

from __future__ import annotations

import getpass
from pathlib import Path

from ...common.config import NameNodeConfig
from ...common.errors import InvalidConfig
from ...common.runtime import Clock
from .base import MetadataStore

__all__ = ["open_store", "superuser_of"]


def superuser_of(config: NameNodeConfig) -> str:
    """Who may do everything: as configured, else the account that runs the NameNode."""
    return config.user or getpass.getuser()


async def open_store(config: NameNodeConfig, clock: Clock) -> MetadataStore:
    """The store that *config* names, brought to this version's format."""
    owner = superuser_of(config)
    if config.database:
        if not config.database.startswith(("postgresql://", "postgres://")):
            raise InvalidConfig(
                f"database must be a postgresql:// URL or empty, not {config.database!r}"
            )
        from .postgres import PostgresStore

        return await PostgresStore.open(
            config.database, clock=clock, owner=owner, group=config.supergroup
        )
    from .sqlite import SqliteStore

    return SqliteStore(
        _database_file(config),
        clock=clock,
        readers=config.readers,
        cache_mib=config.cache_mib,
        owner=owner,
        group=config.supergroup,
    )


def _database_file(config: NameNodeConfig) -> Path:
    folder = Path(config.dir)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InvalidConfig(f"can't create the directory {folder}: {error.strerror}") from None
    return folder / "namespace.db"

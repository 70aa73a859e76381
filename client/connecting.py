"""`twinfs.connect` and `twinfs.connect_async`: how a program gets hold of a cluster."""

from __future__ import annotations

from typing import Any

from ..common.config import ClientConfig
from . import filesystem, sync


def connect(
    namenode: str | None = None, *, config: ClientConfig | None = None, **settings: Any
) -> sync.FileSystem:
    """A blocking FileSystem for the cluster whose NameNode is at *namenode*, a URL (several, joined by commas).

    *settings* are fields of `ClientConfig`; what is given nowhere comes from the environment and the configuration file.
    Nothing is sent before the first call, so a wrong address shows there. Usable from any thread; close it, or use it
    in a `with` statement.
    """
    return sync.FileSystem.connect(namenode, config=config, **settings)


def connect_async(
    namenode: str | None = None, *, config: ClientConfig | None = None, **settings: Any
) -> filesystem.FileSystem:
    """As `connect`, for programs with an event loop: to be called in it, and closed on it (`async with`)."""
    return filesystem.FileSystem.connect(namenode, config=config, **settings)

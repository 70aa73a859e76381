"""TwinFS: a distributed file system in which every byte has a path and a hash.

What programs use:

- `connect` gives a `FileSystem`, blocking; `connect_async` an `AsyncFileSystem` with the same methods, to be awaited.
- `errors` is the tree of everything they raise, `DfsError` its root.
- With the extra `fsspec`, `dfs://host:port/path` opens wherever fsspec is spoken: pandas, pyarrow, DuckDB, Dask ...

All but the version is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client.connecting import connect, connect_async
    from .client.file_reader import FileReader
    from .client.file_writer import FileWriter
    from .client.filesystem import FileSystem as AsyncFileSystem
    from .client.sync import FileSystem
    from .client.transfers import TransferReport
    from .common import errors
    from .common.config import ClientConfig
    from .common.errors import DfsError
    from .common.model import ContentSummary, Event, FileStatus

__version__ = "0.1.0"
__all__ = [
    "AsyncFileSystem",
    "ClientConfig",
    "ContentSummary",
    "DfsError",
    "Event",
    "FileReader",
    "FileStatus",
    "FileSystem",
    "FileWriter",
    "TransferReport",
    "__version__",
    "connect",
    "connect_async",
    "errors",
]

# Where each name comes from, and what it is called there.
_HOMES = {
    "AsyncFileSystem": ("client.filesystem", "FileSystem"),
    "ClientConfig": ("common.config", "ClientConfig"),
    "ContentSummary": ("common.model", "ContentSummary"),
    "DfsError": ("common.errors", "DfsError"),
    "Event": ("common.model", "Event"),
    "FileReader": ("client.file_reader", "FileReader"),
    "FileStatus": ("common.model", "FileStatus"),
    "FileSystem": ("client.sync", "FileSystem"),
    "FileWriter": ("client.file_writer", "FileWriter"),
    "TransferReport": ("client.trees", "TransferReport"),
    "connect": ("client.connecting", "connect"),
    "connect_async": ("client.connecting", "connect_async"),
    "errors": ("common.errors", ""),
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f".{home[0]}", __name__)
    value = globals()[name] = getattr(module, home[1]) if home[1] else module
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

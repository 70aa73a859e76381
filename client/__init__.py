"""What an application holds: `FileSystem` (asynchronous), `sync.FileSystem` (blocking). Imported when first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .filesystem import FileSystem

__all__ = ["FileSystem"]


def __getattr__(name: str) -> Any:
    if name == "FileSystem":
        from .filesystem import FileSystem

        return FileSystem
    raise AttributeError(name)

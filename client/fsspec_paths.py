"""`UPath("dfs://host:port/path")`: paths as pathlib writes them, by way of universal-pathlib."""

from __future__ import annotations

from typing import Any

from fsspec.registry import get_filesystem_class
from upath import UPath

# The flavour of a path is read off the class of its file system, so that has to be known first.
get_filesystem_class("dfs")
get_filesystem_class("dfs+cid")
CONTENT = "dfs+cid://"


class DfsPath(UPath):
    """A path of a cluster. Its text names the cluster, too: `UPath(str(path))` is the same path."""

    __slots__ = ()

    def __str__(self) -> str:
        text: str = super().__str__()
        host = self.storage_options.get("host")
        if host and text.startswith("dfs:///"):
            user, port = self.storage_options.get("user"), self.storage_options.get("port")
            shown = f"[{host}]" if ":" in host else host
            authority = f"{user}@" if user else ""
            authority += f"{shown}:{port}" if port else shown
            return f"dfs://{authority}{text[6:]}"
        return text

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """As pathlib's; *mode* is the directory's, there is no umask."""
        if exist_ok and self.is_dir():
            return
        self.fs.mkdir(self.path, create_parents=parents, mode=mode)

    def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
        """As pathlib's: an existing file keeps its bytes, and gets the present time."""
        if not exist_ok and self.exists():
            raise FileExistsError(str(self))
        self.fs.touch(self.path, truncate=False)


class DfsCidPath(UPath):
    """`UPath("dfs+cid://CID/name")`: what a CID names."""

    __slots__ = ()

    @classmethod
    def _transform_init_args(
        cls, args: tuple[Any, ...], protocol: str, storage_options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], str, dict[str, Any]]:
        # universal-pathlib takes what stands before the first "+" of a scheme for the scheme, and finds that the two don't agree.
        plain = []
        for arg in args:
            if isinstance(arg, DfsCidPath):
                storage_options = {**arg.storage_options, **storage_options}
                arg = arg.path
            plain.append(arg.removeprefix(CONTENT) if isinstance(arg, str) else arg)
        return tuple(plain), protocol or CONTENT[:-3], storage_options

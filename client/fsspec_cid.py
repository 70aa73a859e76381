"""fsspec's view of content: `dfs+cid://CID/path`, read only. What a CID names can't change, so everything may be kept."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.utils import stringify_path

from ..common.errors import InvalidCid, IsADirectory
from ..common.ipld.cid import Cid
from ..common.ipld.dag import Entity
from ..common.paths import shown
from . import ranges
from .content import ContentReader
from .fsspec_adapter import DfsFileSystem
from .fsspec_files import DfsFile

READ_ONLY = "what a CID names can't be changed"


class DfsCidFileSystem(DfsFileSystem):
    """UnixFS files and directories by CID, from the cluster that the options (or the configuration) name.

    Paths are `CID` or `CID/name/name`. Every block is verified against its CID. Takes the options of `DfsFileSystem`.
    """

    protocol = "dfs+cid"
    root_marker = ""

    # --- addresses ---

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        """`dfs+cid://CID/a` -> `CID/a`."""
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text: str = super()._strip_protocol(path)
        prefix = f"{cls.protocol}://"
        given = path if isinstance(path, str) else str(path)
        if given.startswith(prefix):
            text = given[len(prefix) :]
        return text.strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: Any) -> dict[str, Any]:
        return {}

    def unstrip_protocol(self, name: str) -> str:
        return f"{self.protocol}://{self._strip_protocol(name)}"

    @property
    def fsid(self) -> str:
        return f"dfs+cid_{self.config.namenode}"

    # --- looking ---

    @property
    def _content(self) -> ContentReader:
        return self.client.content.reader

    async def _entity(self, path: str) -> Entity:
        path = self._strip_protocol(path)
        with self.told(path):
            root, *names = path.split("/")
            try:
                parsed = Cid.parse(root)
            except InvalidCid as error:
                raise InvalidCid(f"{shown(root)} is no CID: {error.message}") from None
            cid = await self._content.resolve(parsed, names)
            return await self._content.entity(cid)

    @staticmethod
    def _type(found: Entity) -> str:
        if found.value is None or found.value.is_file:
            return "file"
        return "directory" if found.value.is_directory else "link"

    def _details(self, path: str, found: Entity) -> dict[str, Any]:
        return {
            "name": path,
            "size": found.size,
            "type": self._type(found),
            "cid": str(found.cid),
        }

    async def _info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        return self._details(path, await self._entity(path))

    async def _kind(self, path: str) -> str:
        try:
            return str((await self._info(path))["type"])
        except (OSError, ValueError):
            return ""

    async def _exists(self, path: str, **kwargs: Any) -> bool:
        return await self._kind(path) != ""

    async def _isfile(self, path: str) -> bool:
        return await self._kind(path) == "file"

    async def _isdir(self, path: str) -> bool:
        return await self._kind(path) == "directory"

    async def _ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        found = await self._entity(path)
        if self._type(found) != "directory":
            return [self._details(path, found)] if detail else [path]
        with self.told(path):
            listed = await self._content.entries(found)
            if not detail:
                return [f"{path}/{entry.name}" for entry in listed]
            await self._content.prefetch([entry.cid for entry in listed])
            return [
                self._details(f"{path}/{entry.name}", await self._content.entity(entry.cid))
                for entry in listed
            ]

    async def _find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, **kwargs: Any
    ) -> Any:
        # The walk of fsspec itself: there is no listing of a whole tree to be had.
        return await super(DfsFileSystem, self)._find(
            path, maxdepth=maxdepth, withdirs=withdirs, **kwargs
        )

    async def _du(
        self, path: str, total: bool = True, maxdepth: int | None = None, **kwargs: Any
    ) -> Any:
        found = await self._find(path, maxdepth=maxdepth, detail=True)
        sizes = {name: info["size"] for name, info in found.items() if info}
        return sum(sizes.values()) if total else sizes

    async def _checksum(self, path: str) -> str:
        """The CID itself."""
        return str((await self._entity(path)).cid)

    async def _ukey(self, path: str) -> str:
        return await self._checksum(path)

    # --- reading ---

    async def _bytes(self, found: Entity, start: int, end: int) -> bytes:
        return b"".join([bytes(part) async for part in self._content.read(found, start, end)])

    async def read_range(self, path: str, start: int | None, end: int | None) -> bytes:
        """Bytes of a file as a slice of it."""
        found = await self._entity(path)
        with self.told(path):
            if self._type(found) == "directory":
                raise IsADirectory(f"{path} is a directory")
            low, high = ranges.resolve(start, end, found.size)
            return await self._bytes(found, low, high) if low < high else b""

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        return await self.read_range(self._strip_protocol(path), start, end)

    async def _slices(self, path: str, wanted: list[tuple[int | None, int | None]]) -> list[bytes]:
        return list(
            await asyncio.gather(*(self.read_range(path, start, end) for start, end in wanted))
        )

    async def _get_file(
        self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, **kwargs: Any
    ) -> None:
        path = self._strip_protocol(rpath)
        found = await self._entity(path)
        local = Path(stringify_path(lpath))
        if self._type(found) == "directory":
            await asyncio.to_thread(local.mkdir, parents=True, exist_ok=True)
            return
        callback.set_size(found.size)
        await asyncio.to_thread(local.parent.mkdir, parents=True, exist_ok=True)
        with self.told(path), await asyncio.to_thread(local.open, "wb") as out:
            async for part in self._content.read(found):
                await asyncio.to_thread(out.write, part)
                callback.relative_update(len(part))

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        cache_type: str = "readahead",
        size: int | None = None,
        **kwargs: Any,
    ) -> DfsFile:
        if mode != "rb":
            raise OSError(errno.EROFS, READ_ONLY, path)
        return DfsCidFile(
            self, path, mode, block_size or "default", True, cache_type, cache_options, size
        )

    # --- what can't be ---

    async def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.EROFS, READ_ONLY)

    _pipe_file = _put_file = _touch = _mkdir = _makedirs = _rmdir = _refuse
    _rm_file = _rm = _cp_file = _mv = _mv_file = _created = _modified = _refuse


class DfsCidFile(DfsFile):
    """A file opened by its CID, for reading."""

    async def _load(self) -> int:
        info = await self.fs._info(self.path)
        if info["type"] == "directory":
            raise IsADirectoryError(self.path)
        self._details = info
        return int(info["size"])

    async def _pread(self, start: int, end: int) -> bytes:
        return await self.fs._cat_file(self.path, start, end)

    async def _pread_into(self, start: int, buffer: memoryview) -> int:
        data = await self._pread(start, start + len(buffer))
        buffer[: len(data)] = data
        return len(data)

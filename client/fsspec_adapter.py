"""fsspec's view of TwinFS: `dfs://host:port/path`, and `dfs:///path` for the cluster that the configuration names.

What pandas, pyarrow, DuckDB, Dask, zarr, universal-pathlib and the rest of that world open goes through here.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import stat
import weakref
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from glob import has_magic
from pathlib import Path
from typing import Any

from fsspec.asyn import AsyncFileSystem, get_loop, sync
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.utils import stringify_path

from ..common.config import ClientConfig, load
from ..common.errors import (
    DfsError,
    InvalidRequest,
    IsADirectory,
    NotADirectory,
    PathNotFound,
    errno_of,
)
from ..common.model import FileBlocks, FileStatus
from ..common.runtime import SystemClock
from . import ranges
from .filesystem import FileSystem
from .fsspec_files import FILE_OPTIONS, DfsAsyncFile, DfsFile, DfsTransaction, close_at_end

DEFAULT_PORT = 9870
SETTINGS = frozenset(field.name for field in dataclasses.fields(ClientConfig))
FSSPEC_OPTIONS = frozenset({"use_listings_cache", "listings_expiry_time", "max_paths"})


def _blocking(name: str) -> Callable[..., Any]:
    """The coroutine method *name*, whichever class it is of, run to its end."""

    def run(self: Any, *args: Any, **options: Any) -> Any:
        return sync(self.loop, getattr(self, name), *args, **options)

    run.__name__ = name[1:]
    return run


class DfsFileSystem(AsyncFileSystem):
    """A cluster, as fsspec sees file systems.

    *host* and *port* (or *namenode*, a URL) name the NameNode; what is not given comes from the environment and the
    configuration file. *settings* are fields of ClientConfig. Nothing is cached but open connections: what `ls` or
    `info` tell is true when they tell it.

    An instance can be pickled, used from any thread and any event loop, and in a process forked off: each loop has
    connections of its own.
    """

    protocol = "dfs"
    root_marker = "/"
    async_impl = True
    transaction_type = DfsTransaction
    _loop: Any
    _pid: int

    def __init__(
        self,
        namenode: str | None = None,
        *,
        host: str | None = None,
        port: int | None = None,
        asynchronous: bool = False,
        loop: Any = None,
        batch_size: int | None = None,
        **settings: Any,
    ) -> None:
        unknown = sorted(set(settings) - SETTINGS - FSSPEC_OPTIONS)
        if unknown:
            raise TypeError(f"{unknown[0]!r} is no option of the file system dfs://")
        own = {name: value for name, value in settings.items() if name in FSSPEC_OPTIONS}
        super().__init__(asynchronous=asynchronous, loop=loop, batch_size=batch_size, **own)
        if namenode is None and host:
            shown = f"[{host}]" if ":" in host else host
            namenode = f"http://{shown}:{port or DEFAULT_PORT}"
        given = {name: value for name, value in settings.items() if name not in own}
        with self.told("/"):
            self.config = load(ClientConfig, {**given, "namenode": namenode})
        first = self.config.namenode.partition(",")[0]
        self._authority = first.partition("://")[2].rstrip("/") if first.startswith("http:") else ""
        self._clients: weakref.WeakKeyDictionary[Any, FileSystem] = weakref.WeakKeyDictionary()
        self._given_up: list[object] = []
        if not asynchronous:
            weakref.finalize(self, close_at_end, os.getpid(), self._loop, self._clients)

    # --- addresses ---

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        """`dfs://host:port/a/b` -> `/a/b`. A name may contain any character but "/"."""
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        path = stringify_path(path)
        for prefix in (f"{cls.protocol}://", f"{cls.protocol}::"):
            if path.startswith(prefix):
                path = "/" + path[len(prefix) :].partition("/")[2]
        if not path.startswith("/"):
            path = "/" + path
        return path.rstrip("/") or "/"

    @staticmethod
    def _get_kwargs_from_urls(path: Any) -> dict[str, Any]:
        path = stringify_path(path)
        scheme, found, rest = path.partition("://")
        authority = rest.partition("/")[0]
        if not found or not authority or "/" in scheme:
            return {}
        user, _, address = authority.rpartition("@")
        host, colon, port = address.rpartition(":")
        if not colon or address.endswith("]"):
            host, port = address, ""
        options: dict[str, Any] = {"host": host.strip("[]")}
        if port:
            if not port.isascii() or not port.isdigit():
                raise ValueError(f"{port!r} in {path!r} is no port")
            options["port"] = int(port)
        if user:
            options["user"] = user
        return options

    def unstrip_protocol(self, name: str) -> str:
        if name.startswith(f"{self.protocol}://"):
            return name
        return f"{self.protocol}://{self._authority}{self._strip_protocol(name)}"

    @property
    def fsid(self) -> str:
        return f"dfs_{self.config.namenode}"

    # --- connections ---

    @property
    def loop(self) -> Any:
        """The loop of blocking calls. In a process forked off it is a new one: the parent's threads are not there."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            # The parent's connections must stay as they are: kept, not closed, never used.
            self._given_up.append(dict(self._clients))
            self._clients = weakref.WeakKeyDictionary()
            self._loop = None if self.asynchronous else get_loop()
        return self._loop

    @property
    def client(self) -> FileSystem:
        """The client library's file system for the event loop that is running."""
        if self._pid != os.getpid():
            _ = self.loop
        running = asyncio.get_running_loop()
        client = self._clients.get(running)
        if client is None:
            client = self._clients[running] = FileSystem(self.config)
        return client

    async def aclose(self) -> None:
        """Close the connections of this event loop; the next call opens new ones."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    def close(self) -> None:
        """Close the connections of blocking calls; the next call opens new ones."""
        sync(self.loop, self.aclose)

    @contextlib.contextmanager
    def told(self, path: str) -> Iterator[None]:
        """Errors of TwinFS as the OSError that a caller of a file system expects."""
        try:
            yield
        except InvalidRequest as error:
            raise ValueError(error.message) from error
        except DfsError as error:
            raise OSError(errno_of(error), error.message, path) from error

    async def _call(self, method: str, *args: Any, **options: Any) -> Any:
        """A method of `FileSystem` that fsspec has no name for: `fs.call("set_replication", "/file", 2)`."""
        with self.told(str(args[0]) if args else "/"):
            return await getattr(self.client, method)(*args, **options)

    # --- looking ---

    def described(self, status: FileStatus) -> dict[str, Any]:
        """What fsspec calls the details of a file."""
        kind = stat.S_IFDIR if status.is_directory else stat.S_IFREG
        return {
            "name": status.path,
            "size": status.length,
            "type": status.type,
            "mtime": status.mtime_ms / 1000,
            "atime": status.atime_ms / 1000,
            "mode": kind | status.mode,
            "owner": status.owner,
            "group": status.group,
            "ino": status.inode_id,
            "replication": status.replication,
            "block_size": status.block_size,
            "under_construction": status.under_construction,
        }

    async def _info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        with self.told(path):
            return self.described(await self.client.stat(path))

    async def _status(self, path: str) -> FileStatus | None:
        path = self._strip_protocol(path)
        with self.told(path):
            try:
                return await self.client.stat(path)
            except (PathNotFound, NotADirectory):
                return None

    async def _exists(self, path: str, **kwargs: Any) -> bool:
        return await self._status(path) is not None

    async def _isfile(self, path: str) -> bool:
        status = await self._status(path)
        return status is not None and not status.is_directory

    async def _isdir(self, path: str) -> bool:
        status = await self._status(path)
        return status is not None and status.is_directory

    async def _ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        with self.told(path):
            found = [status async for status in self.client.list(path)]
        if detail:
            return [self.described(status) for status in found]
        return [status.path for status in found]

    async def _find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, **kwargs: Any
    ) -> Any:
        if maxdepth is not None:
            return await super()._find(path, maxdepth=maxdepth, withdirs=withdirs, **kwargs)
        path = self._strip_protocol(path)
        top = await self._status(path)
        found = {}
        if top is not None:
            if withdirs or not top.is_directory:
                found[path] = self.described(top)
            if top.is_directory:
                with self.told(path):
                    async for status in self.client.walk(path):
                        if withdirs or not status.is_directory:
                            found[status.path] = self.described(status)
        names = sorted(found)
        return {name: found[name] for name in names} if kwargs.get("detail") else names

    async def _du(
        self, path: str, total: bool = True, maxdepth: int | None = None, **kwargs: Any
    ) -> Any:
        if not total or maxdepth is not None:
            found = await self._find(path, maxdepth=maxdepth, detail=True, **kwargs)
            sizes = {name: info["size"] for name, info in found.items()}
            return sum(sizes.values()) if total else sizes
        path = self._strip_protocol(path)
        with self.told(path):
            return (await self.client.summarize(path)).length

    async def _modified(self, path: str) -> datetime:
        """When the content was last changed, in UTC."""
        return datetime.fromtimestamp((await self._info(path))["mtime"], UTC)

    async def _created(self, path: str) -> datetime:
        """As `modified`: like HDFS, the cluster keeps no other time of a file."""
        return await self._modified(path)

    async def _checksum(self, path: str) -> str:
        """The CID: the name of the content, of a file or of a whole directory, the same wherever it is."""
        path = self._strip_protocol(path)
        with self.told(path):
            return str((await self.client.content.cid(path)).cid)

    async def _ukey(self, path: str) -> str:
        """As `checksum`; of a directory, and of a file that is being written, what tells one state from another."""
        path = self._strip_protocol(path)
        with self.told(path):
            status = await self.client.stat(path)
            if status.is_directory or status.under_construction:
                return f"{status.inode_id}-{status.length}-{status.mtime_ms}"
            return str((await self.client.content.cid(path)).cid)

    # --- reading ---

    async def located(self, path: str) -> FileBlocks:
        """The file's blocks. Raises IsADirectoryError for a directory."""
        with self.told(path):
            found = await self.client.located(path)
            if found.status.is_directory:
                raise IsADirectory(f"{path} is a directory")
            return found

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        path = self._strip_protocol(path)
        with self.told(path):
            if start is None and end is None:
                return await self.client.read_bytes(path)
            (data,) = await self._slices(path, [(start, end)])
            return data

    async def _slices(self, path: str, wanted: list[tuple[int | None, int | None]]) -> list[bytes]:
        """Several ranges of one file: one lookup, one round of concurrent reads."""
        found = await self.located(path)
        async with self.client.reader(found) as reader:
            whole = [ranges.resolve(start, end, reader.length) for start, end in wanted]
            filled = [index for index, (start, end) in enumerate(whole) if start < end]
            spans = ranges.plan([whole[index] for index in filled])
            parts = await reader.pread_many([(s.start, s.end - s.start) for s in spans])
        results = [b""] * len(wanted)
        for span, data in zip(spans, parts, strict=True):
            for served in span.serves:
                start, end = whole[filled[served]]
                alone = (start, end) == (span.start, span.end)
                piece = data if alone else data[start - span.start : end - span.start]
                results[filled[served]] = piece
        return results

    async def _cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        batch_size: int | None = None,
        on_error: str = "return",
        **kwargs: Any,
    ) -> list[Any]:
        """Many ranges of many files at once. *max_gap* is accepted: ranges that share a chunk are always read together."""
        if not isinstance(paths, list):
            raise TypeError("paths must be a list")
        low = list(starts) if isinstance(starts, Iterable) else [starts] * len(paths)
        high = list(ends) if isinstance(ends, Iterable) else [ends] * len(paths)
        if len(low) != len(paths) or len(high) != len(paths):
            raise ValueError("paths, starts and ends must be equally long")
        groups: dict[str, list[int]] = {}
        for index, path in enumerate(paths):
            groups.setdefault(self._strip_protocol(path), []).append(index)
        results: list[Any] = [b""] * len(paths)

        async def one(path: str, indexes: list[int]) -> None:
            try:
                with self.told(path):
                    found: list[Any] = list(
                        await self._slices(path, [(low[i], high[i]) for i in indexes])
                    )
            except (OSError, ValueError) as error:
                if on_error != "return":
                    raise
                found = [error] * len(indexes)
            for index, data in zip(indexes, found, strict=True):
                results[index] = data

        await asyncio.gather(*(one(path, indexes) for path, indexes in groups.items()))
        return results

    async def _get_file(
        self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, **kwargs: Any
    ) -> None:
        rpath = self._strip_protocol(rpath)
        status = await self._status(rpath)
        if status is None:
            raise FileNotFoundError(rpath)
        local = stringify_path(lpath)
        if status.is_directory:
            await asyncio.to_thread(os.makedirs, local, exist_ok=True)
            return
        await asyncio.to_thread(os.makedirs, Path(local).parent, exist_ok=True)
        callback.set_size(status.length)
        with self.told(rpath):
            await self.client.get_file(
                rpath, local, preserve=False, progress=callback.relative_update
            )

    # --- writing ---

    def _file_options(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Those of *kwargs* that say how a new file is to be stored, as the client library names them."""
        return {
            "replication": kwargs.get("replication"),
            "block_size": kwargs.get("file_block_size"),
        }

    async def _pipe_file(
        self, path: str, value: Any, mode: str = "overwrite", **kwargs: Any
    ) -> None:
        """A whole file in one step: readers see all of it, or what was there before."""
        path = self._strip_protocol(path)
        with self.told(path):
            await self.client.write_bytes(
                path,
                value,
                overwrite=mode != "create",
                permissions=kwargs.get("permissions", 0o644),
                **self._file_options(kwargs),
            )

    async def _put_file(
        self,
        lpath: Any,
        rpath: str,
        mode: str = "overwrite",
        callback: Any = DEFAULT_CALLBACK,
        **kwargs: Any,
    ) -> None:
        local, rpath = stringify_path(lpath), self._strip_protocol(rpath)
        if await asyncio.to_thread(os.path.isdir, local):
            await self._makedirs(rpath, exist_ok=True)
            return
        callback.set_size(await asyncio.to_thread(os.path.getsize, local))
        with self.told(rpath):
            await self.client.put_file(
                local,
                rpath,
                overwrite=mode != "create",
                preserve=bool(kwargs.get("preserve", False)),
                progress=callback.relative_update,
                **self._file_options(kwargs),
            )

    async def _touch(self, path: str, truncate: bool = True, **kwargs: Any) -> None:
        path = self._strip_protocol(path)
        if truncate:
            await self._pipe_file(path, b"", **kwargs)
            return
        now_ms = SystemClock().wall_ms()
        with self.told(path):
            try:
                await self.client.set_times(path, mtime_ms=now_ms)
            except PathNotFound:
                await self.client.write_bytes(path, b"")

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
        unknown = sorted(set(kwargs) - FILE_OPTIONS)
        if unknown:
            raise TypeError(f"{unknown[0]!r} is no option of files on dfs://")
        if has_magic(path) and "r" not in mode and not path.rpartition("/")[2]:
            raise ValueError(f"{path!r} is no name for a file")
        return DfsFile(
            self,
            path,
            mode,
            block_size or "default",
            autocommit,
            cache_type,
            cache_options,
            size,
            **kwargs,
        )

    async def open_async(self, path: str, mode: str = "rb", **kwargs: Any) -> DfsAsyncFile:
        """A file to be read or written with `await`; modes as in `open`, binary."""
        if "b" not in mode or kwargs.pop("compression", None):
            raise ValueError("open_async gives binary files, uncompressed")
        return await DfsAsyncFile.opened(self, self._strip_protocol(path), mode, **kwargs)

    # --- changing the tree ---

    async def _mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        path = self._strip_protocol(path)
        mode = kwargs.get("mode", 0o755)
        with self.told(path):
            try:
                await self.client.mkdirs(path, mode=mode, parents=False)
            except PathNotFound:
                if not create_parents:
                    raise
                await self.client.mkdirs(self._parent(path), mode=mode)
                await self.client.mkdirs(path, mode=mode, parents=False)

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        if not exist_ok:
            await self._mkdir(path, create_parents=True)
            return
        path = self._strip_protocol(path)
        with self.told(path):
            await self.client.mkdirs(path)

    async def _rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        path = self._strip_protocol(path)
        with self.told(path):
            if not (await self.client.stat(path)).is_directory:
                raise NotADirectory(f"{path} is not a directory")
            await self.client.delete(path)

    async def _rm_file(self, path: str, **kwargs: Any) -> None:
        path = self._strip_protocol(path)
        with self.told(path):
            if (await self.client.stat(path)).is_directory:
                raise IsADirectory(f"{path} is a directory")
            await self.client.delete(path)

    async def _rm(
        self,
        path: Any,
        recursive: bool = False,
        batch_size: int | None = None,
        maxdepth: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Remove what *path* (one, a list, globs) names, at once and for good: nothing goes to the trash."""
        if maxdepth is not None:
            await super()._rm(path, recursive, batch_size, maxdepth, **kwargs)
            return
        given = [path] if not isinstance(path, list | tuple) else list(path)
        names: dict[str, bool] = {}  # whether it was named itself
        for one in self._strip_protocol([stringify_path(each) for each in given]):
            if has_magic(one):
                names.update((match, False) for match in await self._glob(one))
            else:
                names[one] = True
        if not names:
            raise FileNotFoundError(path)
        tops: list[str] = []
        for name in sorted(names):
            # What lies below another one that goes is gone with it.
            if not (recursive and tops and name.startswith(f"{tops[-1].rstrip('/')}/")):
                tops.append(name)
        with self.told(str(path)):
            results = await self.client.delete_many(tops, recursive=recursive)
            for name, result in zip(tops, results, strict=True):
                if isinstance(result, DfsError):
                    raise result
                if not result and names[name]:
                    raise PathNotFound(f"{name} does not exist")

    async def _cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        """A second file on the same blocks: no byte is moved, whatever the size."""
        source, goal = self._strip_protocol(path1), self._strip_protocol(path2)
        with self.told(source):
            try:
                await self.client.copy(source, goal, overwrite=True, create_parents=True)
            except IsADirectory:
                if not await self._isdir(source):
                    raise
                await self.client.mkdirs(goal)

    async def _mv(
        self,
        path1: Any,
        path2: Any,
        recursive: bool = False,
        maxdepth: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Rename, in one step; into *path2*, if that is a directory. Globs and lists are copied and removed."""
        if maxdepth is not None or not isinstance(path1, str) or has_magic(path1):
            if path1 != path2:
                await self._copy(path1, path2, recursive=recursive, maxdepth=maxdepth)
                await self._rm(path1, recursive=recursive)
            return
        source, goal = self._strip_protocol(path1), self._strip_protocol(path2)
        if source == goal:
            return
        with self.told(source):
            into = await self._isdir(goal)
            await self.client.rename(source, goal, overwrite=not into, into=into)

    async def _mv_file(self, path1: str, path2: str) -> None:
        await self._mv(path1, path2)

    # What fsspec does not mirror by itself.
    call = _blocking("_call")
    mv = _blocking("_mv")
    touch = _blocking("_touch")
    rmdir = _blocking("_rmdir")
    ukey = _blocking("_ukey")
    checksum = _blocking("_checksum")
    created = _blocking("_created")
    modified = _blocking("_modified")

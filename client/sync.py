"""The file system for programs without an event loop: `FileSystem` and files like those of `io`, blocking."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import io
import threading
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from ..common.config import ClientConfig, load
from ..common.model import Event, FileStatus
from . import filesystem
from .file_reader import FileReader
from .file_writer import FileWriter

T = TypeVar("T")
P = ParamSpec("P")
BUFFER_BYTES = 1024 * 1024
CLOSE_LIMIT_S = 2.0


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self.ended = False
        self._files: weakref.WeakSet[io.BufferedReader | io.BufferedWriter] = weakref.WeakSet()
        self._guard = threading.Lock()  # of the files: any thread opens some
        self._thread = threading.Thread(target=self._run, name="dfs event loop", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        if self.ended:
            work.close()
            raise ValueError("the file system is closed")  # as `io` says of files
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        async def following() -> tuple[bool, T | None]:
            try:
                return True, await anext(source)
            except StopAsyncIteration:
                return False, None

        try:
            while True:
                more, item = self.run(following())
                if not more:
                    return
                yield item  # type: ignore[misc]
        finally:
            close = getattr(source, "aclose", None)
            if close is not None and not self.ended:
                self.run(close())

    def remember(self, file: io.BufferedReader | io.BufferedWriter) -> None:
        with self._guard:
            self._files.add(file)

    def left_open(self) -> list[io.BufferedReader | io.BufferedWriter]:
        with self._guard:
            return [file for file in self._files if not file.closed]

    def close(self) -> None:
        self.ended = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def end_with_program(self, inner: weakref.ref[filesystem.FileSystem]) -> None:
        """Close what a program leaves open. Later nothing would answer: this thread does not run any more."""
        if self._thread.is_alive():  # not in a process forked off
            for file in self.left_open():
                self._close_left_open(file)
            with contextlib.suppress(Exception):
                if (found := inner()) is not None:
                    work = found.close()
                    asyncio.run_coroutine_threadsafe(work, self._loop).result(CLOSE_LIMIT_S)
        self.ended = True

    @staticmethod
    def _close_left_open(file: io.BufferedReader | io.BufferedWriter) -> None:
        try:
            file.close()
        except Exception as error:  # the threads that write have ended
            _tell_of(file, str(error))


def _blocking(
    method: Callable[Concatenate[filesystem.FileSystem, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[FileSystem, P], T]:
    """*method*, run to its end; with the same parameters, types and documentation."""

    @functools.wraps(method)
    def run(self: FileSystem, /, *args: P.args, **options: P.kwargs) -> T:
        return self._loop.run(method(self._inner, *args, **options))

    return run


class FileSystem:
    """Blocking face of `client.filesystem.FileSystem`: the same methods, usable from any thread.

    Iterators of the asynchronous one (`list`, `walk`, `events`) are plain iterators here.
    """

    def __init__(self, config: ClientConfig) -> None:
        self._loop = _Loop()
        self._inner = self._loop.run(_make(config))
        self._at_exit = functools.partial(self._loop.end_with_program, weakref.ref(self._inner))
        atexit.register(self._at_exit)

    @classmethod
    def connect(
        cls, namenode: str | None = None, *, config: ClientConfig | None = None, **settings: Any
    ) -> FileSystem:
        """As the asynchronous one's `connect`."""
        if config is None:
            config = load(ClientConfig, {**settings, "namenode": namenode})
        return cls(config)

    def __enter__(self) -> FileSystem:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Once more does nothing; any other call is a ValueError then."""
        if self._loop.ended:
            return
        atexit.unregister(self._at_exit)
        left_open = self._loop.left_open()
        try:
            self._loop.run(self._inner.close())
        finally:
            self._loop.close()
        for file in left_open:
            # Who tried to close it has been told.
            if not (isinstance(file.raw, RawWriter) and file.raw.close_failed):
                _tell_of(file, "its file system is closed")

    def open(
        self, path: str, mode: Literal["rb", "wb", "xb", "ab"] = "rb", **options: Any
    ) -> io.BufferedReader | io.BufferedWriter:
        """A buffered binary file; wrap it in `io.TextIOWrapper` for text."""
        inner = self._loop.run(self._inner.open(path, mode, **options))
        file: io.BufferedReader | io.BufferedWriter
        if isinstance(inner, FileReader):
            file = io.BufferedReader(RawReader(self._loop, inner), BUFFER_BYTES)
        else:
            file = io.BufferedWriter(RawWriter(self._loop, inner), BUFFER_BYTES)
        self._loop.remember(file)
        return file

    def list(self, path: str) -> Iterator[FileStatus]:
        return self._loop.iterate(self._inner.list(path))

    def walk(self, path: str) -> Iterator[FileStatus]:
        return self._loop.iterate(self._inner.walk(path))

    def events(
        self, after: int = 0, *, path_prefix: str = "", follow: bool = False
    ) -> Iterator[Event]:
        return self._loop.iterate(self._inner.events(after, path_prefix=path_prefix, follow=follow))

    @property
    def config(self) -> ClientConfig:
        return self._inner.config

    @property
    def user(self) -> str:
        return self._inner.user

    call = _blocking(filesystem.FileSystem.call)
    stat = _blocking(filesystem.FileSystem.stat)
    exists = _blocking(filesystem.FileSystem.exists)
    glob = _blocking(filesystem.FileSystem.glob)
    summarize = _blocking(filesystem.FileSystem.summarize)
    locate = _blocking(filesystem.FileSystem.locate)
    write_bytes = _blocking(filesystem.FileSystem.write_bytes)
    read_bytes = _blocking(filesystem.FileSystem.read_bytes)
    truncate = _blocking(filesystem.FileSystem.truncate)
    put_file = _blocking(filesystem.FileSystem.put_file)
    get_file = _blocking(filesystem.FileSystem.get_file)
    put_tree = _blocking(filesystem.FileSystem.put_tree)
    get_tree = _blocking(filesystem.FileSystem.get_tree)
    mkdirs = _blocking(filesystem.FileSystem.mkdirs)
    rename = _blocking(filesystem.FileSystem.rename)
    rename_all = _blocking(filesystem.FileSystem.rename_all)
    delete = _blocking(filesystem.FileSystem.delete)
    delete_many = _blocking(filesystem.FileSystem.delete_many)
    move_to_trash = _blocking(filesystem.FileSystem.move_to_trash)
    copy = _blocking(filesystem.FileSystem.copy)
    concat = _blocking(filesystem.FileSystem.concat)
    set_replication = _blocking(filesystem.FileSystem.set_replication)
    set_mode = _blocking(filesystem.FileSystem.set_mode)
    set_owner = _blocking(filesystem.FileSystem.set_owner)
    set_times = _blocking(filesystem.FileSystem.set_times)
    get_xattrs = _blocking(filesystem.FileSystem.get_xattrs)
    set_xattr = _blocking(filesystem.FileSystem.set_xattr)
    remove_xattr = _blocking(filesystem.FileSystem.remove_xattr)
    set_quota = _blocking(filesystem.FileSystem.set_quota)
    server_info = _blocking(filesystem.FileSystem.server_info)
    report = _blocking(filesystem.FileSystem.report)
    recover_lease = _blocking(filesystem.FileSystem.recover_lease)
    checksum = _blocking(filesystem.FileSystem.checksum)


def _tell_of(file: io.BufferedReader | io.BufferedWriter, reason: str) -> None:
    """Warn of a file that was left open for writing."""
    if isinstance(file.raw, RawWriter):
        warnings.warn(
            f"{file.raw.path} was not closed: what was not flushed is lost ({reason})",
            RuntimeWarning,
            stacklevel=3,
        )


async def _make(config: ClientConfig) -> filesystem.FileSystem:
    return filesystem.FileSystem(config)


class RawReader(io.RawIOBase):
    """A file open for reading, unbuffered."""

    def __init__(self, loop: _Loop, inner: FileReader) -> None:
        self._loop = loop
        self._inner = inner

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._inner.seek(offset, whence)

    def tell(self) -> int:
        return self._inner.tell()

    def readinto(self, buffer: Any) -> int:
        return self._loop.run(self._inner.readinto(buffer))

    def close(self) -> None:
        if not self.closed and not self._loop.ended:
            self._loop.run(self._inner.close())
        super().close()


class RawWriter(io.RawIOBase):
    """A file open for writing, unbuffered. `flush` of the buffered file around it makes bytes leave the program; `hflush` and `hsync`
    make them visible and durable."""

    def __init__(self, loop: _Loop, inner: FileWriter) -> None:
        self._loop = loop
        self._inner = inner
        self.close_failed = False

    @property
    def path(self) -> str:
        return self._inner.path

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._inner.tell()

    def write(self, data: Any) -> int:
        return self._loop.run(self._inner.write(data))

    def hflush(self) -> None:
        self._loop.run(self._inner.flush())

    def hsync(self) -> None:
        self._loop.run(self._inner.sync())

    def close(self) -> None:
        if not self.closed and not self._inner.closed:
            try:
                self._loop.run(self._inner.close())
            except BaseException:
                self.close_failed = True
                raise
        super().close()

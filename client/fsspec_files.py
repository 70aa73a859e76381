"""Files of the fsspec implementation: `DfsFile` (blocking) and `DfsAsyncFile`."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import tempfile
import warnings
import weakref
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fsspec.asyn import AbstractAsyncStreamedFile, sync
from fsspec.spec import AbstractBufferedFile
from fsspec.transaction import Transaction

from ..common.checksum import CHUNK_BYTES
from ..common.errors import DfsError
from ..common.messages import MAX_BATCH, Rename
from ..common.model import FileBlocks
from ..common.runtime import new_uuid
from .file_reader import FileReader
from .file_writer import FileWriter
from .filesystem import FileSystem

if TYPE_CHECKING:
    from .fsspec_adapter import DfsFileSystem

FILE_OPTIONS = frozenset({"replication", "permissions", "file_block_size"})
COPY_BYTES = 4 * CHUNK_BYTES
CLOSE_LIMIT_S = 5.0


class Upload:
    """A file on its way in: it appears under its name, whole, when it is committed.

    What fits into one buffer is put in one step. Anything longer is written to a hidden neighbour, which takes the name
    by a rename. Appending goes to the file itself, unless the commit is to be somebody else's: then the bytes wait in a
    local temporary file.
    """

    def __init__(
        self, fs: DfsFileSystem, path: str, mode: str, *, direct: bool, options: dict[str, Any]
    ) -> None:
        """*mode*: "wb", "xb" or "ab". *direct*: nobody will call `commit` separately."""
        self._fs = fs
        self._path = path
        self._mode = mode
        self._direct = direct
        self._options = {
            "replication": options.get("replication"),
            "permissions": options.get("permissions", 0o644),
            "block_size": options.get("file_block_size"),
        }
        self._whole: bytes | None = None
        self._part = ""  # the hidden neighbour
        self._writer: FileWriter | None = None
        self._waiting: Any = None  # a local temporary file
        self._over = False

    async def take(self, data: bytes, *, last: bool) -> None:
        """The next bytes; with *last*, no more follow, and what was given can be committed."""
        with self._fs.told(self._path):
            try:
                await self._take(data, last)
            except DfsError:
                await self.discard()
                raise

    async def _take(self, data: bytes, last: bool) -> None:
        client = self._fs.client
        if self._mode == "ab" and not self._direct:
            if self._waiting is None:
                self._waiting = tempfile.SpooledTemporaryFile(COPY_BYTES)  # noqa: SIM115
            self._waiting.write(data)
            return
        if self._writer is None:
            if last and self._mode != "ab":
                self._whole = data
                return
            target = self._path
            if self._mode != "ab":
                folder = target.rpartition("/")[0]
                target = self._part = f"{folder}/.part-{new_uuid()}"
            mode: Any = "ab" if self._mode == "ab" else "xb"
            self._writer = await client.open(target, mode, **self._options)
        await self._writer.write(data)
        if last:
            await self._writer.close()

    @property
    def appends(self) -> bool:
        return self._mode == "ab"

    async def stage(self) -> Rename | None:
        """Bring everything to the hidden neighbour: the rename that then commits it, `settled` to be said after. None: `commit` it."""
        if self._over or self.appends:
            return None
        if self._whole is not None:
            data, self._whole = self._whole, None
            self._part = f"{self._path.rpartition('/')[0]}/.part-{new_uuid()}"
            with self._fs.told(self._path):
                await self._fs.client.write_bytes(self._part, data, **self._options)
        if not self._part:
            return None
        return Rename(source=self._part, destination=self._path, overwrite=self._mode == "wb")

    def settled(self) -> None:
        """Its neighbour has the name."""
        self._over = True

    async def commit(self) -> None:
        """Give the file its name. Durable when this returns."""
        if self._over:
            return
        with self._fs.told(self._path):
            try:
                await self._commit()
            except DfsError:
                await self.discard()
                raise
        self._over = True

    async def _commit(self) -> None:
        client = self._fs.client
        overwrite = self._mode == "wb"
        if self._whole is not None:
            await client.write_bytes(self._path, self._whole, overwrite=overwrite, **self._options)
        elif self._part:
            await client.rename(self._part, self._path, overwrite=overwrite)
        elif self._waiting is not None:
            self._waiting.seek(0)
            async with await client.open(self._path, "ab", **self._options) as writer:
                while data := self._waiting.read(COPY_BYTES):
                    await writer.write(data)
            self._waiting.close()

    async def discard(self) -> None:
        """Leave nothing. What was appended to the file itself stays."""
        if self._over:
            return
        self._over = True
        self._whole = None
        if self._waiting is not None:
            self._waiting.close()
        if self._writer is not None and not self._writer.closed:
            if self._part:
                await self._writer.abandon()
            else:
                await self._writer.close()
        if self._part:
            with self._fs.told(self._part):
                await self._fs.client.delete(self._part)


class DfsTransaction(Transaction):
    """All files written in it take their names in one step (more than 1,024 in several), and then what was appended is added,
    file by file; if the step fails, nothing has changed."""

    def complete(self, commit: bool = True) -> None:
        fs, files = self.fs, list(self.files)
        try:
            if commit and fs is not None:
                uploads = [file._upload for file in files if file._upload is not None]
                sync(fs.loop, _commit_together, fs, uploads)
        finally:
            # Discards those that are not committed, and ends the transaction.
            super().complete(commit=False)


async def _commit_together(fs: DfsFileSystem, uploads: list[Upload]) -> None:
    for start in range(0, len(uploads), MAX_BATCH):
        part = uploads[start : start + MAX_BATCH]
        renames = await asyncio.gather(*(upload.stage() for upload in part))
        wanted = [rename for rename in renames if rename is not None]
        if wanted:
            with fs.told(wanted[0].destination):
                await fs.client.rename_all(wanted)
        for upload, rename in zip(part, renames, strict=True):
            if rename is not None:
                upload.settled()
    for upload in uploads:
        await upload.commit()


class _DfsFileBase:
    """What both kinds of files share."""

    fs: DfsFileSystem
    path: str
    mode: str
    autocommit: bool
    kwargs: dict[str, Any]

    def _prepare(self) -> None:
        self._located: FileBlocks | None = None
        self._upload: Upload | None = None

    @property
    def _upload_mode(self) -> str:
        return self.mode

    async def _load(self) -> int:
        """Look the file up; its length. Reads see it as it is now, whatever happens to its name later."""
        self._located = await self.fs.located(self.path)
        return sum(block.block.length for block in self._located.blocks)

    async def _pread(self, start: int, end: int) -> bytes:
        async with self._reader() as reader:
            return await reader.pread(start, end - start)

    async def _pread_into(self, start: int, buffer: memoryview) -> int:
        async with self._reader() as reader:
            return await reader.pread_into(start, buffer)

    @contextlib.asynccontextmanager
    async def _reader(self) -> AsyncIterator[FileReader]:
        if self._located is None:
            await self._load()
        assert self._located is not None
        with self.fs.told(self.path):
            async with self.fs.client.reader(self._located) as reader:
                yield reader
                self._located = reader.located

    def _begin(self) -> Upload:
        if self._upload is None:
            mode, direct = self._upload_mode, self.autocommit
            self._upload = Upload(self.fs, self.path, mode, direct=direct, options=self.kwargs)
        return self._upload


class DfsFile(_DfsFileBase, AbstractBufferedFile):
    """A file opened by `DfsFileSystem.open`.

    Reading: any of fsspec's caches. Writing: the file appears under its name when it is closed (in a transaction: when
    that is committed); a `with` block left by an exception leaves no file.
    """

    DEFAULT_BLOCK_SIZE = 4 * CHUNK_BYTES
    _details: dict[str, Any] | None = None

    def __init__(
        self,
        fs: DfsFileSystem,
        path: str,
        mode: str = "rb",
        block_size: Any = "default",
        autocommit: bool = True,
        cache_type: str = "readahead",
        cache_options: dict[str, Any] | None = None,
        size: int | None = None,
        **kwargs: Any,
    ) -> None:
        self._prepare()
        self.fs = fs
        self.path = path
        self.opened_by = os.getpid()
        if mode == "rb":
            size = self._sync(self._load)
        super().__init__(
            fs, path, mode, block_size, autocommit, cache_type, cache_options, size, **kwargs
        )
        if mode == "xb" and fs.exists(path):
            self.closed = True
            raise FileExistsError(path)
        if mode == "ab":
            self.loc = fs.size(path) if fs.exists(path) else 0
        if mode != "rb":
            _remember(self)

    @property
    def details(self) -> dict[str, Any]:
        if self._details is None and self._located is not None:
            self._details = {**self.fs.described(self._located.status), "size": self.size}
        return super().details  # type: ignore[no-any-return]

    def _sync(self, function: Any, *args: Any, **options: Any) -> Any:
        return sync(self.fs.loop, function, *args, **options)

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self._sync(self._pread, start, end)  # type: ignore[no-any-return]

    def read(self, length: int | None = -1) -> bytes:
        """Up to *length* bytes. More than a buffer's worth goes past the read-ahead, which would copy it and read on."""
        if wanted := self._past_read_ahead(length):
            data = self._fetch_range(self.loc, self.loc + wanted)
            self.loc += len(data)
            return data
        return super().read(-1 if length is None else int(length))  # type: ignore[no-any-return]

    def read_buffer(self, length: int | None = -1) -> Any:
        """As `read`, into memory of pyarrow's pool: it asks for this where a file has it. Memory that comes from the system for each
        read costs as much time as reading."""
        if not (wanted := self._past_read_ahead(length)):
            return self.read(length)
        import pyarrow

        buffer = pyarrow.allocate_buffer(wanted)
        size = self._sync(self._pread_into, self.loc, memoryview(buffer).cast("B"))
        self.loc += size
        return buffer if size == wanted else buffer.slice(0, size)

    def _past_read_ahead(self, length: int | None) -> int:
        """How many bytes a read of *length* has to bring by itself; 0: none."""
        if self.mode != "rb" or self.closed or self.cache.name not in ("none", "readahead"):
            return 0
        left = max(0, self.size - self.loc)
        wanted = left if length is None or length < 0 else min(int(length), left)
        return wanted if wanted >= self.blocksize else 0

    def _upload_chunk(self, final: bool = False) -> bool:
        upload = self._begin()
        self._sync(upload.take, self.buffer.getvalue(), last=final)
        if final and self.autocommit:
            self._sync(upload.commit)
        return True

    def commit(self) -> None:
        if self._upload is not None:
            self._sync(self._upload.commit)

    def discard(self) -> None:
        if self._upload is not None:
            self._sync(self._upload.discard)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None and self.mode in ("wb", "xb") and not self.closed:
            self.forced = True
            self.discard()
        self.close()


class DfsAsyncFile(_DfsFileBase, AbstractAsyncStreamedFile):
    """A file opened by `DfsFileSystem.open_async`; used with `await` in the loop that opened it."""

    DEFAULT_BLOCK_SIZE = 4 * CHUNK_BYTES

    def __init__(self, fs: DfsFileSystem, path: str, mode: str, **kwargs: Any) -> None:
        self._prepare()
        self._exclusive = mode == "xb"
        # fsspec's own class knows only two ways to write.
        super().__init__(
            fs, path, "wb" if self._exclusive else mode, cache_type="none", size=0, **kwargs
        )

    @classmethod
    async def opened(cls, fs: DfsFileSystem, path: str, mode: str, **kwargs: Any) -> DfsAsyncFile:
        """The file, looked up."""
        file = cls(fs, path, mode, **kwargs)
        if mode == "rb":
            file.size = await file._load()
        elif mode == "xb" and await fs._exists(path):
            file.closed = True
            raise FileExistsError(path)
        elif mode == "ab" and await fs._exists(path):
            file.loc = await fs._size(path)
        return file

    @property
    def _upload_mode(self) -> str:
        return "xb" if self._exclusive else self.mode

    async def _fetch_range(self, start: int, end: int) -> bytes:
        return await self._pread(start, min(end, self.size))

    async def _upload_chunk(self, final: bool = False) -> bool:
        upload = self._begin()
        await upload.take(self.buffer.getvalue(), last=final)
        if final and self.autocommit:
            await upload.commit()
        return True

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None and self.mode in ("wb", "xb") and not self.closed:
            self.forced = True
            if self._upload is not None:
                await self._upload.discard()
        await self.close()

    def __del__(self) -> None:
        """Nothing: an unclosed file can't be finished without its loop."""


_written: weakref.WeakValueDictionary[int, DfsFile] = weakref.WeakValueDictionary()


def _remember(file: DfsFile) -> None:
    # Registered anew, and not at the import: it has to come before connections are closed.
    atexit.unregister(_give_up_what_is_open)
    atexit.register(_give_up_what_is_open)
    _written[id(file)] = file


def _give_up_what_is_open() -> None:
    """Leave no file open that the program forgot: its end would wait for a loop whose thread does not run any more."""
    for file in list(_written.values()):
        if file.closed:
            continue
        file.closed = True
        if file.opened_by != os.getpid():
            continue  # forked off: the file is the parent's
        with contextlib.suppress(Exception):
            if file._upload is not None:
                work = file._upload.discard()
                asyncio.run_coroutine_threadsafe(work, file.fs.loop).result(CLOSE_LIMIT_S)
        warnings.warn(
            f"{file.path} was not closed: what was written to it is not stored",
            RuntimeWarning,
            stacklevel=1,
        )


def close_at_end(pid: int, loop: Any, clients: weakref.WeakKeyDictionary[Any, FileSystem]) -> None:
    """Close what an instance of fsspec's own loop left open, when the instance or the program ends."""
    client = clients.pop(loop, None)
    if client is None or pid != os.getpid() or not loop.is_running():
        return
    with contextlib.suppress(Exception):
        asyncio.run_coroutine_threadsafe(client.close(), loop).result(CLOSE_LIMIT_S)

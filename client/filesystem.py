"""The file system as a program sees it: `FileSystem`, asynchronous. `client.sync` has the same, blocking."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from ..common.checksum import CHUNK_BYTES, block_digest
from ..common.codec import error_of
from ..common.config import ClientConfig, load
from ..common.errors import (
    DfsError,
    InvalidRequest,
    IsADirectory,
    LeaseConflict,
    NotADirectory,
    PathNotFound,
)
from ..common.messages import (
    Append,
    ClusterReport,
    Concat,
    Copy,
    Create,
    Delete,
    Deleted,
    DeletedMany,
    DeleteMany,
    DirectoryPage,
    EventPage,
    GetReport,
    GetXattrs,
    ListDirectory,
    Locate,
    Mkdirs,
    MoveToTrash,
    OpenedFile,
    PutFile,
    ReadEvents,
    Recovered,
    RecoverLease,
    RemoveXattr,
    Rename,
    RenameAll,
    Renamed,
    RenamedAll,
    ServerInfo,
    SetMode,
    SetOwner,
    SetQuota,
    SetReplication,
    SetTimes,
    SetXattr,
    Stat,
    Summarize,
    Truncate,
    Xattrs,
)
from ..common.model import (
    ContentSummary,
    Event,
    FileBlocks,
    FileStatus,
    Struct,
)
from . import trees
from .batcher import SmallFile, SmallReader, SmallWriter
from .content_api import ContentApi
from .dag_nodes import chunk_digests
from .dedup import Dedup
from .download import get_file
from .file_reader import FileReader
from .file_writer import FileWriter
from .globs import glob
from .requests import one_request
from .session import LocalWriters, Session
from .stream_put import StreamAppend, StreamPut
from .transfers import TransferReport
from .upload import Progress, upload

FOLLOW_PAUSE_S = 0.5
LEASE_WAIT_S = 0.3


class FileSystem:
    """A connection to one cluster.

    Paths are absolute. Methods raise the DfsError that says what happened; see `common/errors.py`. Use it as an
    async context manager, or call `close`.
    """

    def __init__(self, config: ClientConfig, *, local: LocalWriters | None = None) -> None:
        """*local*: of the DataNode that this is part of, if it is."""
        self._session = Session(config, local=local)
        self._small_writer = SmallWriter(self._session)
        self._small_reader = SmallReader(self._session)
        self.content = ContentApi(self._session, self._small_writer)

    @classmethod
    def connect(
        cls, namenode: str | None = None, *, config: ClientConfig | None = None, **settings: Any
    ) -> FileSystem:
        """A FileSystem for the NameNode at a URL (several, joined by commas, for one cluster).

        *settings* are fields of ClientConfig. What is given neither here nor in *config* comes from the environment
        and the configuration file. Nothing is sent before the first call.
        """
        if config is None:
            config = load(ClientConfig, {**settings, "namenode": namenode})
        return cls(config)

    async def __aenter__(self) -> FileSystem:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self.content.close()
        await self._session.close()

    @property
    def config(self) -> ClientConfig:
        return self._session.config

    @property
    def user(self) -> str:
        return self._session.user

    async def call(self, operation: str, request: Struct) -> Any:
        """Any operation of `operations.OPERATIONS`."""
        return await self._session.namenode.call(operation, request)

    # --- looking ---

    async def stat(self, path: str) -> FileStatus:
        return await self.call("stat", Stat(path=path))  # type: ignore[no-any-return]

    async def exists(self, path: str) -> bool:
        try:
            await self.stat(path)
        except (PathNotFound, NotADirectory):
            return False
        return True

    async def list(self, path: str, *, page: int = 1_000) -> AsyncIterator[FileStatus]:
        """Entries of a directory in the order of their names' bytes; of a file, the file."""
        after = ""
        while True:
            found: DirectoryPage = await self.call(
                "list", ListDirectory(path=path, start_after=after, limit=page)
            )
            for status in found.entries:
                yield status
            if not found.more:
                return
            after = found.entries[-1].name

    async def walk(self, path: str) -> AsyncIterator[FileStatus]:
        """All entries below *path*, directories before what is in them."""
        async for status, _ in trees.listed(self._session, path, locations=False):
            yield status

    async def glob(self, pattern: str) -> Sequence[FileStatus]:
        """What matches *pattern* (`*`, `?`, `[...]`, `{a,b}`, `**`), in order; names that begin with a dot only where the
        pattern's part does, too."""
        return await glob(self, pattern)

    async def summarize(self, path: str) -> ContentSummary:
        return await self.call("summarize", Summarize(path=path))  # type: ignore[no-any-return]

    async def locate(self, path: str, offset: int = 0, length: int = -1) -> FileBlocks:
        return await self.call(  # type: ignore[no-any-return]
            "locate", Locate(path=path, offset=offset, length=length)
        )

    # --- reading and writing ---

    async def located(self, path: str) -> FileBlocks:
        """A whole file's blocks; lookups of concurrent callers travel together. What `reader` wants."""
        return await self._small_reader.locate(path)

    def reader(self, found: FileBlocks) -> FileReader:
        """A reader of a file as it was when it was located."""
        return FileReader(self._session, found)

    @one_request
    async def open(
        self,
        path: str,
        mode: Literal["rb", "wb", "xb", "ab"] = "rb",
        *,
        permissions: int = 0o644,
        create_parents: bool = True,
        replication: int | None = None,
        block_size: int | None = None,
    ) -> Any:
        """A FileReader for "rb", a FileWriter for "wb" (replaces), "xb" (must be new), "ab" (at the end)."""
        if mode == "rb":
            return FileReader(self._session, await self._small_reader.locate(path))
        if mode not in ("wb", "xb", "ab"):
            raise InvalidRequest(f"a file can be opened as rb, wb, xb or ab, not {mode!r}")
        await self._session.keep_lease()
        if mode == "ab":
            try:
                opened = await self._reopen("append", Append(path=path, holder=self._holder))
                return FileWriter(self._session, opened, fresh=False)
            except PathNotFound:
                mode = "xb"
        create = Create(
            path=path,
            holder=self._holder,
            mode=permissions,
            overwrite=mode == "wb",
            create_parents=create_parents,
            replication=replication or self.config.replication or None,
            block_size=block_size or self.config.block_bytes or None,
        )
        status = await self._reopen("create", create)
        return FileWriter(self._session, OpenedFile(status=status), fresh=True)

    @one_request
    async def stream_put(self, file: PutFile) -> FileWriter:
        """A writer for bytes to come whose number nobody knows: the file appears, whole, when it is closed."""
        return await StreamPut.start(self._session, file)

    @one_request
    async def stream_append(self, path: str) -> FileWriter:
        """A writer at the end of a file, which adds all when it is closed, or nothing when it is abandoned."""
        await self._session.keep_lease()
        opened = await self._reopen("append", Append(path=path, holder=self._holder))
        return StreamAppend(self._session, opened)

    @property
    def _holder(self) -> str:
        return self._session.holder

    async def _reopen(self, operation: str, request: Struct) -> Any:
        """Create, append or truncate; a file whose writer is gone is waited for while it is being closed."""
        attempts = max(1, int(self.config.retry_s / 3 / LEASE_WAIT_S))
        for attempt in range(attempts):
            try:
                return await self.call(operation, request)
            except LeaseConflict as error:
                if "being closed" not in error.message or attempt + 1 == attempts:
                    raise
                await asyncio.sleep(LEASE_WAIT_S)
        raise AssertionError("unreachable")

    @one_request
    async def write_bytes(
        self,
        path: str,
        data: bytes | bytearray | memoryview,
        *,
        overwrite: bool = False,
        permissions: int = 0o644,
        create_parents: bool = True,
        replication: int | None = None,
        block_size: int | None = None,
        mtime_ms: int | None = None,
    ) -> FileStatus:
        """Put a whole file, durable and visible in one step. Small ones of concurrent callers travel together."""
        file = PutFile(
            path=path,
            mode=permissions,
            overwrite=overwrite,
            create_parents=create_parents,
            replication=replication or self.config.replication or None,
            block_size=block_size or self.config.block_bytes or None,
            mtime_ms=mtime_ms,
        )
        info = await self._session.info()
        if len(data) <= min(CHUNK_BYTES, info.small_block_bytes):
            return await self._small_writer.put(SmallFile(bytes(memoryview(data)), file))
        view = memoryview(data).cast("B")
        return await upload(
            self._session, lambda offset, size: view[offset : offset + size], len(view), file
        )

    @one_request
    async def read_bytes(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """A whole file, or a range of it (cut at its end)."""
        if offset < 0 or (length is not None and length < 0):
            raise InvalidRequest("offset and length can't be negative")
        found = await self._small_reader.locate(path)
        if len(found.blocks) == 1:
            (only,) = found.blocks
            if only.block.length <= CHUNK_BYTES and only.block.digest and only.nodes:
                data = await self._small_reader.read(only.nodes[0], only.block)
                if data is not None:
                    return data[offset : None if length is None else offset + length]
        async with FileReader(self._session, found) as reader:
            size = reader.length - offset if length is None else length
            return await reader.pread(offset, max(0, size))

    @one_request
    async def truncate(self, path: str, length: int) -> FileStatus:
        """Cut a closed file to *length* bytes; done when this returns."""
        await self._session.keep_lease()
        opened: OpenedFile = await self._reopen(
            "truncate", Truncate(path=path, holder=self._holder, length=length)
        )
        if opened.closed:
            return opened.status
        async with FileWriter(self._session, opened, fresh=False) as writer:
            await writer.close()
        return writer.status

    @one_request
    async def put_file(
        self,
        local: str | os.PathLike[str],
        path: str,
        *,
        overwrite: bool = False,
        create_parents: bool = True,
        replication: int | None = None,
        block_size: int | None = None,
        preserve: bool = True,
        progress: Progress | None = None,
    ) -> FileStatus:
        """Put a local file. *preserve* keeps its mode and time. Visible in one step, durable when this returns."""
        source = Path(local)
        facts = await self._session.run(source.stat)
        file = PutFile(
            path=path,
            mode=trees.mode_of(facts) if preserve else 0o644,
            overwrite=overwrite,
            create_parents=create_parents,
            replication=replication or self.config.replication or None,
            block_size=block_size or self.config.block_bytes or None,
            mtime_ms=facts.st_mtime_ns // 1_000_000 if preserve else None,
        )
        return await trees.put_file(self._session, self._small_writer, source, file, progress)

    @one_request
    async def get_file(
        self,
        path: str,
        local: str | os.PathLike[str],
        *,
        overwrite: bool = True,
        preserve: bool = True,
        progress: Progress | None = None,
    ) -> FileStatus:
        """Fetch a file, verified; *local* appears whole or not at all.

        A large file comes from all replicas at once where none is on this machine (see `ClientConfig.all_replicas`), and a later
        call goes on from what one that failed has left beside *local*.
        """
        found = await self.locate(path)
        status = found.status
        length = sum(located.block.length for located in found.blocks)
        await get_file(
            self._session,
            found.blocks,
            length,
            Path(local),
            mode=status.mode if preserve else None,
            mtime_ms=status.mtime_ms if preserve else None,
            overwrite=overwrite,
            progress=progress,
            path=status.path,
        )
        return status

    @one_request
    async def put_tree(
        self,
        local: str | os.PathLike[str],
        path: str,
        *,
        overwrite: bool = False,
        resume: bool = False,
        replication: int | None = None,
        block_size: int | None = None,
        progress: Progress | None = None,
        dedup: bool = False,
    ) -> TransferReport:
        """Put a local directory as *path*, with modes and times. See `TransferReport.errors` for what failed.

        *dedup*: files whose bytes the cluster has are linked, not sent.
        """
        return await trees.put_tree(
            self._session,
            self._small_writer,
            Path(local),
            path,
            overwrite=overwrite,
            resume=resume,
            replication=replication or self.config.replication or None,
            block_size=block_size or self.config.block_bytes or None,
            progress=progress,
            dedup=Dedup(self.content) if dedup else None,
        )

    @one_request
    async def get_tree(
        self,
        path: str,
        local: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> TransferReport:
        """Fetch a directory as *local*, with modes and times."""
        status = await self.stat(path)
        if not status.is_directory:
            raise NotADirectory(f"{path} is not a directory")
        return await trees.get_tree(
            self._session,
            status,
            Path(local),
            overwrite=overwrite,
            resume=resume,
            progress=progress,
        )

    # --- changing the tree ---

    async def mkdirs(self, path: str, *, mode: int = 0o755, parents: bool = True) -> FileStatus:
        return await self.call(  # type: ignore[no-any-return]
            "mkdirs", Mkdirs(path=path, mode=mode, parents=parents)
        )

    async def rename(
        self, source: str, destination: str, *, overwrite: bool = False, into: bool = False
    ) -> str:
        """Where it is now. *into*: below the destination, if that is a directory."""
        request = Rename(source=source, destination=destination, overwrite=overwrite, into=into)
        answer: Renamed = await self.call("rename", request)
        return answer.path

    async def rename_all(self, renames: Sequence[Rename]) -> Sequence[str]:
        """All of them in one step, 1,024 at most, or none; where each is now."""
        answer: RenamedAll = await self.call("rename_all", RenameAll(renames=list(renames)))
        return answer.paths

    async def delete(self, path: str, *, recursive: bool = False) -> bool:
        """Whether there was something to delete."""
        answer: Deleted = await self.call("delete", Delete(path=path, recursive=recursive))
        return answer.existed

    async def delete_many(
        self, paths: Sequence[str], *, recursive: bool = False
    ) -> Sequence[bool | DfsError]:
        results = []
        for start in range(0, len(paths), 1_000):
            part = list(paths[start : start + 1_000])
            answer: DeletedMany = await self.call(
                "delete_many", DeleteMany(paths=part, recursive=recursive)
            )
            for result in answer.results:
                failed = result.failure
                results.append(result.existed if failed is None else error_of(failed))
        return results

    async def move_to_trash(self, path: str) -> str:
        """Where it is now."""
        answer: Renamed = await self.call("move_to_trash", MoveToTrash(path=path))
        return answer.path

    async def copy(
        self,
        source: str,
        destination: str,
        *,
        overwrite: bool = False,
        create_parents: bool = False,
    ) -> FileStatus:
        """A second file on the same blocks: metadata only, whatever the size."""
        request = Copy(
            source=source,
            destination=destination,
            overwrite=overwrite,
            create_parents=create_parents,
        )
        return await self.call("copy", request)  # type: ignore[no-any-return]

    async def concat(self, target: str, sources: Sequence[str]) -> FileStatus:
        return await self.call(  # type: ignore[no-any-return]
            "concat", Concat(target=target, sources=list(sources))
        )

    # --- attributes ---

    async def set_replication(self, path: str, replication: int) -> None:
        """Copies are made and removed after this returns."""
        await self.call("set_replication", SetReplication(path=path, replication=replication))

    async def set_mode(self, path: str, mode: int) -> None:
        await self.call("set_mode", SetMode(path=path, mode=mode))

    async def set_owner(
        self, path: str, owner: str | None = None, group: str | None = None
    ) -> None:
        await self.call("set_owner", SetOwner(path=path, owner=owner, group=group))

    async def set_times(
        self, path: str, *, mtime_ms: int | None = None, atime_ms: int | None = None
    ) -> None:
        await self.call("set_times", SetTimes(path=path, mtime_ms=mtime_ms, atime_ms=atime_ms))

    async def get_xattrs(self, path: str) -> dict[str, bytes]:
        answer: Xattrs = await self.call("get_xattrs", GetXattrs(path=path))
        return answer.xattrs

    async def set_xattr(
        self,
        path: str,
        name: str,
        value: bytes,
        flag: Literal["set", "create", "replace"] = "set",
    ) -> None:
        await self.call("set_xattr", SetXattr(path=path, name=name, value=value, flag=flag))

    async def remove_xattr(self, path: str, name: str) -> None:
        await self.call("remove_xattr", RemoveXattr(path=path, name=name))

    async def set_quota(
        self, path: str, *, names: int | None = None, space_bytes: int | None = None
    ) -> None:
        """-1 clears a limit, None leaves it."""
        await self.call("set_quota", SetQuota(path=path, names=names, space_bytes=space_bytes))

    # --- the cluster ---

    async def server_info(self) -> ServerInfo:
        return await self._session.info()

    async def report(self) -> ClusterReport:
        return await self.call("report", GetReport())  # type: ignore[no-any-return]

    async def recover_lease(self, path: str) -> bool:
        """Have a file that somebody left open closed; whether it is closed now."""
        answer: Recovered = await self.call("recover_lease", RecoverLease(path=path))
        return answer.closed

    async def events(
        self, after: int = 0, *, path_prefix: str = "", follow: bool = False
    ) -> AsyncIterator[Event]:
        """The change stream after offset *after*; with *follow* it does not end."""
        while True:
            page: EventPage = await self.call(
                "events", ReadEvents(after=after, path_prefix=path_prefix)
            )
            for event in page.events:
                yield event
            moved = page.next_after > after
            after = page.next_after
            if after >= page.last_offset:
                if not follow:
                    return
                await asyncio.sleep(FOLLOW_PAUSE_S)
            elif not moved:
                return

    async def checksum(self, path: str) -> str:
        """BLAKE3 over the digests of the file's 1 MiB chunks, in hex; of a file of at most one chunk, the BLAKE3 of its
        bytes (what `b3sum` prints). It does not depend on block size or replication."""
        found = await self.locate(path)
        if found.status.type != "file":
            raise IsADirectory(f"{path} is a directory")
        digests = bytearray()
        for located in found.blocks:
            digests += await chunk_digests(self._session, located)
        return block_digest(bytes(digests)).hex()

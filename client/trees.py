"""Whole trees between the local disk and the cluster: many small files a batch, large ones in parallel."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat as stat_bits
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from ..common import disk
from ..common.checksum import CHUNK_BYTES
from ..common.codec import error_of
from ..common.errors import BlockUnavailable, DfsError, InvalidPath, StorageError
from ..common.messages import (
    DirectoryPage,
    ListDirectory,
    Mkdirs,
    MkdirsMany,
    PutFile,
    SetMode,
    SetTimes,
    StatMany,
    StatusList,
)
from ..common.model import FileStatus, LocatedBlock
from ..common.paths import check_name, shown
from .batcher import BATCH_BYTES, BATCH_FILES, SmallFile, SmallWriter
from .beside import unfinished
from .download import get_file, publish
from .landing import local_error
from .session import Session
from .transfers import Known, LocalFile, TransferReport, link_known, named
from .upload import Progress, upload

GROUPS_IN_FLIGHT = 4
LARGE_IN_FLIGHT = 2


def mode_of(found: os.stat_result) -> int:
    return stat_bits.S_IMODE(found.st_mode)


# --- one file ----------------------------------------------------------------------------------


async def put_file(
    session: Session,
    small: SmallWriter,
    local: Path,
    file: PutFile,
    progress: Progress | None = None,
) -> FileStatus:
    """Put one local file under `file.path`."""
    try:
        descriptor = os.open(local, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise local_error(error, local) from None
    try:
        length = os.fstat(descriptor).st_size
        info = await session.info()
        if length <= min(CHUNK_BYTES, info.small_block_bytes):
            data = await session.run(read_exactly, descriptor, 0, length, local)
            status = await small.put(SmallFile(data, file))
            if progress is not None:
                progress(length)
            return status

        def read_at(offset: int, size: int) -> bytes:
            return read_exactly(descriptor, offset, size, local)

        return await upload(session, read_at, length, file, progress)
    finally:
        os.close(descriptor)


def read_exactly(descriptor: int, offset: int, size: int, name: Path) -> bytes:
    try:
        data = os.pread(descriptor, size, offset)
    except OSError as error:
        raise local_error(error, name) from None
    if len(data) != size:
        raise StorageError(f"{name}: the file shrank while it was read")
    return data


# --- putting a tree ----------------------------------------------------------------------------


async def put_tree(
    session: Session,
    small: SmallWriter,
    local: Path,
    remote: str,
    *,
    overwrite: bool = False,
    resume: bool = False,
    replication: int | None = None,
    block_size: int | None = None,
    progress: Progress | None = None,
    dedup: Known | None = None,
) -> TransferReport:
    """Put the directory *local* as *remote*, with modes and times.

    With *resume*, files that are there with the same length and time are left alone. With *dedup*, files whose bytes the cluster
    has, or another file of the tree has, are linked and not sent. One file's failure does not stop the others.
    """
    report = TransferReport()
    directories, files = await session.run(_scan_local, local, remote, report)
    await _make_directories(session, directories, report)
    if resume:
        files = await _not_there_yet(session, files, report)
    info = await session.info()
    limit = min(CHUNK_BYTES, info.small_block_bytes)
    groups = asyncio.Semaphore(GROUPS_IN_FLIGHT)
    larges = asyncio.Semaphore(LARGE_IN_FLIGHT)

    def entry(found: LocalFile) -> PutFile:
        return PutFile(
            path=found.remote,
            mode=found.mode,
            overwrite=overwrite or resume,
            create_parents=True,
            replication=replication,
            block_size=block_size,
            mtime_ms=found.mtime_ms,
        )

    async def put_small(group: list[LocalFile]) -> None:
        async with groups:
            loaded, failed = await session.run(_load, group)
            report.errors += failed
            results = await small.put_group(
                [SmallFile(data, entry(found)) for found, data in loaded]
            )
            for (found, data), result in zip(loaded, results, strict=True):
                if isinstance(result, DfsError):
                    report.errors.append((str(found.local), result))
                else:
                    report.files += 1
                    report.bytes += len(data)
            if progress is not None:
                progress(sum(len(data) for _, data in loaded))

    async def put_large(found: LocalFile) -> None:
        async with larges:
            try:
                await put_file(session, small, found.local, entry(found), progress)
                report.files += 1
                report.bytes += found.size
            except DfsError as error:
                report.errors.append((str(found.local), error))

    async def send(files: list[LocalFile]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for group in _grouped([f for f in files if f.size <= limit]):
                tasks.create_task(put_small(group))
            for found in files:
                if found.size > limit:
                    tasks.create_task(put_large(found))

    if dedup is None:
        await send(files)
    else:
        waiting = await named(dedup, files, report)
        while waiting:
            fresh, waiting = await link_known(dedup, waiting, entry, report, progress)
            await send(fresh)
            dedup.look_again()
    await _date_directories(session, directories, report)
    return report


def _scan_local(
    local: Path, remote: str, report: TransferReport
) -> tuple[list[tuple[str, os.stat_result]], list[LocalFile]]:
    directories: list[tuple[str, os.stat_result]] = []
    files: list[LocalFile] = []
    waiting: list[tuple[Path, str]] = [(local, remote.rstrip("/"))]
    while waiting:
        folder, target = waiting.pop()
        try:
            directories.append((target or "/", folder.stat()))
            entries = sorted(os.scandir(folder), key=lambda found: found.name)
        except OSError as error:
            report.errors.append((str(folder), local_error(error, folder)))
            continue
        for found in entries:
            path = f"{target}/{found.name}"
            try:
                check_name(found.name)
                if found.is_symlink():
                    raise InvalidPath(f"{shown(found.path)} is a symbolic link; it is left out")
                if found.is_dir():
                    waiting.append((Path(found.path), path))
                    continue
                if not found.is_file():
                    raise InvalidPath(f"{shown(found.path)} is no regular file; it is left out")
                facts = found.stat()
                files.append(
                    LocalFile(
                        Path(found.path),
                        path,
                        facts.st_size,
                        mode_of(facts),
                        facts.st_mtime_ns // 1_000_000,
                    )
                )
            except DfsError as error:
                report.errors.append((found.path, error))
            except OSError as error:
                report.errors.append((found.path, local_error(error, found.path)))
    return directories, files


async def _make_directories(
    session: Session, directories: list[tuple[str, os.stat_result]], report: TransferReport
) -> None:
    for start in range(0, len(directories), 500):
        part = directories[start : start + 500]
        answer: StatusList = await session.namenode.call(
            "mkdirs_many",
            MkdirsMany(
                directories=[Mkdirs(path=path, mode=mode_of(facts) | 0o700) for path, facts in part]
            ),
        )
        for (path, _), result in zip(part, answer.results, strict=True):
            if result.failure is not None:
                report.errors.append((path, error_of(result.failure)))
            else:
                report.directories += 1


async def _date_directories(
    session: Session, directories: list[tuple[str, os.stat_result]], report: TransferReport
) -> None:
    async def date(path: str, facts: os.stat_result) -> None:
        try:
            await session.namenode.call(
                "set_times", SetTimes(path=path, mtime_ms=facts.st_mtime_ns // 1_000_000)
            )
            await session.namenode.call("set_mode", SetMode(path=path, mode=mode_of(facts)))
        except DfsError as error:
            report.errors.append((path, error))

    for start in range(0, len(directories), 200):
        await asyncio.gather(*(date(*entry) for entry in directories[start : start + 200]))


async def _not_there_yet(
    session: Session, files: list[LocalFile], report: TransferReport
) -> list[LocalFile]:
    left: list[LocalFile] = []
    for start in range(0, len(files), 500):
        part = files[start : start + 500]
        answer: StatusList = await session.namenode.call(
            "stat_many", StatMany(paths=[found.remote for found in part])
        )
        for found, result in zip(part, answer.results, strict=True):
            there = result.status
            if (
                there is not None
                and there.type == "file"
                and not there.under_construction
                and (there.length, there.mtime_ms) == (found.size, found.mtime_ms)
            ):
                report.skipped += 1
            else:
                left.append(found)
    return left


def _grouped(files: list[LocalFile]) -> list[list[LocalFile]]:
    groups: list[list[LocalFile]] = []
    size = BATCH_BYTES + 1
    for found in files:
        size += found.size
        if size > BATCH_BYTES or len(groups[-1]) >= BATCH_FILES:
            groups.append([])
            size = found.size
        groups[-1].append(found)
    return groups


def _load(
    group: list[LocalFile],
) -> tuple[list[tuple[LocalFile, bytes]], list[tuple[str, DfsError]]]:
    loaded: list[tuple[LocalFile, bytes]] = []
    failed: list[tuple[str, DfsError]] = []
    for found in group:
        try:
            data = found.local.read_bytes()
            if len(data) > CHUNK_BYTES:
                raise StorageError(f"{found.local}: the file grew while it was read")
            loaded.append((found, data))
        except OSError as error:
            failed.append((str(found.local), local_error(error, found.local)))
        except DfsError as error:
            failed.append((str(found.local), error))
    return loaded, failed


# --- getting a tree ----------------------------------------------------------------------------


@dataclass(slots=True)
class _Remote:
    """A file found in the cluster, and where it goes."""

    status: FileStatus
    blocks: list[LocatedBlock]
    local: Path


async def listed(
    session: Session, remote: str, *, locations: bool
) -> AsyncIterator[tuple[FileStatus, list[LocatedBlock]]]:
    """All entries below *remote*, directories before what is in them."""
    waiting = [remote]
    while waiting:
        path, after = waiting.pop(), ""
        while True:
            page: DirectoryPage = await session.namenode.call(
                "list", ListDirectory(path=path, start_after=after, locations=locations)
            )
            for index, status in enumerate(page.entries):
                yield status, page.blocks[index] if page.blocks else []
                if status.is_directory:
                    waiting.append(status.path)
            if not page.more:
                break
            after = page.entries[-1].name


async def get_tree(
    session: Session,
    remote: FileStatus,
    local: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> TransferReport:
    """Fetch the directory *remote* as *local*, with modes and times; nothing is written outside *local*."""
    report = TransferReport()
    groups = asyncio.Semaphore(GROUPS_IN_FLIGHT)
    larges = asyncio.Semaphore(LARGE_IN_FLIGHT)
    made: list[tuple[Path, FileStatus]] = []

    def make(path: Path, status: FileStatus) -> bool:
        try:
            path.mkdir(parents=False, exist_ok=True)
        except OSError as error:
            report.errors.append((status.path, local_error(error, path)))
            return False
        made.append((path, status))
        report.directories += 1
        return True

    async def small(group: list[_Remote]) -> None:
        async with groups:
            done, failed = await session.run(_get_small, session, group, overwrite or resume)
            report.errors += failed
            report.files += len(done)
            size = sum(found.status.length for found in done)
            report.bytes += size
            if progress is not None:
                progress(size)

    async def large(found: _Remote) -> None:
        async with larges:
            try:
                await get_file(
                    session,
                    found.blocks,
                    found.status.length,
                    found.local,
                    mode=found.status.mode,
                    mtime_ms=found.status.mtime_ms,
                    overwrite=overwrite or resume,
                    progress=progress,
                    path=found.status.path,
                )
                report.files += 1
                report.bytes += found.status.length
            except DfsError as error:
                report.errors.append((found.status.path, error))

    if not await session.run(make, local, remote):
        return report
    base = remote.path.rstrip("/")
    async with asyncio.TaskGroup() as tasks:
        group: list[_Remote] = []
        size = 0
        async for status, blocks in listed(session, remote.path, locations=True):
            try:
                path = _below(local, status.path[len(base) :])
            except DfsError as error:
                report.errors.append((status.path, error))
                continue
            if status.is_directory:
                make(path, status)
                continue
            if resume and _same_file(path, status):
                report.skipped += 1
                continue
            found = _Remote(status, blocks, path)
            if status.length > CHUNK_BYTES or len(blocks) > 1:
                tasks.create_task(large(found))
                continue
            group.append(found)
            size += status.length
            if len(group) >= BATCH_FILES or size >= BATCH_BYTES:
                tasks.create_task(small(group))
                group, size = [], 0
                # Let the others run: the listing itself must not outrun them without bound.
                async with groups:
                    pass
        if group:
            tasks.create_task(small(group))
    for path, status in reversed(made):
        with contextlib.suppress(OSError):
            path.chmod(status.mode & 0o777)
            os.utime(path, ns=(status.mtime_ms * 1_000_000, status.mtime_ms * 1_000_000))
    return report


def _below(folder: Path, remote: str) -> Path:
    """Where a path of the cluster goes; names that would lead elsewhere are refused."""
    parts = [part for part in remote.split("/") if part]
    for part in parts:
        check_name(part)
    path = folder.joinpath(*parts)
    for parent in path.parents:
        if parent == folder:
            break
        if parent.is_symlink():
            raise InvalidPath(f"{parent} is a symbolic link; nothing is written through it")
    return path


def _same_file(path: Path, status: FileStatus) -> bool:
    try:
        facts = path.lstat()
    except OSError:
        return False
    return (
        stat_bits.S_ISREG(facts.st_mode)
        and facts.st_size == status.length
        and facts.st_mtime_ns // 1_000_000 == status.mtime_ms
    )


def _get_small(
    session: Session, group: list[_Remote], overwrite: bool
) -> tuple[list[_Remote], list[tuple[str, DfsError]]]:
    """Fetch files of at most one block each, a batch a DataNode, and write them; in a thread."""
    data: dict[int, bytes] = {index: b"" for index, found in enumerate(group) if not found.blocks}
    by_node: dict[str, list[int]] = {}
    for index, found in enumerate(group):
        if found.blocks and found.blocks[0].nodes and found.blocks[0].block.digest is not None:
            by_node.setdefault(found.blocks[0].nodes[0].data, []).append(index)
    for indexes in by_node.values():
        node = group[indexes[0]].blocks[0].nodes[0]
        try:
            answers = session.blocks.read_many(
                node, [group[index].blocks[0].block for index in indexes]
            )
        except DfsError:
            continue
        data.update(
            (index, answer)
            for index, answer in zip(indexes, answers, strict=True)
            if answer is not None
        )
    done: list[_Remote] = []
    failed: list[tuple[str, DfsError]] = []

    for index, found in enumerate(group):
        try:
            content = data.get(index)
            if content is None:
                content = _read_whole(session, found)
            _write_small(found, content, overwrite=overwrite)
            done.append(found)
        except OSError as error:
            failed.append((found.status.path, local_error(error, found.local)))
        except DfsError as error:
            failed.append((found.status.path, error))
    return done, failed


def _read_whole(session: Session, found: _Remote) -> bytes:
    parts: list[bytes] = []

    def take(at: int, view: memoryview) -> None:
        parts.append(bytes(view))

    for located in found.blocks:
        session.blocks.read(located, 0, located.block.length, take)
    content = b"".join(parts)
    if len(content) != found.status.length:
        raise BlockUnavailable(f"{found.status.path} changed while it was read")
    return content


def _write_small(found: _Remote, content: bytes, *, overwrite: bool) -> None:
    local = found.local
    temporary = unfinished(local)
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    try:
        try:
            disk.write_all(descriptor, content)
            publish(
                descriptor,
                temporary,
                local,
                found.status.mode,
                found.status.mtime_ms,
                overwrite=overwrite,
            )
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    finally:
        os.close(descriptor)

"""One file from the cluster to the local disk: from the nearest replicas, or from all at once (`swarm.py`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from ..common import disk
from ..common.checksum import CHUNK_BYTES
from ..common.errors import PathExists, StorageError
from ..common.model import LocatedBlock
from . import swarm
from .beside import beside
from .session import Session
from .upload import Progress

SEGMENT_BYTES = 16 * CHUNK_BYTES


def local_error(error: OSError, path: str | Path) -> StorageError:
    return StorageError(f"{path}: {error.strerror or error}")


async def get_file(
    session: Session,
    blocks: Sequence[LocatedBlock],
    length: int,
    local: Path,
    *,
    mode: int | None = None,
    mtime_ms: int | None = None,
    overwrite: bool = True,
    progress: Progress | None = None,
    path: str = "",
) -> None:
    """Fetch a file's blocks, several at once, into *local*, which appears whole or not at all. *path*: the file's own."""
    if swarm.pays(session, blocks):
        with contextlib.suppress(BlockingIOError):  # another process is at it
            try:
                whole = await swarm.fetch(session, path, blocks, local, progress)
                try:
                    publish(
                        whole.descriptor, whole.path, local, mode, mtime_ms, overwrite=overwrite
                    )
                    whole.remove_record()
                finally:
                    whole.close()
            except BlockingIOError:
                raise
            except OSError as error:
                raise local_error(error, local) from None
            return
    temporary = beside(local, f".{os.getpid()}-{threading.get_ident()}.part")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise local_error(error, temporary) from None
    try:
        try:
            os.ftruncate(descriptor, length)
        except OSError as error:
            raise local_error(error, local) from None
        slots = asyncio.Semaphore(session.config.parallel_blocks)

        async def part(located: LocatedBlock, start: int, size: int) -> None:
            async with slots:
                await session.run(
                    _fetch, session, located, start, size, descriptor, local, progress
                )

        tasks = [
            asyncio.create_task(
                part(located, start, min(SEGMENT_BYTES, located.block.length - start))
            )
            for located in blocks
            for start in range(0, located.block.length, SEGMENT_BYTES)
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        try:
            publish(descriptor, temporary, local, mode, mtime_ms, overwrite=overwrite)
        except OSError as error:
            raise local_error(error, local) from None
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _fetch(
    session: Session,
    located: LocatedBlock,
    start: int,
    size: int,
    descriptor: int,
    local: Path,
    progress: Progress | None,
) -> None:
    def write(at: int, view: memoryview) -> None:
        try:
            disk.write_all(descriptor, view, located.offset + at)
        except OSError as error:
            raise local_error(error, local) from None
        if progress is not None:
            progress(len(view))

    session.blocks.read(located, start, size, write)


def publish(
    descriptor: int,
    temporary: Path,
    local: Path,
    mode: int | None,
    mtime_ms: int | None,
    *,
    overwrite: bool,
) -> None:
    """Give a fetched file its attributes and its name."""
    os.fchmod(descriptor, (0o666 & ~_umask()) if mode is None else mode & 0o777)
    if mtime_ms is not None:
        os.utime(descriptor, ns=(mtime_ms * 1_000_000, mtime_ms * 1_000_000))
    if overwrite:
        temporary.replace(local)
    else:
        try:
            os.link(temporary, local)
        except FileExistsError:
            raise PathExists(f"{local} exists") from None
        temporary.unlink()


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current

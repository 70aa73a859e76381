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
from .beside import unfinished
from .session import Session
from .upload import Progress

SEGMENT_BYTES = 16 * CHUNK_BYTES
FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


def local_error(error: OSError, path: str | Path) -> StorageError:
    return StorageError(f"{path}: {error.strerror or error}")


class _Target:
    """The file that threads write to, until it is closed.

    A thread can't be called off: one that still brings bytes when its fetch has failed, or was given up, must not write to the
    descriptor, whose number is that of another file by then. The kernel lets one writer of a file in at a time as well.
    """

    def __init__(self, path: Path, local: Path) -> None:
        """*local*: what it is to become, for messages."""
        self._local = local
        try:
            self.descriptor = os.open(path, FLAGS, 0o600)
        except OSError as error:
            raise local_error(error, path) from None
        self._lock = threading.Lock()
        self._open = True

    def write(self, offset: int, view: memoryview) -> None:
        with self._lock:
            if not self._open:
                raise StorageError(f"{self._local} is not fetched any more")
            try:
                disk.write_all(self.descriptor, view, offset)
            except OSError as error:
                raise local_error(error, self._local) from None

    def close(self) -> None:
        with self._lock:
            self._open = False
            os.close(self.descriptor)


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
    temporary = unfinished(local)
    target = _Target(temporary, local)
    try:
        try:
            os.ftruncate(target.descriptor, length)
        except OSError as error:
            raise local_error(error, local) from None
        slots = asyncio.Semaphore(session.config.parallel_blocks)

        async def part(located: LocatedBlock, start: int, size: int) -> None:
            async with slots:
                await session.run(_fetch, session, located, start, size, target, progress)

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
            publish(target.descriptor, temporary, local, mode, mtime_ms, overwrite=overwrite)
        except OSError as error:
            raise local_error(error, local) from None
    finally:
        target.close()
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _fetch(
    session: Session,
    located: LocatedBlock,
    start: int,
    size: int,
    target: _Target,
    progress: Progress | None,
) -> None:
    def write(at: int, view: memoryview) -> None:
        target.write(located.offset + at, view)
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

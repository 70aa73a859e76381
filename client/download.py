"""One file from the cluster to the local disk: from the nearest replicas, or from all at once (`swarm.py`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from ..common.checksum import CHUNK_BYTES
from ..common.errors import PathExists
from ..common.model import LocatedBlock
from . import swarm
from .beside import unfinished
from .landing import OpenTarget, local_error
from .session import Session
from .upload import Progress

SEGMENT_BYTES = 16 * CHUNK_BYTES
FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


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
    try:
        target = OpenTarget(os.open(temporary, FLAGS, 0o600), str(local))
    except OSError as error:
        raise local_error(error, temporary) from None
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
    target: OpenTarget,
    progress: Progress | None,
) -> None:
    def write(at: int, view: memoryview) -> None:
        target.write(view, located.offset + at)
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

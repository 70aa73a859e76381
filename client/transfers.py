"""What moving trees works with: local files, what it came to, and files whose bytes are in the cluster already."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..common.errors import DfsError
from ..common.ipld.cid import Cid
from ..common.messages import PutFile
from ..common.model import FileStatus
from .upload import Progress

DEDUP_IN_FLIGHT = 16  # files looked for at once


@dataclass(slots=True)
class TransferReport:
    """What moving a tree came to. *errors* are (path, why) of what was left out."""

    files: int = 0
    directories: int = 0
    bytes: int = 0
    skipped: int = 0
    errors: list[tuple[str, DfsError]] = field(default_factory=list)


@dataclass(slots=True)
class LocalFile:
    """A file found on the local disk."""

    local: Path
    remote: str
    size: int
    mode: int
    mtime_ms: int


class Known(Protocol):
    """See `dedup.Dedup`."""

    async def cid_of(self, local: Path) -> tuple[Cid, int]: ...

    async def link(self, cid: Cid, length: int, file: PutFile) -> FileStatus | None: ...

    def look_again(self) -> None: ...


Named = tuple[LocalFile, Cid]


async def named(dedup: Known, files: list[LocalFile], report: TransferReport) -> list[Named]:
    """*files* with their CIDs. What can't be read is left out, with its error."""
    slots = asyncio.Semaphore(DEDUP_IN_FLIGHT)

    async def one(found: LocalFile) -> Named | None:
        async with slots:
            try:
                return found, (await dedup.cid_of(found.local))[0]
            except DfsError as error:
                report.errors.append((str(found.local), error))
                return None

    return [entry for entry in await asyncio.gather(*map(one, files)) if entry is not None]


async def link_known(
    dedup: Known,
    files: list[Named],
    entry: Callable[[LocalFile], PutFile],
    report: TransferReport,
    progress: Progress | None,
) -> tuple[list[LocalFile], list[Named]]:
    """Link those whose bytes are there: (those to be sent, those whose bytes one of them has, to be linked afterwards)."""
    slots = asyncio.Semaphore(DEDUP_IN_FLIGHT)

    async def one(found: LocalFile, cid: Cid) -> bool:
        """Whether it is settled."""
        async with slots:
            try:
                if await dedup.link(cid, found.size, entry(found)) is None:
                    return False
            except DfsError as error:
                report.errors.append((str(found.local), error))
                return True
        report.files += 1
        report.bytes += found.size
        if progress is not None:
            progress(found.size)
        return True

    settled = await asyncio.gather(*(one(*named) for named in files))
    left = [named for named, done in zip(files, settled, strict=True) if not done]
    firsts = {cid: found for found, cid in reversed(left)}
    twins = [(found, cid) for found, cid in left if firsts[cid] is not found]
    return list(firsts.values()), twins

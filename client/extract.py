"""Writing a DAG to the local disk: nothing is written outside the target, whatever names and symlinks the DAG has."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..common.errors import DfsError, InvalidContent, PathExists
from ..common.ipld.cid import Cid
from ..common.ipld.dag import MAX_TREE_DEPTH, Entity
from ..common.ipld.directory import check_name
from ..common.ipld.unixfs import Kind
from .beside import unfinished
from .content_reader import Reader
from .landing import OpenTarget, local_error

MODE_FILE, MODE_DIRECTORY = 0o666, 0o777
MAX_SYMLINK_BYTES = 4096
PREFETCH = 1_000


@dataclass(slots=True)
class Extracted:
    files: int = 0
    directories: int = 0
    bytes: int = 0
    errors: list[tuple[str, DfsError]] = field(default_factory=list)


class Extractor:
    """Extracts by descriptors of folders, never following a symlink: a path is never looked up twice."""

    def __init__(self, reader: Reader, *, overwrite: bool, progress: Callable[[int], None]) -> None:
        self._reader = reader
        self._overwrite = overwrite
        self._progress = progress
        self.done = Extracted()

    async def extract(self, cid: Cid, target: Path) -> None:
        """Write what *cid* is as *target*. Errors inside a folder are gathered in `done.errors`, the rest goes on."""
        check_name(target.name)
        found = await self._reader.entity(cid)
        try:
            parent = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise local_error(error, str(target.parent)) from None
        try:
            await self._entity(found, parent, target.name, "", 0)
        finally:
            os.close(parent)

    async def _entity(self, found: Entity, parent: int, name: str, inside: str, depth: int) -> None:
        if found.kind in (Kind.DIRECTORY, Kind.HAMT_SHARD):
            await self._directory(found, parent, name, inside, depth)
        elif found.kind == Kind.SYMLINK:
            self._symlink(found, parent, name, inside)
        else:
            await self._file(found, parent, name, inside)

    async def _directory(
        self, found: Entity, parent: int, name: str, inside: str, depth: int
    ) -> None:
        if depth >= MAX_TREE_DEPTH:
            raise InvalidContent("the folders are too deep")
        try:
            try:
                os.mkdir(name, MODE_DIRECTORY, dir_fd=parent)
            except FileExistsError:
                if not self._overwrite:
                    raise PathExists(f"{inside or name} exists") from None
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            folder = os.open(name, flags, dir_fd=parent)
        except OSError as error:
            raise local_error(error, inside or name) from None
        try:
            self.done.directories += 1
            entries = await self._reader.entries(found)
            for start in range(0, len(entries), PREFETCH):
                part = entries[start : start + PREFETCH]
                await self._reader.prefetch([entry.cid for entry in part])
                for entry in part:
                    where = f"{inside}/{entry.name}" if inside else entry.name
                    try:
                        below = await self._reader.entity(entry.cid)
                        await self._entity(below, folder, entry.name, where, depth + 1)
                    except DfsError as error:
                        self.done.errors.append((where, error))
        finally:
            os.close(folder)

    def _symlink(self, found: Entity, parent: int, name: str, inside: str) -> None:
        assert found.value is not None
        target = found.value.data or b""
        if not 0 < len(target) <= MAX_SYMLINK_BYTES or b"\0" in target:
            raise InvalidContent(f"{inside or name}: a symlink to nowhere")
        text = os.fsdecode(target)
        # Where it leads, seen from the root of what is extracted; a link that leaves it is left out.
        place = posixpath.normpath(posixpath.join(posixpath.dirname(inside), text))
        # Behind the name of another link, ".." leads up from where that one leads: it may only stand in front.
        winds = ".." in itertools.dropwhile({"", ".", ".."}.__contains__, text.split("/"))
        if text.startswith("/") or place == ".." or place.startswith("../") or winds or not inside:
            raise InvalidContent(f"{inside or name}: a symlink that leads outside is left out")
        try:
            os.symlink(text, name, dir_fd=parent)
        except FileExistsError:
            raise PathExists(f"{inside or name} exists") from None
        except OSError as error:
            raise local_error(error, inside or name) from None
        self.done.files += 1

    async def _file(self, found: Entity, parent: int, name: str, inside: str) -> None:
        shown = inside or name
        temporary = unfinished(Path(name)).name
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            if not self._overwrite and _exists(name, parent):
                raise PathExists(f"{shown} exists")
            target = OpenTarget(os.open(temporary, flags, MODE_FILE, dir_fd=parent), shown)
        except OSError as error:
            raise local_error(error, shown) from None
        try:
            try:
                async for piece in self._reader.read(found):
                    await asyncio.to_thread(target.write, piece)
                    self._progress(len(piece))
                    self.done.bytes += len(piece)
            finally:
                target.close()
            os.replace(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException as error:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)
            if isinstance(error, OSError):
                raise local_error(error, shown) from None
            raise
        self.done.files += 1


def _exists(name: str, parent: int) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True

"""Content onto the local disk: files, folders and symlinks of a DAG, and nothing outside of the target."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from ...common.errors import InvalidRequest, PathExists, StorageError
from ...common.ipld import dag
from ...common.ipld.cid import Cid
from ...common.ipld.unixfs import Kind
from ..content_reader import Get, read_file


async def extract(get: Get, cid: Cid, place: str, told: Callable[[int], None]) -> None:
    """Write a DAG of UnixFS to *place*, where nothing is yet.

    Nothing is written outside of it: every folder is made here, names were checked, files are opened without following
    links, and symlinks are made when all else is there. PathExists, StorageError, InvalidContent.
    """
    waiting: list[tuple[str, Cid, int]] = [(place, cid, 0)]
    links: list[tuple[str, str]] = []
    while waiting:
        path, wanted, depth = waiting.pop()
        if depth > dag.MAX_TREE_DEPTH:
            raise InvalidRequest("the folder is too deep")
        entity = dag.entity(wanted, await get(wanted))
        try:
            if entity.kind in (Kind.DIRECTORY, Kind.HAMT_SHARD):
                Path(path).mkdir()
                listed = await dag.run_async(dag.entries(entity), get)
                waiting += [(f"{path}/{entry.name}", entry.cid, depth + 1) for entry in listed]
            elif entity.kind == Kind.SYMLINK:
                assert entity.value is not None
                links.append((path, os.fsdecode(entity.value.data or b"")))
            elif place == "-":
                async for piece in read_file(get, entity):
                    sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
            else:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with os.fdopen(os.open(path, flags, 0o666), "wb", buffering=0) as file:
                    async for piece in read_file(get, entity, ahead=16):
                        view = memoryview(piece)
                        while view:
                            view = view[file.write(view) :]
                        told(len(piece))
        except FileExistsError:
            raise PathExists(f"{path!r} is there already") from None
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from None
    for path, points_to in links:
        try:
            Path(path).symlink_to(points_to)
        except (OSError, ValueError) as error:
            raise StorageError(f"{path}: {error}") from None

"""Numbers that WebHDFS shows beside a path or a page: children of directories, and entries to come. Counted up to a limit, since
counting reads what it counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from ...common.messages import DirectoryPage, ListDirectory, Stat
from ...common.model import FileStatus
from ..dispatch import Dispatcher
from ..namespace.walk import existing
from ..permissions import Caller
from ..store import sql
from ..store.base import Transaction

EACH: Final = 10_000  # entries of a directory; more are told as so many
TOGETHER: Final = 100_000  # of all directories of one page; beyond that they are told as 0


def stat(
    dispatcher: Dispatcher, caller: Caller, request: Stat
) -> Callable[[Transaction], FileStatus]:
    """The operation `stat`, with the children of a directory."""
    operation = dispatcher.read(caller, "stat", request)

    def run(tx: Transaction) -> FileStatus:
        found = operation(tx)
        assert isinstance(found, FileStatus)
        if not found.is_directory:
            return found
        count = sql.count_children(tx, found.inode_id, "", EACH)
        return msgspec.structs.replace(found, children=count)

    return run


def page(
    dispatcher: Dispatcher, caller: Caller, request: ListDirectory, *, remaining: bool
) -> Callable[[Transaction], tuple[DirectoryPage, int]]:
    """The operation `list`, with the children of directories; and how many entries follow, if *remaining* is wanted, else 0."""
    operation = dispatcher.read(caller, "list", request)

    def run(tx: Transaction) -> tuple[DirectoryPage, int]:
        found = operation(tx)
        assert isinstance(found, DirectoryPage)
        entries, room = [], TOGETHER
        for entry in found.entries:
            if entry.is_directory and room:
                count = sql.count_children(tx, entry.inode_id, "", min(EACH, room))
                room -= count
                entry = msgspec.structs.replace(entry, children=count)
            entries.append(entry)
        left = 0
        if remaining and found.more:
            _, node = existing(tx, caller, request.path)
            left = sql.count_children(tx, node.inode_id, entries[-1].name, EACH)
        return msgspec.structs.replace(found, entries=entries), left

    return run

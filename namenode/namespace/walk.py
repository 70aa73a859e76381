"""From a path to its inodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...common.errors import DfsError, IsADirectory, NotADirectory, PathNotFound
from ...common.model import FileStatus, INodeId
from ...common.paths import Components, is_plain, join, parse, shown
from ..permissions import EXECUTE, Caller, require
from ..store import sql
from ..store.base import Transaction
from ..store.sql import FLAG_OPEN, KIND_DIRECTORY, UNLINKED_PARENT, INode


class Walk(NamedTuple):
    """How far a path leads.

    *chain*: the existing directories from the root to the deepest one above the last component; shared, not to be changed.
    *node*: what the path names, or None. *missing*: how many components at the end don't exist.
    """

    path: str
    parts: Components
    chain: list[INode]
    node: INode | None
    missing: int

    @property
    def parent(self) -> INode:
        return self.chain[-1]


def walk(tx: Transaction, caller: Caller, path: str) -> Walk:
    """Follow *path*. Raises the errors of `paths.parse`, NotADirectory, PermissionDenied."""
    step = _last_step(tx, caller, path)
    if step is None:
        return walk_parts(tx, caller, parse(path))
    above, chain, name = step
    final = sql.child(tx, chain[-1].inode_id, name)
    return Walk(path, (*above, name), chain, final, 0 if final is not None else 1)


def walk_each(tx: Transaction, caller: Caller, paths: Sequence[str]) -> list[Walk | DfsError]:
    """`walk` for each of *paths*, with one look into the database for all whose directories are known. For reading."""
    found: list[Walk | DfsError] = []
    steps: list[tuple[int, Components, list[INode], str]] = []
    for path in paths:
        try:
            step = _last_step(tx, caller, path)
            if step is None:
                found.append(walk_parts(tx, caller, parse(path)))
            else:
                steps.append((len(found), *step))
                found.append(Walk(path, (), step[1], None, 1))
        except DfsError as error:
            found.append(error)
    if steps:
        finals = sql.children_of(tx, [(chain[-1].inode_id, name) for _, _, chain, name in steps])
        for index, above, chain, name in steps:
            final = finals.get((chain[-1].inode_id, name))
            missing = 0 if final is not None else 1
            found[index] = Walk(paths[index], (*above, name), chain, final, missing)
    return found


def _last_step(
    tx: Transaction, caller: Caller, path: str
) -> tuple[Components, list[INode], str] | None:
    """Where the way to the directory of *path* is known: its components, the way, and the last component."""
    cache = tx.directories
    if cache is None:
        return None
    directory, _, name = path.rpartition("/")
    way = cache.way(directory)
    if way is None or not is_plain(path, name):
        cache.misses += 1
        return None
    cache.hits += 1
    above = way[0]
    chain: list[INode] = way[1]  # type: ignore[assignment]  # what walk_parts put in
    if not caller.superuser:
        for depth, node in enumerate(chain):
            require(caller, node, EXECUTE, join(above[:depth]))
    return above, chain, name


def walk_parts(tx: Transaction, caller: Caller, parts: Components) -> Walk:
    path = join(parts)
    node = sql.root(tx)
    chain = [node]
    if not parts:
        return Walk(path, parts, chain, node, 0)
    check = not caller.superuser
    if check:
        require(caller, node, EXECUTE, "/")
    last = len(parts) - 1
    for index in range(last):
        found = sql.directory(tx, node.inode_id, parts[index])
        if found is None:
            return Walk(path, parts, chain, None, len(parts) - index)
        if found.kind != KIND_DIRECTORY:
            raise NotADirectory(f"{shown(join(parts[: index + 1]))} is not a directory")
        if check:
            require(caller, found, EXECUTE, join(parts[: index + 1]))
        node = found
        chain.append(node)
    if tx.directories is not None:
        tx.directories.put_way(path.rpartition("/")[0], (parts[:last], chain))  # type: ignore[arg-type]
    final = sql.child(tx, node.inode_id, parts[last])
    return Walk(path, parts, chain, final, 0 if final is not None else 1)


def existing(tx: Transaction, caller: Caller, path: str) -> tuple[Walk, INode]:
    """As `walk`; PathNotFound if nothing is there."""
    found = walk(tx, caller, path)
    if found.node is None:
        raise PathNotFound(f"{shown(found.path)} does not exist")
    return found, found.node


def existing_file(tx: Transaction, caller: Caller, path: str) -> tuple[Walk, INode]:
    return file_at(walk(tx, caller, path))


def file_at(walked: Walk | DfsError) -> tuple[Walk, INode]:
    """The file that a walk led to; else the error that says why there is none."""
    if isinstance(walked, DfsError):
        raise walked
    if walked.node is None:
        raise PathNotFound(f"{shown(walked.path)} does not exist")
    if walked.node.kind == KIND_DIRECTORY:
        raise IsADirectory(f"{shown(walked.path)} is a directory")
    return walked, walked.node


def ancestors(tx: Transaction, node: INode) -> list[INode] | None:
    """The directories above *node*, the root first; None if it is in an unlinked tree."""
    chain: list[INode] = []
    parent_id = node.parent_id
    while parent_id:
        if parent_id == UNLINKED_PARENT:
            return None
        parent = sql.find(tx, parent_id)
        if parent is None:
            return None
        chain.append(parent)
        parent_id = parent.parent_id
    chain.reverse()
    return chain


def path_of(tx: Transaction, node: INode) -> str | None:
    """The path of *node*, or None if it has been unlinked."""
    chain = ancestors(tx, node)
    if chain is None:
        return None
    return "/" + "/".join([parent.name for parent in chain[1:]] + ([node.name] if chain else []))


def status(node: INode, path: str) -> FileStatus:
    if node.kind == KIND_DIRECTORY:
        return FileStatus(
            path=path,
            type="directory",
            length=0,
            owner=node.owner,
            group=node.group,
            mode=node.mode,
            mtime_ms=node.mtime_ms,
            atime_ms=node.atime_ms,
            inode_id=INodeId(node.inode_id),
            acl=bool(node.acl),
        )
    return FileStatus(
        path=path,
        type="file",
        length=node.length,
        owner=node.owner,
        group=node.group,
        mode=node.mode,
        mtime_ms=node.mtime_ms,
        atime_ms=node.atime_ms,
        inode_id=INodeId(node.inode_id),
        replication=node.replication,
        block_size=node.block_size,
        under_construction=bool(node.flags & FLAG_OPEN),
        acl=bool(node.acl),
    )

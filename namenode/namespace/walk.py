"""From a path to its inodes."""

from __future__ import annotations

from typing import NamedTuple

from ...common.errors import IsADirectory, NotADirectory, PathNotFound
from ...common.model import FileStatus, INodeId
from ...common.paths import Components, join, parse, shown
from ..permissions import EXECUTE, Caller, require
from ..store import sql
from ..store.base import Transaction
from ..store.sql import FLAG_OPEN, KIND_DIRECTORY, UNLINKED_PARENT, INode


class Walk(NamedTuple):
    """How far a path leads.

    *chain*: the existing directories from the root to the deepest one above the last component.
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
    return walk_parts(tx, caller, parse(path))


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
    final = sql.child(tx, node.inode_id, parts[last])
    return Walk(path, parts, chain, final, 0 if final is not None else 1)


def existing(tx: Transaction, caller: Caller, path: str) -> tuple[Walk, INode]:
    """As `walk`; PathNotFound if nothing is there."""
    found = walk(tx, caller, path)
    if found.node is None:
        raise PathNotFound(f"{shown(found.path)} does not exist")
    return found, found.node


def existing_file(tx: Transaction, caller: Caller, path: str) -> tuple[Walk, INode]:
    found, node = existing(tx, caller, path)
    if node.kind == KIND_DIRECTORY:
        raise IsADirectory(f"{shown(found.path)} is a directory")
    return found, node


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

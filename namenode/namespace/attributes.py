"""Operations on what a file or directory is, not on what it holds."""

from __future__ import annotations

import json

from ...common.errors import (
    InvalidRequest,
    IsADirectory,
    NotADirectory,
    PermissionDenied,
    XattrExists,
    XattrNotFound,
)
from ...common.messages import (
    GetXattrs,
    RemoveXattr,
    ReplicationSet,
    SetMode,
    SetOwner,
    SetQuota,
    SetReplication,
    SetTimes,
    SetXattr,
    Xattrs,
)
from ...common.model import BlockId, INodeId
from ...common.paths import shown
from .. import quotas
from ..permissions import READ, WRITE, Caller, allowed, require, require_owner, require_superuser
from ..store import sql
from ..store.base import NewEvent, Transaction
from ..store.sql import FLAG_QUOTA, FLAG_XATTR, INode
from .walk import existing, walk

MAX_XATTRS = 32  # HDFS's dfs.namenode.fs-limits.max-xattrs-per-inode
MAX_XATTR_BYTES = 16_384  # name and value; HDFS's dfs.namenode.fs-limits.max-xattr-size


def _changed(
    tx: Transaction, caller: Caller, node: INode, path: str, now_ms: int, **what: object
) -> None:
    if node.is_directory:
        tx.directory_changed((node.parent_id, node.name))
    detail = json.dumps(what, separators=(",", ":"))
    tx.emit(NewEvent(now_ms, "metadata", path, caller.user, INodeId(node.inode_id), detail=detail))


def set_replication(
    tx: Transaction, caller: Caller, request: SetReplication, *, now_ms: int
) -> list[int]:
    """The ids of the file's blocks, for the replication monitor to look at."""
    found, node = existing(tx, caller, request.path)
    if node.is_directory:
        raise IsADirectory(f"{shown(found.path)} is a directory; replication belongs to files")
    require(caller, node, WRITE, found.path)
    change = (request.replication - node.replication) * node.length
    quotas.check(tx, found.chain, 0, change)
    quotas.charge(tx, found.chain, 0, change)
    sql.update(tx, node, replication=request.replication)
    tx.execute(
        "UPDATE blocks SET replication = ? WHERE refs <= 1"
        " AND block_id IN (SELECT block_id FROM file_blocks WHERE inode_id = ?)",
        (request.replication, node.inode_id),
    )
    _set_shared(tx, node, request.replication)
    _changed(tx, caller, node, found.path, now_ms, replication=request.replication)
    rows = tx.all("SELECT block_id FROM file_blocks WHERE inode_id = ?", (node.inode_id,))
    return [row[0] for row in rows]


def kept_by_others(tx: Transaction, path: str, replication: int) -> ReplicationSet:
    """Blocks of the file that have more than *replication* copies, because other files that share them ask for more."""
    node = walk(tx, Caller("", superuser=True), path).node
    if node is None:
        return ReplicationSet()
    rows = tx.all(
        "SELECT b.block_id, b.replication FROM file_blocks f JOIN blocks b ON b.block_id = f.block_id"
        " WHERE f.inode_id = ? AND b.replication > ?",
        (node.inode_id, replication),
    )
    return ReplicationSet(shared={BlockId(row[0]): row[1] for row in rows})


def _set_shared(tx: Transaction, node: INode, replication: int) -> None:
    """A block that other files share keeps the most that any of them asks for: it is never lowered here."""
    tx.execute(
        "UPDATE blocks SET replication = ? WHERE refs > 1 AND replication < ?"
        " AND block_id IN (SELECT block_id FROM file_blocks WHERE inode_id = ?)",
        (replication, replication, node.inode_id),
    )


def set_mode(tx: Transaction, caller: Caller, request: SetMode, *, now_ms: int) -> None:
    found, node = existing(tx, caller, request.path)
    require_owner(caller, node, found.path)
    sql.update(tx, node, mode=request.mode)
    _changed(tx, caller, node, found.path, now_ms, mode=f"{request.mode:04o}")


def set_owner(tx: Transaction, caller: Caller, request: SetOwner, *, now_ms: int) -> None:
    if request.owner is None and request.group is None:
        raise InvalidRequest("an owner or a group must be given")
    found, node = existing(tx, caller, request.path)
    require_owner(caller, node, found.path)
    owner, group = request.owner or node.owner, request.group or node.group
    if not caller.superuser:
        if owner != node.owner:
            raise PermissionDenied("only a superuser may give a file to somebody else")
        if group != node.group and group not in caller.groups:
            raise PermissionDenied(f"{caller.user} is not a member of the group {group}")
    sql.update(tx, node, owner=owner, group=group)
    _changed(tx, caller, node, found.path, now_ms, owner=owner, group=group)


def set_times(tx: Transaction, caller: Caller, request: SetTimes, *, now_ms: int) -> None:
    found, node = existing(tx, caller, request.path)
    if caller.user != node.owner and not allowed(caller, node, WRITE):
        require(caller, node, WRITE, found.path)
    mtime_ms = node.mtime_ms if request.mtime_ms is None else request.mtime_ms
    atime_ms = node.atime_ms if request.atime_ms is None else request.atime_ms
    if not all(-(2**62) < value < 2**62 for value in (mtime_ms, atime_ms)):
        raise InvalidRequest("the time is out of range")
    sql.update(tx, node, mtime_ms=mtime_ms, atime_ms=atime_ms)
    _changed(tx, caller, node, found.path, now_ms, mtime_ms=mtime_ms, atime_ms=atime_ms)


# --- extended attributes -----------------------------------------------------------------------


def get_xattrs(tx: Transaction, caller: Caller, request: GetXattrs) -> Xattrs:
    found, node = existing(tx, caller, request.path)
    require(caller, node, READ, found.path)
    if not node.flags & FLAG_XATTR:
        return Xattrs(xattrs={})
    rows = tx.all(
        "SELECT name, value FROM xattrs WHERE inode_id = ? ORDER BY name", (node.inode_id,)
    )
    return Xattrs(xattrs={row[0]: bytes(row[1]) for row in rows if _may_see(caller, row[0])})


def _may_see(caller: Caller, name: str) -> bool:
    return caller.superuser or name.startswith("user.")


def set_xattr(tx: Transaction, caller: Caller, request: SetXattr, *, now_ms: int) -> None:
    found, node = existing(tx, caller, request.path)
    require(caller, node, WRITE, found.path)
    _check_xattr_name(request.name)
    _require_namespace(caller, request.name)
    if len(request.name.encode()) + len(request.value) > MAX_XATTR_BYTES:
        raise InvalidRequest(f"name and value together may have {MAX_XATTR_BYTES} bytes")
    names = {
        row[0] for row in tx.all("SELECT name FROM xattrs WHERE inode_id = ?", (node.inode_id,))
    }
    if request.flag == "create" and request.name in names:
        raise XattrExists(f"{shown(found.path)} has the attribute {shown(request.name)} already")
    if request.flag == "replace" and request.name not in names:
        raise XattrNotFound(f"{shown(found.path)} has no attribute {shown(request.name)}")
    if request.name not in names and len(names) >= MAX_XATTRS:
        raise InvalidRequest(f"{shown(found.path)} has {MAX_XATTRS} attributes, the most allowed")
    tx.execute(
        "INSERT INTO xattrs (inode_id, name, value) VALUES (?, ?, ?)"
        " ON CONFLICT (inode_id, name) DO UPDATE SET value = excluded.value",
        (node.inode_id, request.name, request.value),
    )
    if not node.flags & FLAG_XATTR:
        sql.update(tx, node, flags=node.flags | FLAG_XATTR)
    _changed(tx, caller, node, found.path, now_ms, set_xattr=request.name)


def _check_xattr_name(name: str) -> None:
    namespace, _, rest = name.partition(".")
    if namespace not in ("user", "trusted", "system", "security", "raw") or not rest:
        raise InvalidRequest(
            f"the attribute name {shown(name)} must begin with 'user.' (or trusted., system., security., raw.)"
        )
    if "\x00" in name or not name.isprintable():
        raise InvalidRequest(f"the attribute name {shown(name)} has unprintable characters")


def _require_namespace(caller: Caller, name: str) -> None:
    """user.* belongs to whoever may write the file, the other namespaces to superusers."""
    if not caller.superuser and not name.startswith("user."):
        raise PermissionDenied(f"User doesn't have permission for xattr: {shown(name)}")


def remove_xattr(tx: Transaction, caller: Caller, request: RemoveXattr, *, now_ms: int) -> None:
    found, node = existing(tx, caller, request.path)
    require(caller, node, WRITE, found.path)
    _require_namespace(caller, request.name)
    key = (node.inode_id, request.name)
    if tx.one("SELECT 1 FROM xattrs WHERE inode_id = ? AND name = ?", key) is None:
        raise XattrNotFound(f"{shown(found.path)} has no attribute {shown(request.name)}")
    tx.execute("DELETE FROM xattrs WHERE inode_id = ? AND name = ?", key)
    _changed(tx, caller, node, found.path, now_ms, removed_xattr=request.name)


# --- quotas ------------------------------------------------------------------------------------


def set_quota(tx: Transaction, caller: Caller, request: SetQuota, *, now_ms: int) -> None:
    require_superuser(caller, "set quotas")
    found, node = existing(tx, caller, request.path)
    if not node.is_directory:
        raise NotADirectory(f"{shown(found.path)} is a file; quotas belong to directories")
    if request.names is None and request.space_bytes is None:
        raise InvalidRequest("a limit of names or of bytes must be given")
    if request.names == 0:
        raise InvalidRequest("a quota of names must be at least 1: the directory itself counts")
    row = tx.one("SELECT names_limit, space_limit FROM quotas WHERE inode_id = ?", (node.inode_id,))
    names, space = row if row is not None else (-1, -1)
    names = names if request.names is None else request.names
    space = space if request.space_bytes is None else request.space_bytes
    if names < 0 and space < 0:
        tx.execute("DELETE FROM quotas WHERE inode_id = ?", (node.inode_id,))
        sql.update(tx, node, flags=node.flags & ~FLAG_QUOTA)
    else:
        used_names, used_space = quotas.usage(tx, node)
        used_space += _reserved(tx, node)
        tx.execute(
            "INSERT INTO quotas (inode_id, names_limit, space_limit, names_used, space_used)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT (inode_id) DO UPDATE SET"
            " names_limit = excluded.names_limit, space_limit = excluded.space_limit,"
            " names_used = excluded.names_used, space_used = excluded.space_used",
            (node.inode_id, names, space, used_names, used_space),
        )
        sql.update(tx, node, flags=node.flags | FLAG_QUOTA)
    _changed(tx, caller, node, found.path, now_ms, names_quota=names, space_quota=space)


def _reserved(tx: Transaction, node: INode) -> int:
    """Bytes that open blocks below *node* are counted with beyond their length."""
    row = tx.one(
        "WITH RECURSIVE tree (inode_id) AS (SELECT CAST(? AS BIGINT) UNION ALL"
        " SELECT i.inode_id FROM inodes i JOIN tree t ON i.parent_id = t.inode_id WHERE i.kind = 1)"
        " SELECT COALESCE(SUM((i.block_size - b.length) * i.replication), 0)"
        " FROM tree t JOIN inodes i ON i.parent_id = t.inode_id"
        " JOIN open_blocks o ON o.inode_id = i.inode_id JOIN blocks b ON b.block_id = o.block_id",
        (node.inode_id,),
    )
    return int(row[0]) if row else 0

"""Operations on the tree: directories, listing, renaming, deleting, trash."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...common.codec import failure_of
from ...common.errors import (
    DfsError,
    DirectoryNotEmpty,
    InvalidMove,
    InvalidPath,
    IsADirectory,
    NotADirectory,
    PathExists,
    PathNotFound,
)
from ...common.messages import (
    Delete,
    Deleted,
    DeletedMany,
    DeletedResult,
    DeleteMany,
    DirectoryPage,
    ListDirectory,
    Locate,
    LocatedMany,
    LocatedResult,
    LocateMany,
    Mkdirs,
    MkdirsMany,
    MoveToTrash,
    Rename,
    RenameAll,
    Renamed,
    RenamedAll,
    Stat,
    StatMany,
    StatusList,
    StatusResult,
    Summarize,
)
from ...common.model import ContentSummary, FileBlocks, FileStatus, INodeId
from ...common.paths import Components, join, parse, shown
from .. import acls, blockmap, quotas
from ..blockmap import NodeDirectory
from ..permissions import EXECUTE, READ, WRITE, Caller, require, require_removal
from ..store import sql
from ..store.base import NewEvent, Transaction
from ..store.sql import FLAG_OPEN, FLAG_QUOTA, KIND_DIRECTORY, INode
from .access import require_below
from .walk import Walk, existing, existing_file, file_at, status, walk, walk_each, walk_parts

MAX_LOCATED_PAGE = 1_000


def stat(tx: Transaction, caller: Caller, request: Stat) -> FileStatus:
    found, node = existing(tx, caller, request.path)
    return status(node, found.path)


def stat_each(tx: Transaction, caller: Caller, paths: Sequence[str]) -> list[FileStatus | DfsError]:
    """As `stat` of each of *paths*, together."""
    return [
        found
        if isinstance(found, DfsError)
        else status(found.node, found.path)
        if found.node is not None
        else PathNotFound(f"{shown(found.path)} does not exist")
        for found in walk_each(tx, caller, paths)
    ]


def stat_many(tx: Transaction, caller: Caller, request: StatMany) -> StatusList:
    return StatusList(
        results=[
            StatusResult(failure=failure_of(found))
            if isinstance(found, DfsError)
            else StatusResult(status=found)
            for found in stat_each(tx, caller, request.paths)
        ]
    )


def each_status(calls: list[Callable[[], FileStatus]]) -> StatusList:
    """Run each; a failure stands beside the others' results. Calls must check before they write."""
    results = []
    for call in calls:
        try:
            results.append(StatusResult(status=call()))
        except DfsError as error:
            results.append(StatusResult(failure=failure_of(error)))
    return StatusList(results=results)


def list_directory(
    tx: Transaction, caller: Caller, request: ListDirectory, *, nodes: NodeDirectory
) -> DirectoryPage:
    found, node = existing(tx, caller, request.path)
    if not node.is_directory:
        entries, more, is_file = [node], False, True
        statuses = [status(node, found.path)]
    else:
        require(caller, node, READ | EXECUTE, found.path)
        limit = min(request.limit, MAX_LOCATED_PAGE) if request.locations else request.limit
        entries = sql.children(tx, node.inode_id, request.start_after, limit + 1)
        more, is_file = len(entries) > limit, False
        del entries[limit:]
        base = found.path if found.path != "/" else ""
        statuses = [status(entry, f"{base}/{entry.name}") for entry in entries]
    if not request.locations:
        return DirectoryPage(entries=statuses, more=more, is_file=is_file)
    files = [entry.inode_id for entry in entries if entry.kind != KIND_DIRECTORY and entry.length]
    located = blockmap.locate(tx, files, nodes, caller.host)
    blocks = [located.get(entry.inode_id, []) for entry in entries]
    return DirectoryPage(entries=statuses, more=more, blocks=blocks, is_file=is_file)


def locate(tx: Transaction, caller: Caller, request: Locate, *, nodes: NodeDirectory) -> FileBlocks:
    found, node = existing_file(tx, caller, request.path)
    require(caller, node, READ, found.path)
    blocks = blockmap.locate(tx, [node.inode_id], nodes, caller.host)[node.inode_id]
    if request.offset or request.length >= 0:
        end = request.offset + request.length if request.length >= 0 else node.length
        blocks = [
            b for b in blocks if b.offset < end and b.offset + b.block.length > request.offset
        ]
    return FileBlocks(status=status(node, found.path), blocks=blocks)


def locate_many(
    tx: Transaction, caller: Caller, request: LocateMany, *, nodes: NodeDirectory
) -> LocatedMany:
    found: list[tuple[FileStatus, INode] | DfsError] = []
    for walked in walk_each(tx, caller, request.paths):
        try:
            place, node = file_at(walked)
            require(caller, node, READ, place.path)
            found.append((status(node, place.path), node))
        except DfsError as error:
            found.append(error)
    ids = list({entry[1].inode_id for entry in found if isinstance(entry, tuple)})
    blocks = blockmap.locate(tx, ids, nodes, caller.host)
    return LocatedMany(
        results=[
            LocatedResult(file=FileBlocks(status=entry[0], blocks=blocks[entry[1].inode_id]))
            if isinstance(entry, tuple)
            else LocatedResult(failure=failure_of(entry))
            for entry in found
        ]
    )


def summarize(tx: Transaction, caller: Caller, request: Summarize) -> ContentSummary:
    found, node = existing(tx, caller, request.path)
    if not node.is_directory:
        return ContentSummary(
            directories=0,
            files=1,
            length=node.length,
            space_consumed=node.length * node.replication,
        )
    require(caller, node, READ | EXECUTE, found.path)
    require_below(tx, caller, node, READ, found.path)
    row = tx.one(
        "WITH RECURSIVE tree (inode_id) AS (SELECT CAST(? AS BIGINT) UNION ALL"
        " SELECT i.inode_id FROM inodes i JOIN tree t ON i.parent_id = t.inode_id WHERE i.kind = 1)"
        " SELECT COALESCE(SUM(CASE WHEN i.kind = 1 THEN 1 ELSE 0 END), 0), COUNT(*),"
        " COALESCE(SUM(i.length), 0), COALESCE(SUM(i.length * i.replication), 0)"
        " FROM inodes i JOIN tree t ON i.parent_id = t.inode_id",
        (node.inode_id,),
    )
    assert row is not None
    quota = None
    if node.flags & FLAG_QUOTA:
        quota = tx.one(
            "SELECT names_limit, space_limit, names_used, space_used FROM quotas WHERE inode_id = ?",
            (node.inode_id,),
        )
    limits = quota or (-1, -1, -1, -1)
    return ContentSummary(
        directories=int(row[0]) + 1,
        files=int(row[1]) - int(row[0]),
        length=int(row[2]),
        space_consumed=int(row[3]),
        name_quota=limits[0],
        space_quota=limits[1],
        name_used=limits[2],
        space_used=limits[3],
    )


# --- directories -------------------------------------------------------------------------------


def new_directory(
    tx: Transaction,
    caller: Caller,
    parent: INode,
    name: str,
    mode: int,
    now_ms: int,
    unmasked: int | None = None,
) -> INode:
    acl = ""
    if acls.inherits(parent):
        mode, acl = acls.inherited(parent, mode if unmasked is None else unmasked, directory=True)
    return INode(
        parent_id=parent.inode_id,
        name=name,
        inode_id=tx.new_ids("inode"),
        kind=KIND_DIRECTORY,
        mode=mode,
        flags=0,
        replication=0,
        owner=caller.user,
        group=parent.group,
        mtime_ms=now_ms,
        atime_ms=now_ms,
        length=0,
        block_size=0,
        acl=acl,
    )


def make_parents(
    tx: Transaction,
    caller: Caller,
    found: Walk,
    mode: int,
    now_ms: int,
    count: int,
    unmasked: int | None = None,
) -> list[INode]:
    """Create *count* of the missing components of *found*; the chain with them. Checks were made."""
    chain = list(found.chain)
    done = len(found.parts) - found.missing
    for index in range(done, done + count):
        node = new_directory(tx, caller, chain[-1], found.parts[index], mode, now_ms, unmasked)
        sql.insert(tx, node)
        path = join(found.parts[: index + 1])
        tx.emit(NewEvent(now_ms, "mkdir", path, caller.user, INodeId(node.inode_id)))
        chain.append(node)
    return chain


def require_creation(
    tx: Transaction, caller: Caller, found: Walk, *, parents: bool, space_bytes: int = 0
) -> None:
    """Everything that creating the missing components of *found* needs."""
    if found.missing > 1 and not parents:
        parent = join(found.parts[: len(found.parts) - 1])
        raise PathNotFound(f"the parent directory {shown(parent)} does not exist")
    require(caller, found.parent, WRITE | EXECUTE, found.path)
    quotas.check(tx, found.chain, found.missing, space_bytes)


def mkdirs(tx: Transaction, caller: Caller, request: Mkdirs, *, now_ms: int) -> FileStatus:
    found = walk(tx, caller, request.path)
    if found.node is not None:
        if not found.node.is_directory:
            raise PathExists(f"{shown(found.path)} exists and is a file")
        if not request.parents:
            raise PathExists(f"{shown(found.path)} exists")
        return status(found.node, found.path)
    require_creation(tx, caller, found, parents=request.parents)
    final = found
    if found.missing > 1:
        # Whoever creates parents must be able to go on inside them, whatever the last one's mode.
        above, extra = (
            request.mode | 0o300,
            None if request.unmasked is None else request.unmasked | 0o300,
        )
        chain = make_parents(tx, caller, found, above, now_ms, found.missing - 1, extra)
        final = found._replace(chain=chain, missing=1)
    chain = make_parents(tx, caller, final, request.mode, now_ms, 1, request.unmasked)
    quotas.charge(tx, found.chain, found.missing, 0)
    return status(chain[-1], found.path)


def mkdirs_many(tx: Transaction, caller: Caller, request: MkdirsMany, *, now_ms: int) -> StatusList:
    return each_status(
        [(lambda e=entry: mkdirs(tx, caller, e, now_ms=now_ms)) for entry in request.directories]  # type: ignore[misc]
    )


# --- renaming ----------------------------------------------------------------------------------


def rename(tx: Transaction, caller: Caller, request: Rename, *, now_ms: int) -> Renamed:
    source, node = existing(tx, caller, request.source)
    if not source.parts:
        raise InvalidMove("the root can't be renamed")
    target = walk(tx, caller, request.destination)
    if request.into and target.node is not None and target.node.is_directory:
        target = walk_parts(tx, caller, (*target.parts, node.name))
    if target.parts == source.parts:
        return Renamed(path=target.path)
    if node.is_directory and target.parts[: len(source.parts)] == source.parts:
        raise InvalidMove(f"{shown(source.path)} can't be moved into itself, {shown(target.path)}")
    if not target.parts:
        raise PathExists("the root can't be replaced")
    if target.missing > 1:
        parent = join(target.parts[:-1])
        raise PathNotFound(f"the parent directory {shown(parent)} does not exist")
    require_removal(caller, source.parent, node, source.path)
    require(caller, target.parent, WRITE | EXECUTE, target.path)
    replaced = target.node
    if replaced is not None:
        _require_replaceable(tx, request, node, replaced, target)
        if source.parts[: len(target.parts)] == target.parts:
            raise DirectoryNotEmpty(f"{shown(target.path)} holds {shown(source.path)}")
        require_removal(caller, target.parent, replaced, target.path)

    leaving = [n for n in source.chain if n not in target.chain]
    entering = [n for n in target.chain if n not in source.chain]
    names, space = 0, 0
    if quotas.limited(leaving) or quotas.limited(entering):
        names, space = quotas.usage(tx, node)
    gone_names, gone_space = 0, 0
    if replaced is not None and quotas.limited(target.chain):
        gone_names, gone_space = quotas.usage(tx, replaced)
    quotas.check(tx, entering, names - gone_names, space - gone_space)

    if replaced is not None:
        sql.unlink(tx, replaced, now_ms)
        forget_writer(tx, replaced)
        quotas.charge(tx, target.chain, -gone_names, -gone_space)
    tx.execute(
        "UPDATE inodes SET parent_id = ?, name = ? WHERE parent_id = ? AND name = ?",
        (target.parent.inode_id, target.parts[-1], node.parent_id, node.name),
    )
    quotas.charge(tx, leaving, -names, -space)
    quotas.charge(tx, entering, names, space)
    for changed in (node, replaced):
        if changed is not None and changed.is_directory:
            tx.directory_changed((changed.parent_id, changed.name))
    tx.emit(
        NewEvent(now_ms, "rename", source.path, caller.user, INodeId(node.inode_id), target.path)
    )
    return Renamed(path=target.path)


def rename_all(tx: Transaction, caller: Caller, request: RenameAll, *, now_ms: int) -> RenamedAll:
    """The store takes back what was done when one of them raises."""
    return RenamedAll(
        paths=[rename(tx, caller, each, now_ms=now_ms).path for each in request.renames]
    )


def _require_replaceable(
    tx: Transaction, request: Rename, node: INode, replaced: INode, target: Walk
) -> None:
    if not request.overwrite:
        raise PathExists(f"{shown(target.path)} exists")
    if replaced.is_directory and not node.is_directory:
        raise IsADirectory(f"{shown(target.path)} is a directory and can't be replaced by a file")
    if not replaced.is_directory and node.is_directory:
        raise NotADirectory(f"{shown(target.path)} is a file and can't be replaced by a directory")
    if replaced.is_directory and sql.children(tx, replaced.inode_id, "", 1):
        raise DirectoryNotEmpty(f"{shown(target.path)} is not empty")


# --- deleting ----------------------------------------------------------------------------------


def forget_writer(tx: Transaction, node: INode) -> None:
    """Whoever is writing an unlinked file has lost it."""
    if node.flags & FLAG_OPEN:
        tx.execute("DELETE FROM leases WHERE inode_id = ?", (node.inode_id,))


def delete(tx: Transaction, caller: Caller, request: Delete, *, now_ms: int) -> Deleted:
    """Unlink a file or a tree in one step; `existed` is false for a missing path. As in HDFS, who is no superuser needs all
    rights on every directory of it that is not empty."""
    found = walk(tx, caller, request.path)
    node = found.node
    if node is None:
        return Deleted(existed=False)
    if not found.parts:
        raise InvalidPath("the root can't be deleted")
    require_removal(caller, found.parent, node, found.path)
    if node.is_directory and not request.recursive and sql.children(tx, node.inode_id, "", 1):
        raise DirectoryNotEmpty(f"{shown(found.path)} is not empty")
    require_below(tx, caller, node, READ | WRITE, found.path)
    names, space = quotas.usage(tx, node) if quotas.limited(found.chain) else (0, 0)
    sql.unlink(tx, node, now_ms)
    forget_writer(tx, node)
    quotas.charge(tx, found.chain, -names, -space)
    if node.is_directory:
        tx.directory_changed((node.parent_id, node.name))
    tx.emit(NewEvent(now_ms, "unlink", found.path, caller.user, INodeId(node.inode_id)))
    return Deleted(existed=True)


def delete_many(
    tx: Transaction, caller: Caller, request: DeleteMany, *, now_ms: int
) -> DeletedMany:
    results = []
    for path in request.paths:
        try:
            done = delete(tx, caller, Delete(path=path, recursive=request.recursive), now_ms=now_ms)
            results.append(DeletedResult(existed=done.existed))
        except DfsError as error:
            results.append(DeletedResult(failure=failure_of(error)))
    return DeletedMany(results=results)


# --- trash -------------------------------------------------------------------------------------

TRASH = ".Trash"
CURRENT = "Current"


def trash_root(user: str) -> Components:
    return ("user", user, TRASH)


def move_to_trash(tx: Transaction, caller: Caller, request: MoveToTrash, *, now_ms: int) -> Renamed:
    """Keep a deleted path below the caller's trash, under its whole former path."""
    found, node = existing(tx, caller, request.path)
    own = trash_root(caller.user)
    parse("/" + caller.user)  # a user name that can't be a directory has no trash
    if not found.parts:
        raise InvalidPath("the root can't be deleted")
    if own[: len(found.parts)] == found.parts:
        raise InvalidMove(f"{shown(found.path)} holds the trash and can't be moved into it")
    if found.parts[: len(own)] == own:
        raise InvalidMove(
            f"{shown(found.path)} is in the trash already; delete it with --skip-trash"
        )
    require_removal(caller, found.parent, node, found.path)
    # The caller need not own /user: the trash is the NameNode's to make.
    system = Caller(caller.user, caller.groups, superuser=True)
    directory = (*own, CURRENT, *found.parts[:-1])
    name = found.parts[-1]
    place = walk_parts(tx, system, (*directory, name))
    if place.node is not None:
        name = f"{name[:50]}.{now_ms}"
        place = walk_parts(tx, system, (*directory, name))
    if place.missing > 1:
        quotas.check(tx, place.chain, place.missing - 1, 0)
        make_parents(tx, system, place, 0o700, now_ms, place.missing - 1)
        quotas.charge(tx, place.chain, place.missing - 1, 0)
    return rename(
        tx,
        system,
        Rename(source=found.path, destination=join((*directory, name))),
        now_ms=now_ms,
    )

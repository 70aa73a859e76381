"""Operations on access control lists, and the question whether something is allowed."""

from __future__ import annotations

import json
from collections.abc import Callable

from ...common.access import (
    AclEntry,
    AclStatus,
    CheckAccess,
    GetAcl,
    ModifyAcl,
    RemoveAcl,
    RemoveAclEntries,
    SetAcl,
)
from ...common.errors import InvalidAcl, PermissionDenied
from ...common.messages import Done
from ...common.model import INodeId
from ...common.paths import shown
from .. import acls
from ..permissions import EXECUTE, Caller, allowed, require, require_owner
from ..store import sql
from ..store.base import NewEvent, Transaction
from ..store.sql import COLUMNS, INode
from .walk import existing

Change = Callable[[list[AclEntry]], list[AclEntry]]


def get_acl(tx: Transaction, caller: Caller, request: GetAcl) -> AclStatus:
    found, node = existing(tx, caller, request.path)
    return AclStatus(
        path=found.path,
        owner=node.owner,
        group=node.group,
        mode=node.mode,
        entries=acls.listed(node),
    )


def check_access(tx: Transaction, caller: Caller, request: CheckAccess) -> Done:
    found, node = existing(tx, caller, request.path)
    require(caller, node, request.rights, found.path)
    return Done()


def set_acl(tx: Transaction, caller: Caller, request: SetAcl, *, now_ms: int) -> None:
    _change(tx, caller, request.path, lambda old: acls.replaced(old, request.entries), now_ms)


def modify_acl(tx: Transaction, caller: Caller, request: ModifyAcl, *, now_ms: int) -> None:
    _change(tx, caller, request.path, lambda old: acls.modified(old, request.entries), now_ms)


def remove_acl_entries(
    tx: Transaction, caller: Caller, request: RemoveAclEntries, *, now_ms: int
) -> None:
    _change(tx, caller, request.path, lambda old: acls.without(old, request.entries), now_ms)


def remove_acl(tx: Transaction, caller: Caller, request: RemoveAcl, *, now_ms: int) -> None:
    def change(old: list[AclEntry]) -> list[AclEntry]:
        if request.scope == "default":
            return [entry for entry in old if entry.scope == "access"]
        plain = [e for e in old if e.scope == "access" and not e.name and e.kind != "mask"]
        return plain  # the owning group gets back its own rights, not the mask

    _change(tx, caller, request.path, change, now_ms)


def _change(tx: Transaction, caller: Caller, path: str, change: Change, now_ms: int) -> None:
    found, node = existing(tx, caller, path)
    require_owner(caller, node, found.path)
    entries = change(acls.whole(node))
    if not node.is_directory and any(entry.scope == "default" for entry in entries):
        raise InvalidAcl(
            f"Invalid ACL: only directories may have a default ACL. Path: {shown(found.path)}"
        )
    mode, text = acls.kept(entries, node.mode)
    sql.update(tx, node, mode=mode, acl=text)
    if node.is_directory:
        tx.directory_changed((node.parent_id, node.name))
    detail = json.dumps({"mode": f"{mode:04o}", "acl": text}, separators=(",", ":"))
    tx.emit(
        NewEvent(now_ms, "metadata", found.path, caller.user, INodeId(node.inode_id), detail=detail)
    )


# --- whole trees -------------------------------------------------------------------------------

_BELOW = (
    "WITH RECURSIVE tree (inode_id) AS (SELECT CAST(? AS BIGINT) UNION ALL"
    " SELECT i.inode_id FROM inodes i JOIN tree t ON i.parent_id = t.inode_id WHERE i.kind = 1)"
    f" SELECT {', '.join('i.' + name.strip() for name in COLUMNS.split(','))}"
    " FROM inodes i JOIN tree t ON i.inode_id = t.inode_id"
    " WHERE EXISTS (SELECT 1 FROM inodes c WHERE c.parent_id = i.inode_id)"
)


def require_below(tx: Transaction, caller: Caller, node: INode, action: int, path: str) -> None:
    """Raise unless *caller* may do *action* to every directory from *node* down that is not empty.

    A superuser passes without a look, so that deleting a tree stays one step for him whatever its size.
    """
    if caller.superuser or not node.is_directory:
        return
    for row in tx.all(_BELOW, (node.inode_id,)):
        below = INode(*row)
        if not allowed(caller, below, action | EXECUTE):
            raise PermissionDenied(
                f"{caller.user} may not use the directory {shown(below.name or '/')} in "
                f"{shown(path)}: it belongs to {below.owner}:{below.group} with mode {below.mode:04o}"
            )

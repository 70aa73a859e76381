"""Who may do what: owner, group and other bits, as HDFS checks them in simple mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..common.errors import PermissionDenied
from ..common.paths import shown
from . import acls
from .store.sql import INode

READ: Final = 4
WRITE: Final = 2
EXECUTE: Final = 1
STICKY: Final = 0o1000
_WORDS = {READ: "read", WRITE: "write", EXECUTE: "search", WRITE | EXECUTE: "write"}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. A superuser passes every check. *host* is where the request came from."""

    user: str
    groups: frozenset[str] = frozenset()
    superuser: bool = False
    host: str = ""


def allowed(caller: Caller, node: INode, action: int) -> bool:
    if caller.superuser:
        return True
    if node.acl:
        return acls.allowed(caller.user, caller.groups, node, action)
    if caller.user == node.owner:
        bits = node.mode >> 6
    elif node.group in caller.groups:
        bits = node.mode >> 3
    else:
        bits = node.mode
    return bits & action == action


def require(caller: Caller, node: INode, action: int, path: str) -> None:
    """Raise PermissionDenied unless *caller* may do *action* to the node at *path*."""
    if not allowed(caller, node, action):
        raise PermissionDenied(
            f"{caller.user} may not {_WORDS.get(action, 'use')} {shown(path)}: it belongs to "
            f"{node.owner}:{node.group} with mode {node.mode:04o}{' and an ACL' if node.acl else ''}"
        )


def require_removal(caller: Caller, parent: INode, node: INode, path: str) -> None:
    """What unlinking or renaming *node* out of *parent* needs, the sticky bit included."""
    if caller.superuser:
        return
    require(caller, parent, WRITE | EXECUTE, path)
    if parent.mode & STICKY and caller.user not in (node.owner, parent.owner):
        raise PermissionDenied(
            f"{caller.user} may not remove {shown(path)}: its directory is sticky and neither "
            f"belongs to {caller.user}"
        )


def require_owner(caller: Caller, node: INode, path: str) -> None:
    if not caller.superuser and caller.user != node.owner:
        raise PermissionDenied(
            f"only {node.owner}, who owns {shown(path)}, or a superuser may do this"
        )


def require_superuser(caller: Caller, what: str) -> None:
    if not caller.superuser:
        raise PermissionDenied(f"only a superuser may {what}")

"""What POSIX ACLs mean: checking, changing and inheriting them, as HDFS's permissions guide defines it.

Pure functions over an inode and entries. An inode with access entries beyond its mode bits keeps the named ones and the owning
group's in its `acl` text; then the group bits of its mode are the mask. So `chmod` on such an inode changes the mask, as
POSIX says, and a reader that knows only mode bits never sees more granted than is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from ..common.access import MAX_ENTRIES, AclEntry, Scope, entries_text, parse_entries
from ..common.errors import InvalidAcl
from .store.sql import INode

_ORDER = {"user": 0, "group": 1, "mask": 2, "other": 3}
Key = tuple[str, str, str]


@lru_cache(maxsize=4_096)
def stored(text: str) -> tuple[AclEntry, ...]:
    """The entries of an inode's `acl` text."""
    return tuple(parse_entries(text)) if text else ()


def allowed(user: str, groups: frozenset[str], node: INode, action: int) -> bool:
    """Whether *user* may do all of *action* to a node that has an ACL.

    Source: HDFS permissions guide, "ACLs": owner; named user; groups, any of which may grant; others.
    """
    if user == node.owner:
        return node.mode >> 6 & action == action
    mask = node.mode >> 3 & 7
    member = False
    for entry in stored(node.acl):
        if entry.scope != "access":
            continue
        if entry.kind == "user" and entry.name == user:
            return entry.rights & mask & action == action
        if entry.kind == "group" and (entry.name or node.group) in groups:
            member = True
            if entry.rights & mask & action == action:
                return True
    if not member and not has_access(node) and node.group in groups:
        return mask & action == action
    return not member and node.mode & action == action


def has_access(node: INode) -> bool:
    """Whether the node has access entries beyond its mode bits."""
    return any(entry.scope == "access" for entry in stored(node.acl))


def listed(node: INode) -> list[AclEntry]:
    """What `AclStatus.entries` shows."""
    return list(stored(node.acl))


def whole(node: INode) -> list[AclEntry]:
    """Every entry of the node's list, those that its mode bits say included."""
    access = [entry for entry in stored(node.acl) if entry.scope == "access"]
    default = [entry for entry in stored(node.acl) if entry.scope == "default"]
    bits = {"user": node.mode >> 6 & 7, "group": node.mode >> 3 & 7, "other": node.mode & 7}
    found = [AclEntry(kind="user", rights=bits["user"])]
    if access:
        found += access
        found.append(AclEntry(kind="mask", rights=bits["group"]))
    else:
        found.append(AclEntry(kind="group", rights=bits["group"]))
    return [*found, AclEntry(kind="other", rights=bits["other"]), *default]


# --- changing ----------------------------------------------------------------------------------


def modified(existing: Sequence[AclEntry], spec: Sequence[AclEntry]) -> list[AclEntry]:
    """*existing* with *spec*'s entries added, or in place of those of the same name."""
    entries = {entry.key: entry for entry in existing}
    entries.update(_unique(spec))
    dirty = {entry.scope for entry in spec}
    return _finished(entries, dirty, given={e.scope for e in spec if e.kind == "mask"})


def replaced(existing: Sequence[AclEntry], spec: Sequence[AclEntry]) -> list[AclEntry]:
    """*existing* with the scopes that *spec* names replaced."""
    dirty = {entry.scope for entry in spec}
    entries = {entry.key: entry for entry in existing if entry.scope not in dirty}
    entries.update(_unique(spec))
    return _finished(entries, dirty, given={e.scope for e in spec if e.kind == "mask"})


def without(existing: Sequence[AclEntry], spec: Sequence[AclEntry]) -> list[AclEntry]:
    """*existing* without the entries that *spec* names."""
    gone = set(_unique(spec))
    dirty = {entry.scope for entry in existing if entry.key in gone}
    entries = {entry.key: entry for entry in existing if entry.key not in gone}
    removed = {entry.scope for entry in spec if entry.kind == "mask" and entry.key in gone}
    for scope in removed & dirty:
        if any(entry.name and entry.scope == scope for entry in entries.values()):
            raise InvalidAcl("Invalid ACL: mask is required and cannot be deleted.")
    return _finished(entries, dirty, given=removed)


def _unique(spec: Sequence[AclEntry]) -> dict[Key, AclEntry]:
    if not spec:
        raise InvalidAcl("Invalid ACL: no entries are given.")
    entries: dict[Key, AclEntry] = {}
    for entry in spec:
        if entry.key in entries:
            raise InvalidAcl(
                f"Invalid ACL: multiple entries with same scope, type and name: {entry}"
            )
        entries[entry.key] = entry
    return entries


def _finished(entries: dict[Key, AclEntry], dirty: set[Scope], given: set[Scope]) -> list[AclEntry]:
    """Fill in what the default scope lacks, recompute the masks of *dirty* scopes unless *given*, validate, sort."""
    if any(scope == "default" for scope, _, _ in entries):
        for kind in ("user", "group", "other"):
            key, source = ("default", kind, ""), entries.get(("access", kind, ""))
            if key not in entries and source is not None:
                entries[key] = AclEntry(kind=source.kind, rights=source.rights, scope="default")
                dirty = dirty | {"default"}
    scopes: tuple[Scope, Scope] = ("access", "default")
    for scope in scopes:
        within = [entry for entry in entries.values() if entry.scope == scope]
        needed = any(entry.name for entry in within)
        masked = (scope, "mask", "") in entries
        if (needed or masked) and scope in dirty and not (masked and scope in given):
            rights = 0
            for entry in within:
                if entry.kind == "group" or (entry.kind == "user" and entry.name):
                    rights |= entry.rights
            mask = AclEntry(kind="mask", rights=rights, scope=scope)
            entries[mask.key] = mask
        count = sum(entry.scope == scope for entry in entries.values())
        if count > MAX_ENTRIES:
            raise InvalidAcl(
                f"Invalid ACL: ACL has {count} {scope} entries, which exceeds maximum of {MAX_ENTRIES}."
            )
        if (scope == "access" or within) and not all(
            (scope, kind, "") in entries for kind in ("user", "group", "other")
        ):
            raise InvalidAcl("Invalid ACL: the user, group and other entries are required.")
    return sorted(entries.values(), key=_sort_key)


def _sort_key(entry: AclEntry) -> tuple[bool, int, bool, str]:
    """The owner's before named users', and so on: the order POSIX shows."""
    return entry.scope == "default", _ORDER[entry.kind], bool(entry.name), entry.name


def kept(entries: Iterable[AclEntry], mode: int) -> tuple[int, str]:
    """(mode, acl text) that stand for a whole list: what its mode bits say is not stored twice."""
    whole = sorted(entries, key=_sort_key)
    access = {entry.key: entry for entry in whole if entry.scope == "access"}
    default = [entry for entry in whole if entry.scope == "default"]
    owner, other = access.pop(("access", "user", "")), access.pop(("access", "other", ""))
    mask = access.pop(("access", "mask", ""), None)
    middle = mask or access[("access", "group", "")]
    if mask is None:
        access.clear()  # nothing but what the bits say
    bits = owner.rights << 6 | middle.rights << 3 | other.rights
    return mode & ~0o777 | bits, entries_text([*access.values(), *default])


def inherited(parent: INode, mode: int, *, directory: bool) -> tuple[int, str]:
    """(mode, acl text) of what is created with *mode* in a directory that has a default ACL.

    The bits of *mode* limit the owner's, the mask's (or the group's, where there is no mask) and the others' rights.
    """
    default = [entry for entry in stored(parent.acl) if entry.scope == "default"]
    masked = any(entry.kind == "mask" for entry in default)
    limits = {
        "user": mode >> 6 & 7,
        "mask" if masked else "group": mode >> 3 & 7,
        "other": mode & 7,
    }
    access = [
        AclEntry(
            kind=entry.kind,
            name=entry.name,
            rights=entry.rights & (7 if entry.name else limits.get(entry.kind, 7)),
        )
        for entry in default
    ]
    return kept([*access, *(default if directory else [])], mode)


def inherits(parent: INode) -> bool:
    """Whether what is created in *parent* gets an ACL from it."""
    return bool(parent.acl) and any(entry.scope == "default" for entry in stored(parent.acl))

"""Access control lists: entries, their text, and the messages of the operations on them.

The text is HDFS's: `[default:]user|group|mask|other:[NAME]:rwx`, joined by commas. An entry of kind user or group without a
name is the owner's or the owning group's.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from .errors import InvalidRequest
from .messages import PathText
from .model import Mode, Struct
from .paths import shown

Kind = Literal["user", "group", "mask", "other"]
Scope = Literal["access", "default"]
Rights = Annotated[int, msgspec.Meta(ge=0, le=7)]
MAX_ENTRIES = 32  # in each scope; HDFS's own limit

_ENTRY = re.compile(r"(default:)?(user|group|mask|other):([^:,/\s]*)(?::([r-][w-][x-])?)?")


class AclEntry(Struct, frozen=True, kw_only=True):
    """What one user or group may do. *scope* default: what is created inside the directory gets it."""

    kind: Kind
    rights: Rights
    name: Annotated[str, msgspec.Meta(max_length=255)] = ""
    scope: Scope = "access"

    def __post_init__(self) -> None:
        if self.name and self.kind in ("mask", "other"):
            raise ValueError(f"an entry of kind {self.kind} has no name")
        if any(c in ":,/" or c.isspace() or not c.isprintable() for c in self.name):
            raise ValueError("the name of a user or group has a character that can't be in it")

    @property
    def key(self) -> tuple[str, str, str]:
        """Which entry it is, whatever it grants."""
        return self.scope, self.kind, self.name

    def __str__(self) -> str:
        prefix = "default:" if self.scope == "default" else ""
        return f"{prefix}{self.kind}:{self.name}:{rights_text(self.rights)}"


Entries = Annotated[list[AclEntry], msgspec.Meta(max_length=2 * MAX_ENTRIES)]


class AclStatus(Struct, frozen=True, kw_only=True):
    """The list of a path as `getfacl` shows it: *entries* without the owner's, the mask and the others' of the access scope,
    which *mode* says (its group digit is the mask where there are named entries)."""

    path: str
    owner: str
    group: str
    mode: Mode
    entries: list[AclEntry]


class GetAcl(Struct, frozen=True, kw_only=True):
    path: PathText


class SetAcl(Struct, frozen=True, kw_only=True):
    """Replace the scopes that *entries* name; an access scope must have the owner's, the group's and the others' entry."""

    path: PathText
    entries: Entries


class ModifyAcl(Struct, frozen=True, kw_only=True):
    """Add *entries*, or change those that are there."""

    path: PathText
    entries: Entries


class RemoveAclEntries(Struct, frozen=True, kw_only=True):
    """Take away the entries of these kinds and names; their rights are not looked at."""

    path: PathText
    entries: Entries


class RemoveAcl(Struct, frozen=True, kw_only=True):
    """Leave nothing but the mode bits; or, of a directory, drop what new entries inherit."""

    path: PathText
    scope: Literal["all", "default"] = "all"


class CheckAccess(Struct, frozen=True, kw_only=True):
    """PermissionDenied unless the caller has all of *rights* (4 read, 2 write, 1 execute) on *path*."""

    path: PathText
    rights: Rights


def rights_text(rights: int) -> str:
    return "".join(
        letter if rights & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1))
    )


def parse_rights(text: str) -> int:
    """`r-x` -> 5; InvalidRequest if it is no such text."""
    if not re.fullmatch("[r-][w-][x-]", text):
        raise InvalidRequest(f"{shown(text)} is not of the form rwx, with - for what is missing")
    return sum(bit for letter, bit in zip(text, (4, 2, 1), strict=True) if letter != "-")


def parse_entries(text: str, *, rights: bool = True) -> list[AclEntry]:
    """The entries of an ACL text. Without *rights* (to remove entries) they may be left out.

    Raises InvalidRequest for what is no such text.
    """
    if len(text) > 2 * MAX_ENTRIES * 300:
        raise InvalidRequest("the ACL is too long")
    entries = []
    for part in text.split(","):
        match = _ENTRY.fullmatch(part)
        if match is None or (rights and not match[4]):
            raise InvalidRequest(
                f"{shown(part)} is no ACL entry: write [default:]user|group|mask|other:[NAME]:rwx"
            )
        try:
            entries.append(
                AclEntry(
                    scope="default" if match[1] else "access",
                    kind=match[2],  # type: ignore[arg-type]
                    name=match[3],
                    rights=parse_rights(match[4]) if match[4] else 0,
                )
            )
        except ValueError as error:
            raise InvalidRequest(f"{shown(part)}: {error}") from None
    if len(entries) > 2 * MAX_ENTRIES:
        raise InvalidRequest(f"an ACL may have {MAX_ENTRIES} entries in each scope")
    return entries


def entries_text(entries: list[AclEntry] | tuple[AclEntry, ...]) -> str:
    return ",".join(map(str, entries))

"""Statements on inodes, and the row they give. Other tables' statements stand beside their subject."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ...common.model import ROOT_ID
from .base import Row, Transaction
from .migrate import KIND_DIRECTORY, KIND_FILE, UNLINKED_PARENT

__all__ = [
    "CHILDREN_OF",
    "COLUMNS",
    "FLAG_OPEN",
    "FLAG_QUOTA",
    "FLAG_XATTR",
    "KIND_DIRECTORY",
    "KIND_FILE",
    "UNLINKED_PARENT",
    "INode",
    "child",
    "children",
    "children_of",
    "count_children",
    "directory",
    "find",
    "insert",
    "insert_many",
    "marks",
    "one_by_one",
    "root",
    "unlink",
    "update",
]

FLAG_QUOTA: Final = 1
FLAG_XATTR: Final = 2
FLAG_OPEN: Final = 4


class INode(NamedTuple):
    """A row of inodes, in the order of its columns."""

    parent_id: int
    name: str
    inode_id: int
    kind: int
    mode: int
    flags: int
    replication: int
    owner: str
    group: str
    mtime_ms: int
    atime_ms: int
    length: int
    block_size: int
    acl: str = ""

    @property
    def is_directory(self) -> bool:
        return self.kind == KIND_DIRECTORY

    @property
    def is_open(self) -> bool:
        return bool(self.flags & FLAG_OPEN)


COLUMNS: Final = (
    "parent_id, name, inode_id, kind, mode, flags, replication, owner, grp,"
    " mtime_ms, atime_ms, length, block_size, acl"
)
_CHILD: Final = f"SELECT {COLUMNS} FROM inodes WHERE parent_id = ? AND name = ?"
_BY_ID: Final = f"SELECT {COLUMNS} FROM inodes WHERE inode_id = ?"
_CHILDREN: Final = (
    f"SELECT {COLUMNS} FROM inodes WHERE parent_id = ? AND name > ? ORDER BY name LIMIT ?"
)
_COUNT_CHILDREN: Final = (
    "SELECT COUNT(*) FROM"
    " (SELECT 1 AS one FROM inodes WHERE parent_id = ? AND name > ? LIMIT ?) AS counted"
)
# All rows in one, as JSON: a statement lets go of the interpreter's lock for each row, and with other threads
# waiting for it that costs more than the row. No column may be a blob: JSON has none.
CHILDREN_OF: Final = (
    f"SELECT json_group_array(json_array({', '.join(f'i.{c.strip()}' for c in COLUMNS.split(','))}))"
    " FROM json_each(?) k JOIN inodes i ON i.parent_id = json_extract(k.value, '$[0]')"
    " AND i.name = json_extract(k.value, '$[1]')"
)
_INSERT: Final = f"INSERT INTO inodes ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_make = INode._make
_updates: dict[tuple[str, ...], str] = {}  # the statement for each combination of changed columns


def child(tx: Transaction, parent_id: int, name: str) -> INode | None:
    row = tx.one(_CHILD, (parent_id, name))
    return None if row is None else _make(row)


def children_of(tx: Transaction, keys: Sequence[tuple[int, str]]) -> dict[tuple[int, str], INode]:
    """What there is at (parent inode id, name) for each of *keys*."""
    return {(row[0], row[1]): _make(row) for row in tx.inodes(keys)}


def one_by_one(tx: Transaction, keys: Sequence[tuple[int, str]]) -> list[Row]:
    """`Transaction.inodes` for dialects without a better way."""
    rows = (tx.one(_CHILD, key) for key in keys)
    return [row for row in rows if row is not None]


def directory(tx: Transaction, parent_id: int, name: str) -> INode | None:
    """As `child`, remembering directories: for the components above the last."""
    cache = tx.directories
    key = (parent_id, name)
    if cache is not None:
        known: Row | None = cache.get(key)
        if known is not None:
            return known  # type: ignore[return-value]
    row = tx.one(_CHILD, key)
    if row is None:
        return None
    found = _make(row)
    if cache is not None and found.kind == KIND_DIRECTORY:
        cache.put(key, found)
    return found


def root(tx: Transaction) -> INode:
    found = directory(tx, 0, "")
    assert found is not None, "the store has no root"
    return found


def find(tx: Transaction, inode_id: int) -> INode | None:
    if inode_id == ROOT_ID:
        return root(tx)
    row = tx.one(_BY_ID, (inode_id,))
    return None if row is None else _make(row)


def children(tx: Transaction, parent_id: int, start_after: str, limit: int) -> list[INode]:
    """In the order of name bytes; "" starts at the first."""
    return [_make(row) for row in tx.all(_CHILDREN, (parent_id, start_after, limit))]


def count_children(tx: Transaction, parent_id: int, start_after: str, limit: int) -> int:
    """How many `children` there are after a name, at most *limit*."""
    row = tx.one(_COUNT_CHILDREN, (parent_id, start_after, limit))
    assert row is not None
    return int(row[0])


def insert(tx: Transaction, node: INode) -> None:
    tx.execute(_INSERT, node)


def insert_many(tx: Transaction, nodes: list[INode]) -> None:
    tx.many(_INSERT, nodes)


def update(tx: Transaction, node: INode, **changes: object) -> INode:
    """Write the *changes* (fields of INode, no keys) and return the node with them."""
    names = tuple(changes)
    statement = _updates.get(names)
    if statement is None:
        columns = [("grp" if name == "group" else name) for name in names]
        statement = _updates[names] = (
            f"UPDATE inodes SET {', '.join(f'{column} = ?' for column in columns)}"
            " WHERE parent_id = ? AND name = ?"
        )
    tx.execute(statement, (*changes.values(), node.parent_id, node.name))
    return node._replace(**changes)  # type: ignore[arg-type]


def unlink(tx: Transaction, node: INode, now_ms: int) -> None:
    """Take a file or a whole tree out of the namespace; the reaper does the rest after the grace period."""
    tx.execute(
        "UPDATE inodes SET parent_id = ?, name = ?, mtime_ms = ? WHERE parent_id = ? AND name = ?",
        (UNLINKED_PARENT, str(node.inode_id), now_ms, node.parent_id, node.name),
    )


def marks(count: int) -> str:
    """*count* placeholders for IN (...)."""
    return ", ".join("?" * count)

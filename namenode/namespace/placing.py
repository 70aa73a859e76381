"""Room in the namespace for a whole new file."""

from __future__ import annotations

from .. import quotas
from ..leases import WriteRules
from ..permissions import Caller
from ..store.base import Transaction
from ..store.sql import INode
from .files import replace_file, require_replaceable
from .tree import make_parents, require_creation
from .walk import Walk


def make_place(
    tx: Transaction,
    caller: Caller,
    found: Walk,
    *,
    overwrite: bool,
    create_parents: bool,
    space_bytes: int,
    now_ms: int,
    rules: WriteRules,
) -> INode:
    """The directory of a new file at *found*, whose bytes in all copies are *space_bytes*.

    What is there is replaced, directories that are missing are made, quotas are checked and charged.
    """
    if found.node is not None:
        require_replaceable(tx, caller, found, overwrite=overwrite, now_ms=now_ms, rules=rules)
        freed = found.node.length * found.node.replication
        quotas.check(tx, found.chain, 0, space_bytes - freed)
        replace_file(tx, found, now_ms)
        chain, names = found.chain, 1
    else:
        require_creation(tx, caller, found, parents=create_parents, space_bytes=space_bytes)
        chain = make_parents(tx, caller, found, 0o755, now_ms, found.missing - 1)
        names = found.missing
    quotas.charge(tx, found.chain, names, space_bytes)
    return chain[-1]

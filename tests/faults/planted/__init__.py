"""Bugs on purpose, for tests of the checker: the servers' own code with one seam patched.

`python -m tests.faults.planted.namenode` and `.datanode` are the servers with the bug that the variable PLANTED_BUG
names. Nothing of this is in the distribution, and the servers themselves know nothing of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

BUGS: dict[str, Callable[[], None]] = {}


def bug(function: Callable[[], None]) -> Callable[[], None]:
    BUGS[function.__name__] = function
    return function


def plant() -> None:
    """Patch in the bug that the environment names, before anything else is imported."""
    BUGS[os.environ["PLANTED_BUG"]]()


@bug
def none() -> None:
    """The servers as they are."""


@bug
def acknowledge_before_fsync() -> None:
    """DataNodes say that bytes are durable which are not."""
    from twinfs.common import disk

    def nothing(*_: Any) -> None: ...

    for name in ("fsync", "fdatasync", "sync_log", "fsync_directory"):
        setattr(disk, name, nothing)


@bug
def skip_the_generation_check() -> None:
    """The NameNode takes whatever a node has of a block for a copy of it: one that dropped out of the write has one, too."""
    from twinfs.namenode import blockmap, leases, reports
    from twinfs.namenode.namespace import files

    def judge(tx: Any, replica: Any, known: Any, node_id: Any) -> str:
        return "wait" if known is None or known[2] is None else "good"

    commit_block = blockmap.commit_block

    def commit(tx: Any, found: Any, commit: Any) -> None:
        commit_block(tx, found, commit)
        tx.execute(
            "UPDATE replicas SET state = 0 WHERE block_id = ? AND state = 2", (commit.block_id,)
        )

    reports._judge = judge
    reports._is_another = lambda *_: False
    for module in (blockmap, leases, files):
        if hasattr(module, "commit_block"):
            module.commit_block = commit


@bug
def forget_the_excess_check() -> None:
    """Copies too many stay."""
    from twinfs.namenode import replication

    replication.choose_excess = lambda *_: []  # type: ignore[assignment]


@bug
def resurrect_on_restart() -> None:
    """What a node that comes back still has of deleted files may stay there."""
    from twinfs.namenode import reports

    judge, remember = reports._judge, reports._remember_node

    def remember_node(tx: Any, *rest: Any) -> Any:
        node_id = remember(tx, *rest)
        tx.execute("DELETE FROM replicas WHERE node_id = ? AND state = 2", (node_id,))
        return node_id

    def kind(tx: Any, replica: Any, known: Any, node_id: Any) -> str:
        return "wait" if known is None else judge(tx, replica, known, node_id)

    reports._judge, reports._remember_node = kind, remember_node


@bug
def serve_stale_locations_for_ever() -> None:
    """The NameNode remembers where a file's blocks are, and never asks again."""
    from twinfs.namenode import blockmap

    locate, known = blockmap.locate, {}

    def remembered(tx: Any, inode_ids: Any, *rest: Any) -> Any:
        for inode_id in inode_ids:
            if inode_id not in known:
                known.update(locate(tx, [inode_id], *rest))
        return {inode_id: known[inode_id] for inode_id in inode_ids}

    blockmap.locate = remembered


@bug
def lose_the_rename_on_crash() -> None:
    """A rename is answered before it is durable."""
    from twinfs.common import disk
    from twinfs.namenode.namespace import tree

    rename, sync_log = tree.rename, disk.sync_log
    owed: list[bool] = []

    def quick(*arguments: Any, **options: Any) -> Any:
        owed.append(True)
        return rename(*arguments, **options)

    def sync(*arguments: Any) -> None:
        if owed:
            owed.clear()
        else:
            sync_log(*arguments)

    tree.rename, disk.sync_log = quick, sync


@bug
def repair_from_the_corrupt_copy() -> None:
    """A DataNode that copies a block believes its source, and does not tell what it got."""
    import msgspec

    from twinfs.datanode import copying, pipeline, replicas

    class Fitting(bytes):
        def __ne__(self, other: object) -> bool:
            return False

    report = replicas.report_finalized
    pipeline.require_digest = lambda *_: None  # type: ignore[assignment]
    copying.block_digest = lambda _: Fitting()  # type: ignore[assignment]

    def untold(replica: Any, damaged: bool) -> Any:
        return msgspec.structs.replace(report(replica, damaged), digest=b"")

    # In what is told at once, and in the whole report, which would have the NameNode find it within ten seconds.
    replicas.report_finalized = copying.report_finalized = untold  # type: ignore[attr-defined]


@bug
def hash_damage_again() -> None:
    """Who goes on with a replica takes its bytes as they are, and they get digests that fit them."""
    from twinfs.datanode.writing import WritingReplica

    go_on = WritingReplica._go_on
    WritingReplica._go_on = lambda self, length, digests, held: go_on(self, length, digests, None)  # type: ignore[method-assign]


@bug
def carry_out_resent_requests_again() -> None:
    """A request that comes again, because its answer was lost, is carried out again."""
    from twinfs.namenode.store import answers, sqlite

    answers.find = lambda *_: None  # type: ignore[assignment]
    sqlite.RESENT_KEPT = 0

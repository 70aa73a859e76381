"""`dfs fsck`: whether every block has its copies."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any

import click

from ...common.admin import Check, CheckCluster, CheckedBlock, CheckedFile, CheckPage, ClusterCheck
from ...common.errors import PathNotFound
from .support import (
    Shell,
    counted,
    human,
    json_option,
    print_json,
    shell_command,
    shown,
    to_plain,
)

LOST = ("missing", "corrupt")
PAGE, DETAILED_PAGE = 500, 20


class Totals:
    """What was found, in numbers."""

    def __init__(self) -> None:
        self.files = self.directories = self.bytes = self.blocks = 0
        self.live_replicas = self.corrupt_replicas = self.wanted_replicas = 0
        self.open_files = 0
        self.blocks_with: collections.Counter[str] = collections.Counter()
        self.files_with: collections.Counter[str] = collections.Counter()

    def add(self, file: CheckedFile) -> None:
        self.files += 1
        self.bytes += file.length
        self.blocks += file.block_count
        self.live_replicas += file.live_replicas
        self.corrupt_replicas += file.corrupt_replicas
        self.wanted_replicas += file.block_count * file.replication
        self.open_files += file.open_for_write
        for block in file.blocks:
            self.blocks_with.update(block.problems)
        self.files_with.update({problem for block in file.blocks for problem in block.problems})

    @property
    def lost(self) -> int:
        """Blocks that can't be read whole from anywhere now."""
        return sum(self.blocks_with[problem] for problem in LOST)

    @property
    def healthy(self) -> bool:
        return not self.lost

    def plain(self) -> dict[str, Any]:
        names = ("under-replicated", "over-replicated", "mis-replicated", "missing", "corrupt")
        return {
            "status": "healthy" if self.healthy else "corrupt",
            "files": self.files,
            "directories": self.directories,
            "bytes": self.bytes,
            "blocks": self.blocks,
            "live_replicas": self.live_replicas,
            "wanted_replicas": self.wanted_replicas,
            "corrupt_replicas": self.corrupt_replicas,
            "open_for_write": self.open_files,
            **{name.replace("-", "_"): self.blocks_with[name] for name in names},
            **{f"files_{n.replace('-', '_')}": self.files_with[n] for n in names},
        }


def pages(shell: Shell, path: str, detail: bool, totals: Totals) -> Iterator[CheckPage]:
    """The whole tree below *path*. A directory that goes away meanwhile is left out."""
    waiting = [path]
    while waiting:
        directory = waiting.pop()
        after = ""
        while True:
            try:
                page: CheckPage = shell.call(
                    "check",
                    Check(
                        path=directory,
                        start_after=after,
                        detail=detail,
                        limit=DETAILED_PAGE if detail else PAGE,
                    ),
                )
            except PathNotFound:
                if directory == path:
                    raise
                break
            base = directory.rstrip("/")
            waiting += [f"{base}/{name}" for name in reversed(page.directories)]
            totals.directories += len(page.directories)
            yield page
            if not page.more:
                break
            after = page.next_after


@shell_command(name="fsck")
@click.argument("path", default="/")
@click.option("--files", "show_files", is_flag=True, help="Name every file.")
@click.option("--blocks", "show_blocks", is_flag=True, help="Name every block of every file.")
@click.option("--locations", is_flag=True, help="Name the DataNodes of every block.")
@click.option("--racks", is_flag=True, help="Name the racks of every block's DataNodes.")
@click.option("--open", "show_open", is_flag=True, help="Name files that are open for write.")
@json_option
def fsck_command(
    shell: Shell,
    path: str,
    show_files: bool,
    show_blocks: bool,
    locations: bool,
    racks: bool,
    show_open: bool,
    as_json: bool,
) -> None:
    """Check that every block below PATH has its copies.

    Exit code 0: everything can be read (copies may be too few, and are then being made). Exit code 1: a block is
    missing (no copy on any DataNode that lives) or corrupt (all copies there are damaged).
    """
    where = shell.path(path)
    locations = locations or racks
    detail = show_blocks or locations
    totals = Totals()
    for page in pages(shell, where, detail, totals):
        for file in page.files:
            totals.add(file)
            if as_json:
                if detail or show_files or file.blocks or (show_open and file.open_for_write):
                    print_json(_plain(file, locations))
            else:
                _print_file(file, show_files or detail, detail, locations, racks, show_open)
    cluster: ClusterCheck = shell.call("check_cluster", CheckCluster())
    summary = {**totals.plain(), "cluster": to_plain(cluster)}
    if as_json:
        print_json({"path": where, **summary})
    else:
        _print_summary(where, totals, cluster)
    if not totals.healthy or cluster.content_missing:
        shell.failed = max(shell.failed, 1)


def _plain(file: CheckedFile, locations: bool) -> dict[str, Any]:
    found: dict[str, Any] = to_plain(file)
    if not locations:
        for block in found["blocks"]:
            del block["replicas"]
    return found


def _print_file(
    file: CheckedFile, every: bool, detail: bool, locations: bool, racks: bool, show_open: bool
) -> None:
    problems = sorted({problem for block in file.blocks for problem in block.problems})
    is_open = file.open_for_write and (show_open or every)
    if not (every or problems or file.corrupt_replicas or is_open):
        return
    state = [*problems, *(["open for write"] if file.open_for_write else [])]
    print(
        f"{shown(file.path)}: {file.length} bytes, {file.block_count} block(s), "
        f"replication {file.replication}: {', '.join(state) or 'OK'}"
    )
    for number, block in enumerate(file.blocks):
        if detail or block.problems or block.corrupt:
            print(f"  {number if detail else '-'}. {_block_line(block)}")
            if locations:
                for replica in block.replicas:
                    rack = f"{replica.rack}/" if racks else ""
                    notes: list[str] = [replica.state, replica.node_state]
                    if replica.admin_state != "in-service":
                        notes.append(replica.admin_state)
                    print(f"       {rack}{replica.address} ({', '.join(notes)})")


def _block_line(block: CheckedBlock) -> str:
    ref = f"blk_{block.block.block_id}_{block.block.generation}"
    damaged = f", {block.corrupt} damaged" if block.corrupt else ""
    state = ", ".join(block.problems) or ("being written" if block.block.digest is None else "OK")
    return (
        f"{ref} {block.block.length} bytes, {block.live} of {block.wanted} copies{damaged}: {state}"
    )


def _print_summary(path: str, totals: Totals, cluster: ClusterCheck) -> None:
    average = totals.live_replicas / totals.blocks if totals.blocks else 0.0
    having = totals.blocks_with
    lines = [
        ("Path", shown(path)),
        ("Files", f"{totals.files} ({totals.open_files} open for write)"),
        ("Directories", f"{totals.directories}"),
        ("Size", f"{human(totals.bytes)} in {counted(totals.blocks, 'block')}"),
        ("Copies", f"{totals.live_replicas} good, {average:.2f} a block"),
        ("Under-replicated", counted(having["under-replicated"], "block")),
        ("Over-replicated", counted(having["over-replicated"], "block")),
        ("Mis-replicated", counted(having["mis-replicated"], "block") + " (on too few racks)"),
        ("Damaged copies", f"{totals.corrupt_replicas}"),
        ("Corrupt", counted(having["corrupt"], "block") + " (every copy is damaged)"),
        ("Missing", counted(having["missing"], "block") + " (no copy on a living DataNode)"),
        (
            "DataNodes",
            f"{cluster.live_nodes} live, {cluster.stale_nodes} stale, {cluster.dead_nodes} dead,"
            f" on {counted(cluster.racks, 'rack')}",
        ),
        (
            "Repair",
            f"{counted(cluster.waiting, 'block waits', 'blocks wait')},"
            f" {counted(cluster.copying, 'copy is', 'copies are')} under way",
        ),
        ("To be deleted", counted(cluster.pending_deletion, "copy", "copies")),
        (
            "Content",
            f"{counted(cluster.content_blocks, 'block')} without a path, {cluster.content_under_replicated}"
            f" under-replicated, {cluster.content_missing} missing",
        ),
    ]
    if cluster.orphans or cluster.unreferenced_blocks:
        lines.append(
            (
                "Orphans",
                f"{counted(cluster.orphans, 'copy', 'copies')} of no block,"
                f" {counted(cluster.unreferenced_blocks, 'block')} of no file",
            )
        )
    print()
    for name, value in lines:
        print(f"  {name + ':':<18}{value}")
    print(
        f"\n{shown(path)} is HEALTHY"
        if totals.healthy
        else f"\n{shown(path)} is CORRUPT: {counted(totals.lost, 'block')} can't be read"
    )

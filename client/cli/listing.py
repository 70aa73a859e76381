"""Commands that look: ls, stat, find, du, count, df, test."""

from __future__ import annotations

import fnmatch
import shutil
import sys
from collections.abc import Iterable

import click

from ...common.errors import DfsError, NotADirectory, PathNotFound
from ...common.messages import GetReport, Locate, Summarize
from ...common.model import ContentSummary, FileStatus
from ...common.runtime import SystemClock, format_time
from .references import is_reference
from .sizes import parse_size
from .support import (
    Shell,
    finish,
    human,
    json_option,
    peer_option,
    print_json,
    quoted,
    shell_command,
    shown,
    table,
    to_plain,
)


def mode_text(status: FileStatus) -> str:
    """`drwxr-xr-x`, with a `t` for sticky directories."""
    text = "d" if status.is_directory else "-"
    for shift in (6, 3, 0):
        bits = status.mode >> shift
        text += "".join(
            letter if bits & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1))
        )
    if status.mode & 0o1000:
        text = text[:-1] + ("t" if status.mode & 1 else "T")
    return text


def _long(statuses: Iterable[FileStatus], human_sizes: bool, full: bool) -> Iterable[str]:
    rows = [
        (
            mode_text(status),
            str(status.replication) if not status.is_directory else "-",
            status.owner,
            status.group,
            human(status.length) if human_sizes else str(status.length),
            format_time(status.mtime_ms),
            shown(status.path if full else status.name or "/")
            + (" (being written)" if status.under_construction else ""),
        )
        for status in statuses
    ]
    return table(rows, right=(1, 4))


@shell_command(name="ls")
@click.argument("paths", nargs=-1)
@click.option("-l", "long", is_flag=True, help="Mode, copies, owner, group, size, time, name.")
@click.option("-R", "recursive", is_flag=True, help="Subdirectories too.")
@click.option("-d", "directory", is_flag=True, help="Directories themselves, not what is in them.")
@click.option("-a", "hidden", is_flag=True, help="Names that begin with a dot, too.")
@click.option("-h", "human_sizes", is_flag=True, help="Sizes like 1.5K, 3G.")
@click.option("-t", "by_time", is_flag=True, help="Newest first.")
@click.option("-S", "by_size", is_flag=True, help="Largest first.")
@click.option("-r", "reverse", is_flag=True, help="The other way round.")
@peer_option
@json_option
def ls_command(
    shell: Shell,
    paths: tuple[str, ...],
    long: bool,
    recursive: bool,
    directory: bool,
    hidden: bool,
    human_sizes: bool,
    by_time: bool,
    by_size: bool,
    reverse: bool,
    as_json: bool,
) -> None:
    """List directories and files (the home directory without PATHS; CID[/PATH] lists content)."""
    if paths and all(is_reference(text) for text in paths):
        from . import fetch

        fetch.ls(shell, paths, long=long, as_json=as_json)
        return

    def ordered(statuses: list[FileStatus]) -> list[FileStatus]:
        if by_time:
            statuses = sorted(statuses, key=lambda s: -s.mtime_ms)
        elif by_size:
            statuses = sorted(statuses, key=lambda s: -s.length)
        return statuses[::-1] if reverse else statuses

    def show(statuses: list[FileStatus], full: bool) -> None:
        statuses = ordered(statuses)
        if as_json:
            for status in statuses:
                print_json(status)
        elif long:
            for line in _long(statuses, human_sizes, full):
                print(line)
        else:
            _columns([shown(s.path if full else s.name or "/") for s in statuses])

    found = list(shell.expand(paths or (".",), "access"))
    files = [status for status in found if directory or not status.is_directory]
    directories = [] if directory else [status for status in found if status.is_directory]
    if files:
        show(files, full=True)
    waiting = list(reversed(directories))
    headed = recursive or len(found) > 1
    first = not files
    while waiting:
        current = waiting.pop()
        with shell.reporting("open directory", current.path):
            entries = [
                entry
                for entry in shell.entries(current.path)
                if hidden or as_json or not entry.name.startswith(".")
            ]
            if headed and not as_json:
                print(("" if first else "\n") + shown(current.path) + ":")
            first = False
            show(entries, full=False)
            if recursive:
                waiting += reversed([entry for entry in entries if entry.is_directory])


def _columns(names: list[str]) -> None:
    """Down the columns on a terminal, one a line in a pipe."""
    if not sys.stdout.isatty() or not names:
        for name in names:
            print(name)
        return
    width = max(len(name) for name in names) + 2
    per_line = max(1, shutil.get_terminal_size().columns // width)
    lines = -(-len(names) // per_line)
    for line in range(lines):
        print("".join(name.ljust(width) for name in names[line::lines]).rstrip())


@shell_command(name="stat")
@click.argument("paths", nargs=-1, required=True)
@click.option("--blocks", is_flag=True, help="Where the blocks are.")
@json_option
def stat_command(shell: Shell, paths: tuple[str, ...], blocks: bool, as_json: bool) -> None:
    """Everything that is known about files and directories."""
    for status in shell.expand(paths, "stat"):
        with shell.reporting("stat", status.path):
            located = None
            if blocks and not status.is_directory:
                located = shell.call("locate", Locate(path=status.path))
            cid = _known_cid(shell, status.path)
            if as_json:
                plain = to_plain(located if located is not None else status)
                print_json({**plain, "cid": cid} if cid else plain)
                continue
            print(f"  Path: {shown(status.path)}")
            print(f"  Type: {status.type}" + (", being written" * status.under_construction))
            print(f"  Size: {status.length}")
            if not status.is_directory:
                print(f"Copies: {status.replication}, in blocks of {human(status.block_size)}")
            print(f"  Mode: {status.mode:04o} ({mode_text(status)})")
            print(f" Owner: {status.owner}:{status.group}")
            print(f"Modify: {format_time(status.mtime_ms, '%Y-%m-%d %H:%M:%S %z')}")
            print(f"Access: {format_time(status.atime_ms, '%Y-%m-%d %H:%M:%S %z')}")
            print(f" Inode: {status.inode_id}")
            print(f"   CID: {cid or 'made when asked for, by dfs cid'}")
            for block in located.blocks if located is not None else []:
                nodes = ", ".join(node.data for node in block.nodes) or "no live DataNode"
                print(
                    f" Block: {block.block.block_id}_{block.block.generation}"
                    f"  {block.block.length} bytes at {block.offset}  on {nodes}"
                )


def _known_cid(shell: Shell, path: str) -> str:
    """The CID of a path, where it is known without making it."""
    from ...common.content import GetCids
    from ...common.ipld.cid import Cid

    (found,) = shell.call("path_cids", GetCids(paths=[path])).results
    return str(Cid.from_bytes(found.cid)) if found.cid else ""


@shell_command(name="find")
@click.argument("paths", nargs=-1)
@click.option("-name", "--name", "name", metavar="GLOB", help="Names that match.")
@click.option(
    "-type", "--type", "kind", type=click.Choice(["f", "d"]), help="Files or directories."
)
@click.option("-size", "--size", "size", metavar="[+-]N[KMGT]", help="Larger, smaller, or just so.")
@click.option(
    "-mtime", "--mtime", "mtime", metavar="[+-]DAYS", help="Changed before, within, or on."
)
@click.option("-maxdepth", "--maxdepth", "maxdepth", type=click.IntRange(min=0), help="How deep.")
@click.option("-print0", "--print0", "print0", is_flag=True, help="End names by NUL.")
@json_option
def find_command(
    shell: Shell,
    paths: tuple[str, ...],
    name: str | None,
    kind: str | None,
    size: str | None,
    mtime: str | None,
    maxdepth: int | None,
    print0: bool,
    as_json: bool,
) -> None:
    """Search trees."""
    bytes_wanted = _compared(size, parse_size) if size else None
    days_wanted = _compared(mtime, int) if mtime else None
    now_ms = SystemClock().wall_ms()

    def fits(status: FileStatus) -> bool:
        days = (now_ms - status.mtime_ms) // 86_400_000
        return (
            (name is None or fnmatch.fnmatchcase(status.name, name))
            and (kind is None or status.is_directory == (kind == "d"))
            and (bytes_wanted is None or _compare(status.length, *bytes_wanted))
            and (days_wanted is None or _compare(days, *days_wanted))
        )

    def show(status: FileStatus) -> None:
        if as_json:
            print_json(status)
        elif print0:
            sys.stdout.write(status.path + "\0")
        else:
            print(shown(status.path))

    for top in shell.expand(paths or (".",), "search"):
        base = top.path.rstrip("/").count("/")
        if fits(top):
            show(top)
        waiting = [top] if top.is_directory else []
        while waiting:
            current = waiting.pop()
            depth = current.path.rstrip("/").count("/") - base if current.path != "/" else 0
            if maxdepth is not None and depth >= maxdepth:
                continue
            with shell.reporting("open directory", current.path):
                entries = list(shell.entries(current.path))
                for status in entries:
                    if fits(status):
                        show(status)
                waiting += reversed([status for status in entries if status.is_directory])


def _compared(text: str, parse: object) -> tuple[str, int]:
    sign = text[0] if text[0] in "+-" else ""
    try:
        return sign, parse(text[len(sign) :])  # type: ignore[operator]
    except ValueError:
        raise click.BadParameter(f"{text!r} is not [+-]NUMBER") from None


def _compare(value: int, sign: str, wanted: int) -> bool:
    return value > wanted if sign == "+" else value < wanted if sign == "-" else value == wanted


@shell_command(name="du")
@click.argument("paths", nargs=-1)
@click.option("-s", "only_total", is_flag=True, help="Only a total for each path.")
@click.option("-h", "human_sizes", is_flag=True, help="Sizes like 1.5K, 3G.")
@json_option
def du_command(
    shell: Shell, paths: tuple[str, ...], only_total: bool, human_sizes: bool, as_json: bool
) -> None:
    """Bytes below paths: the files' own, and with all copies."""
    for status in shell.expand(paths or (".",), "access"):
        with shell.reporting("read", status.path):
            parts = [status]
            if status.is_directory and not only_total:
                parts = list(shell.entries(status.path))
            for part in parts:
                found: ContentSummary = shell.call("summarize", Summarize(path=part.path))
                if as_json:
                    print_json(
                        {
                            "path": part.path,
                            "length": found.length,
                            "space_consumed": found.space_consumed,
                        }
                    )
                else:
                    size, space = (
                        (human(n) if human_sizes else str(n))
                        for n in (found.length, found.space_consumed)
                    )
                    print(f"{size:>12}  {space:>12}  {shown(part.path)}")


@shell_command(name="count")
@click.argument("paths", nargs=-1)
@click.option("-q", "quotas", is_flag=True, help="Quotas and what is left of them, too.")
@click.option("-h", "human_sizes", is_flag=True, help="Sizes like 1.5K, 3G.")
@json_option
def count_command(
    shell: Shell, paths: tuple[str, ...], quotas: bool, human_sizes: bool, as_json: bool
) -> None:
    """Directories, files and bytes below paths."""
    for status in shell.expand(paths or (".",), "access"):
        with shell.reporting("count", status.path):
            found: ContentSummary = shell.call("summarize", Summarize(path=status.path))
            if as_json:
                print_json({"path": status.path, **_fields(found)})
                continue
            cells = []
            if quotas:
                cells += _quota_cells(found.name_quota, found.name_used, False)
                cells += _quota_cells(found.space_quota, found.space_used, human_sizes)
            length = human(found.length) if human_sizes else str(found.length)
            cells += [f"{found.directories:>10}", f"{found.files:>10}", f"{length:>14}"]
            print(" ".join([*cells, shown(status.path)]))


def _fields(found: ContentSummary) -> dict[str, int]:
    return {name: getattr(found, name) for name in found.__struct_fields__}


def _quota_cells(limit: int, used: int, human_sizes: bool) -> list[str]:
    if limit < 0:
        return [f"{'none':>12}", f"{'inf':>12}"]
    left = limit - used
    return [f"{human(n) if human_sizes and n >= 0 else n:>12}" for n in (limit, left)]


@shell_command(name="df")
@click.option("-h", "human_sizes", is_flag=True, help="Sizes like 1.5K, 3G.")
@json_option
def df_command(shell: Shell, human_sizes: bool, as_json: bool) -> None:
    """Space of the whole cluster."""
    report = shell.call("report", GetReport(counts=False))
    total, used, free = report.capacity_bytes, report.used_bytes, report.remaining_bytes
    if as_json:
        print_json({"capacity_bytes": total, "used_bytes": used, "remaining_bytes": free})
        return
    sizes = [human(n) if human_sizes else str(n) for n in (total, used, free)]
    share = f"{100 * used / total:.0f}%" if total else "-"
    rows = [
        ("Filesystem", "Size", "Used", "Available", "Use%"),
        (shell.config.namenode, *sizes, share),
    ]
    for line in table(rows, right=(1, 2, 3, 4)):
        print(line)


@shell_command(name="test")
@click.option("-e", "exists", is_flag=True, help="It exists.")
@click.option("-f", "is_file", is_flag=True, help="It is a file.")
@click.option("-d", "is_directory", is_flag=True, help="It is a directory.")
@click.option("-s", "not_empty", is_flag=True, help="It is a file with bytes in it.")
@click.option("-z", "is_empty", is_flag=True, help="It is a file without bytes.")
@click.argument("path")
def test_command(
    shell: Shell,
    path: str,
    exists: bool,
    is_file: bool,
    is_directory: bool,
    not_empty: bool,
    is_empty: bool,
) -> None:
    """Exit 0 if the path is as asked for, 1 if not."""
    if exists + is_file + is_directory + not_empty + is_empty != 1:
        raise click.UsageError("exactly one of -e -f -d -s -z must be given")
    try:
        status = finish(shell.stat(shell.path(path)))
    except (PathNotFound, NotADirectory):
        raise click.exceptions.Exit(1) from None
    except DfsError as error:
        shell.complain(f"cannot access {quoted(path)}: {error.message}", 2)
        return
    file = not status.is_directory
    good = (
        exists
        or (is_file and file)
        or (is_directory and not file)
        or (not_empty and file and status.length > 0)
        or (is_empty and file and status.length == 0)
    )
    if not good:
        raise click.exceptions.Exit(1)

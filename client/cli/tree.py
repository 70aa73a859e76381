"""Commands that change the tree: mkdir, mv, cp, rm, touch, trash."""

from __future__ import annotations

import math
import os
import re

import click

from ...common.errors import (
    DfsError,
    NotADirectory,
    PathNotFound,
    exit_code,
)
from ...common.messages import (
    Copy,
    Delete,
    GetServerInfo,
    Mkdirs,
    MoveToTrash,
    PutFile,
    PutFiles,
    Rename,
    SetTimes,
)
from ...common.model import FileStatus
from ...common.runtime import SystemClock
from .support import (
    Refused,
    Shell,
    change_command,
    finish,
    json_option,
    print_json,
    quoted,
    reason,
    shell_command,
    shown,
)

MAX_TIME_S = 1e12


@change_command(name="mkdir")
@click.argument("paths", nargs=-1, required=True)
@click.option("-p", "parents", is_flag=True, help="Parents too, and no error if it is there.")
@click.option("-m", "mode", default="755", help="Octal mode.")
def mkdir_command(shell: Shell, paths: tuple[str, ...], parents: bool, mode: str) -> None:
    """Make directories."""
    if not re.fullmatch("[0-7]{1,4}", mode):
        raise click.BadParameter(f"{mode!r} is no octal mode")
    bits = int(mode, 8)
    for path in paths:
        with shell.reporting("create directory", path):
            shell.call("mkdirs", Mkdirs(path=shell.path(path), mode=bits, parents=parents))


def destination(shell: Shell, path: str, many: bool) -> tuple[str, bool]:
    """(path, whether it is a directory) of a command's last argument."""
    target = shell.path(path)
    try:
        status = finish(shell.stat(target))
    except PathNotFound:
        if many or path.endswith("/"):
            raise NotADirectory(path) from None
        return target, False
    if (many or path.endswith("/")) and not status.is_directory:
        raise NotADirectory(path)
    return target, status.is_directory


def below(directory: str, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}"


@change_command(name="mv")
@click.argument("paths", nargs=-1, required=True)
@click.option("-f", "force", is_flag=True, help="Replace files that are there.")
def mv_command(shell: Shell, paths: tuple[str, ...], force: bool) -> None:
    """Move SOURCES to DESTINATION, in one step each."""
    for status, goal in _goals(shell, paths, "move"):
        with shell.reporting("move", status.path):
            shell.call("rename", Rename(source=status.path, destination=goal, overwrite=force))


def _goals(shell: Shell, paths: tuple[str, ...], verb: str) -> list[tuple[FileStatus, str]]:
    """Each SOURCE of *paths* and the path that it is to get; none, and a complaint, if DESTINATION won't do."""
    if len(paths) < 2:
        raise click.UsageError("at least one SOURCE and a DESTINATION must be given")
    found = list(shell.expand(paths[:-1], verb))
    try:
        target, is_directory = destination(shell, paths[-1], len(found) > 1)
    except DfsError as error:
        shell.complain(f"target {quoted(paths[-1])}: {reason(error)}", exit_code(error))
        return []
    return [(s, below(target, s.name) if is_directory else target) for s in found]


@change_command(name="cp")
@click.argument("paths", nargs=-1, required=True)
@click.option("-r", "-R", "recursive", is_flag=True, help="Directories with all that is in them.")
@click.option("-f", "force", is_flag=True, help="Replace files that are there.")
def cp_command(shell: Shell, paths: tuple[str, ...], recursive: bool, force: bool) -> None:
    """Copy SOURCES to DESTINATION inside the cluster: no byte is moved, the copies share blocks."""
    for status, goal in _goals(shell, paths, "copy"):
        with shell.reporting("copy", status.path):
            _copy(shell, status, goal, recursive, force)


def _copy(shell: Shell, status: FileStatus, goal: str, recursive: bool, force: bool) -> None:
    if not status.is_directory:
        shell.call("copy", Copy(source=status.path, destination=goal, overwrite=force))
        return
    if not recursive:
        raise Refused("Is a directory; give -r to copy it")
    if goal == status.path or goal.startswith(status.path.rstrip("/") + "/"):
        raise Refused("a directory can't be copied into itself")
    # Listed before anything is made, so that a copy is never copied.
    entries = list(shell.walk(status.path))
    shell.call("mkdirs", Mkdirs(path=goal, mode=status.mode))
    for entry in entries:
        place = goal.rstrip("/") + entry.path[len(status.path.rstrip("/")) :]
        with shell.reporting("copy", entry.path):
            if entry.is_directory:
                shell.call("mkdirs", Mkdirs(path=place, mode=entry.mode))
            else:
                shell.call("copy", Copy(source=entry.path, destination=place, overwrite=force))


@shell_command(name="rm")
@click.argument("paths", nargs=-1, required=True)
@click.option("-r", "-R", "recursive", is_flag=True, help="Directories with all that is in them.")
@click.option("-f", "force", is_flag=True, help="No word about what is not there.")
@click.option("--skip-trash", is_flag=True, help="Delete at once.")
@json_option
def rm_command(
    shell: Shell,
    paths: tuple[str, ...],
    recursive: bool,
    force: bool,
    skip_trash: bool,
    as_json: bool,
) -> None:
    """Delete files and trees: into the trash, if the cluster keeps one, else for good. Quick for any size."""
    trash = shell.config.trash and not skip_trash
    if trash:
        trash = shell.call("server_info", GetServerInfo()).trash_interval_s > 0
    for status in _to_remove(shell, paths, force):
        with shell.reporting("remove", status.path):
            if status.path == "/":
                raise Refused("the root can't be removed")
            if status.is_directory and not recursive:
                raise Refused("Is a directory; give -r to remove it")
            own = f"/user/{shell.user}/.Trash"
            if trash and not (status.path + "/").startswith(own + "/"):
                moved = shell.call("move_to_trash", MoveToTrash(path=status.path))
                if as_json:
                    print_json({"path": status.path, "trash": moved.path})
                else:
                    print(f"Moved to trash: {shown(moved.path)}")
            else:
                shell.call("delete", Delete(path=status.path, recursive=recursive))
                if as_json:
                    print_json({"path": status.path, "trash": None})


def _to_remove(shell: Shell, paths: tuple[str, ...], force: bool) -> list[FileStatus]:
    found: list[FileStatus] = []
    for path in paths:
        if not force:
            found += shell.expand([path], "remove")
            continue
        found += shell.expand([path], "remove", missing_ok=True)
    return found


@change_command(name="touch")
@click.argument("paths", nargs=-1, required=True)
@click.option("-c", "no_create", is_flag=True, help="Make no new files.")
@click.option("-m", "only_mtime", is_flag=True, help="Only the time of modification.")
@click.option("-a", "only_atime", is_flag=True, help="Only the time of access.")
@click.option("-d", "date", type=float, metavar="SECONDS", help="Seconds since 1970, not now.")
def touch_command(
    shell: Shell,
    paths: tuple[str, ...],
    no_create: bool,
    only_mtime: bool,
    only_atime: bool,
    date: float | None,
) -> None:
    """Set times to now; make empty files where there are none."""
    if date is not None and not (math.isfinite(date) and abs(date) < MAX_TIME_S):
        raise click.BadParameter(f"{date} is no time")
    when_ms = SystemClock().wall_ms() if date is None else int(date * 1000)
    times = {
        "mtime_ms": None if only_atime else when_ms,
        "atime_ms": None if only_mtime else when_ms,
    }
    for path in paths:
        with shell.reporting("touch", path):
            target = shell.path(path)
            try:
                shell.call("set_times", SetTimes(path=target, **times))
            except PathNotFound:
                if no_create:
                    continue
                put_empty(shell, target, when_ms)


def put_empty(shell: Shell, path: str, mtime_ms: int | None = None) -> None:
    """An empty file; its parent must be there."""
    from ...common.codec import error_of

    file = PutFile(path=path, create_parents=False, mtime_ms=mtime_ms)
    answer = shell.call("put_files", PutFiles(holder=f"dfs-{os.getpid()}", files=[file]))
    if answer.results[0].failure is not None:
        raise error_of(answer.results[0].failure)


@click.group(name="trash")
def trash_command() -> None:
    """What was deleted: list it, take it back, empty it."""


def _trash(shell: Shell) -> str:
    return f"/user/{shell.user}/.Trash"


def _trash_list(shell: Shell, as_json: bool) -> None:
    """Deleted files, as paths that `dfs trash restore` takes."""
    base = _trash(shell)
    try:
        checkpoints = list(shell.entries(base))
    except PathNotFound:
        return
    for checkpoint in checkpoints:
        found = list(shell.walk(checkpoint.path))
        parents = {status.path.rpartition("/")[0] for status in found}
        for status in found:
            original = status.path[len(checkpoint.path) :]
            if as_json:
                print_json({"path": status.path, "original": original, "type": status.type})
            elif status.path not in parents:
                print(f"{shown(original)}\t{shown(status.path)}")


trash_command.add_command(shell_command(name="list")(json_option(_trash_list)), "list")


@click.argument("paths", nargs=-1, required=True)
def _trash_restore(shell: Shell, paths: tuple[str, ...]) -> None:
    """Move PATHS (in the trash, or as they were called) back to where they were."""
    base = _trash(shell)
    for path in paths:
        with shell.reporting("restore", path):
            wanted = shell.path(path)
            if wanted.startswith(base + "/"):
                original = wanted[len(base) + 1 :].partition("/")[2]
                source = wanted
            else:
                source = ""
                for entry in sorted(shell.entries(base), key=lambda e: e.name != "Current"):
                    candidate = entry.path + wanted
                    try:
                        finish(shell.stat(candidate))
                        source = candidate
                        break
                    except (PathNotFound, NotADirectory):
                        continue
                if not source:
                    raise PathNotFound(path)
                original = wanted[1:]
            goal = "/" + original
            parent = goal.rpartition("/")[0] or "/"
            shell.call("mkdirs", Mkdirs(path=parent))
            shell.call("rename", Rename(source=source, destination=goal))
            shell.say(f"Restored: {shown(goal)}")


trash_command.add_command(change_command(name="restore")(_trash_restore), "restore")


def _trash_empty(shell: Shell) -> None:
    """Delete what is in the trash for good."""
    shell.call("delete", Delete(path=_trash(shell), recursive=True))


trash_command.add_command(change_command(name="empty")(_trash_empty), "empty")

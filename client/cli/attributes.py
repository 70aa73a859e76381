"""Commands on what files are: chmod, chown, setrep, truncate, xattr, quota, lease."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any

import click

from ...common.errors import DfsError, InvalidRequest, TimedOut
from ...common.messages import (
    GetXattrs,
    Locate,
    RecoverLease,
    RemoveXattr,
    ReplicationSet,
    SetMode,
    SetOwner,
    SetQuota,
    SetReplication,
    SetXattr,
    Summarize,
)
from ...common.model import BlockId, FileStatus
from ...common.runtime import SystemClock
from .content import with_filesystem
from .sizes import Size
from .support import Shell, change_command, finish, json_option, print_json, shell_command, shown

POLL_S = 0.2
CLAUSE = re.compile(r"([ugoa]*)([-+=])([rwxXt]*|[ugo])")


def trees(shell: Shell, paths: tuple[str, ...], verb: str, recursive: bool) -> Iterator[FileStatus]:
    for status in shell.expand(paths, verb):
        yield status
        if recursive and status.is_directory:
            yield from shell.walk(status.path)


def changed_mode(text: str, status: FileStatus) -> int:
    """The mode that `chmod TEXT` gives a file: octal, or clauses like u+rwx,go-w,a=rX."""
    if re.fullmatch(r"[0-7]{1,4}", text):
        return int(text, 8)
    mode = status.mode
    for clause in text.split(","):
        match = CLAUSE.fullmatch(clause)
        if match is None:
            raise InvalidRequest(f"{text!r} is no mode: give it in octal, or like u+rwx,go-w")
        who, operator, letters = match.groups()
        shifts = {"u": 6, "g": 3, "o": 0}
        chosen = [6, 3, 0] if not who or "a" in who else [shifts[w] for w in who]
        if letters in ("u", "g", "o") and letters:
            bits = mode >> shifts[letters] & 7
        else:
            bits = sum({"r": 4, "w": 2, "x": 1}.get(letter, 0) for letter in set(letters))
            if "X" in letters and (status.is_directory or mode & 0o111):
                bits |= 1
        mask = 0
        for shift in chosen:
            mask |= 7 << shift
        spread = sum(bits << shift for shift in set(chosen))
        if "t" in letters:
            spread |= 0o1000
            mask |= 0o1000
        mode = {"+": mode | spread, "-": mode & ~spread, "=": mode & ~mask | spread}[operator]
    return mode


@change_command(name="chmod", context_settings={"ignore_unknown_options": True})
@click.argument("mode")
@click.argument("paths", nargs=-1, required=True)
@click.option("-R", "recursive", is_flag=True, help="All that is below, too.")
def chmod_command(shell: Shell, mode: str, paths: tuple[str, ...], recursive: bool) -> None:
    """Change MODE (octal, or like u+x,go-w) of PATHS."""
    for status in trees(shell, paths, "access", recursive):
        with shell.reporting("change the mode of", status.path):
            shell.call("set_mode", SetMode(path=status.path, mode=changed_mode(mode, status)))


@change_command(name="chown")
@click.argument("owner", metavar="[OWNER][:GROUP]")
@click.argument("paths", nargs=-1, required=True)
@click.option("-R", "recursive", is_flag=True, help="All that is below, too.")
def chown_command(shell: Shell, owner: str, paths: tuple[str, ...], recursive: bool) -> None:
    """Give PATHS to an owner, a group, or both."""
    user, _, group = owner.partition(":")
    if not user and not group:
        raise click.UsageError("an owner or a group must be given")
    for status in trees(shell, paths, "access", recursive):
        with shell.reporting("change the owner of", status.path):
            shell.call(
                "set_owner", SetOwner(path=status.path, owner=user or None, group=group or None)
            )


@change_command(name="setrep")
@click.argument("replication", type=click.IntRange(1, 512))
@click.argument("paths", nargs=-1, required=True)
@click.option("-w", "wait", is_flag=True, help="Until every block has just so many copies.")
@click.option(
    "-R", "recursive", is_flag=True, help="Accepted as in HDFS: directories mean all below."
)
@click.option("--timeout", type=float, default=600.0, help="Seconds to wait at most.")
def setrep_command(
    shell: Shell,
    replication: int,
    paths: tuple[str, ...],
    wait: bool,
    recursive: bool,
    timeout: float,
) -> None:
    """Set how many copies files are to have."""
    changed: dict[str, dict[BlockId, int]] = {}
    for status in trees(shell, paths, "access", True):
        if status.is_directory:
            continue
        with shell.reporting("set the replication of", status.path):
            request = SetReplication(path=status.path, replication=replication)
            answer: ReplicationSet = shell.call("set_replication", request)
            shell.say(f"Replication {replication} set: {shown(status.path)}")
            if answer.shared:
                more = max(answer.shared.values())
                shell.say(
                    f"  blocks that other files share keep {more} copies: {len(answer.shared)}"
                )
            changed[status.path] = answer.shared
    if not wait:
        return
    clock, pause = SystemClock(), threading.Event()
    deadline_s = clock.monotonic_s() + timeout
    for path, shared in changed.items():
        with shell.reporting("wait for", path):
            while True:
                blocks = shell.call("locate", Locate(path=path)).blocks
                if all(
                    len(located.nodes) == shared.get(located.block.block_id, replication)
                    for located in blocks
                ):
                    break
                if clock.monotonic_s() > deadline_s:
                    have = min(len(block.nodes) for block in blocks)
                    raise TimedOut(f"a block has {have} of {replication} copies")
                pause.wait(POLL_S)


@click.group(name="xattr")
def xattr_command() -> None:
    """Extended attributes."""


def _value(text: str) -> bytes:
    if text.startswith("0x"):
        try:
            return bytes.fromhex(text[2:])
        except ValueError:
            raise click.BadParameter(f"{text!r} is not hexadecimal") from None
    return os.fsencode(text)


@json_option
@click.argument("path")
@click.argument("name", required=False)
def _xattr_get(shell: Shell, path: str, name: str | None, as_json: bool) -> None:
    """The value of one attribute, or all of them."""
    with shell.reporting("read the attributes of", path):
        found = shell.call("get_xattrs", GetXattrs(path=shell.path(path))).xattrs
        if name is not None:
            if name not in found:
                raise DfsError(f"No such attribute: {name}")
            found = {name: found[name]}
        if as_json:
            print_json({key: value.hex() for key, value in found.items()})
        elif name is not None:
            sys.stdout.buffer.write(found[name])
            sys.stdout.buffer.write(b"\n" if sys.stdout.isatty() else b"")
            sys.stdout.buffer.flush()
        else:
            for key, value in found.items():
                text = value.decode(errors="replace")
                readable = text.isprintable() and text.encode() == value
                print(f'{key}="{text}"' if readable else f"{key}=0x{value.hex()}")


@click.argument("path")
@click.argument("name")
@click.argument("value")
def _xattr_set(shell: Shell, path: str, name: str, value: str) -> None:
    """Set an attribute (a value that begins with 0x is hexadecimal)."""
    with shell.reporting("set an attribute of", path):
        shell.call("set_xattr", SetXattr(path=shell.path(path), name=name, value=_value(value)))


@click.argument("path")
@click.argument("name")
def _xattr_rm(shell: Shell, path: str, name: str) -> None:
    """Remove an attribute."""
    with shell.reporting("remove an attribute of", path):
        shell.call("remove_xattr", RemoveXattr(path=shell.path(path), name=name))


@json_option
@click.argument("path")
def _xattr_list(shell: Shell, path: str, as_json: bool) -> None:
    """The names of all attributes."""
    with shell.reporting("read the attributes of", path):
        names = sorted(shell.call("get_xattrs", GetXattrs(path=shell.path(path))).xattrs)
        if as_json:
            print_json(names)
        else:
            for name in names:
                print(name)


xattr_command.add_command(shell_command(name="get")(_xattr_get))
xattr_command.add_command(change_command(name="set")(_xattr_set))
xattr_command.add_command(change_command(name="rm")(_xattr_rm))
xattr_command.add_command(shell_command(name="list")(_xattr_list))


@click.group(name="quota")
def quota_command() -> None:
    """Limits of directories: how many names, how many bytes (copies included)."""


@json_option
@click.argument("path")
def _quota_show(shell: Shell, path: str, as_json: bool) -> None:
    """Limits and use."""
    with shell.reporting("read the quota of", path):
        found = shell.call("summarize", Summarize(path=shell.path(path)))
        facts = {
            "name_quota": found.name_quota,
            "names_used": found.name_used,
            "space_quota": found.space_quota,
            "space_used": found.space_used,
        }
        if as_json:
            print_json(facts)
        elif found.name_quota < 0 and found.space_quota < 0:
            print("no quota")
        else:
            for label, limit, used in (
                ("names", found.name_quota, found.name_used),
                ("bytes", found.space_quota, found.space_used),
            ):
                print(f"{label}: {used} of {'no limit' if limit < 0 else limit}")


@click.argument("path")
@click.option("--names", type=click.IntRange(min=1), help="Names at most, the directory included.")
@click.option(
    "--space", "space_bytes", type=Size(), help="Bytes at most, copies included; also like 10G."
)
def _quota_set(shell: Shell, path: str, names: int | None, space_bytes: int | None) -> None:
    """Set limits."""
    if names is None and space_bytes is None:
        raise click.UsageError("--names or --space must be given")
    with shell.reporting("set the quota of", path):
        shell.call(
            "set_quota", SetQuota(path=shell.path(path), names=names, space_bytes=space_bytes)
        )


@click.argument("path")
def _quota_clear(shell: Shell, path: str) -> None:
    """Take all limits away."""
    with shell.reporting("clear the quota of", path):
        shell.call("set_quota", SetQuota(path=shell.path(path), names=-1, space_bytes=-1))


quota_command.add_command(shell_command(name="show")(_quota_show))
quota_command.add_command(change_command(name="set")(_quota_set))
quota_command.add_command(change_command(name="clear")(_quota_clear))


@click.group(name="lease")
def lease_command() -> None:
    """Files that somebody left open for writing."""


@click.argument("paths", nargs=-1, required=True)
@click.option("--timeout", type=float, default=60.0, help="Seconds to wait at most.")
def _lease_recover(shell: Shell, paths: tuple[str, ...], timeout: float) -> None:
    """Close files whose writer is gone, and wait until they are closed."""
    clock, pause = SystemClock(), threading.Event()
    deadline_s = clock.monotonic_s() + timeout
    for path in paths:
        with shell.reporting("recover the lease of", path):
            target = shell.path(path)
            closed = shell.call("recover_lease", RecoverLease(path=target)).closed
            while not closed:
                if clock.monotonic_s() > deadline_s:
                    raise TimedOut("its DataNodes have not agreed on the last block yet")
                pause.wait(POLL_S)
                closed = not finish(shell.stat(target)).under_construction
            shell.say(f"Closed: {shown(target)}")


lease_command.add_command(change_command(name="recover")(_lease_recover))


# --- truncate ----------------------------------------------------------------------------------


@change_command(name="truncate")
@click.argument("paths", nargs=-1, required=True)
@click.option(
    "-s", "--size", "size", type=Size(), required=True, help="Bytes to keep; also like 10M."
)
def truncate_command(shell: Shell, paths: tuple[str, ...], size: int) -> None:
    """Cut files to a length."""

    async def work(fs: Any) -> None:
        for path in paths:
            with shell.reporting("truncate", path):
                status = await fs.truncate(shell.path(path), size)
                if shell.tells:
                    print_json(status)

    with_filesystem(shell, work)

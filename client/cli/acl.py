"""Commands on access control lists: getfacl, setfacl."""

from __future__ import annotations

import re

import click

from ...common.access import (
    AclEntry,
    AclStatus,
    GetAcl,
    ModifyAcl,
    RemoveAcl,
    RemoveAclEntries,
    SetAcl,
    parse_entries,
    rights_text,
)
from .attributes import trees
from .support import Shell, change_command, json_option, print_json, shell_command, shown

_SHORT = {"u": "user", "g": "group", "m": "mask", "o": "other", "d": "default"}


def spelled_out(text: str) -> str:
    """*text* with setfacl's short words (`u:bob:rx`, `d:g::r`) written as the file system wants them."""
    entries = []
    for part in text.split(","):
        words = [word.strip() for word in part.split(":")]
        head = 1 if words[0] in ("d", "default") else 0
        words[: head + 1] = [_SHORT.get(word, word) for word in words[: head + 1]]
        rest = words[head + 1 :]
        if len(rest) == 1 and words[head] in ("mask", "other"):
            rest = ["", *rest]  # m:rx
        if len(rest) == 2 and re.fullmatch("[rwx-]{0,3}", rest[1]) and rest[1]:
            rest[1] = "".join(letter if letter in rest[1] else "-" for letter in "rwx")
        entries.append(":".join([*words[: head + 1], *rest]))
    return ",".join(entries)


def lines_of(status: AclStatus) -> list[str]:
    """What `getfacl` prints: the whole list, with the rights that the mask leaves where it takes some."""
    access = [entry for entry in status.entries if entry.scope == "access"]
    default = [entry for entry in status.entries if entry.scope == "default"]
    owner, middle, other = (status.mode >> shift & 7 for shift in (6, 3, 0))
    lines = [
        f"# file: {shown(status.path)}",
        f"# owner: {status.owner}",
        f"# group: {status.group}",
    ]
    if status.mode & 0o1000:
        lines.append("# flags: --t")
    lines.append(f"user::{rights_text(owner)}")
    if access:
        lines += [_with_effect(entry, middle) for entry in access]
        lines.append(f"mask::{rights_text(middle)}")
    else:
        lines.append(f"group::{rights_text(middle)}")
    lines.append(f"other::{rights_text(other)}")
    mask = next((entry.rights for entry in default if entry.kind == "mask"), 7)
    return lines + [_with_effect(entry, mask) for entry in default]


def _with_effect(entry: AclEntry, mask: int) -> str:
    limited = entry.kind == "group" or (entry.kind == "user" and entry.name)
    if limited and entry.rights & ~mask:
        return f"{entry}\t#effective:{rights_text(entry.rights & mask)}"
    return str(entry)


@shell_command(name="getfacl")
@click.argument("paths", nargs=-1, required=True)
@click.option("-R", "recursive", is_flag=True, help="All that is below, too.")
@json_option
def getfacl_command(shell: Shell, paths: tuple[str, ...], recursive: bool, as_json: bool) -> None:
    """Show the access control lists of PATHS."""
    for status in trees(shell, paths, "access", recursive):
        with shell.reporting("read the ACL of", status.path):
            found: AclStatus = shell.call("get_acl", GetAcl(path=status.path))
            if as_json:
                print_json(
                    {
                        "path": found.path,
                        "owner": found.owner,
                        "group": found.group,
                        "mode": f"{found.mode:04o}",
                        "entries": [str(entry) for entry in found.entries],
                    }
                )
                continue
            click.echo("\n".join(lines_of(found)) + "\n")


@change_command(name="setfacl")
@click.option(
    "-m", "modify", metavar="ACL", help="Add entries or change them: u:bob:rx,d:g:dev:rwx."
)
@click.option("-x", "remove", metavar="ACL", help="Take entries away: u:bob.")
@click.option("--set", "replace", metavar="ACL", help="Replace the whole list.")
@click.option("-b", "remove_all", is_flag=True, help="Leave nothing but the mode bits.")
@click.option("-k", "remove_default", is_flag=True, help="Drop what new entries inherit.")
@click.option("-R", "recursive", is_flag=True, help="All that is below, too.")
@click.argument("paths", nargs=-1, required=True)
def setfacl_command(
    shell: Shell,
    paths: tuple[str, ...],
    modify: str | None,
    remove: str | None,
    replace: str | None,
    remove_all: bool,
    remove_default: bool,
    recursive: bool,
) -> None:
    """Change the access control lists of PATHS, as setfacl does."""
    given = [
        modify is not None,
        remove is not None,
        replace is not None,
        remove_all,
        remove_default,
    ]
    if sum(given) != 1:
        raise click.UsageError("give one of -m, -x, --set, -b and -k")
    text = modify or remove or replace or ""
    entries = parse_entries(spelled_out(text), rights=remove is None) if text else []
    for status in trees(shell, paths, "access", recursive):
        wanted = entries
        if recursive and not status.is_directory:
            wanted = [entry for entry in entries if entry.scope == "access"]
            if (entries and not wanted) or remove_default:
                continue  # files have no default ACL
        with shell.reporting("change the ACL of", status.path):
            if modify is not None:
                shell.call("modify_acl", ModifyAcl(path=status.path, entries=wanted))
            elif remove is not None:
                shell.call("remove_acl_entries", RemoveAclEntries(path=status.path, entries=wanted))
            elif replace is not None:
                shell.call("set_acl", SetAcl(path=status.path, entries=wanted))
            else:
                removal = RemoveAcl(path=status.path, scope="default" if remove_default else "all")
                shell.call("remove_acl", removal)

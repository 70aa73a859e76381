"""Commands about content: add, cid, link, pin, gc, verify."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from ...common.errors import (
    PathNotFound,
    PinExists,
)
from ...common.ipld import layout
from ...common.ipld.cid import Cid
from ...common.ipld.layout import PROFILES, Node
from ...common.runtime import format_time
from ..importer import Importer, NoSink, Sink
from .content import with_filesystem
from .progress import ProgressLine
from .references import reference
from .stores import with_content
from .streams import StandardInput, detached
from .support import (
    Refused,
    Shell,
    human,
    json_option,
    peer_option,
    print_json,
    quoted,
    shell_command,
    shown,
    table,
)

PIECE_BYTES = 1024 * 1024
PROFILE_NAMES = list(PROFILES)


# --- add ---------------------------------------------------------------------------------------


@shell_command(name="add")
@click.argument("paths", nargs=-1, required=True)
@click.option("-r", "-R", "recursive", is_flag=True, help="Folders with all that is in them.")
@click.option("-n", "--only-hash", is_flag=True, help="Store nothing, only say the CID.")
@click.option(
    "--profile", type=click.Choice(PROFILE_NAMES), default="twinfs", show_default=True,
    help="How content becomes a DAG: hash function, chunk size, width.",
)  # fmt: skip
@click.option("--pin/--no-pin", default=True, show_default=True, help="Keep what was added.")
@click.option("--pin-name", default="", help="A name for the pin.")
@click.option("-w", "--wrap", is_flag=True, help="Put PATHS into a folder, and add that.")
@click.option("--skip-hidden", is_flag=True, help="Leave out names that begin with a dot.")
@click.option("--replication", type=click.IntRange(1, 512), help="How many copies.")
@click.option("-q", "--quiet", is_flag=True, help="CIDs alone.")
@click.option("-Q", "--quieter", is_flag=True, help="Only the CID of each of PATHS.")
@peer_option
@json_option
def add_command(
    shell: Shell,
    paths: tuple[str, ...],
    recursive: bool,
    only_hash: bool,
    profile: str,
    pin: bool,
    pin_name: str,
    wrap: bool,
    skip_hidden: bool,
    replication: int | None,
    quiet: bool,
    quieter: bool,
    as_json: bool,
) -> None:
    """Add local PATHS (- is standard input) as content, named by CID alone."""
    chosen = layout.profile(profile)
    if wrap:
        require_distinct(paths)

    def tell(name: str, node: Node) -> None:
        if quieter:
            return
        if as_json:
            print_json({"name": name, "cid": str(node.cid), "size": node.filesize, "tsize": node.tsize})  # fmt: skip
        elif quiet:
            print(node.cid)
        else:
            print(f"added {node.cid} {shown(name)}" if name else f"added {node.cid}")

    def tell_root(node: Node) -> None:
        if as_json:
            print_json({"cid": str(node.cid), "size": node.filesize, "tsize": node.tsize})
        else:
            print(node.cid)

    async def one(importer: Importer, text: str) -> tuple[str, Node]:
        if text == "-":
            return "", await importer.stream(_standard_input(), "")
        local, name = local_source(text, recursive)
        return name, await importer.path(local, name)

    async def work(sink: Sink, finish: Callable[[Node], Coroutine[Any, Any, None]]) -> None:
        progress = ProgressLine("adding")
        importer = Importer(chosen, sink, progress=progress, told=tell, hidden=not skip_hidden)
        roots: list[tuple[str, Node]] = []  # names may be the same: x/file, y/file
        try:
            for text in paths:
                with shell.reporting("add", text):
                    name, node = await one(importer, text)
                    roots.append((name or str(node.cid), node))
            if wrap and not shell.failed:
                folder, made = layout_directory(chosen, dict(roots))
                await sink.nodes(made)
                tell("", folder)
                roots = [("", folder)]
            await sink.finish()
        finally:
            progress.close()
        for _, node in roots:
            await finish(node)
            if quieter:
                tell_root(node)

    async def nothing(node: Node) -> None:
        return

    if only_hash:
        asyncio.run(work(NoSink(), nothing))
        return
    if shell.on_peer:
        if replication is not None:
            raise click.UsageError("--replication is for clusters; for peers: pin add --replicas")
        peer_add = importlib.import_module(".peer_add", __package__)
        peer_add.add(
            shell,
            paths,
            local=lambda text: local_source(text, recursive),
            profile=chosen,
            pin_name=pin_name if pin else None,
            wrap=wrap,
            hidden=not skip_hidden,
            told=tell,
            told_root=tell_root if quieter else None,
        )
        return

    async def stored(fs: Any) -> None:
        async with fs.content.sink(replication) as sink:

            async def keep(node: Node) -> None:
                if pin:
                    await fs.content.pin_if_new(node.cid, name=pin_name)

            await work(sink, keep)

    with_filesystem(shell, stored)


def local_source(text: str, recursive: bool) -> tuple[Path, str]:
    """(what is there, what to call it)."""
    local = Path(text)
    if not local.exists() and not local.is_symlink():
        raise PathNotFound(text)
    if local.is_dir() and not local.is_symlink() and not recursive:
        raise Refused("Is a directory; give -r to add it")
    return local, _name_of(local)


def _name_of(local: Path) -> str:
    return local.resolve().name if local.name in ("", ".", "..") else local.name


def require_distinct(paths: tuple[str, ...]) -> None:
    """UsageError if one folder can't have all of *paths*."""
    names = set()
    for text in dict.fromkeys(path for path in paths if path != "-"):
        name = _name_of(Path(text))
        if name in names:
            raise click.UsageError(
                f"one folder can't have two entries that are called {quoted(name)}"
            )
        names.add(name)


def layout_directory(profile: layout.Profile, roots: dict[str, Node]) -> Any:
    from ...common.ipld import directory

    for name in roots:
        directory.check_name(name)
    return directory.build(profile, roots)


async def _standard_input() -> AsyncIterator[bytes]:
    source = StandardInput()
    while data := await detached(source.read, PIECE_BYTES):
        yield data


# --- paths -------------------------------------------------------------------------------------


@shell_command(name="link")
@click.argument("cid", metavar="CID[/PATH]")
@click.argument("path")
@click.option("-f", "force", is_flag=True, help="Replace a file that is there.")
@click.option("--copy", is_flag=True, help="Copy the bytes where metadata alone won't do.")
@click.option("--replication", type=click.IntRange(1, 512), help="How many copies.")
@json_option
def link_command(
    shell: Shell,
    cid: str,
    path: str,
    force: bool,
    copy: bool,
    replication: int | None,
    as_json: bool,
) -> None:
    """Give content a PATH. Files share the blocks they are in: no byte is moved."""
    linked: list[str] = []

    async def one(fs: Any, found: Cid, target: str) -> None:
        reader = fs.content.reader
        what = await reader.entity(found)
        if what.value is not None and what.value.is_directory:
            await fs.mkdirs(target)
            for entry in await reader.entries(what):
                await one(fs, entry.cid, f"{target.rstrip('/')}/{entry.name}")
            return
        if what.value is not None and not what.value.is_file:
            shell.complain(f"cannot link {quoted(target)}: a symlink; left out")
            return
        if await fs.content.link(found, target, overwrite=force, replication=replication) is None:
            if not copy:
                raise Refused(
                    "Its bytes are not in the cluster as blocks of their own; give --copy to copy them"
                )
            async with await fs.open(target, "wb" if force else "xb") as file:
                async for piece in reader.read(what):
                    await file.write(piece)
        linked.append(target)

    async def work(fs: Any) -> None:
        with shell.reporting("link", cid):
            where = reference(cid)
            target = shell.path(path)
            if not force and await fs.exists(target):
                raise Refused("File exists; give -f to replace it")
            await one(fs, await fs.content.reader.resolve(where.root, where.names), target)

    with_filesystem(shell, work)
    if as_json:
        print_json({"linked": linked})


# --- pins --------------------------------------------------------------------------------------


@click.group(name="pin")
def pin_command() -> None:
    """Content that is kept: whole DAGs (recursive) or single blocks (direct)."""


def _plain(pin: Any) -> dict[str, Any]:
    plain = {
        "cid": str(Cid.from_bytes(pin.cid)),
        "kind": pin.kind,
        "name": pin.name,
        "owner": pin.owner,
        "pinned": format_time(pin.pinned_ms, "%Y-%m-%dT%H:%M:%SZ"),
    }
    for fact in ("replicas", "holders", "held_here"):  # of a pin on a peer
        if hasattr(pin, fact):
            plain[fact] = getattr(pin, fact)
    return plain


KIND = click.Choice(["recursive", "direct"])


@click.argument("cids", metavar="CID[/PATH]...", nargs=-1, required=True)
@click.option("--direct", is_flag=True, help="Only the block itself.")
@click.option("--name", default="", help="A name for the pin.")
@click.option(
    "--replicas", type=click.IntRange(1, 64),
    help="On a peer: so many copies among all peers, whoever comes and goes.",
)  # fmt: skip
@peer_option
@json_option
def _pin_add(
    shell: Shell,
    cids: tuple[str, ...],
    direct: bool,
    name: str,
    replicas: int | None,
    as_json: bool,
) -> None:
    """Keep content. What the cluster, or the peer, lacks of it is fetched."""
    kind = "direct" if direct else "recursive"
    if replicas and not shell.on_peer:
        raise click.UsageError("--replicas is for peers; a cluster copies all content by itself")
    if replicas and direct:
        raise click.UsageError("--direct is for one peer, --replicas for whole DAGs")
    more = {"replicas": replicas} if replicas else {}

    async def work(content: Any) -> None:
        for text in cids:
            with shell.reporting("pin", text):
                where = reference(text)
                cid = await content.reader.resolve(where.root, where.names)
                try:
                    pin = await content.pin(cid, kind=kind, name=name, **more)
                except PinExists:
                    if not as_json:
                        print(f"pinned already {cid}")
                    continue
                if as_json:
                    print_json(_plain(pin))
                else:
                    print(f"pinned {cid}")
                    for holder in pin.holders if replicas else ():
                        print(f"  to be held by {holder}")

    with_content(shell, work)


@click.argument("cids", metavar="CID...", nargs=-1, required=True)
@click.option("--kind", type=KIND, help="Only pins of this kind.")
@click.option("--name", help="Only the pin of this name.")
@peer_option
@json_option
def _pin_rm(
    shell: Shell, cids: tuple[str, ...], kind: Any, name: str | None, as_json: bool
) -> None:
    """Keep content no longer. It goes with the next collection, if nothing else holds it."""

    async def work(content: Any) -> None:
        for text in cids:
            with shell.reporting("unpin", text):
                cid = reference(text).root
                count = await content.unpin(cid, kind=kind, name=name)
                if as_json:
                    print_json({"cid": str(cid), "removed": count})
                else:
                    print(f"unpinned {cid}")

    with_content(shell, work)


@click.argument("cid", metavar="[CID]", required=False)
@click.option("--kind", type=KIND, help="Only pins of this kind.")
@click.option("--name", help="Only pins of this name.")
@click.option("-q", "--quiet", is_flag=True, help="CIDs alone.")
@json_option
@peer_option
def _pin_ls(
    shell: Shell, cid: str | None, kind: Any, name: str | None, quiet: bool, as_json: bool
) -> None:
    """List pins."""

    async def work(content: Any) -> None:
        with shell.reporting("list", "pins"):
            wanted = None if cid is None else reference(cid).root
            rows = []
            async for pin in content.pins(kind=kind, name=name, cid=wanted):
                plain = _plain(pin)
                if as_json:
                    print_json(plain)
                elif quiet:
                    print(plain["cid"])
                else:
                    row = [
                        plain["cid"],
                        pin.kind,
                        shown(pin.name),
                        shown(pin.owner),
                        plain["pinned"],
                    ]
                    if "replicas" in plain:
                        row.append(f"{pin.replicas} copies" if pin.replicas else "here")
                    rows.append(row)
            for line in table(rows):
                print(line)

    with_content(shell, work)


@click.argument("cids", metavar="[CID]...", nargs=-1)
@click.option("-q", "--quiet", is_flag=True, help="Only what is bad.")
@json_option
@peer_option
def _pin_verify(shell: Shell, cids: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """Read and hash every block of what is pinned (all, or CIDs). Exits with 1 if anything is missing or wrong."""

    async def work(content: Any) -> None:
        wanted = {reference(text).root.multihash for text in cids}
        async for pin in content.pins():
            cid = Cid.from_bytes(pin.cid)
            if wanted and cid.multihash not in wanted:
                continue
            if not getattr(pin, "held_here", True):
                continue  # other peers hold it
            count, bad = await content.check(cid, deep=pin.kind == "recursive")
            for text in bad:
                shell.complain(f"{cid}: {text}")
            if as_json:
                print_json({"cid": str(cid), "kind": pin.kind, "blocks": count, "bad": bad})
            elif not quiet and not bad:
                print(f"{cid}  {count} blocks  good")

    with_content(shell, work)


for _name, _function in (
    ("add", _pin_add),
    ("rm", _pin_rm),
    ("ls", _pin_ls),
    ("verify", _pin_verify),
):
    pin_command.add_command(shell_command(name=_name)(_function))


# --- looking after what is held ----------------------------------------------------------------


@shell_command(name="gc")
@click.option(
    "--grace", "grace_s", type=click.FloatRange(min=0), default=0.0, show_default=True,
    help="Leave what was used in the last so many seconds.",
)  # fmt: skip
@click.option("-n", "--dry-run", is_flag=True, help="Only say how much would go at first.")
@json_option
@peer_option
def gc_command(shell: Shell, grace_s: float, dry_run: bool, as_json: bool) -> None:
    """Collect content that no pin, path or folder holds, in small steps while everything goes on."""

    async def work(content: Any) -> None:
        with shell.reporting("collect", "content"):
            blocks = size = steps = 0
            async for done in content.collect(grace_s=grace_s, dry_run=dry_run):
                blocks, size, steps = blocks + done.blocks, size + done.bytes, steps + 1
            left = await content.totals()
            if as_json:
                print_json({"blocks": blocks, "bytes": size, "steps": steps, "left": left})
            else:
                verb = "collected"
                if dry_run:
                    verb = "would collect" if shell.on_peer else "would collect, in a first step"
                there = "are there" if dry_run else "are held"
                print(f"{verb} {blocks} blocks, {human(size)} bytes; {left.blocks} {there}")

    with_content(shell, work)


@shell_command(name="verify")
@click.argument("paths", metavar="[CID|PATH]...", nargs=-1)
@json_option
@peer_option
def verify_command(shell: Shell, paths: tuple[str, ...], as_json: bool) -> None:
    """Read and hash every CID block: all that is held, or all below CIDs and PATHS. Exits with 1 if anything is wrong."""
    from .references import is_reference

    async def work(content: Any) -> None:
        total = bad_count = 0

        def told(count: int, bad: list[str]) -> None:
            nonlocal total, bad_count
            total, bad_count = total + count, bad_count + len(bad)
            for text in bad:
                shell.complain(text)

        for text in paths:
            with shell.reporting("verify", text):
                if is_reference(text):
                    where = reference(text)
                    cid = await content.reader.resolve(where.root, where.names)
                else:
                    cid = (await content.cid(shell.path(text))).cid
                told(*await content.check(cid))
        if not paths:
            progress = ProgressLine("verifying")
            try:
                async for count, bad in content.check_all(progress):
                    told(count, bad)
            finally:
                progress.close()
        if as_json:
            print_json({"blocks": total, "bad": bad_count})
        else:
            print(f"{total} CID blocks read and hashed, {bad_count} bad")

    with_content(shell, work)

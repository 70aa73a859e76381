"""`get`, `cat` and `ls` of content: what they do when their arguments are CIDs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...common.errors import DfsError, IsADirectory, exit_code
from ...common.ipld import dag
from ...common.ipld.cid import RAW, Cid
from ...common.ipld.dag import Entity
from ...common.ipld.unixfs import Kind
from ..extract import Extractor
from .progress import ProgressLine
from .references import reference
from .stores import with_content
from .streams import write_out
from .support import Refused, Shell, print_json, quoted, reason, shown, table

KINDS = {
    Kind.RAW: "file",
    Kind.FILE: "file",
    Kind.DIRECTORY: "directory",
    Kind.HAMT_SHARD: "directory",
    Kind.SYMLINK: "symlink",
}


async def _resolved(content: Any, text: str) -> Cid:
    where = reference(text)
    cid: Cid = await content.reader.resolve(where.root, where.names)
    return cid


def cat(shell: Shell, texts: tuple[str, ...]) -> None:
    async def work(content: Any) -> None:
        for text in texts:
            with shell.reporting("read", text):
                found = await content.reader.entity(await _resolved(content, text))
                if not _is_file(found):
                    raise IsADirectory(text)
                async for piece in content.reader.read(found):
                    write_out(bytes(piece))

    with_content(shell, work)


def _is_file(found: Entity) -> bool:
    return found.kind in (Kind.FILE, Kind.RAW)


def get(shell: Shell, texts: list[str], destination: str, *, force: bool, as_json: bool) -> None:
    if destination == "-":
        return cat(shell, tuple(texts))
    local = Path(destination)
    many = len(texts) > 1
    if (many or destination.endswith("/")) and not local.is_dir():
        shell.complain(f"target {quoted(destination)}: Not a directory")
        return

    async def one(content: Any, text: str) -> None:
        where = reference(text)
        target = local / where.name if local.is_dir() else local
        if not force and (target.exists() or target.is_symlink()):
            raise Refused("File exists; give -f to replace it")
        progress = ProgressLine(where.name)
        extractor = Extractor(content.reader, overwrite=force, progress=progress)
        try:
            await extractor.extract(await _resolved(content, text), target)
        finally:
            progress.close()
        done = extractor.done
        for path, error in done.errors:
            shell.complain(f"cannot get {quoted(path)}: {reason(error)}", exit_code(error))
        if as_json:
            print_json(
                {
                    "cid": text,
                    "files": done.files,
                    "directories": done.directories,
                    "bytes": done.bytes,
                    "errors": [[path, error.code] for path, error in done.errors],
                }
            )

    async def work(content: Any) -> None:
        for text in texts:
            with shell.reporting("get", text):
                await one(content, text)

    with_content(shell, work)


def ls(shell: Shell, texts: tuple[str, ...], *, long: bool, as_json: bool) -> None:
    """Entries by name; with *long* each one's CID, kind and size (its first block is looked at)."""

    async def entry_facts(content: Any, name: str, cid: Cid, tsize: int) -> dict[str, Any]:
        facts: dict[str, Any] = {"name": name, "cid": str(cid), "tsize": tsize}
        if cid.codec == RAW:
            return {**facts, "type": "file", "size": tsize}
        try:
            found = dag.entity(cid, await content.reader.get(cid))
        except DfsError:
            return {**facts, "type": "unknown", "size": 0}
        return {**facts, "type": KINDS.get(found.kind, "unknown"), "size": found.size}

    async def one(content: Any, text: str) -> None:
        cid = await _resolved(content, text)
        found = await content.reader.entity(cid)
        if found.value is not None and found.value.is_directory:
            entries = await content.reader.entries(found)
        else:
            entries = [dag.Entry(reference(text).name, cid, found.size)]
        if not long and not as_json:
            for entry in entries:
                print(shown(entry.name))
            return
        await content.reader.prefetch([entry.cid for entry in entries])
        rows = []
        for entry in entries:
            facts = await entry_facts(content, entry.name, entry.cid, entry.tsize)
            if as_json:
                print_json(facts)
            else:
                slash = "/" if facts["type"] == "directory" else ""
                rows.append([facts["cid"], str(facts["size"]), shown(entry.name) + slash])
        for line in table(rows, right=(1,)):
            print(line)

    async def work(content: Any) -> None:
        for text in texts:
            with shell.reporting("access", text):
                await one(content, text)

    with_content(shell, work)

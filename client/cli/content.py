"""Commands that move bytes: put, get, cat, head, tail, append, getmerge, truncate, checksum."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from glob import glob as local_glob
from pathlib import Path
from typing import Any

import click

from ...common.errors import (
    DfsError,
    IsADirectory,
    NotADirectory,
    PathExists,
    PathNotFound,
    StorageError,
    exit_code,
)
from ...common.model import FileStatus
from ...common.runtime import new_uuid
from ..beside import unfinished
from ..globs import has_magic
from .progress import ProgressLine
from .references import are_references, fetching, put_known
from .sizes import Size
from .streams import StandardInput, detached, write_out
from .support import (
    Refused,
    Shell,
    change_command,
    check_text,
    json_option,
    peer_option,
    print_json,
    quoted,
    reason,
    replicas_option,
    shell_command,
    shown,
)
from .tree import below, destination

PIECE_BYTES = 1024 * 1024
FOLLOW_S = 0.5
REPLACE = "File exists; give -f to replace it"
MERGE = "File exists; -f merges into it, --resume adds what is missing"


def with_filesystem(shell: Shell, work: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Run *work* with a FileSystem; Ctrl-C cancels it, so that it cleans up after itself."""
    from ..filesystem import FileSystem

    if not shell.failed:
        shell.require_namenode()
    elif shell.without_paths:
        return  # it was said of each path

    async def run() -> None:
        async with FileSystem.connect(config=shell.config) as fs:
            await work(fs)

    asyncio.run(run())


# --- put ---------------------------------------------------------------------------------------


@shell_command(name="put")
@click.argument("paths", nargs=-1, required=True)
@click.option("-r", "-R", "recursive", is_flag=True, help="Directories with all that is in them.")
@click.option("-f", "force", is_flag=True, help="Replace files that are there.")
@click.option(
    "--resume", is_flag=True, help="Leave files alone that are there with the same size and time."
)
@click.option(
    "-T", "--no-target-directory", "whole", is_flag=True, help="DESTINATION is the new name itself."
)
@click.option(
    "--dedup", is_flag=True, help="Link files whose bytes the cluster has, send the others."
)
@click.option("--replication", type=click.IntRange(1, 512), help="How many copies.")
@click.option(
    "--block-size", type=Size(1, 128 * 1024 * 1024), help="Bytes in a block; also like 64M."
)
@json_option
def put_command(
    shell: Shell,
    paths: tuple[str, ...],
    recursive: bool,
    force: bool,
    resume: bool,
    whole: bool,
    dedup: bool,
    replication: int | None,
    block_size: int | None,
    as_json: bool,
) -> None:
    """Store local SOURCES (- is standard input) as DESTINATION. A file is seen whole or not at all.

    A DESTINATION that is a directory gets SOURCES below it; but with --resume, one of the source's own name is the directory
    that an earlier `put` began.
    """
    *given, last = paths if len(paths) > 1 else (*paths, ".")
    sources = [name for pattern in given for name in _local_names(pattern)]
    if whole and len(sources) > 1:
        raise click.UsageError("-T goes with one source")
    try:
        target, is_directory = _put_destination(shell, last, len(sources) > 1)
    except DfsError as error:
        shell.complain(f"target {quoted(last)}: {reason(error)}", exit_code(error))
        return
    options = {"replication": replication, "block_size": block_size}

    async def one(fs: Any, source: str) -> None:
        local = Path(source)
        if source == "-":
            if is_directory:
                raise Refused("Is a directory; standard input needs a file name")
            await _put_stream(fs, target, force, options)
            return
        name = local.resolve().name if local.name in ("", ".", "..") else local.name
        goal = below(target, name) if is_directory and not whole else target
        check_text(goal)
        begun = resume and goal != target and local.is_dir() and _is_name(name, last)
        if begun and not await fs.exists(goal):
            goal = target
        if local.is_dir():
            if not recursive:
                raise Refused("Is a directory; give -r to store it")
            await _put_directory(shell, fs, local, goal, force, resume, options, dedup, as_json)
            return
        if not local.exists():
            raise PathNotFound(source)
        if not force and not resume:
            await _require_absent(fs, goal)
        if resume and await _is_same(fs, local, goal):
            return
        if dedup and await put_known(fs, local, goal, force or resume, replication, as_json):
            return
        progress = ProgressLine(local.name, local.stat().st_size)
        try:
            status = await fs.put_file(
                local,
                goal,
                overwrite=force or resume,
                create_parents=False,
                progress=progress,
                **options,
            )
        finally:
            progress.close()
        if as_json:
            print_json(status)

    async def work(fs: Any) -> None:
        for source in sources:
            with shell.reporting("put", source):
                try:
                    await one(fs, source)
                except PathExists:
                    raise Refused(REPLACE) from None

    with_filesystem(shell, work)


def _is_name(name: str, path: str) -> bool:
    """Whether *path* ends with *name*, as a name and not as a directory to put something into."""
    return path.rpartition("/")[2] == name


def _local_names(pattern: str) -> list[str]:
    if pattern == "-" or not has_magic(pattern):
        return [pattern]
    with contextlib.suppress(OSError):
        if Path(pattern).exists():
            return [pattern]
    return sorted(local_glob(pattern)) or [pattern]


def _put_destination(shell: Shell, last: str, many: bool) -> tuple[str, bool]:
    if last == ".":
        # The home directory is made when it is first needed.
        from ...common.messages import Mkdirs

        home = shell.path(".")
        shell.call("mkdirs", Mkdirs(path=home))
        return home, True
    return destination(shell, last, many)


async def _require_absent(fs: Any, path: str) -> None:
    """Say so before the bytes are sent, where a look can tell; the commit at the end decides."""
    if await fs.exists(path):
        raise PathExists(f"{path} exists")


async def _is_same(fs: Any, local: Path, path: str) -> bool:
    facts = local.stat()
    try:
        there: FileStatus = await fs.stat(path)
    except (PathNotFound, NotADirectory):
        return False
    return (there.length, there.mtime_ms) == (facts.st_size, facts.st_mtime_ns // 1_000_000)


async def _put_directory(
    shell: Shell,
    fs: Any,
    local: Path,
    goal: str,
    force: bool,
    resume: bool,
    options: dict[str, int | None],
    dedup: bool,
    as_json: bool,
) -> None:
    if not force and not resume and await fs.exists(goal):
        raise Refused(MERGE)
    progress = ProgressLine(local.name)
    try:
        report = await fs.put_tree(
            local, goal, overwrite=force, resume=resume, progress=progress, dedup=dedup, **options
        )
    finally:
        progress.close()
    _tell(shell, report, "put", as_json)


def _tell(shell: Shell, report: Any, verb: str, as_json: bool) -> None:
    for path, error in report.errors:
        shell.complain(f"cannot {verb} {quoted(path)}: {reason(error)}", exit_code(error))
    if as_json:
        print_json(
            {
                "files": report.files,
                "directories": report.directories,
                "bytes": report.bytes,
                "skipped": report.skipped,
                "errors": [[path, error.code] for path, error in report.errors],
            }
        )


async def _put_stream(fs: Any, path: str, force: bool, options: dict[str, int | None]) -> None:
    """Standard input under a name of its own, which becomes the right one at the end."""
    if not force:
        await _require_absent(fs, path)
    folder, _, name = path.rpartition("/")
    # Nobody else's, also where every machine numbers its processes alike.
    short = name.encode()[:180].decode(errors="ignore")
    temporary = f"{folder}/.{short}._COPYING_.{new_uuid()}"
    try:
        source = StandardInput()
        async with await fs.open(temporary, "wb", create_parents=False, **options) as file:
            while data := await detached(source.read, PIECE_BYTES):
                await file.write(data)
        await fs.rename(temporary, path, overwrite=force)
    except BaseException:
        with contextlib.suppress(DfsError):
            await fs.delete(temporary)
        raise


# --- get ---------------------------------------------------------------------------------------


@shell_command(name="get")
@click.argument("paths", nargs=-1, required=True)
@click.option("-r", "-R", "recursive", is_flag=True, help="Directories with all that is in them.")
@click.option("-f", "force", is_flag=True, help="Replace local files that are there.")
@click.option(
    "--resume", is_flag=True, help="Leave local files alone that have the same size and time."
)
@click.option(
    "-T", "--no-target-directory", "whole", is_flag=True, help="DESTINATION is the new name itself."
)
@replicas_option
@json_option
@peer_option
def get_command(
    shell: Shell,
    paths: tuple[str, ...],
    recursive: bool,
    force: bool,
    resume: bool,
    whole: bool,
    as_json: bool,
) -> None:
    """Fetch SOURCES (paths, or CID[/PATH]) to a local DESTINATION (- is standard output; without one, this directory).

    A DESTINATION that is a directory gets SOURCES below it; but with --resume, one of the source's own name is the directory
    that an earlier `get` began.
    """
    *given, last = paths if len(paths) > 1 else (*paths, ".")
    if are_references(given):
        fetching().get(shell, given, last, force=force, as_json=as_json)
        return
    found = list(shell.expand(given, "get"))
    if last == "-":
        with_filesystem(shell, lambda fs: _cat(shell, fs, found))
        return
    local = Path(last)
    many = len(found) > 1
    if whole and many:
        raise click.UsageError("-T goes with one source")
    if (many or last.endswith("/")) and not _is_directory(local):
        shell.complain(f"target {quoted(last)}: Not a directory")
        return

    async def one(fs: Any, status: FileStatus) -> None:
        goal = local / (status.name or "root") if local.is_dir() and not whole else local
        begun = resume and goal != local and status.is_directory and _is_name(status.name, last)
        if begun and not goal.exists():
            goal = local
        if status.is_directory:
            if not recursive:
                raise Refused("Is a directory; give -r to fetch it")
            if goal.exists() and not (force or resume):
                raise Refused(MERGE)
            progress = ProgressLine(status.name or "/")
            try:
                report = await fs.get_tree(
                    status.path, goal, overwrite=force, resume=resume, progress=progress
                )
            finally:
                progress.close()
            _tell(shell, report, "get", as_json)
            return
        if goal.is_dir():
            raise Refused(f"{goal} is a directory")
        if goal.exists() and not (force or resume):
            raise Refused(REPLACE)
        if resume and goal.exists() and _local_same(goal, status):
            return
        progress = ProgressLine(status.name, status.length)
        try:
            await fs.get_file(status.path, goal, overwrite=force or resume, progress=progress)
        finally:
            progress.close()
        if as_json:
            print_json(status)

    async def work(fs: Any) -> None:
        for status in found:
            with shell.reporting("get", status.path):
                await one(fs, status)

    with_filesystem(shell, work)


def _is_directory(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.is_dir()
    return False


def _local_same(path: Path, status: FileStatus) -> bool:
    facts = path.stat()
    return (facts.st_size, facts.st_mtime_ns // 1_000_000) == (status.length, status.mtime_ms)


# --- reading -----------------------------------------------------------------------------------


async def _copy_out(fs: Any, path: str, write: Callable[[bytes], object]) -> None:
    async with await fs.open(path) as file:
        while data := await file.read(4 * PIECE_BYTES):
            await detached(write, data)


async def _cat(shell: Shell, fs: Any, found: list[FileStatus]) -> None:
    for status in found:
        with shell.reporting("read", status.path):
            if status.is_directory:
                raise IsADirectory(status.path)
            await _copy_out(fs, status.path, write_out)


@shell_command(name="cat")
@click.argument("paths", nargs=-1, required=True)
@peer_option
def cat_command(shell: Shell, paths: tuple[str, ...]) -> None:
    """Write files (paths, or CID[/PATH]) to standard output."""
    if are_references(paths):
        fetching().cat(shell, paths)
        return
    found = list(shell.expand(paths, "read"))
    with_filesystem(shell, lambda fs: _cat(shell, fs, found))


def _each_file(
    shell: Shell, paths: tuple[str, ...], work: Callable[[Any, FileStatus], Awaitable[None]]
) -> None:
    found = list(shell.expand(paths, "read"))

    async def run(fs: Any) -> None:
        for status in found:
            with shell.reporting("read", status.path):
                if status.is_directory:
                    raise IsADirectory(status.path)
                if len(found) > 1:
                    print(f"==> {shown(status.path)} <==", flush=True)
                await work(fs, status)

    with_filesystem(shell, run)


@shell_command(name="head")
@click.argument("paths", nargs=-1, required=True)
@click.option("-n", "lines", type=click.IntRange(min=0), default=10, help="Lines.")
@click.option("-c", "count", type=Size(), help="Bytes, in place of lines; also like 64K.")
def head_command(shell: Shell, paths: tuple[str, ...], lines: int, count: int | None) -> None:
    """The beginning of files."""

    async def work(fs: Any, status: FileStatus) -> None:
        if count is not None:
            write_out(await fs.read_bytes(status.path, 0, count))
            return
        async with await fs.open(status.path) as file:
            found = bytearray()
            for _ in range(lines):
                line = await file.readline()
                found += line
                if not line or len(found) > PIECE_BYTES:
                    write_out(bytes(found))
                    found.clear()
                if not line:
                    break
            write_out(bytes(found))

    _each_file(shell, paths, work)


@shell_command(name="tail")
@click.argument("paths", nargs=-1, required=True)
@click.option("-n", "lines", type=click.IntRange(min=0), default=10, help="Lines.")
@click.option("-c", "count", type=Size(), help="Bytes, in place of lines; also like 64K.")
@click.option("-f", "follow", is_flag=True, help="Go on with what is appended (one file).")
def tail_command(
    shell: Shell, paths: tuple[str, ...], lines: int, count: int | None, follow: bool
) -> None:
    """The end of files."""
    if follow and len(paths) > 1:
        raise click.UsageError("-f follows one file")

    async def work(fs: Any, status: FileStatus) -> None:
        end = status.length
        start = max(0, end - count) if count is not None else await _line_start(fs, status, lines)
        at = start
        while at < end:
            data = await fs.read_bytes(status.path, at, min(4 * PIECE_BYTES, end - at))
            if not data:
                break
            write_out(data)
            at += len(data)
        while follow:
            await asyncio.sleep(FOLLOW_S)
            now: FileStatus = await fs.stat(status.path)
            if now.length < at:
                at = now.length
            while at < now.length:
                data = await fs.read_bytes(status.path, at, min(4 * PIECE_BYTES, now.length - at))
                if not data:
                    break
                write_out(data)
                at += len(data)

    _each_file(shell, paths, work)


async def _line_start(fs: Any, status: FileStatus, lines: int) -> int:
    """Where the last *lines* lines begin."""
    if lines == 0:
        return status.length
    at: int = status.length
    seen = 0
    while at > 0:
        size = min(64 * 1024, at)
        data: bytes = await fs.read_bytes(status.path, at - size, size)
        position = len(data)
        while (position := data.rfind(b"\n", 0, position)) >= 0:
            if at - size + position == status.length - 1:
                continue  # the newline that ends the last line
            seen += 1
            if seen == lines:
                return at - size + position + 1
        at -= size
    return 0


@shell_command(name="getmerge")
@click.argument("paths", nargs=-1, required=True)
@click.option("--nl", "newline", is_flag=True, help="A newline after each file.")
@click.option("-f", "force", is_flag=True, help="Replace the local file.")
def getmerge_command(shell: Shell, paths: tuple[str, ...], newline: bool, force: bool) -> None:
    """Fetch files, and the files of directories, joined into one local file (the last of PATHS; - is standard output)."""
    if len(paths) < 2:
        raise click.UsageError("at least one SOURCE and a local DESTINATION must be given")
    sources, last = paths[:-1], paths[-1]
    files: list[FileStatus] = []
    for status in shell.expand(sources, "get"):
        if status.is_directory:
            files += [entry for entry in shell.entries(status.path) if not entry.is_directory]
        else:
            files.append(status)
    if shell.failed:
        return
    goal = Path(last)
    if last != "-" and goal.exists() and not force:
        shell.complain(f"cannot create {quoted(last)}: File exists")
        return

    async def merge(fs: Any, write: Callable[[bytes], object]) -> None:
        for status in files:
            await _copy_out(fs, status.path, write)
            if newline:
                write(b"\n")

    async def work(fs: Any) -> None:
        if last == "-":
            await merge(fs, write_out)
            return
        temporary = unfinished(goal)
        try:
            with temporary.open("wb") as file:
                await merge(fs, file.write)
            temporary.replace(goal)
        except OSError as error:
            raise StorageError(f"{last}: {error.strerror}") from None
        finally:
            temporary.unlink(missing_ok=True)

    with shell.reporting("merge into", last):
        with_filesystem(shell, work)


# --- changing ----------------------------------------------------------------------------------


@change_command(name="append")
@click.argument("paths", nargs=-1, required=True)
def append_command(shell: Shell, paths: tuple[str, ...]) -> None:
    """Add local SOURCES (- is standard input) to the end of the file DESTINATION, which is made if need be."""
    if len(paths) < 2:
        raise click.UsageError("at least one local SOURCE and a DESTINATION must be given")
    sources, last = paths[:-1], paths[-1]

    async def work(fs: Any) -> None:
        with shell.reporting("append to", last), contextlib.ExitStack() as opened:
            files = []
            for source in sources:
                try:
                    files.append(
                        StandardInput()
                        if source == "-"
                        else opened.enter_context(Path(source).open("rb", buffering=0))
                    )
                except OSError as error:
                    raise StorageError(f"{source}: {error.strerror}") from None
            path = shell.path(last)
            writer = await fs.open(path, "ab", create_parents=False)
            try:
                async with writer:
                    for file in files:
                        while data := await detached(file.read, PIECE_BYTES):
                            await writer.write(data)
            except BaseException:
                # Closed with what has arrived, or nobody could append until the lease expires.
                with contextlib.suppress(DfsError):
                    await fs.recover_lease(path)
                raise
            if shell.tells:
                print_json(writer.status)

    with_filesystem(shell, work)


@shell_command(name="checksum")
@click.argument("paths", nargs=-1, required=True)
@json_option
def checksum_command(shell: Shell, paths: tuple[str, ...], as_json: bool) -> None:
    """BLAKE3 over the digests of a file's 1 MiB chunks; of a file up to 1 MiB, what `b3sum` prints."""
    found = list(shell.expand(paths, "read"))

    async def work(fs: Any) -> None:
        for status in found:
            with shell.reporting("read", status.path):
                digest = await fs.checksum(status.path)
                if as_json:
                    print_json({"path": status.path, "checksum": digest})
                else:
                    print(f"{digest}  {shown(status.path)}")

    with_filesystem(shell, work)

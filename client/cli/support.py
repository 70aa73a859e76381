"""What all commands share: configuration, paths, globs, output, errors."""

from __future__ import annotations

import contextlib
import json
import sys
import urllib.parse
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ...common import tracing
from ...common.config import ClientConfig, build, settings
from ...common.errors import (
    DfsError,
    DirectoryNotEmpty,
    InvalidConfig,
    InvalidPath,
    InvalidRequest,
    IsADirectory,
    NotADirectory,
    PathExists,
    PathNotFound,
    Unsupported,
    exit_code,
)
from ...common.messages import GetServerInfo, ListDirectory, ServerInfo, Stat
from ...common.model import FileStatus, Struct
from ...common.operations import OPERATIONS
from ..globs import glob, has_magic
from ..http_namenode import HttpNameNode

if TYPE_CHECKING:
    from ..peer_client import PeerClient

T = TypeVar("T")
NO_PATHS = "a peer has no paths: name content by its CID, or give a --namenode"
SHORT: dict[type[DfsError], str] = {
    PathNotFound: "No such file or directory",
    PathExists: "File exists",
    NotADirectory: "Not a directory",
    IsADirectory: "Is a directory",
    DirectoryNotEmpty: "Directory not empty",
}


class Refused(DfsError):
    """What a command won't do; the message is all that the user reads."""

    code = "refused"


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits for an event loop (blocking calls behind async names)."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    raise AssertionError("the coroutine waited")


class Shell:
    """One invocation of `dfs`: where it talks to, and whether anything went wrong so far."""

    def __init__(self, options: dict[str, Any]) -> None:
        flags = {name: options.get(name) for name in ("namenode", "user", "peer", "all_replicas")}
        found = settings(ClientConfig, flags, file=options["config_file"])
        self.config = build(ClientConfig, found)
        given = {setting.name for setting in found if setting.origin != "default"}
        # Whether a peer was asked for, so that paths make no sense; and whether commands on content go to one.
        self.without_paths = bool(options.get("peer") or options.get("to_peer"))
        self.without_paths |= self.config.namenode == "none"
        self.on_peer = self.without_paths or ("peer" in given and "namenode" not in given)
        if self.config.namenode != "none":
            for url in self.config.namenode.split(","):
                check_url(url)
        self.failed = 0
        self.tells = False  # print every change as JSON
        self._namenode: HttpNameNode | None = None

    @property
    def user(self) -> str:
        return self.config.user_name

    def call(self, operation: str, request: Struct) -> Any:
        """One call to the NameNode, blocking."""
        self.require_namenode()
        if self._namenode is None:
            self._namenode = HttpNameNode(
                self.config.namenode,
                user=self.user,
                retry_s=self.config.retry_s,
                connect_timeout_s=self.config.connect_timeout_s,
                proxy=self.config.proxy,
            )
        try:
            answer = self._namenode.call(operation, request)
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"{quoted(error.object)} can't be sent as text") from None
        if self.tells and OPERATIONS[operation].writes:
            print_json({"operation": operation, "request": request, "answer": answer})
        return answer

    def require_namenode(self) -> None:
        """Unsupported where there is none."""
        if self.without_paths:
            raise Unsupported(NO_PATHS)

    def peer(self) -> PeerClient:
        """The peer that is asked; the caller's to close."""
        from ..peer_client import PeerClient

        return PeerClient(self.config.peer, token=self.config.peer_token)

    def close(self) -> None:
        if self._namenode is not None:
            self._namenode.close()
            self._namenode = None

    def server_info(self) -> ServerInfo:
        return self.call("server_info", GetServerInfo())  # type: ignore[no-any-return]

    # --- paths ---

    def path(self, text: str) -> str:
        """The absolute path that *text* means: relative ones below the working directory, "." and ".." resolved."""
        if text.startswith("dfs://"):
            text = "/" + text[len("dfs://") :].partition("/")[2]
        if not text:
            raise InvalidPath("an empty path names nothing")
        if not text.startswith("/"):
            base = self.config.working_directory or f"/user/{self.user}"
            text = f"{base.rstrip('/')}/{text}"
        check_text(text)
        parts: list[str] = []
        for part in text.split("/"):
            if part == "..":
                if parts:
                    parts.pop()
            elif part not in ("", "."):
                parts.append(part)
        return "/" + "/".join(parts)

    async def stat(self, path: str) -> FileStatus:
        return self.call("stat", Stat(path=path))  # type: ignore[no-any-return]

    async def list(self, path: str) -> AsyncIterator[FileStatus]:
        for status in self.entries(path):
            yield status

    def entries(self, path: str) -> Iterator[FileStatus]:
        """A directory's entries, in pages; a file itself."""
        after = ""
        while True:
            page = self.call("list", ListDirectory(path=path, start_after=after))
            yield from page.entries
            if not page.more:
                return
            after = page.entries[-1].name

    def walk(self, path: str) -> Iterator[FileStatus]:
        """All entries below a directory, directories before what is in them."""
        waiting = [path]
        while waiting:
            found = list(self.entries(waiting.pop()))
            yield from found
            waiting += reversed([status.path for status in found if status.is_directory])

    def expand(
        self, patterns: Sequence[str], verb: str, *, missing_ok: bool = False
    ) -> Iterator[FileStatus]:
        """The statuses of *patterns*, globs expanded; what is not there is reported (unless *missing_ok*), and the
        rest goes on."""
        for pattern in patterns:
            with self.reporting(verb, pattern):
                if self.without_paths:
                    raise _no_cid(pattern)
                path = self.path(pattern)
                # A name that has a glob's characters in it means itself first.
                try:
                    yield finish(self.stat(path))
                    continue
                except (PathNotFound, NotADirectory, InvalidPath):
                    if not has_magic(pattern):
                        if missing_ok:
                            continue
                        raise
                found = finish(glob(self, path))
                if not found and not missing_ok:
                    raise PathNotFound(pattern)
                yield from found

    # --- errors and output ---

    @contextlib.contextmanager
    def reporting(self, verb: str, what: str) -> Iterator[None]:
        """Turn an error into one line, and the exit code at the end; the next argument gets its turn."""
        try:
            yield
        except DfsError as error:
            self.complain(f"cannot {verb} {quoted(what)}: {reason(error)}", exit_code(error))
        except OSError as error:
            # About a local file. Without a name it is about our output: that ends the whole command.
            if error.filename is None:
                raise
            self.complain(f"cannot {verb} {quoted(what)}: {error.strerror}")

    def say(self, text: str) -> None:
        """A line for people; those who want JSON have been told."""
        if not self.tells:
            print(text)

    def complain(self, text: str, code: int = 1) -> None:
        sys.stdout.flush()
        click.echo(f"dfs: {text}", err=True)
        self.failed = max(self.failed, code)

    def done(self) -> None:
        """End the command with the exit code of the worst error."""
        if self.failed:
            sys.stdout.flush()
            raise click.exceptions.Exit(self.failed)


def _no_cid(text: str) -> Unsupported:
    """Why *text* means nothing where there are no paths."""
    from .references import reference

    if not text.startswith("/") or text.startswith("/ipfs/"):
        try:
            reference(text)
        except DfsError as error:
            return Unsupported(f"it is no CID ({error.message}), and a peer has no paths")
    return Unsupported(NO_PATHS)


def check_text(text: str) -> None:
    """InvalidPath for bytes of the command line or of a local name that are no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidPath("the name is not valid Unicode text") from None


def check_url(url: str) -> None:
    try:
        good = bool(urllib.parse.urlsplit(url).hostname) and urllib.parse.urlsplit(url).port != 0
    except ValueError:
        good = False
    if not good:
        raise InvalidConfig(f"the NameNode's URL must be http://HOST:PORT, not {url!r}")


def reason(error: DfsError) -> str:
    return SHORT.get(type(error)) or error.message


def quoted(text: str) -> str:
    """*text* in quotes, control characters escaped."""
    return f"'{text}'" if text.isprintable() else ascii(text)


def shown(text: str) -> str:
    """*text* for a terminal: control characters escaped there, as it is in a pipe."""
    if text.isprintable() or not sys.stdout.isatty():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def human(size: int) -> str:
    """Like `ls -h`: 1023, 1.5K, 12M."""
    if size < 1024:
        return str(size)
    value = float(size)
    for unit in "KMGTPE":
        value /= 1024
        if value < 1024 or unit == "E":
            return f"{value:.1f}{unit}" if value < 10 else f"{value:.0f}{unit}"
    raise AssertionError("unreachable")


def counted(number: int, one: str, many: str = "") -> str:
    """Like "1 file", "2 files"."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def passed(seconds: float) -> str:
    """A time that has passed: 5 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def to_plain(value: Any) -> Any:
    """A message as plain JSON values; bytes as hex."""
    if isinstance(value, Struct):
        return {name: to_plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [to_plain(entry) for entry in value]
    if isinstance(value, dict):
        return {key: to_plain(entry) for key, entry in value.items()}
    return value


def print_json(value: Any) -> None:
    """One JSON document on one line."""
    print(json.dumps(to_plain(value), ensure_ascii=False))


def table(rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> Iterator[str]:
    """Rows with aligned columns; those numbered in *right* to the right."""
    kept = [list(row) for row in rows]
    if not kept:
        return
    widths = [max(len(row[i]) for row in kept) for i in range(len(kept[0]))]
    for row in kept:
        cells = [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def shell_command(*args: Any, **attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A click command whose function gets a Shell first, and whose errors end it with one line."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @click.pass_context
        def run(ctx: click.Context, /, **options: Any) -> None:
            shell = Shell(ctx.find_root().obj)
            name = ctx.command_path.replace(" ", "_")
            tracing.set_up("client", shell.config.otlp_endpoint, shell.config.trace_share)
            try:
                # A command is one request, whatever it takes.
                with tracing.operation(name, tracing.new_request_id):
                    function(shell, **options)
            finally:
                shell.close()
                tracing.close()
            shell.done()

        run.__doc__ = function.__doc__
        params = getattr(function, "__click_params__", [])
        run.__click_params__ = params  # type: ignore[attr-defined]
        command: click.Command = click.command(*args, **attributes)(run)
        return command

    return decorate


def _asked(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.find_root().obj["peer"] = value


peer_option = click.option(
    "--peer",
    metavar="HOST:PORT",
    expose_value=False,
    callback=_asked,
    help="Ask this peer, in place of a cluster.",
)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, one document a line."
)


def _from_all(ctx: click.Context, parameter: click.Parameter, value: bool | None) -> None:
    if value is not None:
        ctx.find_root().obj["all_replicas"] = "always" if value else "never"


replicas_option = click.option(
    "--all-replicas/--no-all-replicas",
    default=None,
    expose_value=False,
    callback=_from_all,
    help="Bring each file from all of its replicas at once [default: large ones, from other machines].",
)


def change_command(*args: Any, **attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """As `shell_command`, for one that changes things and has little to say: with --json, a document for each change."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        def run(shell: Shell, *, as_json: bool, **options: Any) -> None:
            shell.tells = as_json
            function(shell, **options)

        run.__doc__ = function.__doc__
        run.__click_params__ = list(getattr(function, "__click_params__", []))  # type: ignore[attr-defined]
        return shell_command(*args, **attributes)(json_option(run))

    return decorate

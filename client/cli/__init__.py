"""`dfs`: the command line. A command's module is imported when the command is run, so that `dfs ls` starts quickly."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from ... import __version__

__all__ = ["cli", "end", "main"]

COMMANDS = {
    "ls": "listing",
    "stat": "listing",
    "find": "listing",
    "du": "listing",
    "count": "listing",
    "df": "listing",
    "test": "listing",
    "mkdir": "tree",
    "mv": "tree",
    "cp": "tree",
    "rm": "tree",
    "touch": "tree",
    "trash": "tree",
    "chmod": "attributes",
    "chown": "attributes",
    "setrep": "attributes",
    "truncate": "attributes",
    "xattr": "attributes",
    "quota": "attributes",
    "getfacl": "acl",
    "setfacl": "acl",
    "lease": "attributes",
    "put": "content",
    "get": "content",
    "cat": "content",
    "head": "content",
    "tail": "content",
    "append": "content",
    "getmerge": "content",
    "checksum": "content",
    "events": "following",
    "webhook": "following",
    "audit": "auditing",
    "top": "watching",
    "doctor": "watching",
    "support-bundle": "watching",
    "report": "admin",
    "admin": "operating",
    "fsck": "fsck",
    "config": "admin",
    "completion": "admin",
    "namenode": "admin",
    "datanode": "admin",
    "cluster": "cluster",
    "peers": "peers",
    "providers": "peers",
    "name": "peers",
    "peer": "peers",
    "add": "cas",
    "cid": "cids",
    "link": "cas",
    "pin": "cas",
    "gc": "cas",
    "verify": "cas",
    "block": "dags",
    "dag": "dags",
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and imports them when needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        module = COMMANDS.get(name)
        if module is None:
            return None
        found = importlib.import_module(f".{module}", __package__)
        command: click.Command = getattr(found, f"{name.replace('-', '_')}_command")
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Whoever read the output has gone: end as a shell shows a program that SIGPIPE ended.
            raise click.exceptions.Exit(141) from None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--namenode", metavar="URL", help="The cluster's NameNode, e.g. http://127.0.0.1:9870."
)
@click.option("--peer", metavar="HOST:PORT", help="A peer to ask, where there is no cluster.")
@click.option("--user", metavar="NAME", help="Act as this user (simple authentication).")
@click.option("--config", "config_file", metavar="FILE", help="TOML file with a table [client].")
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Say on standard error what is done, with the request id that the servers log.",
)
@click.version_option(__version__, prog_name="dfs", message="dfs (TwinFS) %(version)s")
@click.pass_context
def cli(
    ctx: click.Context,
    namenode: str | None,
    peer: str | None,
    user: str | None,
    config_file: str | None,
    verbose: bool,
) -> None:
    """TwinFS: a distributed file system that gives every byte two names.

    Paths without a leading slash are below /user/NAME. Settings come from flags, the environment
    (TWINFS_NAMENODE, TWINFS_USER, TWINFS_CLIENT_...), and the configuration file, in this order; see `dfs config`.
    """
    if verbose:
        from ...common import logs

        logs.set_up("DEBUG", "text")
    ctx.obj = {"namenode": namenode, "peer": peer, "user": user, "config_file": config_file}


def main(argv: list[str] | None = None) -> None:
    """Entry point. Ends the process with coreutils-like exit codes."""
    from ...common.errors import DfsError, exit_code
    from .streams import guard_streams

    guard_streams()
    code: Any = 0
    try:
        code = cli.main(args=argv, prog_name="dfs", standalone_mode=False)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.Abort:
        code = 130
    except KeyboardInterrupt:
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except DfsError as error:
        print(f"dfs: {error.message}", file=sys.stderr)
        code = exit_code(error)
    except OSError as error:
        about = "write error" if error.filename is None else error.filename
        print(f"dfs: {about}: {error.strerror or error}", file=sys.stderr)
        code = 1
    end(code)


def end(code: Any) -> None:
    """End the process with this exit code, or another one if the rest of the output can't be written."""
    from .streams import silence_output

    try:
        sys.stdout.flush()
    except BrokenPipeError:
        silence_output()
        code = code or 141
    except OSError as error:
        silence_output()
        if not code:
            print(f"dfs: write error: {error.strerror}", file=sys.stderr)
            code = 1
    sys.exit(code if isinstance(code, int) else 0)

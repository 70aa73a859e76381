"""`dfs namenode`."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from ..common import faults, logs, service, tracing
from ..common.config import NameNodeConfig, load
from ..common.errors import DfsError, exit_code
from ..common.options import config_options
from . import backups


@click.group(
    name="namenode",
    context_settings={"help_option_names": ["--help"]},
    invoke_without_command=True,
)
@click.option("--config", "config_file", default=None, help="TOML file with a table [namenode].")
@config_options(NameNodeConfig)
def command(config_file: str | None, **flags: Any) -> None:
    """Run a NameNode: it keeps the namespace and says where blocks go.

    With a COMMAND: care for a namespace that lies in SQLite, whether or not its NameNode runs.
    """
    if click.get_current_context().invoked_subcommand is not None:
        return
    try:
        config = load(NameNodeConfig, flags, file=config_file)
        logs.set_up(config.log_level, config.log_format)
        tracing.set_up("namenode", config.otlp_endpoint)
        clock = faults.set_up(config.faults)
    except DfsError as error:
        print(f"dfs namenode: {error.message}", file=sys.stderr)
        sys.exit(exit_code(error))
    from .server import NameNodeServer

    async def make() -> service.Service:
        return NameNodeServer(config, clock=clock)

    def reload() -> None:
        # What else is set can't change under a running server.
        again = load(NameNodeConfig, flags, file=config_file)
        logs.set_up(again.log_level, again.log_format)

    # What a NameNode allocates holds no cycles: looking for them as often as by default costs 5 % of every call.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    sys.exit(service.run(make, config.ready_file, "dfs namenode", reload, _event_loop()))


def _event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where the extra `speed` is installed; a NameNode moves many small frames, at which it is quicker."""
    try:
        import uvloop
    except ImportError:
        return None
    make: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return make


command.add_command(backups.backup_command)
command.add_command(backups.backups_command)
command.add_command(backups.restore_command)
command.add_command(backups.release_command)


def main(argv: Sequence[str] | None = None) -> None:
    command.main(args=argv, prog_name="dfs namenode")


if __name__ == "__main__":
    main()

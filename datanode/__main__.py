"""`dfs datanode`."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import Any

import click

from ..common import faults, logs, service, tracing
from ..common.config import DataNodeConfig, load
from ..common.errors import DfsError, exit_code
from ..common.options import config_options


@click.command(name="datanode", context_settings={"help_option_names": ["--help"]})
@click.option("--config", "config_file", default=None, help="TOML file with a table [datanode].")
@config_options(DataNodeConfig)
def command(config_file: str | None, **flags: Any) -> None:
    """Run a DataNode: it keeps blocks on its volumes and serves them."""
    try:
        config = load(DataNodeConfig, flags, file=config_file)
        logs.set_up(config.log_level, config.log_format)
        tracing.set_up("datanode", config.otlp_endpoint)
        clock = faults.set_up(config.faults)
    except DfsError as error:
        print(f"dfs datanode: {error.message}", file=sys.stderr)
        sys.exit(exit_code(error))
    from .server import DataNodeServer

    async def make() -> service.Service:
        return DataNodeServer(config, clock=clock)

    def reload() -> None:
        # What else is set can't change under a running server.
        again = load(DataNodeConfig, flags, file=config_file)
        logs.set_up(again.log_level, again.log_format)

    # Going through all that was imported holds up everybody for a tenth of a second, and finds nothing.
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    sys.exit(service.run(make, config.ready_file, "dfs datanode", reload))


def main(argv: Sequence[str] | None = None) -> None:
    command.main(args=argv, prog_name="dfs datanode")


if __name__ == "__main__":
    main()

"""Commands about the cluster and the program: events, report, config, completion, namenode, datanode."""

from __future__ import annotations

import sys
import threading
from typing import Any

import click

from ...common.config import ROLES, settings
from ...common.errors import TimedOut
from ...common.messages import ClusterReport, GetReport, NodeReport
from ...common.runtime import SystemClock
from .support import (
    Shell,
    counted,
    human,
    json_option,
    passed,
    print_json,
    shell_command,
    table,
    to_plain,
)

WAIT_S = 0.1
COLOURS = {"live": "", "stale": "\x1b[33m", "dead": "\x1b[31m"}  # on a terminal
PLAIN = "\x1b[0m"


@shell_command(name="report")
@click.option(
    "--wait", type=click.IntRange(min=1), metavar="N", help="First wait until N DataNodes are live."
)
@click.option(
    "--timeout", type=click.FloatRange(min=0), default=60.0, help="Seconds to wait at most."
)
@json_option
def report_command(shell: Shell, wait: int | None, timeout: float, as_json: bool) -> None:
    """The state of the cluster."""
    if wait is not None:
        _wait_for_live(shell, wait, timeout)
    report: ClusterReport = shell.call("report", GetReport())
    print_report(report, report.nodes, as_json=as_json)


def _wait_for_live(shell: Shell, wanted: int, timeout_s: float) -> None:
    clock, pause = SystemClock(), threading.Event()
    deadline_s = clock.monotonic_s() + timeout_s
    while (live := _live(shell.call("report", GetReport(counts=False)))) < wanted:
        if clock.monotonic_s() >= deadline_s:
            raise TimedOut(f"{live} of {wanted} DataNodes are live after {timeout_s:g} s")
        pause.wait(WAIT_S)


def print_report(report: ClusterReport, nodes: list[NodeReport], *, as_json: bool) -> None:
    """The cluster, and those of its *nodes*."""
    if as_json:
        print_json({**to_plain(report), "nodes": to_plain(nodes)})
        return
    used = f"{human(report.used_bytes)} used, {human(report.remaining_bytes)} free"
    print(f"Cluster {report.cluster_id}, TwinFS {report.version}")
    print(f"  safe mode: {'on: ' + report.safe_mode if report.safe_mode else 'off'}")
    share = report.used_bytes / report.capacity_bytes if report.capacity_bytes else 0.0
    print(f"  space:     {human(report.capacity_bytes)}, {used}  {bar(share, 20)}")
    print(
        f"  content:   {counted(report.files, 'file')},"
        f" {counted(report.directories, 'directory', 'directories')}, {counted(report.blocks, 'block')}"
    )
    print(
        f"  copies:    {counted(report.under_replicated, 'block')} with too few, {report.missing} with none,"
        f" {counted(report.pending_deletion, 'copy', 'copies')} to be deleted"
    )
    rows = [
        (
            "DataNode",
            "State",
            "Service",
            "Heard",
            "Used",
            "Free",
            "Full",
            "Blocks",
            "Busy",
            "Volumes",
            "Rack",
        )
    ]
    for node in nodes:
        failed = f" ({node.failed_volumes} failed)" if node.failed_volumes else ""
        rows.append(
            (
                node.address.data,
                node.state,
                _service(node),
                f"{passed(node.last_contact_s)} ago",
                human(node.used_bytes),
                human(node.remaining_bytes),
                bar(node.used_bytes / node.capacity_bytes if node.capacity_bytes else 0.0, 8),
                str(node.blocks),
                str(node.active_transfers),
                f"{node.volumes}{failed}",
                node.address.rack,
            )
        )
    print()
    colours = ["", *(COLOURS[node.state] for node in nodes)]
    for line, colour in zip(table(rows, right=(4, 5, 7, 8)), colours, strict=True):
        painted = colour and sys.stdout.isatty()
        print(f"  {colour}{line}{PLAIN}" if painted else f"  {line}")


def bar(share: float, width: int) -> str:
    """How full something is, drawn and in percent."""
    full = round(min(1.0, max(0.0, share)) * width)
    return f"{'█' * full}{'░' * (width - full)} {100 * share:3.0f} %"


def _live(report: ClusterReport) -> int:
    return sum(node.state == "live" for node in report.nodes)


def _service(node: NodeReport) -> str:
    if node.admin_state in ("decommissioning", "entering-maintenance") and node.admin_left >= 0:
        return f"{node.admin_state} ({node.admin_left} left)"
    return node.admin_state


@click.command(name="config")
@click.argument("role", type=click.Choice(sorted(ROLES)), required=False)
@json_option
@click.pass_context
def config_command(ctx: click.Context, role: str | None, as_json: bool) -> None:
    """Every setting, its value, and where that came from."""
    options: dict[str, Any] = ctx.find_root().obj
    flags = {"namenode": options["namenode"], "user": options["user"]}
    for name, kind in ROLES.items():
        if role not in (None, name):
            continue
        found = settings(kind, flags if name == "client" else None, file=options["config_file"])
        if as_json:
            for setting in found:
                print_json(
                    {
                        "role": name,
                        "name": setting.name,
                        "value": setting.value,
                        "origin": setting.origin,
                    }
                )
            continue
        print(f"[{name}]")
        rows = [(s.name, repr(s.value), f"# {s.origin}") for s in found]
        for line in table(rows):
            print(line)
        print()


@click.command(name="completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print the completion script of a shell: `eval "$(dfs completion bash)"`."""
    from click.shell_completion import get_completion_class

    from . import cli

    found = get_completion_class(shell)
    assert found is not None
    print(found(cli, {}, "dfs", "_DFS_COMPLETE").source())


def _server(name: str, text: str) -> click.Command:
    @click.command(
        name=name,
        help=text,
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    @click.pass_context
    def command(ctx: click.Context, arguments: tuple[str, ...]) -> None:
        import importlib

        given = list(arguments)
        options: dict[str, Any] = ctx.find_root().obj
        if name == "datanode" and options["namenode"] and "--namenode" not in given:
            given += ["--namenode", options["namenode"]]
        if options["config_file"] and "--config" not in given:
            given += ["--config", options["config_file"]]
        # The command line knows the servers by name only: neither is needed for using a cluster.
        server = importlib.import_module(f"...{name}.__main__", __package__)
        server.main(given)

    return command


namenode_command = _server("namenode", "Run a NameNode (its options: dfs namenode --help).")
datanode_command = _server("datanode", "Run a DataNode (its options: dfs datanode --help).")

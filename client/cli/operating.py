"""`dfs admin`: DataNodes in and out of service, safe mode, racks, scrubbing, balancing."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence

import click

from ...common.admin import (
    AdministerNodes,
    BalancerStatus,
    ControlBalancer,
    NodeList,
    OrderNodes,
    Refresh,
    Refreshed,
    SafeModeState,
    SetSafeMode,
    StartBalancer,
)
from ...common.errors import InvalidRequest, TimedOut
from ...common.messages import ClusterReport, GetReport, NodeReport
from ...common.model import NodeId
from ...common.runtime import SystemClock, format_time
from .admin import print_report
from .sizes import parse_size
from .support import (
    Shell,
    change_command,
    counted,
    human,
    json_option,
    print_json,
    shell_command,
    shown,
)
from .volumes import volume_command

POLL_S = 0.5
KEEP_ALIVE_S = 30.0  # a balancer whose operator is silent for so long ends
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@click.group(name="admin")
def admin_command() -> None:
    """Operate the cluster (most of it as a superuser)."""


def duration_s(text: str) -> float:
    """Seconds of "90", "15m", "2h", "1d"."""
    match = DURATION.fullmatch(text.strip())
    if match is None:
        raise InvalidRequest(f"{shown(text)} is no duration; say 90s, 15m, 2h or 1d")
    return float(match[1]) * UNITS[match[2]]


def size_bytes(text: str) -> int:
    """Bytes of "500", "10M", "1.5G"."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None


@shell_command(name="report")
@click.option("--live", "state", flag_value="live", help="Only DataNodes that live.")
@click.option("--dead", "state", flag_value="dead", help="Only dead DataNodes.")
@click.option(
    "--leaving", "state", flag_value="leaving", help="Only those out of service, or leaving it."
)
@json_option
def report_command(shell: Shell, state: str | None, as_json: bool) -> None:
    """The cluster, and each DataNode with what it is for."""
    report: ClusterReport = shell.call("report", GetReport())
    chosen = [
        node
        for node in report.nodes
        if state is None
        or node.state == state
        or (state == "live" and node.state == "stale")
        or (state == "leaving" and node.admin_state != "in-service")
    ]
    print_report(report, chosen, as_json=as_json)


@shell_command(name="topology")
@json_option
def topology_command(shell: Shell, as_json: bool) -> None:
    """Racks, and the DataNodes on each."""
    report: ClusterReport = shell.call("report", GetReport(counts=False))
    racks: dict[str, list[NodeReport]] = {}
    for node in report.nodes:
        racks.setdefault(node.address.rack, []).append(node)
    if as_json:
        print_json(
            {
                rack: [
                    {"node": n.address.data, "state": n.state, "admin_state": n.admin_state}
                    for n in racks[rack]
                ]
                for rack in sorted(racks)
            }
        )
        return
    for rack in sorted(racks):
        print(shown(rack))
        for node in racks[rack]:
            print(f"    {node.address.data} ({node.state}, {node.admin_state})")


@shell_command(name="refresh")
@json_option
def refresh_command(shell: Shell, as_json: bool) -> None:
    """Read the topology file (or ask the topology script) again."""
    done: Refreshed = shell.call("refresh_topology", Refresh())
    if as_json:
        print_json(done)
        return
    for address, old, new in done.changed:
        print(f"{address}: {old} -> {new}")
    if not done.changed:
        print("nothing has changed")


# --- nodes in and out of service ---


def describe(node: NodeReport) -> str:
    text = f"{node.address.data}: {node.admin_state}"
    if node.admin_state in ("decommissioning", "entering-maintenance"):
        if node.admin_left < 0:
            text += ", counting blocks"
        else:
            done = max(node.admin_total - node.admin_left, 0)
            text += (
                f", {counted(node.admin_left, 'block')} left ({done} of {node.admin_total} done)"
            )
    if node.admin_until_ms:
        text += f", until {format_time(node.admin_until_ms, '%Y-%m-%d %H:%M:%S')}"
    return text


def _administer(shell: Shell, request: AdministerNodes, wait: bool, as_json: bool) -> None:
    found: NodeList = shell.call("administer_nodes", request)
    goal = {"decommission": "decommissioned", "maintenance": "in-maintenance"}.get(request.action)
    if wait and goal:
        ids = {node.address.node_id for node in found.nodes}
        found = NodeList(nodes=_wait_for(shell, ids, goal, quiet=as_json))
    for node in found.nodes:
        if as_json:
            print_json(node)
        else:
            print(describe(node))


def _wait_for(shell: Shell, ids: set[NodeId], goal: str, *, quiet: bool) -> list[NodeReport]:
    """Follow the nodes until all have reached *goal*, telling what changes."""
    pause = threading.Event()
    told: dict[int, str] = {}
    while True:
        report: ClusterReport = shell.call("report", GetReport(counts=False))
        nodes = [node for node in report.nodes if node.address.node_id in ids]
        waiting = [node for node in nodes if node.admin_state != goal]
        for node in waiting:
            text = describe(node)
            if told.get(node.address.node_id) != text and not quiet:
                print(text, flush=True)
            told[node.address.node_id] = text
        stopped = [node for node in waiting if node.admin_state == "in-service"]
        if stopped:
            raise InvalidRequest(f"{stopped[0].address.data} has been put back in service")
        if not waiting:
            return nodes
        pause.wait(POLL_S)


nodes_argument = click.argument("nodes", nargs=-1, required=True)
wait_option = click.option("--wait", is_flag=True, help="Return when it is done, showing progress.")


@shell_command(name="decommission")
@nodes_argument
@click.option(
    "--force", is_flag=True, help="Even if the others can't hold as many copies as files ask for."
)
@wait_option
@json_option
def decommission_command(
    shell: Shell, nodes: Sequence[str], force: bool, wait: bool, as_json: bool
) -> None:
    """Take DataNodes out of service for good: their blocks are copied elsewhere first.

    A node is named by its id, HOST:PORT, host or uuid. It may be stopped when it is "decommissioned".
    """
    request = AdministerNodes(action="decommission", nodes=list(nodes), force=force)
    _administer(shell, request, wait, as_json)


@shell_command(name="maintenance")
@nodes_argument
@click.option("--for", "lasting", metavar="TIME", help="End by itself after this: 30m, 2h, 1d.")
@wait_option
@json_option
def maintenance_command(
    shell: Shell, nodes: Sequence[str], lasting: str | None, wait: bool, as_json: bool
) -> None:
    """Take DataNodes out of service for a while: they may be stopped, and their blocks are not copied.

    Each block keeps at least one copy on another node; that is seen to before a node is "in-maintenance".
    """
    until_ms = 0
    if lasting is not None:
        until_ms = SystemClock().wall_ms() + int(duration_s(lasting) * 1000)
    request = AdministerNodes(action="maintenance", nodes=list(nodes), until_ms=until_ms)
    _administer(shell, request, wait, as_json)


@shell_command(name="recommission")
@nodes_argument
@json_option
def recommission_command(shell: Shell, nodes: Sequence[str], as_json: bool) -> None:
    """Put DataNodes back in service."""
    request = AdministerNodes(action="recommission", nodes=list(nodes))
    _administer(shell, request, False, as_json)


# --- safe mode ---


@shell_command(name="safemode")
@click.argument("action", type=click.Choice(["get", "enter", "leave", "wait"]))
@click.option("--timeout", metavar="TIME", help="With wait: give up after this.")
@json_option
def safemode_command(shell: Shell, action: str, timeout: str | None, as_json: bool) -> None:
    """In safe mode, the cluster is read but not changed.

    It is on after a start until enough DataNodes have registered, and when ordered. `wait` returns when it is off.
    """
    clock, pause = SystemClock(), threading.Event()
    deadline_s = None if timeout is None else clock.monotonic_s() + duration_s(timeout)
    while True:
        request = SetSafeMode(action="get" if action == "wait" else action)  # type: ignore[arg-type]
        state: SafeModeState = shell.call("safe_mode", request)
        if action != "wait" or not state.reason:
            break
        if deadline_s is not None and clock.monotonic_s() >= deadline_s:
            raise TimedOut(f"safe mode is still on: {state.reason}")
        pause.wait(POLL_S)
    if as_json:
        print_json({"safe_mode": bool(state.reason), "reason": state.reason})
    else:
        print(f"safe mode is on: {state.reason}" if state.reason else "safe mode is off")


# --- work on DataNodes ---


@change_command(name="scrub")
@click.argument("nodes", nargs=-1)
@click.option(
    "--bandwidth", metavar="SIZE", default="0", help="Bytes a second on each; 0: no limit."
)
def scrub_command(shell: Shell, nodes: Sequence[str], bandwidth: str) -> None:
    """Have DataNodes (all, or those named) read and verify everything now."""
    shell.call(
        "order_nodes",
        OrderNodes(action="scrub", nodes=list(nodes), bytes_per_s=size_bytes(bandwidth)),
    )


@change_command(name="diskbalancer")
@nodes_argument
@click.option(
    "--threshold", type=float, default=10.0, help="Percent that a volume may be off the average."
)
@click.option(
    "--bandwidth", metavar="SIZE", default="0", help="Bytes a second on each node; 0: no limit."
)
def diskbalancer_command(
    shell: Shell, nodes: Sequence[str], threshold: float, bandwidth: str
) -> None:
    """Have DataNodes even out how full their volumes are."""
    shell.call(
        "order_nodes",
        OrderNodes(
            action="balance-disks",
            nodes=list(nodes),
            bytes_per_s=size_bytes(bandwidth),
            threshold_percent=threshold,
        ),
    )


# --- balancer ---


def describe_balancer(status: BalancerStatus) -> str:
    if status.state == "never-run":
        return "the balancer has never run"
    return (
        f"{status.state}: {human(status.moved_bytes)} in {status.moved_blocks} blocks moved,"
        f" {human(status.left_bytes)} left, {status.moving} under way; nodes are"
        f" {status.average_percent:.1f} % full, at most {status.spread_percent:.1f} % off"
        f" (threshold {status.threshold_percent:g} %)"
    )


@shell_command(name="balancer")
@click.option(
    "--threshold",
    type=float,
    default=10.0,
    help="Percent of its space that a node may be off the average.",
)
@click.option(
    "--bandwidth", metavar="SIZE", default="0", help="Bytes a second in all; 0: no limit."
)
@click.option("--background", is_flag=True, help="Let it run on, and return.")
@click.option("--status", "action", flag_value="status", help="Show the last run.")
@click.option("--stop", "action", flag_value="stop", help="End the run.")
@json_option
def balancer_command(
    shell: Shell,
    threshold: float,
    bandwidth: str,
    background: bool,
    action: str | None,
    as_json: bool,
) -> None:
    """Even out how full the DataNodes are, and show progress.

    Ends when each is within the threshold of the average, when nothing more can be moved, or when it is interrupted
    (what is being copied then is finished; nothing is lost).
    """

    def tell(status: BalancerStatus) -> None:
        if as_json:
            print_json(status)
        else:
            print(describe_balancer(status), flush=True)

    if action is not None:
        tell(shell.call("balancer", ControlBalancer(action=action)))  # type: ignore[arg-type]
        return
    request = StartBalancer(
        threshold_percent=threshold,
        bytes_per_s=size_bytes(bandwidth),
        keep_alive_s=0.0 if background else KEEP_ALIVE_S,
    )
    status: BalancerStatus = shell.call("start_balancer", request)
    if background:
        tell(status)
        return
    pause, told = threading.Event(), None
    try:
        while status.state == "running":
            pause.wait(POLL_S)
            status = shell.call("balancer", ControlBalancer(action="renew", run_id=status.run_id))
            begun = status.left_bytes or status.moving or status.moved_blocks
            text = describe_balancer(status)
            # Nothing is told of a run before it has looked at the nodes.
            if text != told and (begun or status.state != "running"):
                tell(status)
                told = text
    except KeyboardInterrupt:
        tell(shell.call("balancer", ControlBalancer(action="stop", run_id=status.run_id)))
        raise
    if status.state != "balanced":
        shell.failed = max(shell.failed, 1)


for _command in (
    report_command,
    topology_command,
    refresh_command,
    decommission_command,
    maintenance_command,
    recommission_command,
    safemode_command,
    scrub_command,
    diskbalancer_command,
    balancer_command,
    volume_command,
):
    admin_command.add_command(_command)

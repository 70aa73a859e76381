"""`dfs admin volume`: the volumes of a DataNode, and taking one out while the node goes on."""

from __future__ import annotations

import threading

import click

from ...common.admin import ListVolumes, NodeVolumes, OrderVolume
from ...common.errors import InvalidRequest
from ...common.messages import VolumeReport
from .support import Shell, human, json_option, print_json, shell_command, shown, table

POLL_S = 0.5


@click.group(name="volume")
def volume_command() -> None:
    """The volumes of a DataNode: see them, empty one, take it out.

    NODE is an id, HOST:PORT, host or uuid, as `dfs admin report` shows them; VOLUME a path or id, as `list` shows them.
    """


def state_of(volume: VolumeReport) -> str:
    if volume.failure:
        return f"out of service: {volume.failure}"
    if volume.draining:
        return "draining" if volume.replicas else "drained"
    return "in service"


def show(found: NodeVolumes, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    rows = [("Volume", "Replicas", "Used", "Free", "Id", "State")]
    for volume in found.volumes:
        rows.append(
            (
                shown(volume.path),
                str(volume.replicas),
                human(volume.used_bytes),
                human(volume.remaining_bytes),
                volume.volume_id,
                shown(state_of(volume)),
            )
        )
    for line in table(rows, right=(1, 2, 3)):
        print(line)


node_argument = click.argument("node")
volume_argument = click.argument("volume")


@shell_command(name="list")
@node_argument
@json_option
def list_command(shell: Shell, node: str, as_json: bool) -> None:
    """The volumes of a DataNode, and what is on them."""
    show(shell.call("list_volumes", ListVolumes(node=node)), as_json=as_json)


@shell_command(name="drain")
@node_argument
@volume_argument
@click.option("--wait", is_flag=True, help="Return when it is empty, showing progress.")
@json_option
def drain_command(shell: Shell, node: str, volume: str, wait: bool, as_json: bool) -> None:
    """Empty a volume: its replicas move to the node's other volumes, and nothing new is put there.

    Clients and the NameNode notice nothing. `keep` ends it.
    """
    request = OrderVolume(action="drain", node=node, volume=volume)
    found: NodeVolumes = shell.call("order_volume", request)
    pause, told = threading.Event(), -1
    while wait:
        left = _one(found, volume)
        if not left.draining or left.failure:
            raise InvalidRequest(f"{left.path} is not being drained any more: {state_of(left)}")
        if not left.replicas:
            break
        if left.replicas != told and not as_json:
            print(f"{left.path}: {left.replicas} replicas left", flush=True)
            told = left.replicas
        pause.wait(POLL_S)
        found = shell.call("list_volumes", ListVolumes(node=node))
    show(found, as_json=as_json)


def _one(found: NodeVolumes, name: str) -> VolumeReport:
    for volume in found.volumes:
        if name in (volume.path, volume.volume_id):
            return volume
    raise InvalidRequest(f"there is no volume {shown(name)} any more")


@shell_command(name="keep")
@node_argument
@volume_argument
@json_option
def keep_command(shell: Shell, node: str, volume: str, as_json: bool) -> None:
    """End the draining of a volume: it stays in service."""
    request = OrderVolume(action="keep", node=node, volume=volume)
    show(shell.call("order_volume", request), as_json=as_json)


@shell_command(name="remove")
@node_argument
@volume_argument
@json_option
def remove_command(shell: Shell, node: str, volume: str, as_json: bool) -> None:
    """Take a volume out: an empty one, or one that has failed. Refused while it is in use.

    Then its disk may be unmounted. Take it out of the node's configuration (`dir`), too: left there, it is passed over
    at the next start.
    """
    request = OrderVolume(action="remove", node=node, volume=volume)
    show(shell.call("order_volume", request), as_json=as_json)


for _command in (list_command, drain_command, keep_command, remove_command):
    volume_command.add_command(_command)

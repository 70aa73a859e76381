"""Operators' orders about the volumes of DataNodes: handed to the node, whose answer decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from ..common.admin import ListVolumes, NodeVolumes, OrderVolume
from ..common.errors import InvalidRequest, TimedOut
from ..common.messages import Done, ManageVolume, VolumeAnswer, VolumeReport
from ..common.paths import shown
from ..common.runtime import new_uuid
from .administration import Administration
from .datanodes import DataNode, DataNodes
from .permissions import Caller, require_superuser

ANSWER_LIMIT_S: Final = 20.0  # a heartbeat is answered at once; then the node looks at its disks


class VolumeOrders:
    """Handlers of operators, and of the DataNodes that answer them."""

    def __init__(self, nodes: DataNodes, administration: Administration) -> None:
        self._nodes = nodes
        self._administration = administration
        self._asked: dict[str, asyncio.Future[VolumeAnswer]] = {}

    def handlers(self) -> dict[str, Callable[[Caller, Any], Any]]:
        return {
            "list_volumes": self.list_volumes,
            "order_volume": self.order_volume,
            "volume_answer": self.volume_answer,
        }

    async def list_volumes(self, caller: Caller, request: ListVolumes) -> NodeVolumes:
        return _volumes_of(self._named(request.node))

    def _named(self, name: str) -> DataNode:
        (node,) = self._administration.resolve([name])
        if self._nodes.state(node) == "dead" or node.last_s is None:
            raise InvalidRequest(f"the DataNode {node.address.data} is not there to be asked")
        return node

    async def order_volume(self, caller: Caller, request: OrderVolume) -> NodeVolumes:
        require_superuser(caller, f"{request.action} a volume")
        node = self._named(request.node)
        volume = _named_volume(node, request.volume)
        order_id = new_uuid()
        answered = self._asked[order_id] = asyncio.get_running_loop().create_future()
        order = ManageVolume(order_id=order_id, volume_id=volume.volume_id, action=request.action)
        try:
            if not self._nodes.command(node.node_id, order):
                raise InvalidRequest(f"the DataNode {node.address.data} has too much to do")
            async with asyncio.timeout(ANSWER_LIMIT_S):
                answer = await answered
        except TimeoutError:
            raise TimedOut(
                f"the DataNode {node.address.data} has not answered within {ANSWER_LIMIT_S:.0f} s; it"
                " obeys when it can: `dfs admin volume list` shows what came of it"
            ) from None
        finally:
            del self._asked[order_id]
        node.volumes = answer.volumes
        if answer.problem:
            raise InvalidRequest(answer.problem)
        return _volumes_of(node)

    async def volume_answer(self, caller: Caller, request: VolumeAnswer) -> Done:
        waiting = self._asked.get(request.order_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(request)
        return Done()


def _named_volume(node: DataNode, name: str) -> VolumeReport:
    for volume in node.volumes:
        if name in (volume.volume_id, volume.path):
            return volume
    listed = ", ".join(volume.path for volume in node.volumes)
    raise InvalidRequest(
        f"the DataNode {node.address.data} has no volume {shown(name)}; it has {listed}"
    )


def _volumes_of(node: DataNode) -> NodeVolumes:
    return NodeVolumes(node_id=node.node_id, address=node.address.data, volumes=list(node.volumes))

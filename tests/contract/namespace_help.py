"""A namespace without servers: operations against a store, with made-up DataNodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twinfs.common.checksum import digest_of
from twinfs.common.errors import NotEnoughDataNodes
from twinfs.common.messages import BlockCommit
from twinfs.common.model import BlockRef, NodeAddress, NodeId
from twinfs.namenode.leases import WriteRules
from twinfs.namenode.permissions import Caller
from twinfs.namenode.store.base import MetadataStore, Transaction

ROOT = Caller("root", superuser=True, host="127.0.0.1")
RULES = WriteRules(replication=3, block_bytes=1 << 20, min_replicas=2, lease_timeout_ms=60_000)
NODES = [NodeAddress(node_id=NodeId(n), host="h", data=f"h:{n}", http=f"h:{n}") for n in (1, 2, 3)]


class Nodes:
    """Three DataNodes that are always there."""

    def choose(
        self,
        count: int,
        *,
        client_host: str,
        length: int,
        client_node: NodeId | None = None,
        exclude: Sequence[NodeId] = (),
        having: Sequence[NodeId] = (),
        minimum: int = 1,
    ) -> list[NodeAddress]:
        free = [n for n in NODES if n.node_id not in exclude and n.node_id not in having]
        if len(free) < minimum:
            raise NotEnoughDataNodes("too few")
        return free[:count]

    def address(self, node_id: NodeId) -> NodeAddress | None:
        return next((n for n in NODES if n.node_id == node_id), None)

    def order(self, node_ids: Sequence[NodeId], client_host: str) -> list[NodeAddress]:
        return [n for n in NODES if n.node_id in node_ids]


NODE_SET = Nodes()


async def register_nodes(store: MetadataStore) -> None:
    def operation(tx: Transaction) -> None:
        for node in NODES:
            tx.execute(
                "INSERT INTO datanodes (node_id, uuid, host, data_address, http_address,"
                " socket_path, rack, admin_state, registered_ms) VALUES (?, ?, ?, ?, ?, '', '/r', 0, 0)",
                (node.node_id, f"uuid{node.node_id}", node.host, node.data, node.http),
            )

    await store.run(operation)


def commit(block: BlockRef, length: int, nodes: Sequence[int] = (1, 2, 3)) -> BlockCommit:
    return BlockCommit(
        block_id=block.block_id,
        generation=block.generation,
        length=length,
        digest=digest_of(b"%d" % length),
        nodes=[NodeId(n) for n in nodes],
    )


async def do(store: MetadataStore, function: Any, request: Any, **more: Any) -> Any:
    """Run one mutation as root."""
    caller = more.pop("caller", ROOT)
    return await store.run(lambda tx: function(tx, caller, request, **more))

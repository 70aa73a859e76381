"""What a NameNode asks every few seconds costs the same however many blocks there are."""

from __future__ import annotations

import pytest

from twinfs.namenode.blockmap import IS_CORRUPT, IS_TO_DELETE

from .memory import memory_transaction


@pytest.mark.parametrize("condition", [IS_TO_DELETE, IS_CORRUPT])
@pytest.mark.parametrize("of_a_node", [False, True])
def test_replicas_that_need_attention_are_found_by_their_own_index(
    condition: str, of_a_node: bool
) -> None:
    """Every heartbeat asks for a node's replicas to be deleted: with the node's whole list, 50 nodes with 20,000 replicas
    each took half of a core."""
    where = f"node_id = ? AND {condition}" if of_a_node else condition
    with memory_transaction() as tx:
        (plan,) = tx.all(
            f"EXPLAIN QUERY PLAN SELECT block_id, generation FROM replicas WHERE {where} LIMIT 9",
            (1,) if of_a_node else (),
        )
    assert "replicas_attention" in plan[3]

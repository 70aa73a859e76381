"""After healing: every block has its copies, whole ones, and nothing else lies on any disk.

Facts come from the databases and disks themselves (`scripts/faults/facts.py`), not from what the servers say of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Block:
    """What the NameNode knows of a finalized block."""

    generation: int
    length: int
    digest: str
    wanted: int
    holders: tuple[int, ...]  # nodes that its rows call good


@dataclass(frozen=True, slots=True)
class Replica:
    """What lies on a disk. *digest* was computed from the bytes now."""

    generation: int
    length: int
    digest: str
    finalized: bool


@dataclass(frozen=True, slots=True)
class Facts:
    blocks: Mapping[int, Block]
    replicas: Mapping[int, Mapping[int, Replica]]  # node id -> block id -> replica
    open_files: Sequence[str] = ()
    nodes: int = 0
    unreadable: Sequence[str] = ()  # volumes whose index can't be read
    remains: Sequence[str] = ()  # unfinished replicas of blocks that the same node has whole


def check(facts: Facts) -> list[str]:
    """Sentences about what is not as it should be."""
    wrong = [f"{path} is still open for writing" for path in facts.open_files]
    wrong += [f"the index of {volume}" for volume in facts.unreadable]
    wrong += [f"{name} is left from a copy that the node has whole" for name in facts.remains]
    holders: dict[int, set[int]] = {block_id: set() for block_id in facts.blocks}
    for node, replicas in sorted(facts.replicas.items()):
        for block_id, replica in sorted(replicas.items()):
            name = f"block {block_id} on node {node}"
            block = facts.blocks.get(block_id)
            if block is None:
                wrong.append(f"{name} is an orphan: no file has it")
            elif not replica.finalized:
                wrong.append(f"{name} is left from a write that is over")
            elif replica.generation != block.generation:
                wrong.append(
                    f"{name} is of generation {replica.generation}, not {block.generation}"
                )
            elif replica.length != block.length:
                wrong.append(f"{name} has {replica.length} bytes, not {block.length}")
            elif replica.digest != block.digest:
                wrong.append(f"{name} has other bytes than were written")
            else:
                holders[block_id].add(node)
    for block_id, block in sorted(facts.blocks.items()):
        there, wanted = holders[block_id], min(block.wanted, facts.nodes)
        if len(there) < wanted:
            wrong.append(f"block {block_id} has {len(there)} good copies, not {wanted}")
        elif len(there) > wanted:
            wrong.append(f"block {block_id} has {len(there)} copies, {wanted} are asked for")
        known = set(block.holders) & set(
            facts.replicas
        )  # nodes that are gone for ever count for nothing
        if known != there:
            wrong.append(
                f"block {block_id} is on {sorted(there)}; the NameNode says {sorted(known)}"
            )
    return wrong


def to_json(facts: Facts) -> dict[str, Any]:
    return {
        "nodes": facts.nodes,
        "open_files": list(facts.open_files),
        "unreadable": list(facts.unreadable),
        "remains": list(facts.remains),
        "blocks": {
            str(block_id): [b.generation, b.length, b.digest, b.wanted, list(b.holders)]
            for block_id, b in facts.blocks.items()
        },
        "replicas": {
            str(node): {
                str(block_id): [r.generation, r.length, r.digest, r.finalized]
                for block_id, r in replicas.items()
            }
            for node, replicas in facts.replicas.items()
        },
    }


def from_json(data: Mapping[str, Any]) -> Facts:
    return Facts(
        nodes=data["nodes"],
        open_files=data["open_files"],
        unreadable=data.get("unreadable", ()),
        remains=data.get("remains", ()),
        blocks={
            int(block_id): Block(g, length, digest, wanted, tuple(holders))
            for block_id, (g, length, digest, wanted, holders) in data["blocks"].items()
        },
        replicas={
            int(node): {int(block_id): Replica(*fields) for block_id, fields in replicas.items()}
            for node, replicas in data["replicas"].items()
        },
    )

"""What lies on the disks of a cluster, also where an index is damaged: told, and no reason to give up."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path

import pytest

from scripts.checker import audit
from scripts.faults import corrupt, facts
from scripts.faults.targets import CantBreak
from twinfs.common.checksum import digest_of
from twinfs.datanode.index import Index, Replica


class DeadNode:
    """A DataNode that does not run."""

    alive = False
    name = "datanode1"

    def __init__(self, *volumes: Path) -> None:
        self.volumes = volumes


class OneNode:
    """A cluster as `facts` asks it, without a namespace."""

    names = ("datanode1",)

    def __init__(self, node: DeadNode) -> None:
        self._node = node

    def target(self, name: str) -> DeadNode:
        return self._node


@pytest.fixture
def node(tmp_path: Path) -> DeadNode:
    volumes = []
    for number in (1, 2):
        volume = tmp_path / f"v{number}"
        volume.mkdir()
        (volume / "VERSION").write_text(json.dumps({"node_id": 7}))
        index = Index(volume / "index.db")
        for block_id in range(number * 100, number * 100 + 50):
            data = random.Random(block_id).randbytes(3_000)
            row = Replica(block_id, 1, len(data), True, digest_of(data))
            index.add([row], [(block_id, data)]).result()
        index.close()
        volumes.append(volume)
    return DeadNode(*volumes)


def gathered(node: DeadNode, monkeypatch: pytest.MonkeyPatch) -> audit.Facts:
    monkeypatch.setattr(facts, "_namespace", lambda target: ({}, []))
    return facts.gather(OneNode(node))  # type: ignore[arg-type]


def test_all_volumes_are_read(node: DeadNode, monkeypatch: pytest.MonkeyPatch) -> None:
    found = gathered(node, monkeypatch)
    assert len(found.replicas[7]) == 100
    assert found.unreadable == []


@pytest.mark.parametrize("number", [0, 1])
def test_what_is_left_of_a_copy_is_told_of(
    node: DeadNode, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """And does not hide the whole replica beside it, whichever volume either is on."""
    for folder in ("writing", "blocks/00"):
        (node.volumes[number] / folder).mkdir(parents=True)
    whole = (1 - number + 1) * 100
    (node.volumes[number] / "writing" / f"blk_{whole}_1").write_bytes(b"half")
    found = gathered(node, monkeypatch)
    assert found.remains == [f"block {whole} on node 7"]
    assert found.replicas[7][whole].finalized


def test_a_damaged_index_is_told_of(node: DeadNode, monkeypatch: pytest.MonkeyPatch) -> None:
    index = node.volumes[0] / "index.db"
    index.write_bytes(index.read_bytes()[:4096] + b"\xff" * (index.stat().st_size - 4096))
    found = gathered(node, monkeypatch)
    (line,) = found.unreadable
    assert line.startswith("datanode1/v1 can't be read")
    assert set(found.replicas[7]) == set(range(200, 250))
    assert any("the index of datanode1/v1" in line for line in audit.check(found))


def test_no_damage_to_an_index_is_more_than_a_complaint(
    node: DeadNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite hands out what it finds: no bytes where there should be some, and words for numbers."""
    index = node.volumes[0] / "index.db"
    whole, rng = index.read_bytes(), random.Random(1)
    for _ in range(50):
        data = bytearray(whole)
        for _ in range(3_000):
            data[rng.randrange(4_096, len(data))] ^= 1 << rng.randrange(8)
        index.write_bytes(data)
        found = gathered(node, monkeypatch)
        assert set(found.replicas[7]) >= set(range(200, 250))
        with contextlib.suppress(CantBreak):
            corrupt.pick(node, None, rng)  # type: ignore[arg-type]


def test_nothing_can_be_picked_from_a_damaged_index(node: DeadNode) -> None:
    index = node.volumes[0] / "index.db"
    index.write_bytes(index.read_bytes()[:4096] + b"\xff" * (index.stat().st_size - 4096))
    with pytest.raises(CantBreak, match="can't be read"):
        corrupt.pick(node, None, random.Random(1))  # type: ignore[arg-type]

"""Where the new nodes of a pipeline take from what is acknowledged."""

from __future__ import annotations

from twinfs.client.file_writer import _with_base
from twinfs.common.model import (
    BlockBase,
    BlockId,
    BlockRef,
    GenerationStamp,
    NodeAddress,
    NodeId,
    TargetBlock,
)


def block(block_id: int, generation: int) -> BlockRef:
    return BlockRef(block_id=BlockId(block_id), generation=GenerationStamp(generation))


def node(number: int) -> NodeAddress:
    return NodeAddress(
        node_id=NodeId(number), host="h", data=f"h:{number}", http="", socket="", rack="/r"
    )


def target(generation: int, keep: list[int], length: int) -> TargetBlock:
    """What the NameNode answers to `update_pipeline`."""
    base = BlockBase(
        block=block(7, generation), length=length, sources=[node(number) for number in keep]
    )
    return TargetBlock(block=block(7, generation), nodes=[*base.sources, node(9)], base=base)


def test_from_those_that_are_left_now_not_from_those_of_an_attempt_that_failed() -> None:
    """Two of three nodes had died. The first attempt met the second dead one; every later one asked it again, until the retry
    time was over and the write failed."""
    first = target(11, [2, 1], 100)
    second = target(12, [1], 100)
    assert _with_base(second, first.base, 100) == second


def test_from_the_block_that_was_to_be_appended_to_while_nothing_is_added() -> None:
    former = BlockBase(block=block(6, 3), length=100, sources=[node(1), node(2)])
    assert _with_base(target(11, [1], 100), former, 100).base == former
    again = target(12, [1], 100)
    assert _with_base(again, former, 100).base == former
    assert _with_base(target(13, [1], 130), former, 130) == target(13, [1], 130)


def test_from_nowhere_while_nothing_is_acknowledged() -> None:
    assert _with_base(target(11, [1], 0), None, 0).base is None

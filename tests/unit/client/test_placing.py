"""Whom new copies avoid, and how long a write looks for nodes: with injected time, without servers."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest

from twinfs.client.placing import (
    ATTEMPTS,
    EMPTY_PART,
    FORGET_S,
    Blame,
    Patience,
    Placing,
    Trials,
)
from twinfs.common.errors import NotEnoughDataNodes, PipelineFailed, SafeMode
from twinfs.common.messages import Allocate
from twinfs.common.model import NodeId, Struct
from twinfs.common.runtime import Clock

RETRY_S = 30.0


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now_s += seconds


class NameNode:
    """Has so many nodes, of which *needed* must be free; each call takes a moment."""

    def __init__(self, time: Time, nodes: int, needed: int) -> None:
        self.time = time
        self.nodes = {NodeId(number) for number in range(1, nodes + 1)}
        self.needed = needed
        self.asked: list[list[int]] = []
        self.error: Exception | None = None

    async def call(self, operation: str, request: Struct) -> Any:
        self.time.now_s += 0.01
        assert isinstance(request, Allocate)
        self.asked.append(list(request.exclude))
        if self.error is not None:
            raise self.error
        left = sorted(self.nodes - set(request.exclude))
        if len(left) < self.needed:
            raise NotEnoughDataNodes("too few")
        return left


def placing(time: Time, namenode: NameNode) -> Placing:
    return Placing(
        namenode,
        retry_s=RETRY_S,
        clock=cast(Clock, time),
        rng=random.Random(1),
        sleep=time.sleep,
    )


async def ask(found: Placing) -> Any:
    return await found.call(
        "allocate", lambda excluded: Allocate(holder="me", count=1, length=1, exclude=excluded)
    )


def nodes(*numbers: int) -> list[NodeId]:
    return [NodeId(number) for number in numbers]


def test_blame_is_forgotten() -> None:
    blame = Blame()
    blame.add(nodes(3, 1), 10.0)
    blame.add(nodes(2), 10.0 + FORGET_S / 2)
    assert blame.excluded(10.0 + FORGET_S / 2) == [1, 2, 3]
    blame.add(nodes(1), 10.0 + FORGET_S / 2)  # again
    assert blame.excluded(10.0 + FORGET_S) == [1, 2]
    assert blame.excluded(10.0 + FORGET_S * 1.5) == []


async def test_who_failed_one_write_is_left_out_of_the_next() -> None:
    time = Time()
    namenode = NameNode(time, 5, 2)
    found = placing(time, namenode)
    await found.trials().failed(PipelineFailed("lost"), nodes(4))
    assert await ask(found) == [1, 2, 3, 5]
    time.now_s += FORGET_S
    assert await ask(found) == [1, 2, 3, 4, 5]


async def test_all_are_forgiven_where_too_few_are_left() -> None:
    """Two are dead and two were blamed for it: at once, without a pause, the innocent get their chance."""
    time = Time()
    namenode = NameNode(time, 5, 2)
    found = placing(time, namenode)
    found.blame(nodes(1, 2, 4, 5))
    began_s = time.now_s
    assert await ask(found) == [1, 2, 3, 4, 5]
    assert namenode.asked == [[1, 2, 4, 5], []]
    assert time.now_s - began_s < 0.1
    assert found.excluded() == []


async def test_nodes_that_come_in_time_are_waited_for() -> None:
    time = Time()
    namenode = NameNode(time, 1, 2)
    found = placing(time, namenode)
    found.blame(nodes(1))

    async def sleep(seconds: float) -> None:
        time.now_s += seconds
        if time.now_s > 1_005.0:
            namenode.nodes.add(NodeId(2))

    found._sleep = sleep
    assert await ask(found) == [1, 2]


async def test_a_cluster_with_too_few_nodes_is_an_error_after_a_part_of_the_retry_time() -> None:
    time = Time()
    namenode = NameNode(time, 1, 2)
    began_s = time.now_s
    with pytest.raises(NotEnoughDataNodes):
        await ask(placing(time, namenode))
    waited_s = time.now_s - began_s
    assert RETRY_S / EMPTY_PART <= waited_s < RETRY_S / EMPTY_PART + 3
    assert len(namenode.asked) < 100


async def test_blame_that_never_ends_does_not_keep_a_call_for_ever() -> None:
    """Others blame again whom this call forgives."""
    time = Time()
    namenode = NameNode(time, 3, 2)
    found = placing(time, namenode)

    async def sleep(seconds: float) -> None:
        time.now_s += seconds
        found.blame(nodes(1, 2))

    found._sleep = sleep
    namenode.needed = 4
    found.blame(nodes(1, 2))
    with pytest.raises(NotEnoughDataNodes):
        await ask(found)
    assert time.now_s < 1_000.0 + RETRY_S


async def test_other_errors_are_told_at_once() -> None:
    time = Time()
    namenode = NameNode(time, 3, 2)
    namenode.error = SafeMode("not yet")
    with pytest.raises(SafeMode):
        await ask(placing(time, namenode))
    assert len(namenode.asked) == 1


async def attempts(time: Time, each_s: float) -> int:
    """How often something that always fails after *each_s* is tried."""
    trials: Trials = placing(time, NameNode(time, 3, 2)).trials()
    count = 0
    with pytest.raises(PipelineFailed, match="lost"):
        while True:
            count += 1
            time.now_s += each_s
            await trials.failed(PipelineFailed("lost"))
    return count


async def test_quick_failures_go_on_through_the_retry_time() -> None:
    """A refused connection takes no time; the NameNode needs some until it knows why."""
    time = Time()
    assert ATTEMPTS < await attempts(time, 0.001) < 100
    assert RETRY_S <= time.now_s - 1_000.0 < RETRY_S + 3


async def test_slow_failures_have_their_number_of_attempts() -> None:
    time = Time()
    assert await attempts(time, RETRY_S) == ATTEMPTS


def test_the_first_attempt_after_a_failure_does_not_wait() -> None:
    patience = Patience(RETRY_S, 0.0, random.Random(1))
    assert patience.pause_s(0.0) == 0.0
    pauses = [patience.pause_s(0.0) for _ in range(20)]
    assert all(pause is not None and 0 <= pause <= 2 for pause in pauses)

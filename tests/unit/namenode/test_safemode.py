"""Safe mode refuses writes until enough DataNodes are there, says why, and does not come back."""

from __future__ import annotations

import pytest

from twinfs.common.errors import SafeMode
from twinfs.namenode.safemode import SafeModeGate


class Count:
    """How many DataNodes live, as the test wants it."""

    def __init__(self) -> None:
        self.live = 0

    def __call__(self) -> int:
        return self.live


@pytest.fixture
def count() -> Count:
    return Count()


def test_it_ends_when_enough_nodes_live(count: Count) -> None:
    gate = SafeModeGate(count, 3)
    refusals = []
    for count.live in range(5):
        refusals.append(gate.refusal("create") is not None)
    assert refusals == [True, True, True, False, False]


def test_it_says_how_many_are_missing(count: Count) -> None:
    gate = SafeModeGate(count, 3)
    count.live = 2
    assert "2 of 3 DataNodes" in gate.reason()
    refusal = gate.refusal("mkdirs")
    assert isinstance(refusal, SafeMode)
    assert refusal.retryable
    assert gate.reason() in refusal.message


def test_it_does_not_come_back(count: Count) -> None:
    gate = SafeModeGate(count, 1)
    count.live = 1
    assert gate.refusal("create") is None
    count.live = 0
    assert gate.refusal("create") is None
    assert gate.reason() == ""


def test_leases_are_renewed_all_the_while(count: Count) -> None:
    """A NameNode that restarts must not take files from writers that are there."""
    gate = SafeModeGate(count, 1)
    assert gate.refusal("renew_lease") is None
    assert gate.refusal("complete") is not None


def test_without_a_threshold_there_is_none(count: Count) -> None:
    gate = SafeModeGate(count, 0)
    assert gate.reason() == ""
    assert gate.refusal("create") is None

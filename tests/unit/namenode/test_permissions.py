"""Who may do what, bit by bit."""

from __future__ import annotations

import itertools

import pytest

from twinfs.common.errors import PermissionDenied
from twinfs.namenode.permissions import (
    EXECUTE,
    READ,
    STICKY,
    WRITE,
    Caller,
    allowed,
    require,
    require_owner,
    require_removal,
    require_superuser,
)
from twinfs.namenode.store.sql import KIND_DIRECTORY, INode

ANN = Caller("ann", frozenset({"staff", "ann"}))
BOB = Caller("bob", frozenset({"staff"}))
EVE = Caller("eve", frozenset({"others"}))
ROOT = Caller("root", superuser=True)


def node(mode: int, owner: str = "ann", group: str = "staff") -> INode:
    return INode(1, "n", 5, KIND_DIRECTORY, mode, 0, 0, owner, group, 0, 0, 0, 0)


@pytest.mark.parametrize(("caller", "shift"), [(ANN, 6), (BOB, 3), (EVE, 0)])
def test_exactly_one_class_of_bits_counts(caller: Caller, shift: int) -> None:
    """The owner's bits decide for the owner, even where the group's or the others' would allow more."""
    for mode, action in itertools.product(range(0o1000), (READ, WRITE, EXECUTE, WRITE | EXECUTE)):
        assert allowed(caller, node(mode), action) == (mode >> shift & action == action)


def test_a_superuser_passes_every_check() -> None:
    parent, child = node(STICKY), node(0)
    assert allowed(ROOT, parent, READ | WRITE | EXECUTE)
    require(ROOT, parent, WRITE, "/p")
    require_removal(ROOT, parent, child, "/p/c")
    require_owner(ROOT, child, "/p/c")
    require_superuser(ROOT, "set quotas")


@pytest.mark.parametrize(
    ("action", "word"), [(READ, "read"), (WRITE, "write"), (EXECUTE, "search")]
)
def test_a_refusal_says_who_may_not_do_what_where(action: int, word: str) -> None:
    with pytest.raises(PermissionDenied) as caught:
        require(EVE, node(0o1750), action, "/p")
    for part in ("eve", word, "/p", "ann:staff", "1750"):
        assert part in caught.value.message


@pytest.mark.parametrize("mode", [0o777, 0o333, 0o1777])
def test_the_owner_of_a_node_may_remove_it_from_a_shared_directory(mode: int) -> None:
    require_removal(BOB, node(mode), node(0o000, owner="bob"), "/p/c")


def test_a_sticky_directory_protects_from_all_but_the_two_owners() -> None:
    parent = node(0o1777)
    with pytest.raises(PermissionDenied, match="sticky"):
        require_removal(EVE, parent, node(0o777, owner="bob"), "/p/c")
    require_removal(ANN, parent, node(0o777, owner="bob"), "/p/c")
    require_removal(EVE, node(0o777), node(0o700, owner="bob"), "/p/c")


@pytest.mark.parametrize("mode", [0o755, 0o772, 0o771])
def test_removal_needs_write_and_search_of_the_directory(mode: int) -> None:
    with pytest.raises(PermissionDenied):
        require_removal(EVE, node(mode), node(0o777, owner="eve"), "/p/c")


def test_only_owners_and_superusers_change_attributes() -> None:
    require_owner(ANN, node(0), "/n")
    with pytest.raises(PermissionDenied, match="only ann"):
        require_owner(BOB, node(0o777), "/n")
    with pytest.raises(PermissionDenied, match="only a superuser may set quotas"):
        require_superuser(ANN, "set quotas")

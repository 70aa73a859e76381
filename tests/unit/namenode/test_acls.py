"""ACLs alone: who is allowed, how lists change, what is inherited."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinfs.common.access import AclEntry, entries_text, parse_entries
from twinfs.common.errors import InvalidAcl, InvalidRequest
from twinfs.namenode import acls
from twinfs.namenode.permissions import Caller, allowed
from twinfs.namenode.store.sql import KIND_DIRECTORY, INode


def node(mode: int, acl: str = "", owner: str = "ann", group: str = "staff") -> INode:
    return INode(1, "d", 10, KIND_DIRECTORY, mode, 0, 0, owner, group, 0, 0, 0, 0, acl)


def with_acl(mode: int, spec: str) -> INode:
    """A directory of that mode to which *spec* was added."""
    plain = node(mode)
    bits, text = acls.kept(acls.modified(acls.whole(plain), parse_entries(spec)), mode)
    return plain._replace(mode=bits, acl=text)


def may(where: INode, user: str, action: int, *groups: str) -> bool:
    return allowed(Caller(user, frozenset(groups)), where, action)


def test_the_named_user_gets_what_the_mask_leaves() -> None:
    there = with_acl(0o750, "user:bob:rwx,mask::r-x")
    assert there.mode == 0o750
    assert may(there, "bob", 5)
    assert not may(there, "bob", 2)
    assert may(there, "ann", 7)
    assert not may(there, "eve", 4)


def test_a_named_user_is_not_helped_by_his_groups() -> None:
    there = with_acl(0o770, "user:bob:---")
    assert not may(there, "bob", 4, "staff")
    assert may(there, "eve", 4, "staff")


def test_one_of_several_groups_must_grant_all() -> None:
    there = with_acl(0o707, "group:readers:r--,group:writers:-w-")
    assert may(there, "bob", 4, "readers", "writers")
    assert not may(there, "bob", 6, "readers", "writers")
    # A member of a group that grants nothing is not one of the others.
    assert not may(there, "bob", 1, "readers")
    assert may(there, "bob", 7)


def test_the_owning_groups_entry_is_behind_the_mask() -> None:
    there = with_acl(0o770, "user:bob:r--,mask::r--")
    assert there.acl == "user:bob:r--,group::rwx"
    assert may(there, "eve", 4, "staff")
    assert not may(there, "eve", 2, "staff")


def test_default_entries_alone_grant_nothing() -> None:
    there = with_acl(0o750, "default:user:bob:rwx")
    assert not may(there, "bob", 4)
    assert may(there, "eve", 5, "staff")
    assert not may(there, "eve", 2, "staff")


def test_the_mask_is_the_union_unless_it_is_given() -> None:
    assert with_acl(0o700, "user:bob:r--,group:dev:-w-").mode == 0o760
    assert with_acl(0o770, "user:bob:r--,mask::--x").mode == 0o710


def test_adding_to_a_list_changes_what_has_the_same_name() -> None:
    there = with_acl(0o700, "user:bob:rwx")
    _, text = acls.kept(
        acls.modified(acls.whole(there), parse_entries("user:bob:r--,user:eve:r--")), there.mode
    )
    assert text == "user:bob:r--,user:eve:r--,group::---"


def test_the_default_scope_is_filled_up_from_the_access_scope() -> None:
    there = with_acl(0o751, "default:user:bob:rwx")
    assert there.acl == (
        "default:user::rwx,default:user:bob:rwx,default:group::r-x,default:mask::rwx,default:other::--x"
    )


def test_removing_the_last_named_entry_leaves_the_mask() -> None:
    there = with_acl(0o750, "user:bob:rwx")
    entries = acls.without(acls.whole(there), parse_entries("user:bob", rights=False))
    mode, text = acls.kept(entries, there.mode)
    assert (mode, text) == (0o750, "group::r-x")
    entries = acls.without(acls.whole(there), parse_entries("user:bob:,mask::", rights=False))
    assert acls.kept(entries, there.mode) == (0o750, "")


@pytest.mark.parametrize(
    ("existing", "spec"),
    [
        ("", "user:bob:r--,user:bob:rwx"),
        ("", ",".join(f"user:u{n}:r--" for n in range(40))),
    ],
)
def test_lists_that_make_no_sense_are_refused(existing: str, spec: str) -> None:
    with pytest.raises(InvalidAcl):
        acls.modified(acls.whole(node(0o750, existing)), parse_entries(spec))


def test_a_replaced_access_scope_must_be_whole() -> None:
    with pytest.raises(InvalidAcl, match="required"):
        acls.replaced(acls.whole(node(0o750)), parse_entries("user:bob:r--"))


def test_a_needed_mask_can_not_be_removed() -> None:
    there = with_acl(0o750, "user:bob:rwx")
    with pytest.raises(InvalidAcl, match="mask"):
        acls.without(acls.whole(there), parse_entries("mask::", rights=False))


def test_a_new_directory_inherits_and_hands_on() -> None:
    parent = with_acl(0o700, "default:user:bob:rwx,default:other::---")
    mode, text = acls.inherited(parent, 0o755, directory=True)
    assert mode == 0o750  # the mode's group digit limits the mask, and others get what the ACL says
    assert text.startswith("user:bob:rwx,group::---,default:")
    child = node(mode, text)
    assert acls.inherits(child)
    assert not may(child, "bob", 2)
    assert may(child, "bob", 5)


def test_a_new_file_inherits_no_defaults() -> None:
    parent = with_acl(0o700, "default:user:bob:rwx")
    mode, text = acls.inherited(parent, 0o666, directory=False)
    assert text == "user:bob:rwx,group::---"
    assert mode == 0o660


def test_a_minimal_default_becomes_mode_bits_alone() -> None:
    parent = with_acl(0o755, "default:user::rwx,default:group::rwx,default:other::---")
    assert acls.inherited(parent, 0o664, directory=False) == (0o660, "")


RIGHTS = st.integers(0, 7)
NAMES = st.sampled_from(["", "bob", "eve", "dev"])
ENTRIES = st.builds(
    lambda kind, name, rights, scope: AclEntry(
        kind=kind,
        name=name if kind in ("user", "group") else "",
        rights=rights,
        scope=scope,
    ),
    st.sampled_from(["user", "group", "mask", "other"]),
    NAMES,
    RIGHTS,
    st.sampled_from(["access", "default"]),
)


@given(st.lists(ENTRIES, min_size=1, max_size=8), st.integers(0, 0o1777))
def test_what_is_stored_is_what_was_set(spec: list[AclEntry], mode: int) -> None:
    """A list that was accepted reads back whole from mode and text, and its text parses to itself."""
    assert parse_entries(entries_text(spec)) == spec
    try:
        entries = acls.modified(acls.whole(node(mode)), spec)
    except InvalidAcl:
        return
    bits, text = acls.kept(entries, mode)
    assert bits & 0o7000 == mode & 0o7000
    stored = acls.whole(node(bits, text))
    assert {str(entry) for entry in stored} == {str(entry) for entry in entries}


@given(st.lists(ENTRIES, min_size=1, max_size=8), st.integers(0, 0o777), RIGHTS)
def test_the_mask_bounds_all_but_owner_and_others(
    spec: list[AclEntry], mode: int, action: int
) -> None:
    try:
        bits, text = acls.kept(acls.modified(acls.whole(node(mode)), spec), mode)
    except InvalidAcl:
        return
    there = node(bits, text)
    for groups in ((), ("staff",), ("dev",), ("staff", "dev")):
        granted = may(there, "bob", action, *groups)
        if acls.has_access(there) and granted and (bits & 7) & action != action:
            assert (bits >> 3 & 7) & action == action


@pytest.mark.parametrize(
    "text",
    [
        "",
        "user",
        "user:bob",
        "user:bob:rwxx",
        "usr:bob:rwx",
        "user:b/b:rwx",
        "mask:bob:rwx",
        "::",
        "user:bob:xwr",
        "a,b",
    ],
)
def test_what_is_no_acl_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_entries(text)

"""Access control on both dialects: ACLs enforced on every step, inherited, and kept through the tree's life."""

from __future__ import annotations

from typing import Any

import pytest

from twinfs.common.access import (
    AclStatus,
    CheckAccess,
    GetAcl,
    ModifyAcl,
    RemoveAcl,
    RemoveAclEntries,
    SetAcl,
    entries_text,
    parse_entries,
)
from twinfs.common.errors import InvalidAcl, PathNotFound, PermissionDenied
from twinfs.common.messages import (
    Copy,
    Create,
    Delete,
    GetXattrs,
    ListDirectory,
    Mkdirs,
    PutFile,
    PutFiles,
    RemoveXattr,
    Rename,
    SetMode,
    SetOwner,
    SetXattr,
    Stat,
    Summarize,
)
from twinfs.namenode.namespace import access, attributes, files, tree, whole
from twinfs.namenode.permissions import Caller
from twinfs.namenode.store.base import MetadataStore

from .namespace_help import NODE_SET, ROOT, RULES, do

ANN = Caller("ann", frozenset({"staff"}))
BOB = Caller("bob", frozenset({"dev"}))
EVE = Caller("eve")


@pytest.fixture
async def tree_of_ann(store: MetadataStore) -> MetadataStore:
    """/ann belongs to ann:staff, for her and her group alone."""
    await do(store, tree.mkdirs, Mkdirs(path="/ann", mode=0o750), now_ms=1)
    await do(
        store, attributes.set_owner, SetOwner(path="/ann", owner="ann", group="staff"), now_ms=1
    )
    return store


async def change(store: MetadataStore, caller: Caller, path: str, spec: str) -> None:
    request = ModifyAcl(path=path, entries=parse_entries(spec))
    await do(store, access.modify_acl, request, caller=caller, now_ms=2)


async def acl(store: MetadataStore, path: str) -> str:
    found: AclStatus = await do(store, access.get_acl, GetAcl(path=path))
    return f"{found.mode:o} {entries_text(found.entries)}".strip()


async def listing(store: MetadataStore, caller: Caller, path: str) -> list[str]:
    page = await do(
        store, tree.list_directory, ListDirectory(path=path), caller=caller, nodes=NODE_SET
    )
    return [entry.name for entry in page.entries]


async def create(store: MetadataStore, caller: Caller, path: str, **more: Any) -> Any:
    request = Create(path=path, holder=f"h{path}", **more)
    return await do(store, files.create, request, caller=caller, now_ms=3, rules=RULES)


async def test_an_acl_lets_in_whom_it_names(tree_of_ann: MetadataStore) -> None:
    store = tree_of_ann
    await create(store, ANN, "/ann/f")
    with pytest.raises(PermissionDenied):
        await listing(store, BOB, "/ann")
    await change(store, ANN, "/ann", "user:bob:r-x")
    assert await listing(store, BOB, "/ann") == ["f"]
    assert (await do(store, tree.stat, Stat(path="/ann"))).acl
    with pytest.raises(PermissionDenied, match="ACL"):
        await create(store, BOB, "/ann/g")
    with pytest.raises(PermissionDenied):
        await listing(store, EVE, "/ann")
    # chmod changes the mask: bob's entry stays and counts no more.
    await do(store, attributes.set_mode, SetMode(path="/ann", mode=0o700), caller=ANN, now_ms=4)
    assert await acl(store, "/ann") == "700 user:bob:r-x,group::r-x"
    with pytest.raises(PermissionDenied):
        await listing(store, BOB, "/ann")


async def test_only_the_owner_and_superusers_change_lists(tree_of_ann: MetadataStore) -> None:
    with pytest.raises(PermissionDenied):
        await change(tree_of_ann, BOB, "/ann", "user:bob:rwx")
    await change(tree_of_ann, ROOT, "/ann", "group:dev:rwx")
    await create(tree_of_ann, BOB, "/ann/made")
    with pytest.raises(PathNotFound):
        await change(tree_of_ann, ANN, "/ann/none", "user:bob:rwx")


async def test_what_is_created_inherits(tree_of_ann: MetadataStore) -> None:
    store = tree_of_ann
    await change(store, ANN, "/ann", "default:user:bob:rwx,default:other::---")
    await do(
        store,
        tree.mkdirs,
        Mkdirs(path="/ann/a/b", mode=0o700, unmasked=0o777),
        caller=ANN,
        now_ms=3,
    )
    assert await acl(store, "/ann/a/b") == (
        "770 user:bob:rwx,group::r-x,default:user::rwx,default:user:bob:rwx,"
        "default:group::r-x,default:mask::rwx,default:other::---"
    )
    await create(store, ANN, "/ann/a/b/f", mode=0o600, unmasked=0o666)
    assert await acl(store, "/ann/a/b/f") == "660 user:bob:rwx,group::r-x"
    put = PutFiles(holder="h", files=[PutFile(path="/ann/a/p", mode=0o640, blocks=[])])
    answer = await do(store, whole.put_files, put, caller=ANN, now_ms=3, rules=RULES)
    assert answer.results[0].status.acl
    assert await acl(store, "/ann/a/p") == "640 user:bob:rwx,group::r-x"
    # No list where the parent has none to hand on, and a copy takes that of where it lies.
    copy = Copy(source="/ann/a/p", destination="/copy")
    await do(store, whole.copy, copy, now_ms=3, rules=RULES)
    assert await acl(store, "/copy") == "640"


async def test_a_list_follows_its_inode(tree_of_ann: MetadataStore) -> None:
    store = tree_of_ann
    await do(store, tree.mkdirs, Mkdirs(path="/ann/d"), caller=ANN, now_ms=3)
    await change(store, ANN, "/ann/d", "user:bob:rwx")
    before = await acl(store, "/ann/d")
    await do(
        store, tree.rename, Rename(source="/ann/d", destination="/ann/e"), caller=ANN, now_ms=3
    )
    assert await acl(store, "/ann/e") == before
    await do(store, access.remove_acl, RemoveAcl(path="/ann/e"), caller=ANN, now_ms=3)
    assert await acl(store, "/ann/e") == "755"


async def test_removing(tree_of_ann: MetadataStore) -> None:
    store = tree_of_ann
    spec = "user::rwx,group::r-x,other::---,user:bob:rwx,group:dev:r--,default:user:eve:r--"
    await do(store, access.set_acl, SetAcl(path="/ann", entries=parse_entries(spec)), now_ms=3)
    assert (await acl(store, "/ann")).startswith(
        "770 user:bob:rwx,group::r-x,group:dev:r--,default:"
    )
    gone = RemoveAclEntries(path="/ann", entries=parse_entries("user:bob:", rights=False))
    await do(store, access.remove_acl_entries, gone, now_ms=3)
    assert (await acl(store, "/ann")).startswith("750 group::r-x,group:dev:r--,default:user::rwx")
    await do(store, access.remove_acl, RemoveAcl(path="/ann", scope="default"), now_ms=3)
    assert await acl(store, "/ann") == "750 group::r-x,group:dev:r--"
    await do(store, access.remove_acl, RemoveAcl(path="/ann"), now_ms=3)
    assert await acl(store, "/ann") == "750"
    assert not (await do(store, tree.stat, Stat(path="/ann"))).acl


async def test_files_have_no_default_list(tree_of_ann: MetadataStore) -> None:
    await create(tree_of_ann, ANN, "/ann/f")
    with pytest.raises(InvalidAcl, match="only directories"):
        await change(tree_of_ann, ANN, "/ann/f", "default:user:bob:rwx")


@pytest.mark.parametrize("rights", [1, 4, 5, 7])
async def test_asking_for_access(tree_of_ann: MetadataStore, rights: int) -> None:
    request = CheckAccess(path="/ann", rights=rights)
    await do(tree_of_ann, access.check_access, request, caller=ANN)
    with pytest.raises(PermissionDenied):
        await do(tree_of_ann, access.check_access, request, caller=EVE)
    await change(tree_of_ann, ANN, "/ann", "user:eve:r-x")
    if rights & 2:
        with pytest.raises(PermissionDenied):
            await do(tree_of_ann, access.check_access, request, caller=EVE)
    else:
        await do(tree_of_ann, access.check_access, request, caller=EVE)


async def test_a_tree_that_is_not_all_ones_own_can_not_be_deleted(
    tree_of_ann: MetadataStore,
) -> None:
    store = tree_of_ann
    await do(store, tree.mkdirs, Mkdirs(path="/ann/shut/full", mode=0o700), now_ms=3)
    with pytest.raises(PermissionDenied, match="shut"):
        await do(store, tree.delete, Delete(path="/ann/shut", recursive=True), caller=ANN, now_ms=4)
    with pytest.raises(PermissionDenied):
        await do(store, tree.summarize, Summarize(path="/ann"), caller=ANN)
    # What is empty may go, whoever made it: only its name is taken away.
    gone = await do(store, tree.mkdirs, Mkdirs(path="/ann/empty", mode=0o700), now_ms=3)
    assert gone.owner == "root"
    await do(store, tree.delete, Delete(path="/ann/empty", recursive=True), caller=ANN, now_ms=4)
    await do(store, tree.delete, Delete(path="/ann/shut", recursive=True), now_ms=4)


async def test_namespaces_of_attributes(tree_of_ann: MetadataStore) -> None:
    store = tree_of_ann

    async def put(caller: Caller, name: str) -> None:
        request = SetXattr(path="/ann", name=name, value=b"v")
        await do(store, attributes.set_xattr, request, caller=caller, now_ms=3)

    await put(ANN, "user.mine")
    for name in ("trusted.t", "system.s", "security.x", "raw.r"):
        with pytest.raises(PermissionDenied):
            await put(ANN, name)
        with pytest.raises(PermissionDenied):
            request = RemoveXattr(path="/ann", name=name)
            await do(store, attributes.remove_xattr, request, caller=ANN, now_ms=3)
    await put(ROOT, "trusted.t")
    seen = await do(store, attributes.get_xattrs, GetXattrs(path="/ann"), caller=ANN)
    assert list(seen.xattrs) == ["user.mine"]
    seen = await do(store, attributes.get_xattrs, GetXattrs(path="/ann"))
    assert list(seen.xattrs) == ["trusted.t", "user.mine"]


async def test_parents_that_are_made_can_be_entered(store: MetadataStore) -> None:
    await do(store, attributes.set_mode, SetMode(path="/", mode=0o777), now_ms=1)
    await do(store, tree.mkdirs, Mkdirs(path="/x/y/z", mode=0o400), caller=ANN, now_ms=2)
    modes = [(await do(store, tree.stat, Stat(path=p))).mode for p in ("/x", "/x/y", "/x/y/z")]
    assert modes == [0o700, 0o700, 0o400]

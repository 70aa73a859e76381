"""Looking up many paths at once, through remembered ways, finds what looking up each by itself finds.

Remembered directories are the trap: one that was moved, replaced, deleted or closed to others must not be walked
through as it used to be, neither by readers nor by the operations of the writer's own group.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.contract.namespace_help import NODE_SET, ROOT, RULES
from twinfs.common.errors import DfsError
from twinfs.common.messages import (
    Create,
    Delete,
    LocateMany,
    Mkdirs,
    Rename,
    SetMode,
    Stat,
    StatMany,
)
from twinfs.common.model import FileStatus
from twinfs.namenode.namespace import attributes, files, tree
from twinfs.namenode.namespace.walk import walk, walk_each
from twinfs.namenode.permissions import Caller
from twinfs.namenode.store.base import MetadataStore, Transaction
from twinfs.namenode.store.directories import Directories

SOMEBODY = Caller("somebody", host="127.0.0.1")
NAMES = ("a", "b", "c")
ODD = (
    *("", "relative", "/", "//", "/a/", "/a//b", "/a/./b", "/a/../b", "/a\x00", "/a/b\x00"),
    *("/ä", "/a/ä", "/a/\udc80", "/" + "n" * 256, "/a/" + "n" * 255, "/a" + "/b" * 200),
)


def told(call: Callable[[], FileStatus]) -> object:
    """A status, or which error stands in for it."""
    try:
        return call()
    except DfsError as error:
        return type(error), error.message


def paths() -> list[str]:
    one = [f"/{x}" for x in NAMES]
    two = [f"{p}/{x}" for p in one for x in NAMES]
    three = [f"{p}/{x}" for p in two for x in NAMES]
    return [*one, *two, *three, *ODD]


def look(tx: Transaction, caller: Caller) -> tuple[list[object], list[object]]:
    """(together, each by itself with nothing remembered)"""
    wanted = paths()
    together = [
        (type(found), found.message) if isinstance(found, DfsError) else found
        for found in tree.stat_each(tx, caller, wanted)
    ]
    remembered, tx.directories = tx.directories, None
    alone = [told(partial(tree.stat, tx, caller, Stat(path=path))) for path in wanted]
    tx.directories = remembered
    # Walking one path by itself goes another way through the code; it remembers, too.
    assert [told(partial(tree.stat, tx, caller, Stat(path=path))) for path in wanted] == alone
    return together, alone


def change(rng: random.Random) -> Callable[[Transaction], Any]:
    """Some operation on a small tree; most fail, which is fine."""
    path, other = rng.choice(paths()[:12]), rng.choice(paths()[:12])
    mkdir = partial(tree.mkdirs, request=Mkdirs(path=path), now_ms=1)
    create = partial(files.create, request=Create(path=path, holder="h"), now_ms=1, rules=RULES)
    rename = partial(
        tree.rename,
        request=Rename(source=path, destination=other, overwrite=rng.random() < 0.5),
        now_ms=1,
    )
    delete = partial(tree.delete, request=Delete(path=path, recursive=rng.random() < 0.5), now_ms=1)
    mode = partial(
        attributes.set_mode,
        request=SetMode(path=path, mode=rng.choice([0o700, 0o755])),
        now_ms=1,
    )
    chosen = rng.choice([mkdir, mkdir, create, rename, rename, delete, mode])
    return lambda tx: chosen(tx, ROOT)


@pytest.mark.parametrize("seed", range(2))
async def test_together_is_as_each_alone_whatever_happened_before(
    store: MetadataStore, seed: int
) -> None:
    """Method: random changes; after each, everything is looked up by a reader, and by the writer in the same group."""
    rng = random.Random(seed)
    for _ in range(20):
        change_of = change(rng)

        def both(tx: Transaction, change_of: Any = change_of) -> Any:
            with contextlib.suppress(DfsError):
                change_of(tx)
            return [look(tx, ROOT), look(tx, SOMEBODY)]

        for together, alone in await store.run(both):
            assert together == alone
        for caller in (ROOT, SOMEBODY):
            together, alone = await store.read(partial(look, caller=caller))
            assert together == alone


async def test_lists_answer_one_by_one(store: MetadataStore) -> None:
    def make(tx: Transaction) -> None:
        tree.mkdirs(tx, ROOT, Mkdirs(path="/d"), now_ms=1)
        for name in ("x", "y"):
            files.create(tx, ROOT, Create(path=f"/d/{name}", holder="h"), now_ms=1, rules=RULES)

    await store.run(make)
    wanted = ["/d/x", "/d/none", "/d/y", "/d", "relative", "/d/x/below", "/d/x"]
    for _ in range(2):  # the second time, ways are known
        stats = await store.read(lambda tx: tree.stat_many(tx, ROOT, StatMany(paths=wanted)))
        assert [r.status.path if r.status else r.failure.code for r in stats.results] == [
            "/d/x",
            "path-not-found",
            "/d/y",
            "/d",
            "invalid-path",
            "not-a-directory",
            "/d/x",
        ]
        located = await store.read(
            lambda tx: tree.locate_many(tx, ROOT, LocateMany(paths=wanted), nodes=NODE_SET)
        )
        assert [r.file.status.path if r.file else r.failure.code for r in located.results] == [
            "/d/x",
            "path-not-found",
            "/d/y",
            "is-a-directory",
            "invalid-path",
            "not-a-directory",
            "/d/x",
        ]


async def test_a_known_way_is_closed_to_who_may_not_go_it(store: MetadataStore) -> None:
    """What a superuser walked first is no shortcut for others."""

    def make(tx: Transaction) -> None:
        tree.mkdirs(tx, ROOT, Mkdirs(path="/open/closed/d"), now_ms=1)
        attributes.set_mode(tx, ROOT, SetMode(path="/open/closed", mode=0o700), now_ms=2)
        assert walk(tx, ROOT, "/open/closed/d/x").missing == 1

    def ask(tx: Transaction) -> list[str]:
        found = walk_each(tx, SOMEBODY, ["/open/x", "/open/closed/d/x", "/open/closed/y"])
        return [f.code if isinstance(f, DfsError) else "walked" for f in found]

    await store.run(make)
    for caller in (ROOT, SOMEBODY):
        await store.read(lambda tx, c=caller: walk_each(tx, c, ["/open/closed/d/x"]))  # type: ignore[misc]
    expected = ["walked", "permission-denied", "permission-denied"]
    assert await store.read(ask) == expected
    assert await store.run(ask) == expected


def test_dropping_a_directory_drops_the_ways_through_it() -> None:
    found = Directories()
    root, a, b = (0, "", 1), (1, "a", 5), (5, "b", 6)
    found.put_way("/a", (("a",), [root, a]))
    found.put_way("/a/b", (("a", "b"), [root, a, b]))
    found.drop((6, "a directory that nobody went through"))
    assert found.way("/a/b") is not None
    found.drop((1, "a"))
    assert found.way("/a") is None and found.way("/a/b") is None


def test_ways_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinfs.namenode.store.directories.CACHED", 10)
    found = Directories()
    for number in range(100):
        row = (1, str(number), number)
        found.put((1, str(number)), row)
        found.put_way(f"/{number}", ((str(number),), [row]))
        assert sum(found.way(f"/{n}") is not None for n in range(100)) <= 10
        assert sum(found.get((1, str(n))) is not None for n in range(100)) <= 12

"""The namespace held against a dictionary: any sequence of operations must leave both the same."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from twinfs.common.config import NameNodeConfig
from twinfs.common.errors import NamespaceError
from twinfs.common.messages import (
    Allocate,
    Copy,
    Delete,
    ListDirectory,
    Mkdirs,
    PutFile,
    PutFiles,
    Rename,
    SetMode,
)
from twinfs.common.model import BlockRef
from twinfs.common.runtime import SystemClock
from twinfs.namenode import reaper
from twinfs.namenode.namespace import attributes, tree, whole
from twinfs.namenode.store import open_store
from twinfs.namenode.store.base import MetadataStore, Transaction

from ..support.postgres import PostgresServer
from .namespace_help import NODE_SET, ROOT, RULES, commit, register_nodes

names = st.sampled_from(["a", "b", "é"])
paths = st.lists(names, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
Entry = tuple[str, int, int]  # type, length, mode


class Model:
    """The namespace in its simplest form: path -> entry."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {"/": ("d", 0, 0o755)}

    def parents(self, path: str) -> list[str]:
        parts = path.split("/")[1:-1]
        return ["/" + "/".join(parts[: n + 1]) for n in range(len(parts))]

    def kind(self, path: str) -> str | None:
        entry = self.entries.get(path)
        return None if entry is None else entry[0]

    def parent_ok(self, path: str, *, create: bool) -> bool:
        """Whether the parents are directories (or, with *create*, can be made)."""
        kinds = [self.kind(parent) for parent in self.parents(path)]
        return all(kind == "d" or (kind is None and create) for kind in kinds)

    def make_parents(self, path: str) -> None:
        for parent in self.parents(path):
            self.entries.setdefault(parent, ("d", 0, 0o755))

    def below(self, path: str) -> list[str]:
        return [p for p in self.entries if p.startswith(path + "/")]

    def mkdirs(self, path: str, parents: bool) -> bool:
        if not self.parent_ok(path, create=parents) or self.kind(path) == "f":
            return False
        if self.kind(path) == "d":
            return parents
        self.make_parents(path)
        self.entries[path] = ("d", 0, 0o755)
        return True

    def put(self, path: str, length: int, overwrite: bool) -> bool:
        if not self.parent_ok(path, create=True) or self.kind(path) == "d":
            return False
        if self.kind(path) == "f" and not overwrite:
            return False
        self.make_parents(path)
        self.entries[path] = ("f", length, 0o644)
        return True

    def delete(self, path: str, recursive: bool) -> bool:
        if not self.parent_ok(path, create=True) or (self.below(path) and not recursive):
            return False
        for gone in [path, *self.below(path)]:
            self.entries.pop(gone, None)
        return True

    def rename(self, source: str, target: str, overwrite: bool) -> bool:
        if self.kind(source) is None or not self.parent_ok(source, create=False):
            return False
        if not self.parent_ok(target, create=True):
            return False
        if source == target:
            return True
        if target.startswith(source + "/") or not self.parent_ok(target, create=False):
            return False
        if self.kind(target) is not None and (
            not overwrite or self.kind(target) != self.kind(source) or self.below(target)
        ):
            return False
        moved = {target + p[len(source) :]: self.entries[p] for p in [source, *self.below(source)]}
        for gone in [source, *self.below(source)]:
            del self.entries[gone]
        self.entries.update(moved)
        return True

    def copy(self, source: str, target: str) -> bool:
        if self.kind(source) != "f" or self.kind(target) is not None or source == target:
            return False
        if not self.parent_ok(target, create=False) or not self.parent_ok(source, create=False):
            return False
        self.entries[target] = self.entries[source]
        return True


class NamespaceMachine(RuleBasedStateMachine):
    """Every rule runs on the store and on the model; both must agree on success and on the result."""

    open_one: ClassVar[Any]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store: MetadataStore = self.loop.run_until_complete(type(self).open_one())
        self.loop.run_until_complete(register_nodes(self.store))
        self.model = Model()

    def teardown(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.loop.close()

    def attempt(self, function: Any, request: Any, **more: Any) -> bool:
        def operation(tx: Transaction) -> Any:
            return function(tx, ROOT, request, now_ms=5, **more)

        try:
            answer = self.loop.run_until_complete(self.store.run(operation))
        except NamespaceError:
            return False
        failures = [r.failure for r in getattr(answer, "results", []) if r.failure is not None]
        return not failures

    @rule(path=paths, parents=st.booleans())
    def mkdirs(self, path: str, parents: bool) -> None:
        done = self.attempt(tree.mkdirs, Mkdirs(path=path, parents=parents))
        assert done == self.model.mkdirs(path, parents)

    @rule(path=paths, length=st.integers(0, 100), overwrite=st.booleans())
    def put(self, path: str, length: int, overwrite: bool) -> None:
        request = Allocate(holder="h", count=1, length=1)
        found = self.loop.run_until_complete(
            self.store.run(
                lambda tx: whole.allocate(tx, ROOT, request, now_ms=5, rules=RULES, placer=NODE_SET)
            )
        )
        ref = BlockRef(block_id=found.first_block_id, generation=found.generation)
        blocks = [commit(ref, length)] if length else []
        file = PutFile(path=path, blocks=blocks, overwrite=overwrite)
        done = self.attempt(whole.put_files, PutFiles(holder="h", files=[file]), rules=RULES)
        assert done == self.model.put(path, length, overwrite)

    @rule(path=paths, recursive=st.booleans())
    def delete(self, path: str, recursive: bool) -> None:
        done = self.attempt(tree.delete, Delete(path=path, recursive=recursive))
        assert done == self.model.delete(path, recursive)

    @rule(source=paths, goal=paths, overwrite=st.booleans())
    def rename(self, source: str, goal: str, overwrite: bool) -> None:
        request = Rename(source=source, destination=goal, overwrite=overwrite)
        assert self.attempt(tree.rename, request) == self.model.rename(source, goal, overwrite)

    @rule(source=paths, goal=paths)
    def copy(self, source: str, goal: str) -> None:
        request = Copy(source=source, destination=goal)
        done = self.attempt(whole.copy, request, rules=RULES)
        assert done == self.model.copy(source, goal)

    @rule(path=paths, mode=st.sampled_from([0o700, 0o755, 0o640]))
    def chmod(self, path: str, mode: int) -> None:
        done = self.attempt(attributes.set_mode, SetMode(path=path, mode=mode))
        entry = self.model.entries.get(path)
        assert done == (entry is not None)
        if entry is not None:
            self.model.entries[path] = (entry[0], entry[1], mode)

    @rule()
    def reap(self) -> None:
        self.loop.run_until_complete(
            self.store.run(lambda tx: reaper.reap(tx, before_ms=2**60, limit=3))
        )

    @invariant()
    def the_same(self) -> None:
        def everything(tx: Transaction) -> dict[str, Entry]:
            found: dict[str, Entry] = {"/": ("d", 0, 0o755)}
            waiting = ["/"]
            while waiting:
                request = ListDirectory(path=waiting.pop())
                page = tree.list_directory(tx, ROOT, request, nodes=NODE_SET)
                for status in page.entries:
                    found[status.path] = (status.type[0], status.length, status.mode)
                    if status.is_directory:
                        waiting.append(status.path)
            return found

        assert self.loop.run_until_complete(self.store.read(everything)) == self.model.entries

    @invariant()
    def references_are_counted(self) -> None:
        rows = self.loop.run_until_complete(
            self.store.read(
                lambda tx: tx.all(
                    "SELECT b.block_id FROM blocks b WHERE b.refs <>"
                    " (SELECT COUNT(*) FROM file_blocks f WHERE f.block_id = b.block_id)"
                )
            )
        )
        assert rows == []


@pytest.fixture(params=["sqlite", "postgresql"])
def opener(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            count = iter(range(10**6))

            async def fresh() -> MetadataStore:
                return await open_store(
                    NameNodeConfig(dir=str(Path(folder) / str(next(count))), user="root"),
                    SystemClock(),
                )

            yield fresh
        return
    server: PostgresServer = request.getfixturevalue("postgres")

    async def private() -> MetadataStore:
        config = NameNodeConfig(database=server.new_database(), user="root")
        return await open_store(config, SystemClock())

    yield private


def test_any_sequence_of_operations_agrees_with_the_model(
    opener: Any, request: pytest.FixtureRequest
) -> None:
    machine = type("Machine", (NamespaceMachine,), {"open_one": staticmethod(opener)})
    examples = 60 if "sqlite" in request.node.name else 12
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

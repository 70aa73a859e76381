"""What operations mean, on a small tree: the specification that answers are held against.

A state maps paths to values: DIRECTORY, or the pieces of a file. It is a sorted tuple, so that states can be compared
and remembered. Paths outside of what a history touches are taken to be there (parents of its first paths).

kind     args                        result (ok)                 errors it may meet
put      path, write, length,        none                        path-exists, is-a-directory, not-a-directory
         overwrite
read     path                        the pieces                  path-not-found, is-a-directory, not-a-directory
stat     path                        "directory", or the length  path-not-found, not-a-directory
append   path, write, length         none                        path-not-found, ...
delete   path, recursive             whether it was there        directory-not-empty, not-a-directory
rename   source, destination,        none                        path-not-found, path-exists, invalid-move, ...
         overwrite
mkdir    path                        none                        path-exists, path-not-found, not-a-directory
list     path                        the names, sorted           path-not-found, not-a-directory

A failed operation has no effect, one with an unknown outcome has one of its effects or none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .history import Operation
from .pieces import Value

DIRECTORY = "directory"
Node = str | Value
State = tuple[tuple[str, Node], ...]
Tree = dict[str, Node]


class Effect(NamedTuple):
    """One thing that an operation may do to a state: the state after it, and its answer."""

    state: State
    outcome: str  # "ok" or an error's code
    result: Any = None


class Refused(Exception):
    """The operation fails with this code."""


def freeze(tree: Tree) -> State:
    return tuple(sorted(tree.items()))


def parent_of(path: str) -> str:
    return path.rpartition("/")[0]


class Model:
    """The meaning of operations below *roots*, directories that are always there.

    *lengths*: of writes with an unknown outcome, the lengths of them that somebody saw.
    """

    def __init__(self, roots: frozenset[str], lengths: dict[int, frozenset[int]]) -> None:
        self._roots = roots
        self._lengths = lengths

    def effects(self, state: State, operation: Operation) -> Iterator[Effect]:
        """What *operation* may do."""
        tree = dict(state)
        handler: Callable[[Tree, Operation], Any] = getattr(self, f"_{operation.kind}")
        try:
            result = handler(tree, operation)
        except Refused as refused:
            yield Effect(state, str(refused))
            return
        yield Effect(freeze(tree), "ok", result)
        if operation.kind == "append" and operation.outcome == "unknown":
            # Its writer may have died half-way: a recovery keeps what all replicas have.
            path, number = operation.args["path"], operation.args["write"]
            for length in self._lengths.get(number, frozenset()):
                if 0 < length < operation.args["length"]:
                    before = dict(state).get(path, ())
                    assert not isinstance(before, str)
                    yield Effect(freeze({**dict(state), path: (*before, (number, length))}), "ok")

    def allows(self, operation: Operation, effect: Effect) -> bool:
        """Whether the recorded answer is the one that *effect* gives."""
        if operation.outcome == "unknown":
            return True
        if operation.outcome == "fail":
            return effect.outcome == operation.error
        return effect.outcome == "ok" and effect.result == operation.result

    # --- the tree ---

    def _look(self, tree: Tree, path: str) -> Node | None:
        """What is at *path*; Refused where the way there leads through a file."""
        above = parent_of(path)
        while above and above not in self._roots:
            node = tree.get(above)
            if node is not None and node != DIRECTORY:
                raise Refused("not-a-directory")
            above = parent_of(above)
        return DIRECTORY if path in self._roots else tree.get(path)

    def _need_parent(self, tree: Tree, path: str) -> None:
        above = parent_of(path)
        if above not in self._roots and tree.get(above) != DIRECTORY:
            raise Refused("path-not-found")

    def _children(self, tree: Tree, path: str) -> list[str]:
        return [name for name in tree if parent_of(name) == path]

    def _file(self, tree: Tree, path: str) -> Value:
        node = self._look(tree, path)
        if node is None:
            raise Refused("path-not-found")
        if isinstance(node, str):
            raise Refused("is-a-directory")
        return node

    # --- operations ---

    def _put(self, tree: Tree, operation: Operation) -> None:
        args = operation.args
        node = self._look(tree, args["path"])
        if node == DIRECTORY:
            raise Refused("is-a-directory")
        if node is not None and not args.get("overwrite"):
            raise Refused("path-exists")
        above = parent_of(args["path"])
        while above and above not in self._roots and above not in tree:
            tree[above] = DIRECTORY
            above = parent_of(above)
        tree[args["path"]] = ((args["write"], args["length"]),)

    def _read(self, tree: Tree, operation: Operation) -> list[list[int]]:
        return [list(part) for part in self._file(tree, operation.args["path"])]

    def _stat(self, tree: Tree, operation: Operation) -> str | int:
        node = self._look(tree, operation.args["path"])
        if node is None:
            raise Refused("path-not-found")
        return node if isinstance(node, str) else sum(length for _, length in node)

    def _append(self, tree: Tree, operation: Operation) -> None:
        args = operation.args
        before = self._file(tree, args["path"])
        tree[args["path"]] = (*before, (args["write"], args["length"]))

    def _delete(self, tree: Tree, operation: Operation) -> bool:
        path = operation.args["path"]
        node = self._look(tree, path)
        if node is None:
            return False
        below = [name for name in tree if name.startswith(f"{path}/")]
        if below and not operation.args.get("recursive"):
            raise Refused("directory-not-empty")
        for name in [path, *below]:
            tree.pop(name, None)
        return True

    def _rename(self, tree: Tree, operation: Operation) -> None:
        source, target = operation.args["source"], operation.args["destination"]
        node = self._look(tree, source)
        if node is None:
            raise Refused("path-not-found")
        there = self._look(tree, target)
        if source == target:
            return
        if node == DIRECTORY and target.startswith(f"{source}/"):
            raise Refused("invalid-move")
        self._need_parent(tree, target)
        if there is not None:
            if not operation.args.get("overwrite"):
                raise Refused("path-exists")
            if there == DIRECTORY and node != DIRECTORY:
                raise Refused("is-a-directory")
            if there != DIRECTORY and node == DIRECTORY:
                raise Refused("not-a-directory")
            if there == DIRECTORY and self._children(tree, target):
                raise Refused("directory-not-empty")
        moved = {name: tree.pop(name) for name in list(tree) if name.startswith(f"{source}/")}
        tree[target] = tree.pop(source)
        for name, value in moved.items():
            tree[target + name[len(source) :]] = value

    def _mkdir(self, tree: Tree, operation: Operation) -> None:
        path = operation.args["path"]
        if self._look(tree, path) is not None:
            raise Refused("path-exists")
        self._need_parent(tree, path)
        tree[path] = DIRECTORY

    def _list(self, tree: Tree, operation: Operation) -> list[str]:
        path = operation.args["path"]
        node = self._look(tree, path)
        if node is None:
            raise Refused("path-not-found")
        if node != DIRECTORY:
            return [path.rpartition("/")[2]]
        return sorted(name.rpartition("/")[2] for name in self._children(tree, path))


KINDS = frozenset({"put", "read", "stat", "append", "delete", "rename", "mkdir", "list"})


def paths_of(operation: Operation) -> list[str]:
    """The paths that an operation names."""
    return [
        operation.args[name] for name in ("path", "source", "destination") if name in operation.args
    ]

"""The search for an order: on histories known to be good, on ones known to be bad, and against trying all orders."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from scripts.checker import linear
from scripts.checker.history import History, Operation, Recorder
from scripts.checker.model import Model, State, freeze


def history(*steps: tuple[Any, ...]) -> History:
    """From steps: ("a", kind, args) begins, ("a", "ok"|"fail"|"unknown", result) ends the client's operation."""
    recorder = Recorder()
    running: dict[str, int] = {}
    for client, word, *rest in steps:
        if word in ("ok", "fail", "unknown"):
            getattr(recorder, word)(running.pop(client), *(rest or ([""] if word != "ok" else [])))
        else:
            running[client] = recorder.invoke(client, word, **rest[0])
    return recorder.history()


def explained(*steps: tuple[Any, ...]) -> bool:
    findings, _ = linear.check(history(*steps).operations)
    return not findings


def put(number: int, path: str = "/x/f", **more: Any) -> dict[str, Any]:
    return {"path": path, "write": number, "length": 100, **more}


AT = {"path": "/x/f"}
MOVE = {"source": "/x/f", "destination": "/x/g"}
ONE, TWO = [[1, 100]], [[2, 100]]

GOOD = {
    "one after the other": [
        ("a", "put", put(1)),
        ("a", "ok"),
        ("a", "read", AT),
        ("a", "ok", ONE),
        ("a", "delete", AT),
        ("a", "ok", True),
        ("a", "read", AT),
        ("a", "fail", "path-not-found"),
    ],
    "two puts at once, either may be first": [
        ("a", "put", put(1, overwrite=True)),
        ("b", "put", put(2, overwrite=True)),
        ("b", "ok"),
        ("a", "ok"),
        ("c", "read", AT),
        ("c", "ok", ONE),
    ],
    "a read beside a put sees it before it ends": [
        ("a", "put", put(1)),
        ("b", "read", AT),
        ("b", "ok", ONE),
        ("c", "read", AT),
        ("c", "ok", ONE),
        ("a", "ok"),
    ],
    "an unknown put that happened": [
        ("a", "put", put(1)),
        ("a", "unknown"),
        ("b", "read", AT),
        ("b", "ok", ONE),
    ],
    "an unknown put that never happened": [
        ("a", "put", put(1)),
        ("a", "unknown"),
        ("b", "read", AT),
        ("b", "fail", "path-not-found"),
        ("b", "put", put(2)),
        ("b", "ok"),
    ],
    "an unknown put that happens late": [
        ("a", "put", put(1)),
        ("a", "unknown"),
        ("b", "read", AT),
        ("b", "fail", "path-not-found"),
        ("b", "read", AT),
        ("b", "ok", ONE),
    ],
    "an unknown append, cut short": [
        ("a", "put", put(1)),
        ("a", "ok"),
        ("a", "append", put(2)),
        ("a", "unknown"),
        ("b", "read", AT),
        ("b", "ok", [[1, 100], [2, 40]]),
        ("b", "read", AT),
        ("b", "ok", [[1, 100], [2, 40]]),
    ],
    "a rename is one step": [
        ("a", "put", put(1)),
        ("a", "ok"),
        ("a", "rename", MOVE),
        ("b", "read", AT),
        ("b", "ok", ONE),
        ("b", "read", {"path": "/x/g"}),
        ("b", "ok", ONE),
        ("b", "read", AT),
        ("b", "fail", "path-not-found"),
        ("a", "ok"),
    ],
    "directories with all that is in them": [
        ("a", "mkdir", {"path": "/x/d"}),
        ("a", "ok"),
        ("a", "put", put(1, "/x/d/f")),
        ("a", "ok"),
        ("a", "rename", {"source": "/x/d", "destination": "/x/e"}),
        ("a", "ok"),
        ("a", "list", {"path": "/x/e"}),
        ("a", "ok", ["f"]),
        ("a", "list", {"path": "/x/d"}),
        ("a", "fail", "path-not-found"),
        ("a", "put", put(2, "/x/d/g")),
        ("a", "ok"),
        ("a", "stat", {"path": "/x/d"}),
        ("a", "ok", "directory"),
        ("a", "delete", {"path": "/x/d"}),
        ("a", "fail", "directory-not-empty"),
        ("a", "delete", {"path": "/x/d", "recursive": True}),
        ("a", "ok", True),
        ("a", "read", {"path": "/x/d/g"}),
        ("a", "fail", "path-not-found"),
    ],
}
BAD = {
    "an acknowledged put is lost": [
        ("a", "put", put(1)),
        ("a", "ok"),
        ("b", "read", AT),
        ("b", "fail", "path-not-found"),
    ],
    "a read of what was overwritten before": [
        ("a", "put", put(1)),
        ("a", "ok"),
        ("a", "put", put(2, overwrite=True)),
        ("a", "ok"),
        ("b", "read", AT),
        ("b", "ok", ONE),
    ],
    "a read goes back in time": [
        ("a", "put", put(1)),
        ("a", "ok"),
        ("a", "put", put(2, overwrite=True)),
        ("b", "read", AT),
        ("b", "ok", TWO),
        ("c", "read", AT),
        ("c", "ok", ONE),
        ("a", "ok"),
    ],
    "bytes from nowhere": [
        ("a", "read", AT),
        ("a", "ok", [[7, 100]]),
    ],
    "a mixture of two files": [
        ("a", "put", put(1)),
        ("a", "ok"),
        ("b", "put", put(2, overwrite=True)),
        ("b", "ok"),
        ("c", "read", AT),
        ("c", "ok", [[2, 50], [1, 50]]),
    ],
    "a half file of a put whose outcome is unknown": [
        ("a", "put", put(1)),
        ("a", "unknown"),
        ("b", "read", AT),
        ("b", "ok", [[1, 60]]),
    ],
    "two winners of one name": [
        ("a", "put", put(1)),
        ("b", "put", put(2)),
        ("a", "ok"),
        ("b", "ok"),
    ],
    "a delete that is answered twice": [
        ("a", "put", put(1)),
        ("a", "ok"),
        ("a", "delete", AT),
        ("b", "delete", AT),
        ("a", "ok", True),
        ("b", "ok", True),
    ],
    "a rename seen half": [
        ("a", "put", put(1)),
        ("a", "ok"),
        ("a", "rename", MOVE),
        ("b", "read", {"path": "/x/g"}),
        ("b", "ok", ONE),
        ("b", "read", AT),
        ("b", "ok", ONE),
        ("a", "ok"),
    ],
    "a rename that is undone": [
        ("a", "put", put(1)),
        ("a", "ok"),
        ("a", "rename", MOVE),
        ("a", "ok"),
        ("b", "list", {"path": "/x"}),
        ("b", "ok", ["f"]),
    ],
    "a deleted file that comes back": [
        ("a", "put", put(1)),
        ("a", "ok"),
        ("a", "delete", AT),
        ("a", "ok", True),
        ("b", "stat", AT),
        ("b", "fail", "path-not-found"),
        ("b", "stat", AT),
        ("b", "ok", 100),
    ],
    "an append that is lost after it was read": [
        ("a", "put", put(1)),
        ("a", "ok"),
        ("a", "append", put(2)),
        ("a", "unknown"),
        ("b", "read", AT),
        ("b", "ok", [[1, 100], [2, 100]]),
        ("b", "read", AT),
        ("b", "ok", ONE),
    ],
    "an error that nothing explains": [
        ("a", "put", put(1)),
        ("a", "fail", "path-exists"),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_is_explained(name: str) -> None:
    assert explained(*GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_not(name: str) -> None:
    assert not explained(*BAD[name])


def test_a_finding_says_where_it_got_stuck() -> None:
    (finding,), groups = linear.check(history(*BAD["an acknowledged put is lost"]).operations)
    assert groups == 1
    assert finding.explained == 1
    assert "read path=/x/f -> path-not-found" in str(finding)
    assert "((1, 100),)" in str(finding)


def test_groups_are_apart_unless_something_joins_them() -> None:
    operations = history(
        ("a", "put", put(1, "/x/a")),
        ("a", "ok"),
        ("a", "put", put(2, "/x/b")),
        ("a", "ok"),
        ("a", "put", put(3, "/y/a")),
        ("a", "ok"),
        ("a", "rename", {"source": "/y/a", "destination": "/y/b"}),
        ("a", "ok"),
        ("a", "put", put(4, "/z/d/f")),
        ("a", "ok"),
        ("a", "list", {"path": "/z/d"}),
        ("a", "ok", ["f"]),
    ).operations
    groups = [sorted(o.id for o in group) for group in linear.partition(operations)]
    assert sorted(groups) == [[1], [2], [3, 4], [5, 6]]


def test_a_search_without_end_says_so() -> None:
    steps: list[tuple[Any, ...]] = []
    for number in range(1, 40):
        steps += [("a", "put", put(number, overwrite=True)), ("a", "unknown")]
    steps += [("b", "read", AT), ("b", "ok", [[99, 1]])]
    (finding,), _ = linear.check(history(*steps).operations, limit=200)
    assert finding.undecided
    assert "no verdict" in str(finding)


# --- against trying everything ---


def all_orders(operations: list[Operation]) -> bool:
    """Whether there is an explanation, by trying every order of every choice of unknown operations."""
    known = [o for o in operations if o.returned is not None]
    unknown = [o for o in operations if o.returned is None]
    model = Model(linear.roots_of(operations), linear.seen_lengths(operations))
    for count in range(len(unknown) + 1):
        for chosen in itertools.combinations(unknown, count):
            for order in itertools.permutations([*known, *chosen]):
                ends = [o.returned if o.returned is not None else 1 << 40 for o in order]
                if all(
                    order[late].invoked < ends[early]
                    for early in range(len(order))
                    for late in range(early)
                ) and runs(model, freeze({}), list(order)):
                    return True
    return False


def runs(model: Model, state: State, order: list[Operation]) -> bool:
    if not order:
        return True
    return any(
        runs(model, effect.state, order[1:])
        for effect in model.effects(state, order[0])
        if model.allows(order[0], effect)
    )


def random_history(rng: random.Random, count: int) -> list[Operation]:
    """Operations of three clients on a model that takes each at a moment of its own; some answers then falsified."""
    recorder = Recorder()
    model = Model(frozenset({"", "/x"}), {})
    state: State = freeze({})
    running: dict[str, tuple[int, Operation | None]] = {}
    begun = 0
    while begun < count or running:
        client = rng.choice("abc")
        if client not in running:
            if begun == count:
                continue
            begun += 1
            kind, args = random_call(rng, begun)
            number = recorder.invoke(client, kind, **args)
            running[client] = (number, Operation(number, client, kind, args, 0))
            continue
        number, pending = running[client]
        if pending is not None:
            effect = rng.choice(list(model.effects(state, pending)))
            if rng.random() < 0.15:
                # Nobody learns what became of it.
                if rng.random() < 0.5:
                    state = effect.state
                recorder.unknown(number, "timed-out")
                del running[client]
                continue
            state = effect.state
            running[client] = (number, None)
            if effect.outcome == "ok":
                result = effect.result
                if rng.random() < 0.12 and pending.kind in ("read", "delete", "stat"):
                    result = falsified(rng, pending.kind)
                recorder.ok(number, result)
            else:
                recorder.fail(number, effect.outcome)
            del running[client]
    return recorder.history().operations


def random_call(rng: random.Random, number: int) -> tuple[str, dict[str, Any]]:
    paths = ["/x/f", "/x/g"]
    kind = rng.choice(["put", "put", "read", "read", "stat", "delete", "rename", "list"])
    if kind == "put":
        return kind, put(number, rng.choice(paths), overwrite=rng.random() < 0.6)
    if kind == "rename":
        source, target = rng.sample(paths, 2)
        return kind, {"source": source, "destination": target, "overwrite": rng.random() < 0.5}
    return kind, {"path": "/x" if kind == "list" else rng.choice(paths)}


def falsified(rng: random.Random, kind: str) -> Any:
    if kind == "read":
        return [[rng.randrange(1, 6), 100]]
    return rng.random() < 0.5 if kind == "delete" else 100


def test_it_says_the_same_as_trying_all_orders() -> None:
    rng = random.Random(7)
    verdicts = {True: 0, False: 0}
    for _ in range(1_000):
        operations = random_history(rng, rng.randrange(3, 7))
        wanted = all_orders(operations)
        found = linear.search(operations) is None
        assert found == wanted, "\n".join(map(str, operations))
        verdicts[wanted] += 1
    assert min(verdicts.values()) > 100, verdicts


def test_long_histories_are_searched_quickly() -> None:
    rng = random.Random(3)
    recorder = Recorder()
    model = Model(frozenset({"", "/x"}), {})
    state: State = freeze({})
    for number in range(1, 3_000):
        kind, args = random_call(rng, number)
        id = recorder.invoke(f"c{number % 5}", kind, **args)
        effect = next(model.effects(state, Operation(id, "", kind, args, 0)))
        state = effect.state
        if number % 100 == 0 and kind in ("put", "delete", "rename"):
            recorder.unknown(id, "lost")
        elif effect.outcome == "ok":
            recorder.ok(id, effect.result)
        else:
            recorder.fail(id, effect.outcome)
    assert linear.search(recorder.history().operations) is None

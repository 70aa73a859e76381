"""Is there one order of all operations that explains every answer, and that respects time?

The search of Wing and Gong, with Lowe's memory of configurations that led nowhere, and one search for each group of
paths that have to do with each other (renames join the groups of their two paths). An operation whose outcome is unknown
may take effect at any time after its beginning, or never.

Sources: J. M. Wing and C. Gong, "Testing and Verifying Concurrent Objects", 1993; G. Lowe, "Testing for linearizability",
2017; A. Horn and D. Kroening, "Faster linearizability checking via P-compositionality", 2015.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .history import Operation
from .model import KINDS, Model, State, freeze, parent_of, paths_of

MAX_CONFIGURATIONS = 2_000_000
NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Finding:
    """A group of paths whose operations have no explanation (or, *undecided*, none was found within the limit)."""

    paths: tuple[str, ...]
    explained: int
    stuck: tuple[str, ...]
    state: State
    undecided: bool = False

    def __str__(self) -> str:
        head = "no verdict within the limit" if self.undecided else "no order explains the answers"
        return "\n".join(
            [
                f"{', '.join(self.paths)}: {head}; after {self.explained} operations the tree is",
                f"    {dict(self.state)}",
                "  and none of these can come next:",
                *[f"    {line}" for line in self.stuck],
            ]
        )


def check(
    operations: Sequence[Operation], *, limit: int = MAX_CONFIGURATIONS
) -> tuple[list[Finding], int]:
    """(what can't be explained, how many groups there were)."""
    groups = partition([o for o in operations if o.kind in KINDS])
    findings = []
    for group in groups:
        finding = search(group, limit=limit)
        if finding is not None:
            findings.append(finding)
    return findings, len(groups)


def partition(operations: Sequence[Operation]) -> list[list[Operation]]:
    """Groups of operations with no path in common.

    Two paths belong together if one operation names both, or if one lies in the other and the other is itself operated on.
    """
    named = {path for operation in operations for path in paths_of(operation)}
    leader = {path: path for path in named}

    def find(path: str) -> str:
        while leader[path] != path:
            leader[path] = leader[leader[path]]
            path = leader[path]
        return path

    for operation in operations:
        first, *others = paths_of(operation)
        for other in others:
            leader[find(other)] = find(first)
    for path in named:
        above = parent_of(path)
        while above:
            if above in named:
                leader[find(path)] = find(above)
            above = parent_of(above)
    # A directory that a put makes on its way is no operation's path, but a file may be put there later.
    groups: dict[str, list[Operation]] = {}
    for operation in operations:
        groups.setdefault(find(paths_of(operation)[0]), []).append(operation)
    return [groups[key] for key in sorted(groups)]


def roots_of(operations: Sequence[Operation]) -> frozenset[str]:
    """The directories that are taken to be there: those above every path that nobody operates on."""
    named = {path for operation in operations for path in paths_of(operation)}
    roots = {""}
    for path in named:
        above = parent_of(path)
        while above:
            if not any(other == above or above.startswith(f"{other}/") for other in named):
                roots.add(above)
            above = parent_of(above)
    return frozenset(roots)


def seen_lengths(operations: Sequence[Operation]) -> dict[int, frozenset[int]]:
    """Of each write, the lengths of it that somebody read."""
    seen: dict[int, set[int]] = {}
    for operation in operations:
        if operation.kind == "read" and operation.outcome == "ok":
            for number, length in operation.result:
                seen.setdefault(number, set()).add(length)
    return {number: frozenset(lengths) for number, lengths in seen.items()}


def search(operations: Sequence[Operation], *, limit: int = MAX_CONFIGURATIONS) -> Finding | None:
    """None if there is an order that explains the answers of one group, which begins with nothing there."""
    return _Search(operations, limit).run()


Configuration = tuple[int, int, int, State]


class _Search:
    """A configuration is which operations are in the order already, and the state after them.

    Those with a known outcome are counted by *low* (all with a smaller number are in) and *mask* (which of those from *low* on),
    the others by *guessed*.
    """

    def __init__(self, operations: Sequence[Operation], limit: int) -> None:
        # A reading operation without an answer says nothing.
        useful = [
            o
            for o in operations
            if o.outcome != "unknown" or o.kind not in ("read", "stat", "list")
        ]
        ordered = sorted(useful, key=lambda o: o.invoked)
        self._known = [o for o in ordered if o.returned is not None]
        self._unknown = [o for o in ordered if o.returned is None]
        self._model = Model(roots_of(operations), seen_lengths(operations))
        self._limit = limit
        self._paths = tuple(sorted({path for o in operations for path in paths_of(o)}))

    def run(self) -> Finding | None:
        start: Configuration = (0, 0, 0, freeze({}))
        seen: set[Configuration] = {start}
        stack: list[Iterator[Configuration]] = [self._next(start)]
        best, best_at = 0, start
        while stack:
            found = next(stack[-1], None)
            if found is None:
                stack.pop()
                continue
            if found in seen:
                continue
            if found[0] >= len(self._known):
                return None
            seen.add(found)
            explained = found[0] + found[1].bit_count()
            if explained > best:
                best, best_at = explained, found
            if len(seen) >= self._limit:
                return self._finding(best, best_at, undecided=True)
            stack.append(self._next(found))
        return self._finding(best, best_at) if self._known else None

    def _finding(self, best: int, at: Configuration, *, undecided: bool = False) -> Finding:
        known, unknown = self._candidates(at)
        stuck = [str(self._known[index]) for index in known]
        stuck += [str(self._unknown[index]) for index in unknown]
        return Finding(self._paths, best, tuple(stuck), at[3], undecided)

    def _candidates(self, at: Configuration) -> tuple[list[int], list[int]]:
        """Operations that may come next: none of those left ended before they began."""
        low, mask, guessed, _ = at
        horizon = NEVER
        known = []
        for index in range(low, len(self._known)):
            operation = self._known[index]
            if operation.invoked > horizon:
                break
            if not mask >> (index - low) & 1:
                known.append(index)
                assert operation.returned is not None
                horizon = min(horizon, operation.returned)
        known = [index for index in known if self._known[index].invoked < horizon]
        unknown = [
            index
            for index, operation in enumerate(self._unknown)
            if operation.invoked < horizon and not guessed >> index & 1
        ]
        return known, unknown

    def _next(self, at: Configuration) -> Iterator[Configuration]:
        low, mask, guessed, state = at
        known, unknown = self._candidates(at)
        # The sooner it ended, the sooner it is likely to have happened.
        known.sort(key=lambda index: self._known[index].returned or NEVER)
        for index in known:
            operation = self._known[index]
            for effect in self._model.effects(state, operation):
                if self._model.allows(operation, effect):
                    new_low, new_mask = low, mask | 1 << (index - low)
                    while new_mask & 1:
                        new_low, new_mask = new_low + 1, new_mask >> 1
                    yield (new_low, new_mask, guessed, effect.state)
        # Guesses last: most operations without an answer are not needed to explain anything now.
        for index in unknown:
            for effect in self._model.effects(state, self._unknown[index]):
                if effect.state != state:
                    yield (low, mask, guessed | 1 << index, effect.state)

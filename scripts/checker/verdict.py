"""The verdict on a history: everything that the checks complain of."""

from __future__ import annotations

import collections
from dataclasses import dataclass, field

from . import audit, linear, streams
from .history import History

FINAL = "final"  # the client that reads everything once the cluster is healed


@dataclass(slots=True)
class Verdict:
    """*complaints* is empty for a history that keeps all promises."""

    complaints: list[str] = field(default_factory=list)
    operations: int = 0
    unknown: int = 0
    groups: int = 0
    streams: int = 0
    blocks: int = 0
    kinds: dict[str, int] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        return not self.complaints

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kinds.items()))
        lines = [
            f"{self.operations} operations ({counts}), {self.unknown} with unknown outcome, "
            f"{self.groups} groups of paths, {self.streams} streams, {self.blocks} blocks"
        ]
        lines += self.complaints
        lines.append("CLEAN" if self.clean else f"{len(self.complaints)} COMPLAINTS")
        return "\n".join(lines)


def judge(history: History, *, limit: int = linear.MAX_CONFIGURATIONS) -> Verdict:
    """Hold a history against the promises."""
    verdict = Verdict(operations=len(history.operations))
    verdict.kinds = dict(collections.Counter(o.kind for o in history.operations))
    verdict.unknown = sum(1 for o in history.operations if o.outcome == "unknown")
    wrong_bytes = []
    for operation in history.operations:
        # A sentence instead of pieces: `pieces.identify` found bytes that nobody wrote.
        if operation.kind == "read" and isinstance(operation.result, str):
            verdict.complaints.append(f"wrong bytes: {operation}")
            wrong_bytes.append(operation)
    for operation in history.operations:
        # After healing there is nothing that could keep an answer back.
        if operation.client == FINAL and operation.outcome == "unknown":
            verdict.complaints.append(f"can't be read: {operation} ({operation.error})")
    readable = [o for o in history.operations if o not in wrong_bytes]
    streamed = streams.stream_paths(readable)
    verdict.streams = len(streamed)
    verdict.complaints += [f"stream: {line}" for line in streams.check(readable)]
    plain = [o for o in readable if o.args.get("path") not in streamed]
    findings, verdict.groups = linear.check(plain, limit=limit)
    verdict.complaints += [str(finding) for finding in findings]
    if history.facts:
        facts = audit.from_json(history.facts)
        verdict.blocks = len(facts.blocks)
        verdict.complaints += [f"audit: {line}" for line in audit.check(facts)]
    return verdict

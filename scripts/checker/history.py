"""What clients asked and what they were answered, in the order in which it happened.

One JSON object a line. `invoke` begins an operation; `ok`, `fail` (it surely did nothing) or `unknown` (it may or may
not have happened, or may happen yet) ends it. All clients of a history are recorded by one process, so that the order of the lines is the order of
time: an operation that ended on an earlier line than another began happened before it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

Outcome = Literal["ok", "fail", "unknown"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. *invoked* and *returned* are positions in the history; it returned never where that is unknown."""

    id: int
    client: str
    kind: str
    args: dict[str, Any]
    invoked: int
    returned: int | None = None
    outcome: Outcome = "unknown"
    result: Any = None
    error: str = ""

    def __str__(self) -> str:
        words = " ".join(f"{key}={value}" for key, value in self.args.items())
        answer = {"ok": f"-> {self.result}", "fail": f"-> {self.error}", "unknown": "-> ?"}
        return f"#{self.id} {self.client}: {self.kind} {words} {answer[self.outcome]}"


@dataclass(slots=True)
class History:
    """Operations in the order of their beginning, and what else was written down."""

    operations: list[Operation] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    faults: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)  # for the audit


class Recorder:
    """Writes a history. May be used from several threads."""

    def __init__(self, path: Path | None = None, **meta: Any) -> None:
        self.lines: list[dict[str, Any]] = []
        self._file: IO[str] | None = None if path is None else path.open("w", encoding="utf-8")
        self._lock = threading.Lock()
        self._next_id = 0
        self._write({"type": "meta", **meta})

    def _write(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")

    def invoke(self, client: str, kind: str, at_s: float = 0.0, /, **args: Any) -> int:
        with self._lock:
            self._next_id += 1
            self._write(
                {
                    "type": "invoke",
                    "id": self._next_id,
                    "client": client,
                    "kind": kind,
                    "args": args,
                    "at_s": round(at_s, 3),
                }
            )
            return self._next_id

    def ok(self, id: int, result: Any = None, at_s: float = 0.0) -> None:
        with self._lock:
            self._write({"type": "ok", "id": id, "result": result, "at_s": round(at_s, 3)})

    def fail(self, id: int, error: str, at_s: float = 0.0) -> None:
        with self._lock:
            self._write({"type": "fail", "id": id, "error": error, "at_s": round(at_s, 3)})

    def unknown(self, id: int, error: str, at_s: float = 0.0) -> None:
        with self._lock:
            self._write({"type": "unknown", "id": id, "error": error, "at_s": round(at_s, 3)})

    def fault(self, what: str, at_s: float = 0.0) -> None:
        with self._lock:
            self._write({"type": "fault", "what": what, "at_s": round(at_s, 3)})

    def facts(self, facts: dict[str, Any]) -> None:
        with self._lock:
            self._write({"type": "facts", "facts": facts})

    def history(self) -> History:
        with self._lock:
            return parse(self.lines)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def parse(lines: Iterable[dict[str, Any]]) -> History:
    """ValueError for what is no history."""
    history = History()
    begun: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines):
        kind = line.get("type")
        if kind == "meta":
            history.meta.update({k: v for k, v in line.items() if k != "type"})
        elif kind == "fault":
            history.faults.append(line)
        elif kind == "facts":
            history.facts.update(line["facts"])
        elif kind == "invoke":
            if line["id"] in begun:
                raise ValueError(f"line {number + 1}: operation {line['id']} begins twice")
            begun[line["id"]] = {
                **{name: line[name] for name in ("id", "client", "kind", "args")},
                "invoked": number,
            }
        elif kind in ("ok", "fail", "unknown"):
            entry = begun.get(line["id"])
            if entry is None or "outcome" in entry:
                raise ValueError(
                    f"line {number + 1}: operation {line['id']} ends unbegun, or again"
                )
            entry["outcome"] = kind
            entry["returned"] = None if kind == "unknown" else number
            entry["result"] = line.get("result")
            entry["error"] = line.get("error", "")
        else:
            raise ValueError(f"line {number + 1}: unknown type {kind!r}")
    history.operations = [Operation(**entry) for entry in begun.values()]
    return history


def load(path: Path) -> History:
    def lines() -> Iterator[dict[str, Any]]:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                try:
                    yield json.loads(text)
                except ValueError:
                    raise ValueError(f"{path}:{number} is no JSON") from None

    return parse(lines())

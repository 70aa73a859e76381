"""Files written through a handle by one client, piece by piece, read by others meanwhile.

kind           args                     result
stream-open    path
stream-write   path, write, length      none: it ends with its buffer, not on a disk
stream-sync    path                     none: all pieces written before are durable on min_replicas nodes
stream-close   path                     none: the file is whole

A `read` of the path sees the pieces in their order, cut anywhere; at least what was synced before it began, and nothing
that was not being written before it ended. Once the file is closed, all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .history import Operation

NEVER = 1 << 62
KINDS = frozenset({"stream-open", "stream-write", "stream-sync", "stream-close"})


@dataclass(slots=True)
class _Stream:
    opened: int = NEVER  # when it was surely there
    begun: int = NEVER  # when it may have been there
    writes: list[Operation] = field(default_factory=list)
    synced: list[tuple[int, int]] = field(default_factory=list)  # (from when on, bytes)
    closed: int = NEVER


def stream_paths(operations: Sequence[Operation]) -> frozenset[str]:
    return frozenset(o.args["path"] for o in operations if o.kind in KINDS)


def check(operations: Sequence[Operation]) -> list[str]:
    """Sentences about reads that nothing explains."""
    streams: dict[str, _Stream] = {path: _Stream() for path in stream_paths(operations)}
    for operation in operations:
        if operation.kind in KINDS:
            _follow(streams[operation.args["path"]], operation)
    wrong = []
    for operation in operations:
        if operation.kind == "read" and operation.args["path"] in streams:
            complaint = _judge(streams[operation.args["path"]], operation)
            if complaint:
                wrong.append(f"{operation}: {complaint}")
    return wrong


def _follow(stream: _Stream, operation: Operation) -> None:
    done = operation.returned if operation.outcome == "ok" and operation.returned else NEVER
    if operation.kind == "stream-open":
        stream.begun, stream.opened = operation.invoked, done
    elif operation.kind == "stream-write":
        stream.writes.append(operation)
    else:
        if done != NEVER:
            stream.synced.append((done, sum(write.args["length"] for write in stream.writes)))
        if operation.kind == "stream-close":
            stream.closed = done


def _judge(stream: _Stream, read: Operation) -> str:
    if read.outcome == "unknown" or read.returned is None:
        return ""
    if read.outcome == "fail":
        if read.error == "path-not-found":
            return "it was there already" if stream.opened < read.invoked else ""
        return f"it is no {read.error} by anything that was done"
    if read.returned < stream.begun:
        return "it was not there yet"
    length = sum(size for _, size in read.result)
    least = max((size for when, size in stream.synced if when < read.invoked), default=0)
    most = sum(w.args["length"] for w in stream.writes if w.invoked < read.returned)
    if length < least:
        return f"{least} bytes were synced before, {length} are there"
    if length > most:
        return f"only {most} bytes had been written"
    left = length
    wanted = []
    for write in stream.writes:
        if left <= 0:
            break
        wanted.append([write.args["write"], min(left, write.args["length"])])
        left -= write.args["length"]
    # Of a head that is cut short it can't be told whose it is.
    found = [list(part) for part in read.result]
    if found and found[-1][0] == 0 and wanted:
        found[-1][0] = wanted[-1][0]
    return "" if found == wanted else f"the pieces are not in the order they were written: {wanted}"

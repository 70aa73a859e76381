"""Recorded answers: what a client that sends a mutation again gets instead of having it carried out again.

One row holds the answers to the calls of one client that were committed together, so that remembering them costs
little. Calls of a row are no further apart than `SPAN`, which bounds the search.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from .base import RequestId, Row, Transaction

SPAN: Final = 4_096
INSERT: Final = "INSERT INTO requests (client_id, first_call, last_call, done_ms, answers) VALUES (?, ?, ?, ?, ?)"
_FIND: Final = (
    "SELECT answers FROM requests WHERE client_id = ? AND first_call BETWEEN ? AND ?"
    " AND last_call >= ?"
)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[int, bytes]).decode


def rows(answers: Mapping[RequestId, bytes], now_ms: int) -> list[Row]:
    """Rows for `INSERT`."""
    clients: dict[bytes, dict[int, bytes]] = {}
    for request, answer in answers.items():
        clients.setdefault(request.client_id, {})[request.call_id] = answer
    found: list[Row] = []
    for client_id, calls in clients.items():
        ordered = sorted(calls)
        start = 0
        for index in range(1, len(ordered) + 1):
            if index == len(ordered) or ordered[index] - ordered[start] >= SPAN:
                part = {call_id: calls[call_id] for call_id in ordered[start:index]}
                ends = (ordered[start], ordered[index - 1])
                found.append((client_id, *ends, now_ms, _encode(part)))
                start = index
    return found


def find(tx: Transaction, request: RequestId) -> bytes | None:
    """The recorded answer to *request*."""
    call_id = request.call_id
    for row in tx.all(_FIND, (request.client_id, call_id - SPAN + 1, call_id, call_id)):
        answer = _decode(row[0]).get(call_id)
        if answer is not None:
            return answer
    return None

"""How the entries of the change stream are chained: what makes rewriting one of them change every hash after it.

Hash of an event: BLAKE3 of the previous event's hash (32 zero bytes before the first) followed by the msgpack array
[offset, time_ms, kind, path, destination, user, inode_id, detail].
"""

from __future__ import annotations

import msgspec
from blake3 import blake3

from .model import Event

GENESIS = bytes(32)
_encode = msgspec.msgpack.Encoder().encode


def chain(previous: bytes, fields: tuple[object, ...]) -> bytes:
    """The hash of the event with *fields* (as in the module's first lines) after *previous*."""
    return blake3(previous + _encode(fields)).digest()


def hash_of(previous: bytes, event: Event) -> bytes:
    """The hash that *event* must have after one with the hash *previous*."""
    return chain(
        previous,
        (
            event.offset,
            event.time_ms,
            event.kind,
            event.path,
            event.destination,
            event.user,
            event.inode_id,
            event.detail,
        ),
    )

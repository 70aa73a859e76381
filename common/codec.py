"""Encode and decode internal messages; a body that does not fit its type becomes InvalidRequest."""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from typing import Any, TypeVar, cast

import msgspec

from .errors import DfsError, InvalidRequest, error_from_code
from .messages import Call, Failure, Reply

T = TypeVar("T")

JSON = "application/json"
MSGPACK = "application/msgpack"

_packer = msgspec.msgpack.Encoder()
_json_encoder = msgspec.json.Encoder()
_calls = msgspec.msgpack.Decoder(list[Call])
_replies = msgspec.msgpack.Decoder(list[Reply])


@lru_cache(maxsize=512)
def _unpacker(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)


@lru_cache(maxsize=512)
def _json_decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def pack(value: Any) -> bytes:
    """msgpack of a message or of a list of them."""
    return _packer.encode(value)


def unpack(data: bytes | memoryview | msgspec.Raw, kind: type[T]) -> T:
    """A message of type *kind*; InvalidRequest if the bytes are malformed or do not fit it."""
    try:
        return _unpacker(cast(Hashable, kind)).decode(data)  # type: ignore[no-any-return]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"malformed {kind.__name__}: {error}") from None


def to_json(value: Any) -> bytes:
    return _json_encoder.encode(value)


def from_json(data: bytes, kind: type[T]) -> T:
    """As `unpack`, for JSON (bytes fields are base64)."""
    try:
        return _json_decoder(cast(Hashable, kind)).decode(data)  # type: ignore[no-any-return]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"malformed {kind.__name__}: {error}") from None


def unpack_calls(frame: bytes) -> list[Call]:
    try:
        return _calls.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"malformed frame: {error}") from None


def unpack_replies(frame: bytes) -> list[Reply]:
    try:
        return _replies.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"malformed frame: {error}") from None


def failure_of(error: DfsError, reference: str = "") -> Failure:
    """*error* as it travels."""
    return Failure(code=error.code, message=error.message, reference=reference)


def error_of(failure: Failure) -> DfsError:
    """The error that a received failure stands for."""
    message = failure.message
    if failure.reference:
        message = f"{message} (reference {failure.reference} in the server's log)"
    return error_from_code(failure.code, message)

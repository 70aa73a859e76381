"""Who a request is from: a name it gives itself, or a delegation token. The one place that decides it.

TwinFS has no authentication yet, as HDFS's simple mode: a name is believed. A delegation token stands for the user it was
given to. It is written as Hadoop writes its own (`Token.encodeToUrlString`), so that Hadoop's clients can carry, renew and cancel it.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass
from typing import NamedTuple

from .errors import InvalidRequest

KIND = "WEBHDFS delegation"
SECRET_BYTES = 32
MAX_TEXT_CHARS = 4_096
RENEW_MS = 86_400_000  # HDFS's dfs.namenode.delegation.token.renew-interval
MAX_LIFE_MS = 7 * 86_400_000  # HDFS's dfs.namenode.delegation.token.max-lifetime


class Claim(NamedTuple):
    """What a request says of who sends it."""

    user: str  # "" is nobody
    acting_as: str = ""  # another user, for whom a superuser acts
    token: str = ""  # wins over *user*


@dataclass(frozen=True, slots=True)
class Identifier:
    """What a token says openly. Hadoop's AbstractDelegationTokenIdentifier."""

    owner: str
    renewer: str
    issued_ms: int
    max_ms: int
    sequence: int

    def encode(self) -> bytes:
        texts = (self.owner, self.renewer, "")
        return b"".join(
            [
                b"\x00",
                *(_counted(text.encode()) for text in texts),
                *(_vlong(n) for n in (self.issued_ms, self.max_ms, self.sequence, 1)),
            ]
        )


@dataclass(frozen=True, slots=True)
class Token:
    identifier: bytes
    password: bytes
    kind: str = KIND
    service: str = ""


def password_of(secret: bytes, identifier: bytes) -> bytes:
    return hmac.digest(secret, identifier, "sha256")


def proves(token: Token, secret: bytes) -> bool:
    """Whether *token* was made with *secret*; takes the same time either way."""
    return hmac.compare_digest(token.password, password_of(secret, token.identifier))


def encode(token: Token) -> str:
    """As a URL carries it."""
    parts = [token.identifier, token.password, token.kind.encode(), token.service.encode()]
    return base64.urlsafe_b64encode(b"".join(map(_counted, parts))).rstrip(b"=").decode()


def decode(text: str) -> Token:
    """InvalidRequest for what is no token."""
    try:
        if len(text) > MAX_TEXT_CHARS:
            raise ValueError
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        reader = _Reader(data)
        token = Token(reader.counted(), reader.counted(), reader.text(), reader.text())
        if reader.left:
            raise ValueError
    except (ValueError, IndexError):
        raise InvalidRequest("this is no delegation token") from None
    return token


def identifier_of(token: Token) -> Identifier:
    """What *token* says; InvalidRequest if it is malformed. Whether it is true, `proves` says."""
    try:
        reader = _Reader(token.identifier)
        if reader.take(1) != b"\x00":
            raise ValueError
        owner, renewer, _real = reader.text(), reader.text(), reader.text()
        issued_ms, max_ms, sequence, _key = (reader.vlong() for _ in range(4))
        if reader.left:
            raise ValueError
    except (ValueError, IndexError):
        raise InvalidRequest("this is no delegation token") from None
    return Identifier(owner, renewer, issued_ms, max_ms, sequence)


# --- Hadoop's Writable encoding ----------------------------------------------------------------


def _counted(data: bytes) -> bytes:
    return _vlong(len(data)) + data


def _vlong(value: int) -> bytes:
    """`WritableUtils.writeVLong`: one byte for -112 to 127, else a length byte and big-endian bytes."""
    if -112 <= value <= 127:
        return (value & 0xFF).to_bytes(1, "big")
    base, magnitude = (-112, value) if value >= 0 else (-120, ~value)
    size = (magnitude.bit_length() + 7) // 8
    return ((base - size) & 0xFF).to_bytes(1, "big") + magnitude.to_bytes(size, "big")


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if not 0 <= count <= self.left:
            raise ValueError
        self._at += count
        return self._data[self._at - count : self._at]

    def vlong(self) -> int:
        first = int.from_bytes(self.take(1), "big", signed=True)
        if first >= -112:
            return first
        negative = first < -120
        magnitude = int.from_bytes(self.take(-(first + 120) if negative else -(first + 112)), "big")
        return ~magnitude if negative else magnitude

    def counted(self) -> bytes:
        return self.take(self.vlong())

    def text(self) -> str:
        return self.counted().decode()

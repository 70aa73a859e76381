"""Delegation tokens: given out, renewed, cancelled, and believed while their row is there."""

from __future__ import annotations

from ..common.errors import PermissionDenied
from ..common.tokens import (
    MAX_LIFE_MS,
    RENEW_MS,
    Identifier,
    Token,
    identifier_of,
    password_of,
    proves,
)
from ..common.webhdfs import JavaError
from .permissions import Caller
from .store.base import Row, Transaction

_INVALID = "org.apache.hadoop.security.token.SecretManager$InvalidToken"


def issue(
    tx: Transaction, caller: Caller, renewer: str, secret: bytes, *, now_ms: int
) -> tuple[Identifier, bytes]:
    """A new token of *caller*'s: what it says, and its password."""
    tx.execute("DELETE FROM delegation_tokens WHERE expires_ms < ?", (now_ms,))
    sequence = tx.new_ids("token")
    found = Identifier(caller.user, renewer, now_ms, now_ms + MAX_LIFE_MS, sequence)
    tx.execute(
        "INSERT INTO delegation_tokens (sequence, owner, renewer, secret, expires_ms, max_ms)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (sequence, caller.user, renewer, secret, now_ms + RENEW_MS, found.max_ms),
    )
    return found, password_of(secret, found.encode())


def _row(tx: Transaction, token: Token, now_ms: int) -> tuple[Identifier, Row]:
    said = identifier_of(token)
    row = tx.one(
        "SELECT owner, renewer, secret, expires_ms, max_ms FROM delegation_tokens WHERE sequence = ?",
        (said.sequence,),
    )
    if row is None or row[3] < now_ms or not proves(token, bytes(row[2])):
        raise JavaError("token is expired, cancelled or was never given out", _INVALID)
    return said, row


def owner_of(tx: Transaction, token: Token, *, now_ms: int) -> str:
    """Whose token it is; JavaError(InvalidToken) if it is good no more, or forged."""
    return str(_row(tx, token, now_ms)[1][0])


def renew(tx: Transaction, caller: Caller, token: Token, *, now_ms: int) -> int:
    """Until when it is good now."""
    said, row = _row(tx, token, now_ms)
    if caller.user != row[1]:
        raise PermissionDenied(f"{caller.user} is not the token's renewer")
    expires_ms = min(now_ms + RENEW_MS, int(row[4]))
    tx.execute(
        "UPDATE delegation_tokens SET expires_ms = ? WHERE sequence = ?",
        (expires_ms, said.sequence),
    )
    return expires_ms


def cancel(tx: Transaction, caller: Caller, token: Token, *, now_ms: int) -> None:
    said, row = _row(tx, token, now_ms)
    if caller.user not in (row[0], row[1]) and not caller.superuser:
        raise PermissionDenied(f"{caller.user} is neither the token's owner nor its renewer")
    tx.execute("DELETE FROM delegation_tokens WHERE sequence = ?", (said.sequence,))

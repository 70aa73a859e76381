"""Tokens that let a page of the dashboard send files to and from DataNodes in its user's name.

The NameNode makes them, and tells DataNodes at registration how to check them. What they keep out: a page of some other
site, open in the same browser, which could otherwise reach a DataNode on the user's network.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

from .errors import PermissionDenied

LIFE_MS: Final = 12 * 3_600_000
MAX_TOKEN_CHARS: Final = 1_024


def make(key: bytes, user: str, expires_ms: int) -> str:
    """A token for *user*."""
    name = base64.urlsafe_b64encode(user.encode()).decode()
    return f"{name}.{expires_ms}.{_mac(key, name, expires_ms)}"


def user_of(keys: Iterable[bytes], token: str, now_ms: int) -> str:
    """Whom *token* stands for; PermissionDenied if it is none, or of a key that is not among *keys*, or too old."""
    parts = token.split(".")
    if len(token) > MAX_TOKEN_CHARS or len(parts) != 3 or not parts[1].isascii():
        raise PermissionDenied("the page's token is missing or malformed: reload the page")
    name, expires, mac = parts
    if not expires.isdigit() or len(expires) > 15 or not mac.isascii():
        raise PermissionDenied("the page's token is malformed: reload the page")
    good = False
    for key in keys:
        good |= hmac.compare_digest(_mac(key, name, int(expires)), mac)
    if not good:
        raise PermissionDenied("the page's token is not this cluster's: reload the page")
    if int(expires) < now_ms:
        raise PermissionDenied("the page's token has expired: reload the page")
    try:
        return base64.urlsafe_b64decode(name).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise PermissionDenied("the page's token is malformed: reload the page") from None


def _mac(key: bytes, name: str, expires_ms: int) -> str:
    return hmac.new(key, f"{name}.{expires_ms}".encode(), hashlib.sha256).hexdigest()

"""Multibase: text forms of bytes, each announced by its first letter.

Source: github.com/multiformats/multibase. Known here: base16 (f, F), base32 (b, B), base36 (k, K), base58btc (z),
base64 (m), base64url (u), the last two without padding.
"""

from __future__ import annotations

import base64
import binascii

from ..errors import InvalidCid

# Converting by big numbers takes time that grows with the square of the length. CIDs are shorter by far.
MAX_TEXT = 4_096
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_VALUES58 = {letter: value for value, letter in enumerate(_BASE58)}
_VALUES36 = {letter: value for value, letter in enumerate(_BASE36)}
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
_BASE64URL = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
_LETTERS32 = frozenset(_BASE32)

NAMES = {
    "base16": "f",
    "base32": "b",
    "base32upper": "B",
    "base36": "k",
    "base58btc": "z",
    "base64": "m",
    "base64url": "u",
}


def _to_digits(data: bytes, alphabet: str) -> str:
    base = len(alphabet)
    zeros = len(data) - len(data.lstrip(b"\0"))
    value = int.from_bytes(data, "big")
    digits = []
    while value:
        value, digit = divmod(value, base)
        digits.append(alphabet[digit])
    return alphabet[0] * zeros + "".join(reversed(digits))


def _from_digits(text: str, values: dict[str, int], zero: str) -> bytes:
    base = len(values)
    value = 0
    for letter in text:
        digit = values.get(letter)
        if digit is None:
            raise InvalidCid(f"{letter!r} is no digit of base{base}")
        value = value * base + digit
    zeros = len(text) - len(text.lstrip(zero))
    return b"\0" * zeros + value.to_bytes(-(-value.bit_length() // 8), "big")


def base58(data: bytes) -> str:
    """base58btc without the multibase letter, as CIDv0 and peer ids are written."""
    return _to_digits(data, _BASE58)


def from_base58(text: str) -> bytes:
    if len(text) > MAX_TEXT:
        raise InvalidCid(f"a text of {len(text)} letters is too long")
    return _from_digits(text, _VALUES58, "1")


def base32(data: bytes) -> str:
    """Lower-case base32 without padding and without the multibase letter."""
    return base64.b32encode(data).decode().rstrip("=").lower()


def from_base32(text: str) -> bytes:
    """InvalidCid for other letters, an impossible length, or bits left over that are not zero."""
    if not _LETTERS32.issuperset(text):
        raise InvalidCid("a letter is none of base32")
    if len(text) % 8 in (1, 3, 6):
        raise InvalidCid("a base32 text can't have this length")
    data = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    if base32(data) != text:
        raise InvalidCid("a base32 text has bits left over")
    return data


def _from_base64(text: str, letters: frozenset[str], *, url: bool) -> bytes:
    if not letters.issuperset(text):
        raise InvalidCid("a letter is none of base64")
    if len(text) % 4 == 1:
        raise InvalidCid("a base64 text can't have this length")
    padded = text + "=" * (-len(text) % 4)
    try:
        data = base64.urlsafe_b64decode(padded) if url else base64.b64decode(padded)
    except binascii.Error as error:
        raise InvalidCid(f"a base64 text is malformed: {error}") from None
    if (base64.urlsafe_b64encode(data) if url else base64.b64encode(data)).decode().rstrip(
        "="
    ) != text:
        raise InvalidCid("a base64 text has bits left over")
    return data


def encode(data: bytes, base: str = "base32") -> str:
    """*data* in the base called *base* (a key of NAMES), with its letter in front. InvalidCid for an unknown name."""
    if base == "base32":
        return "b" + base32(data)
    if base == "base32upper":
        return "B" + base32(data).upper()
    if base == "base36":
        return "k" + _to_digits(data, _BASE36)
    if base == "base58btc":
        return "z" + base58(data)
    if base == "base16":
        return "f" + data.hex()
    if base == "base64":
        return "m" + base64.b64encode(data).decode().rstrip("=")
    if base == "base64url":
        return "u" + base64.urlsafe_b64encode(data).decode().rstrip("=")
    raise InvalidCid(f"there is no multibase {base!r}; known are {', '.join(NAMES)}")


def decode(text: str) -> bytes:
    """The bytes of a multibase text. InvalidCid if it is none, or longer than MAX_TEXT."""
    if not text:
        raise InvalidCid("the text is empty")
    if len(text) > MAX_TEXT:
        raise InvalidCid(f"a text of {len(text)} letters is too long")
    letter, rest = text[0], text[1:]
    if letter == "b":
        return from_base32(rest)
    if letter == "B":
        if rest != rest.upper():
            raise InvalidCid("upper-case base32 has a lower-case letter")
        return from_base32(rest.lower())
    if letter == "z":
        return from_base58(rest)
    if letter in "kK":
        folded = rest.lower()
        if rest != (folded if letter == "k" else folded.upper()):
            raise InvalidCid("base36 is of mixed case")
        return _from_digits(folded, _VALUES36, "0")
    if letter in "fF":
        try:
            return binascii.unhexlify(rest.encode("ascii"))
        except (binascii.Error, UnicodeEncodeError):
            raise InvalidCid("a base16 text is malformed") from None
    if letter == "m":
        return _from_base64(rest, _BASE64, url=False)
    if letter == "u":
        return _from_base64(rest, _BASE64URL, url=True)
    raise InvalidCid(f"{letter!r} begins no multibase that is known here")

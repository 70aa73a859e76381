"""Multihash: which hash function, how long, the digest.

Source: github.com/multiformats/multihash. Known are blake3 and sha2-256 with 32 bytes, and identity, whose
"digest" is the content itself, up to 128 bytes.
"""

from __future__ import annotations

from blake3 import blake3

from ..errors import ChecksumMismatch, InvalidCid, InvalidContent, Unsupported
from . import varint

IDENTITY = 0x00
SHA2_256 = 0x12
BLAKE3 = 0x1E
MAX_IDENTITY_BYTES = 128  # as Kubo's verifier bounds it
NAMES = {"identity": IDENTITY, "sha2-256": SHA2_256, "blake3": BLAKE3}
NAME_OF = {code: name for name, code in NAMES.items()}

Bytes = bytes | bytearray | memoryview
_HEAD_SHA2_256 = b"\x12\x20"
_HEAD_BLAKE3 = b"\x1e\x20"


def wrap(code: int, digest: bytes) -> bytes:
    """The multihash of a digest that is known already."""
    return varint.encode(code) + varint.encode(len(digest)) + digest


def digest(code: int, data: Bytes) -> bytes:
    """The multihash of *data*. Unsupported for another function."""
    if code == BLAKE3:
        return _HEAD_BLAKE3 + blake3(data).digest()
    if code == SHA2_256:
        return _HEAD_SHA2_256 + _sha2_256(data)
    if code == IDENTITY:
        if len(data) > MAX_IDENTITY_BYTES:
            raise InvalidCid(f"an identity CID holds at most {MAX_IDENTITY_BYTES} bytes")
        return wrap(IDENTITY, bytes(data))
    raise Unsupported(f"there is no hash function 0x{code:x} here")


def split(data: bytes, at: int = 0) -> tuple[int, bytes, int]:
    """(code, digest, offset after it) of the multihash at *at*. InvalidCid if it is malformed.

    A function that is not known is let through: its blocks can't be verified, but its CID is one.
    """
    try:
        code, after = varint.decode(data, at)
        length, after = varint.decode(data, after)
    except InvalidContent as error:
        raise InvalidCid(f"the multihash is malformed: {error.message}") from None
    if code in (BLAKE3, SHA2_256) and length != 32:
        raise InvalidCid(f"a {NAME_OF[code]} digest has 32 bytes, not {length}")
    if length > MAX_IDENTITY_BYTES:
        raise InvalidCid(f"a digest of {length} bytes is too long")
    if len(data) - after < length:
        raise InvalidCid("the multihash is cut short")
    return code, bytes(data[after : after + length]), after + length


def verify(code: int, expected: bytes, data: Bytes) -> None:
    """ChecksumMismatch unless *data* has the digest *expected*; Unsupported if that can't be said."""
    if code == BLAKE3:
        found = blake3(data).digest()
    elif code == SHA2_256:
        found = _sha2_256(data)
    elif code == IDENTITY:
        found = bytes(data)
    else:
        raise Unsupported(f"there is no hash function 0x{code:x} here to verify the bytes with")
    if found != expected:
        raise ChecksumMismatch("the bytes are not those that the CID names")


def _sha2_256(data: Bytes) -> bytes:
    import hashlib  # here, since it brings OpenSSL along, and most commands make do with BLAKE3

    return hashlib.sha256(data).digest()

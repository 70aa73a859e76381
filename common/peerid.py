"""Peer ids: the names of Ed25519 keys, as libp2p has them.

A peer id is a multihash. That of an Ed25519 key is an identity one, so that the id is the key: `12D3KooW...` in base58, or
`k51...` (base36 of a CID with the codec libp2p-key), as names of IPNS are written. Source: github.com/libp2p/specs, peer-ids.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from .errors import ChecksumMismatch, DfsError, InvalidCid, InvalidRequest
from .ipld import multibase
from .ipld.cid import LIBP2P_KEY, Cid

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# Multihash identity of 36 bytes: a protobuf of key type 1 (Ed25519) and 32 bytes of data.
_PREFIX = b"\x00\x24\x08\x01\x12\x20"
PEER_ID_BYTES = len(_PREFIX) + 32
KEY_BYTES = 32
SIGNATURE_BYTES = 64


def peer_id_of(public_key: bytes) -> bytes:
    """The peer id of an Ed25519 public key."""
    assert len(public_key) == KEY_BYTES
    return _PREFIX + public_key


def public_key_of(peer_id: bytes) -> bytes:
    """The Ed25519 key that a peer id is. InvalidRequest for the id of another kind of key."""
    if len(peer_id) != PEER_ID_BYTES or not peer_id.startswith(_PREFIX):
        raise InvalidRequest("the peer id is not that of an Ed25519 key")
    return peer_id[len(_PREFIX) :]


def shown(peer_id: bytes) -> str:
    """`12D3KooW...`"""
    return multibase.base58(peer_id)


def name_of(peer_id: bytes) -> str:
    """`k51...`, as /ipns/ has it."""
    return Cid(1, LIBP2P_KEY, peer_id).encode("base36")


def parse(text: str) -> bytes:
    """A peer id from any of its texts: base58, or a CID in any base. InvalidRequest."""
    if len(text) > 128:
        raise InvalidRequest("the peer id is too long")
    try:
        if text.startswith(("12D3", "Qm", "1")):
            found = multibase.from_base58(text)
        else:
            cid = Cid.parse(text)
            if cid.codec != LIBP2P_KEY:
                raise InvalidRequest(f"{text} names content, not a key")
            found = cid.multihash
    except InvalidCid:
        raise InvalidRequest(f"{text[:64]!r} is no peer id") from None
    public_key_of(found)
    return found


@lru_cache(maxsize=1)
def _verifier() -> Callable[[bytes, bytes, bytes], bool]:
    """Loaded when the first signature is checked: most commands never do."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    def check(public_key: bytes, signature: bytes, message: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    return check


def is_signed_by(peer_id: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the key of *peer_id* signed *message*."""
    try:
        key = public_key_of(peer_id)
    except DfsError:
        return False
    return len(signature) == SIGNATURE_BYTES and _verifier()(key, signature, message)


def require_signature(peer_id: bytes, signature: bytes, message: bytes, what: str) -> None:
    """ChecksumMismatch unless it is so."""
    if not is_signed_by(peer_id, signature, message):
        raise ChecksumMismatch(f"the signature of {what} is wrong")


class Identity:
    """A key pair: signs, and has the peer id that everybody can check it by."""

    def __init__(self, seed: bytes) -> None:
        """*seed*: the 32 bytes of the private key."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if len(seed) != KEY_BYTES:
            raise InvalidRequest("an Ed25519 key has 32 bytes")
        self._key: Ed25519PrivateKey = Ed25519PrivateKey.from_private_bytes(seed)
        self.peer_id = peer_id_of(self._key.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"<Identity {shown(self.peer_id)}>"

"""Signed notes and checkpoints, as C2SP's signed-note and tlog-checkpoint define them: text that tools of others verify, too.

A checkpoint is three lines (who keeps the log, how many entries, the root in base64), an empty line, and signature lines. A signature is
Ed25519 over the text up to the empty line; its line names the key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .errors import InvalidRequest

ED25519 = b"\x01"


def _public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _key_id(name: str, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public).digest()[:4]


def verifier_key(name: str, key: Ed25519PrivateKey) -> str:
    """What others need to check signatures of *key*."""
    public = _public(key)
    packed = base64.b64encode(ED25519 + public).decode()
    return f"{name}+{_key_id(name, public).hex()}+{packed}"


def checkpoint(name: str, size: int, root: bytes, key: Ed25519PrivateKey) -> str:
    """A signed checkpoint of the log *name*."""
    text = f"{name}\n{size}\n{base64.b64encode(root).decode()}\n"
    signature = _key_id(name, _public(key)) + key.sign(text.encode())
    return f"{text}\n\N{EM DASH} {name} {base64.b64encode(signature).decode()}\n"


def open_checkpoint(note: str, verifier: str) -> tuple[int, bytes]:
    """(size, root) of a checkpoint that *verifier* has signed; InvalidRequest for any other."""
    name, key_id, public = _parse_verifier(verifier)
    text, separator, signatures = note.partition("\n\n")
    text += "\n"
    lines = text.split("\n")
    if not separator or len(lines) < 4 or lines[0] != name:
        raise InvalidRequest(f"this is no checkpoint of {name}")
    for line in signatures.splitlines():
        words = line.split(" ")
        if len(words) != 3 or words[:2] != ["\N{EM DASH}", name]:
            continue
        try:
            packed = base64.b64decode(words[2], validate=True)
            if packed[:4] != key_id:
                continue
            Ed25519PublicKey.from_public_bytes(public).verify(packed[4:], text.encode())
            if not lines[1].isascii() or not lines[1].isdigit():
                raise ValueError
            found = base64.b64decode(lines[2], validate=True)
        except (binascii.Error, ValueError, InvalidSignature):
            raise InvalidRequest(
                "the checkpoint's signature is wrong: it was forged or damaged"
            ) from None
        if len(found) != 32:
            raise InvalidRequest("the checkpoint's root is malformed")
        return int(lines[1]), found
    raise InvalidRequest("the checkpoint has no signature of that key")


def _parse_verifier(verifier: str) -> tuple[str, bytes, bytes]:
    parts = verifier.strip().split("+", 2)
    try:
        name, key_id, packed = parts
        public = base64.b64decode(packed, validate=True)
        if public[:1] != ED25519 or len(public) != 33 or _key_id(name, public[1:]).hex() != key_id:
            raise ValueError
    except (binascii.Error, ValueError):
        raise InvalidRequest("the verifier key is malformed") from None
    return name, bytes.fromhex(key_id), public[1:]

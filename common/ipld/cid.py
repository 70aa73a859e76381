"""CIDs: names that say by themselves which bytes they name.

Source: github.com/multiformats/cid. A CIDv0 is a bare sha2-256 multihash of a dag-pb node, written in base58
("Qm..."); a CIDv1 is version, codec and multihash, written in any multibase.
"""

from __future__ import annotations

import msgspec

from ..errors import InvalidCid, InvalidContent, Unsupported
from . import multibase, multihash, varint
from .multihash import BLAKE3, IDENTITY, SHA2_256, Bytes

CBOR = 0x51
RAW = 0x55
DAG_PB = 0x70
DAG_CBOR = 0x71
LIBP2P_KEY = 0x72
DAG_JSON = 0x0129
JSON = 0x0200
CODECS = {
    "raw": RAW,
    "dag-pb": DAG_PB,
    "dag-cbor": DAG_CBOR,
    "libp2p-key": LIBP2P_KEY,
    "dag-json": DAG_JSON,
    "json": JSON,
    "cbor": CBOR,
}
CODEC_NAMES = {code: name for name, code in CODECS.items()}
MAX_BLOCK_BYTES = 2 * 1024 * 1024  # what other IPFS software takes; a bigger CID block is none
MAX_CID_BYTES = 160
# How most CIDs begin: version 1, a codec of one byte, a hash of 32 bytes.
_USUAL_BYTES = 36
_USUAL = {
    bytes((1, codec, code, 32)): codec
    for codec in (RAW, DAG_PB, DAG_CBOR)
    for code in (BLAKE3, SHA2_256)
}


class Cid(msgspec.Struct, frozen=True, order=True, gc=False):
    """One CID. Equal CIDs have equal bytes; the same block may have several (compare `multihash` for that)."""

    version: int
    codec: int
    multihash: bytes

    # --- making ---

    @classmethod
    def of(cls, codec: int, data: Bytes, hash_code: int = BLAKE3) -> Cid:
        """The CIDv1 of a block."""
        return cls(1, codec, multihash.digest(hash_code, data))

    @classmethod
    def from_digest(cls, codec: int, digest: bytes, hash_code: int = BLAKE3) -> Cid:
        """The CIDv1 of a block whose digest is known."""
        return cls(1, codec, multihash.wrap(hash_code, digest))

    @classmethod
    def parse(cls, text: str) -> Cid:
        """A CID from its text form. InvalidCid if it is none, Unsupported for a version after 1."""
        if len(text) == 46 and text.startswith("Qm"):
            found, end = cls.read(multibase.from_base58(text))
            if found.version != 0 or end != 34:
                raise InvalidCid("the text is no CIDv0")
            return found
        data = multibase.decode(text)
        if data[:1] == b"\x12":
            raise InvalidCid("a CIDv0 has no multibase letter")
        return cls.from_bytes(data)

    @classmethod
    def from_bytes(cls, data: bytes) -> Cid:
        """A CID from its whole binary form."""
        if len(data) == _USUAL_BYTES and (codec := _USUAL.get(data[:4])) is not None:
            return cls(1, codec, data[2:])
        found, end = cls.read(data)
        if end != len(data):
            raise InvalidCid(f"{len(data) - end} bytes follow the CID")
        return found

    @classmethod
    def read(cls, data: bytes, at: int = 0) -> tuple[Cid, int]:
        """(CID, offset after it) at the front of a longer byte string."""
        if data[at : at + 2] == b"\x12\x20":
            if len(data) - at < 34:
                raise InvalidCid("the CID is cut short")
            return cls(0, DAG_PB, bytes(data[at : at + 34])), at + 34
        try:
            version, after = varint.decode(data, at)
            if version != 1:
                if version in (2, 3):
                    raise Unsupported(f"there is no CID version {version} here")
                raise InvalidCid(f"{version} is no version of a CID")
            codec, start = varint.decode(data, after)
        except InvalidContent as error:
            raise InvalidCid(f"the CID is malformed: {error.message}") from None
        _, _, end = multihash.split(data, start)
        return cls(1, codec, bytes(data[start:end])), end

    # --- forms ---

    def __bytes__(self) -> bytes:
        if self.version == 0:
            return self.multihash
        if self.codec < 0x80:
            return bytes((1, self.codec)) + self.multihash
        return b"\x01" + varint.encode(self.codec) + self.multihash

    def __str__(self) -> str:
        if self.version == 0:
            return multibase.base58(self.multihash)
        return "b" + multibase.base32(bytes(self))

    def encode(self, base: str) -> str:
        """The text in another multibase. InvalidCid for a CIDv0, that has but one."""
        if self.version == 0:
            if base == "base58btc":
                return str(self)
            raise InvalidCid("a CIDv0 is written in base58 alone")
        return multibase.encode(bytes(self), base)

    @property
    def v1(self) -> Cid:
        return self if self.version == 1 else Cid(1, self.codec, self.multihash)

    # --- what it says ---

    @property
    def hash_code(self) -> int:
        return multihash.split(self.multihash)[0]

    @property
    def digest(self) -> bytes:
        return multihash.split(self.multihash)[1]

    @property
    def is_identity(self) -> bool:
        return self.multihash[0] == IDENTITY

    @property
    def codec_name(self) -> str:
        return CODEC_NAMES.get(self.codec, f"0x{self.codec:x}")

    @property
    def hash_name(self) -> str:
        code = self.hash_code
        return multihash.NAME_OF.get(code, f"0x{code:x}")

    def verify(self, data: Bytes) -> None:
        """ChecksumMismatch unless *data* is what this CID names; Unsupported if its hash function is not known."""
        code, expected, _ = multihash.split(self.multihash)
        multihash.verify(code, expected, data)


def verify(cid: Cid, data: Bytes) -> None:
    """As `Cid.verify`, and InvalidContent for a block that no CID block may be as big as."""
    if len(data) > MAX_BLOCK_BYTES:
        raise InvalidContent(f"a CID block of {len(data)} bytes exceeds {MAX_BLOCK_BYTES}")
    cid.verify(data)


__all__ = [
    "BLAKE3",
    "CBOR",
    "CODECS",
    "CODEC_NAMES",
    "DAG_CBOR",
    "DAG_JSON",
    "DAG_PB",
    "IDENTITY",
    "JSON",
    "LIBP2P_KEY",
    "MAX_BLOCK_BYTES",
    "MAX_CID_BYTES",
    "RAW",
    "SHA2_256",
    "Cid",
    "verify",
]

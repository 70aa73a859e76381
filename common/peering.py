"""What peers say to each other: who they are, who is near a key, who has what, what a name means now.

Peers ask by `POST /v1/peers/QUESTION`, msgpack both ways. Nothing that a peer says of others is believed unproven: addresses
are signed by whom they belong to, provider lists by the provider, names by the name's key, and content is hashed.
Distances are those of Kademlia in the key space of libp2p's kad-dht: SHA-256 of a peer id, of a CID's multihash.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec

from .codec import pack
from .errors import InvalidRequest
from .model import Struct
from .peerid import PEER_ID_BYTES, SIGNATURE_BYTES, Identity, require_signature

MAX_ADDRESSES = 8
MAX_CONTACTS = 32  # in one answer
MAX_PROVIDERS = 64  # in one answer
MAX_KEYS = 1_000  # in one announcement
MAX_MEMBERS = 256  # of a group that keeps pins together
PINS_OF_PAGE = 500
LEAVES_PROTOCOL = "twinfs-leaves"  # what a connection that brings chunks of a file is upgraded to
ANSWER_HEAD = ">BI"  # there: whether it failed, and how many bytes follow
MAX_REPLICAS = 64
MAX_NAME = 255
MAX_QUESTION_BYTES = 128 * 1024
MAX_ANSWER_BYTES = 512 * 1024

PeerIdBytes = Annotated[bytes, msgspec.Meta(min_length=PEER_ID_BYTES, max_length=PEER_ID_BYTES)]
Signature = Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
Target = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Hash = Annotated[bytes, msgspec.Meta(min_length=2, max_length=130)]  # a multihash
Address = Annotated[str, msgspec.Meta(min_length=3, max_length=255)]  # HOST:PORT
Nonce = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


class PeerRecord(Struct, frozen=True, kw_only=True):
    """Where a peer is reached by HTTP, in its own words. The one with the highest *sequence* counts (its wall time, ms)."""

    peer: PeerIdBytes
    addresses: Annotated[list[Address], msgspec.Meta(min_length=1, max_length=MAX_ADDRESSES)]
    sequence: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    signature: Signature = bytes(SIGNATURE_BYTES)


class FindPeers(Struct, frozen=True, kw_only=True):
    """Who is nearest to *target*, a point of the key space?"""

    target: Target
    sender: PeerRecord | None = None


class GetProviders(Struct, frozen=True, kw_only=True):
    """Who has the block with multihash *key*, and who is nearer to it?"""

    key: Hash
    sender: PeerRecord | None = None


class Announce(Struct, frozen=True, kw_only=True):
    """*sender* has the blocks with multihashes *keys*, until *expires_ms*. Signed by it, for the peer *to* alone."""

    sender: PeerRecord
    to: PeerIdBytes
    keys: Annotated[list[Hash], msgspec.Meta(min_length=1, max_length=MAX_KEYS)]
    expires_ms: int
    withdraw: bool = False
    signature: Signature = bytes(SIGNATURE_BYTES)


class GetName(Struct, frozen=True, kw_only=True):
    name: PeerIdBytes
    sender: PeerRecord | None = None


class PutName(Struct, frozen=True, kw_only=True):
    """An IPNS record; it proves itself."""

    name: PeerIdBytes
    record: Annotated[bytes, msgspec.Meta(max_length=10 * 1024)]


class SharedPin(Struct, frozen=True, kw_only=True):
    """What its owner says of a root: so many copies of its DAG, or (*replicas* 0) none any more. The newest word counts."""

    owner: PeerIdBytes
    cid: Annotated[bytes, msgspec.Meta(min_length=2, max_length=160)]
    replicas: Annotated[int, msgspec.Meta(ge=0, le=MAX_REPLICAS)]
    name: Annotated[str, msgspec.Meta(max_length=MAX_NAME)] = ""
    changed_ms: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    signature: Signature = bytes(SIGNATURE_BYTES)

    @property
    def key(self) -> tuple[bytes, bytes]:
        return self.owner, self.cid


class AskGroup(Struct, frozen=True, kw_only=True):
    """Who else is in your group, and which pins do you know? *digest*: of what the asker knows. *page*: from which pin on."""

    sender: PeerRecord
    digest: Target
    page: Annotated[int, msgspec.Meta(ge=0)] = 0


class AskRoots(Struct, frozen=True, kw_only=True):
    """Which of these DAGs do you have, whole?"""

    cids: Annotated[list[Hash], msgspec.Meta(min_length=1, max_length=MAX_KEYS)]
    sender: PeerRecord | None = None


class Greet(Struct, frozen=True, kw_only=True):
    """Prove that you are who your record says."""

    nonce: Nonce
    sender: PeerRecord | None = None


class Answer(Struct, frozen=True, kw_only=True):
    """To all questions. *nearer*: peers near the target or key. *proof*: of a Greet."""

    nearer: Annotated[list[PeerRecord], msgspec.Meta(max_length=MAX_CONTACTS)] = []
    providers: Annotated[list[PeerRecord], msgspec.Meta(max_length=MAX_PROVIDERS)] = []
    record: Annotated[bytes, msgspec.Meta(max_length=10 * 1024)] = b""
    me: PeerRecord | None = None
    proof: Signature | None = None
    stored: int = 0
    members: Annotated[list[PeerRecord], msgspec.Meta(max_length=MAX_MEMBERS)] = []
    pins: Annotated[list[SharedPin], msgspec.Meta(max_length=PINS_OF_PAGE)] = []
    more: bool = False  # there are pins after these
    digest: bytes = b""
    whole: Annotated[list[bool], msgspec.Meta(max_length=MAX_KEYS)] = []


Question = FindPeers | GetProviders | Announce | GetName | PutName | Greet | AskGroup | AskRoots
QUESTIONS: dict[str, type[Struct]] = {
    "find": FindPeers,
    "providers": GetProviders,
    "announce": Announce,
    "name": GetName,
    "put-name": PutName,
    "greet": Greet,
    "group": AskGroup,
    "roots": AskRoots,
}
NAME_OF = {kind: name for name, kind in QUESTIONS.items()}


# --- the key space ---


def point_of_peer(peer: bytes) -> bytes:
    return hashlib.sha256(peer).digest()


def point_of_key(multihash: bytes) -> bytes:
    return hashlib.sha256(multihash).digest()


def point_of_name(peer: bytes) -> bytes:
    return hashlib.sha256(b"/ipns/" + peer).digest()


# --- what is signed ---


def _record_message(record: PeerRecord) -> bytes:
    return b"twinfs-peer-record:" + pack([record.peer, record.addresses, record.sequence])


def sign_record(identity: Identity, addresses: list[str], sequence: int) -> PeerRecord:
    bare = PeerRecord(peer=identity.peer_id, addresses=addresses, sequence=sequence)
    return msgspec.structs.replace(bare, signature=identity.sign(_record_message(bare)))


def check_record(record: PeerRecord) -> None:
    """ChecksumMismatch, or InvalidRequest for addresses that are none."""
    for address in record.addresses:
        split_address(address)
    require_signature(
        record.peer, record.signature, _record_message(record), "the peer's addresses"
    )


def _announce_message(announce: Announce) -> bytes:
    return b"twinfs-announce:" + pack(
        [
            announce.sender.peer,
            announce.to,
            announce.keys,
            announce.expires_ms,
            announce.withdraw,
        ]
    )


def sign_announce(
    identity: Identity,
    sender: PeerRecord,
    to: bytes,
    keys: list[bytes],
    expires_ms: int,
    *,
    withdraw: bool = False,
) -> Announce:
    bare = Announce(sender=sender, to=to, keys=keys, expires_ms=expires_ms, withdraw=withdraw)
    return msgspec.structs.replace(bare, signature=identity.sign(_announce_message(bare)))


def check_announce(announce: Announce) -> None:
    """ChecksumMismatch. The sender's record is not checked here."""
    require_signature(
        announce.sender.peer, announce.signature, _announce_message(announce), "the announcement"
    )


def greeting(nonce: bytes) -> bytes:
    """What a greeted peer signs."""
    return b"twinfs-greet:" + nonce


def split_address(address: str) -> tuple[str, int]:
    """(host, port) of HOST:PORT. InvalidRequest."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidRequest(f"{address[:64]!r} is no address HOST:PORT")
    if not all(c.isalnum() or c in ".-_:%" for c in host):
        raise InvalidRequest(f"{address[:64]!r} is no address HOST:PORT")
    return host, int(port)


def _pin_message(pin: SharedPin) -> bytes:
    return b"twinfs-pin:" + pack([pin.owner, pin.cid, pin.replicas, pin.name, pin.changed_ms])


def sign_pin(
    identity: Identity, cid: bytes, replicas: int, *, name: str, changed_ms: int
) -> SharedPin:
    bare = SharedPin(
        owner=identity.peer_id, cid=cid, replicas=replicas, name=name, changed_ms=changed_ms
    )
    return msgspec.structs.replace(bare, signature=identity.sign(_pin_message(bare)))


def check_pin(pin: SharedPin) -> None:
    """ChecksumMismatch."""
    require_signature(pin.owner, pin.signature, _pin_message(pin), "the pin")


# --- where CID blocks lie on a DataNode, for those who read replicas ---


class FindPlaces(Struct, frozen=True, kw_only=True):
    """Which of these multihashes are here? `POST /v1/cids/find`."""

    keys: Annotated[list[Hash], msgspec.Meta(min_length=1, max_length=1024)]


class CidPlace(Struct, frozen=True, kw_only=True):
    """Bytes [offset, offset + length) of a replica."""

    block_id: int
    generation: int
    offset: int
    length: int


class FoundPlaces(Struct, frozen=True, kw_only=True):
    """One for each key; None: not here."""

    places: list[CidPlace | None]

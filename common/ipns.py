"""IPNS records: mutable names over CIDs, signed by the key that is the name. Pure: time is passed in.

Source: specs.ipfs.tech, ipns-record. A record is a protobuf; what counts is the dag-cbor in its field `data`, signed as a
whole (signature V2). The fields of version 1 are written for older software, and must agree where they are there.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from .errors import InvalidContent, InvalidRequest, Unsupported
from .ipld import dag_cbor, varint
from .peerid import Identity, require_signature

MAX_RECORD_BYTES = 10 * 1024
MAX_VALUE_BYTES = 2048
_V2_PREFIX = b"ipns-signature:"
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_FIELDS = {1: "value", 2: "signature1", 4: "validity", 7: "key", 8: "signature2", 9: "data"}
_NUMBERS = {3: "validity_type", 5: "sequence", 6: "ttl"}


class IpnsRecord(msgspec.Struct, frozen=True):
    """A record whose signature was checked. *value*: "/ipfs/CID/..." or "/ipns/NAME". *raw*: as it came."""

    peer_id: bytes
    value: str
    sequence: int
    expires_ms: int
    ttl_s: float
    raw: bytes

    @property
    def rank(self) -> tuple[int, int, bytes]:
        """The record of the highest rank is the one that counts, whoever saw it first."""
        return self.sequence, self.expires_ms, self.raw


def _rfc3339(time_ms: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time_ms % 1000:03}000000Z"


def _from_rfc3339(text: str) -> int:
    found = _TIME.fullmatch(text)
    if found is None:
        raise InvalidContent("the end of an IPNS record's validity is no time")
    try:
        moment = datetime.fromisoformat(found[1] + ("+00:00" if found[3] == "Z" else found[3]))
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidContent("the end of an IPNS record's validity is no time") from None
    return int(since.total_seconds()) * 1000 + int((found[2] or "0").ljust(9, "0")) // 1_000_000


def make_record(
    identity: Identity, value: str, sequence: int, *, expires_ms: int, ttl_s: float
) -> bytes:
    """A signed record. InvalidRequest for a value that is none."""
    check_value(value)
    if not 0 <= sequence < 1 << 63:
        raise InvalidRequest("the sequence number of a name is out of range")
    encoded, validity = value.encode(), _rfc3339(expires_ms).encode()
    ttl_ns = max(0, int(ttl_s * 1e9))
    data = dag_cbor.encode(
        {
            "Value": encoded,
            "Validity": validity,
            "ValidityType": 0,
            "Sequence": sequence,
            "TTL": ttl_ns,
        }
    )
    first = identity.sign(encoded + validity + b"EOL")
    second = identity.sign(_V2_PREFIX + data)
    parts = [
        _bytes_field(1, encoded),
        _bytes_field(2, first),
        b"\x18\x00",
        _bytes_field(4, validity),
        b"\x28" + varint.encode(sequence),
        b"\x30" + varint.encode(ttl_ns),
        _bytes_field(8, second),
        _bytes_field(9, data),
    ]
    return b"".join(parts)


def check_value(value: str) -> None:
    if not value.startswith(("/ipfs/", "/ipns/")) or len(value) > MAX_VALUE_BYTES:
        raise InvalidRequest("a name's value is a path that begins with /ipfs/ or /ipns/")
    if any(ord(c) < 32 for c in value):
        raise InvalidRequest("a name's value has control characters")


def _bytes_field(number: int, data: bytes) -> bytes:
    return varint.encode(number << 3 | 2) + varint.encode(len(data)) + data


def _fields(raw: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    at = 0
    while at < len(raw):
        key, at = varint.decode_loose(raw, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = varint.decode_loose(raw, at)
            if number in _NUMBERS:
                found[_NUMBERS[number]] = value
        elif wire == 2:
            length, at = varint.decode_loose(raw, at)
            if length > len(raw) - at:
                raise InvalidContent("an IPNS record is cut short")
            if number in _FIELDS:
                found[_FIELDS[number]] = raw[at : at + length]
            at += length
        else:
            raise InvalidContent("an IPNS record has a field of an unknown type")
    return found


def read_record(peer_id: bytes, raw: bytes) -> IpnsRecord:
    """The record of the name *peer_id*, its signature checked; not whether it has expired.

    Raises InvalidContent, ChecksumMismatch, Unsupported.
    """
    if len(raw) > MAX_RECORD_BYTES:
        raise InvalidContent(f"an IPNS record has at most {MAX_RECORD_BYTES} bytes")
    found = _fields(raw)
    data, signature = found.get("data"), found.get("signature2")
    if not data or not signature:
        raise InvalidContent("an IPNS record has no signature of version 2")
    require_signature(peer_id, signature, _V2_PREFIX + data, "the IPNS record")
    values = dag_cbor.decode(data)
    if not isinstance(values, dict):
        raise InvalidContent("the data of an IPNS record is no map")
    value, validity = values.get("Value"), values.get("Validity")
    kind, sequence, ttl_ns = (values.get(n) for n in ("ValidityType", "Sequence", "TTL"))
    if not isinstance(value, bytes) or not isinstance(validity, bytes):
        raise InvalidContent("an IPNS record has no value or no validity")
    if kind != 0:
        raise Unsupported("the IPNS record has a kind of validity that is not known")
    ttl_ns = 0 if ttl_ns is None else ttl_ns
    if not isinstance(sequence, int) or not _is_uint(sequence) or not _is_uint(ttl_ns):
        raise InvalidContent("an IPNS record has no sequence number")
    for name, wanted in (("value", value), ("validity", validity), ("sequence", sequence)):
        if name in found and found[name] != wanted:
            raise InvalidContent(f"an IPNS record says two things in its field {name}")
    try:
        text, end = value.decode(), validity.decode("ascii")
    except UnicodeDecodeError:
        raise InvalidContent("the value of an IPNS record is no text") from None
    return IpnsRecord(peer_id, text, sequence, _from_rfc3339(end), ttl_ns / 1e9, raw)


def _is_uint(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63

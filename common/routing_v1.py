"""Delegated routing, version 1: the JSON of peers, providers and names as other IPFS software asks for it. Pure.

Source: specs.ipfs.tech/routing/http-routing-v1.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import DfsError, InvalidContent
from .peering import split_address

NDJSON = "application/x-ndjson"
JSON = "application/json"
GATEWAY = "transport-ipfs-gateway-http"
MAX_RECORD_BYTES = 64 * 1024


def multiaddr(address: str) -> str:
    """`/ip4/127.0.0.1/tcp/9864/http` of HOST:PORT."""
    host, port = split_address(address)
    bare = host.partition("%")[0]
    try:
        kind = f"ip{ipaddress.ip_address(bare).version}"
    except ValueError:
        kind, bare = "dns", host
    return f"/{kind}/{bare}/tcp/{port}/http"


def address_of(text: str) -> tuple[str, bool] | None:
    """(HOST:PORT, whether by TLS) of a multiaddr that leads to HTTP; None for another."""
    parts = text.split("/")
    if len(parts) < 6 or parts[0] or parts[3] != "tcp" or not parts[4].isdigit():
        return None
    if parts[1] not in ("ip4", "ip6", "dns", "dns4", "dns6"):
        return None
    rest = [part for part in parts[5:] if part]
    if rest not in (["http"], ["https"], ["tls", "http"]):
        return None
    host = f"[{parts[2]}]" if parts[1] == "ip6" else parts[2]
    address = f"{host}:{parts[4]}"
    try:
        split_address(address)
    except DfsError:
        return None
    return address, rest != ["http"]


def peer_json(peer: str, addresses: Iterable[str]) -> dict[str, Any]:
    """A record of the schema "peer". *peer*: the text of its id; *addresses*: HOST:PORT."""
    return {
        "Schema": "peer",
        "ID": peer,
        "Addrs": [multiaddr(address) for address in addresses],
        "Protocols": [GATEWAY],
    }


def filtered(record: dict[str, Any], query: Mapping[str, str]) -> dict[str, Any] | None:
    """The record as *filter-addrs* and *filter-protocols* leave it; None if they leave nothing."""
    protocols = _terms(query.get("filter-protocols", ""))
    if protocols and not any(
        term in record["Protocols"] or (term == "unknown" and not record["Protocols"])
        for term in protocols
    ):
        return None
    terms = _terms(query.get("filter-addrs", ""))
    if not terms:
        return record
    wanted = [term for term in terms if not term.startswith("!")]
    unwanted = [term[1:] for term in terms if term.startswith("!")]

    def passes(address: str) -> bool:
        parts = address.split("/")
        if any(term in parts for term in unwanted):
            return False
        return not wanted or any(term in parts for term in wanted)

    addresses = [address for address in record["Addrs"] if passes(address)]
    if not addresses and not (not record["Addrs"] and "unknown" in wanted):
        return None
    return {**record, "Addrs": addresses}


def _terms(text: str) -> list[str]:
    return [term.strip().lower() for term in text[:1024].split(",") if term.strip()]


def wants_ndjson(accept: str) -> bool:
    """Whether the answer is to be streamed, a record a line."""
    return NDJSON in accept.lower()


def read_peer(line: bytes) -> tuple[str, list[str]] | None:
    """(peer id, base URLs) of one record, as another server gave it; None for one that leads to no gateway.

    InvalidContent if it is no JSON object.
    """
    if len(line) > MAX_RECORD_BYTES:
        raise InvalidContent("a routing record is too long")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise InvalidContent("a routing record is no JSON") from None
    return peer_of(record)


def peer_of(record: Any) -> tuple[str, list[str]] | None:
    """As `read_peer`, of what was parsed."""
    if not isinstance(record, dict) or record.get("Schema") not in ("peer", "bitswap"):
        return None
    peer, addresses = record.get("ID"), record.get("Addrs")
    if not isinstance(peer, str) or not isinstance(addresses, list):
        return None
    urls = []
    for text in addresses[:16]:
        found = address_of(text) if isinstance(text, str) else None
        if found is not None:
            urls.append(f"{'https' if found[1] else 'http'}://{found[0]}")
    return (peer, urls) if urls else None

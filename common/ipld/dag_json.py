"""dag-json: JSON in which {"/": CID} is a link and {"/": {"bytes": ...}} a byte string.

Source: ipld.io/specs/codecs/dag-json. Written with sorted keys and no spaces, so a value has one encoding.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any, NoReturn

from ..errors import InvalidContent
from .cid import MAX_BLOCK_BYTES, Cid
from .dag_pb import PBLink, PBNode

MAX_DEPTH = 128


def encode(value: Any) -> bytes:
    """The block of *value*; InvalidContent for what dag-json can't say."""
    return json.dumps(
        _plain(value, 0), ensure_ascii=False, separators=(",", ":"), sort_keys=True
    ).encode()


def _plain(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise InvalidContent(f"a value is nested more than {MAX_DEPTH} deep")
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidContent("a text is no Unicode") from None
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidContent("dag-json has no infinite and no undefined numbers")
        return value
    if isinstance(value, bytes):
        return {"/": {"bytes": base64.b64encode(value).decode().rstrip("=")}}
    if isinstance(value, Cid):
        return {"/": str(value)}
    if isinstance(value, list | tuple):
        return [_plain(entry, depth + 1) for entry in value]
    if isinstance(value, dict):
        if "/" in value:
            raise InvalidContent("dag-json keeps the key / for links and bytes")
        return {_key(key): _plain(entry, depth + 1) for key, entry in value.items()}
    raise InvalidContent(f"dag-json has no {type(value).__name__}")


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise InvalidContent("the keys of a map are texts")
    return key


def decode(block: bytes | bytearray | memoryview | str) -> Any:
    """The value of a block. InvalidContent if it is malformed."""
    if len(block) > MAX_BLOCK_BYTES:
        raise InvalidContent(f"a dag-json block of {len(block)} bytes exceeds {MAX_BLOCK_BYTES}")
    try:
        text = block if isinstance(block, str) else bytes(block).decode()
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse)
    except InvalidContent:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidContent(f"malformed dag-json: {error}") from None
    _plain(value, 0)  # bounds the depth, and the texts
    return value


def _refuse(name: str) -> NoReturn:
    raise InvalidContent(f"dag-json has no {name}")


def _object(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidContent("the keys of a map are repeated")
    if "/" not in found:
        return found
    if len(found) == 1:
        inner = found["/"]
        if isinstance(inner, str):
            return Cid.parse(inner)
        if isinstance(inner, dict) and len(inner) == 1 and isinstance(inner.get("bytes"), str):
            return _from_base64(inner["bytes"])
    raise InvalidContent("dag-json keeps the key / for links and bytes")


def _from_base64(text: str) -> bytes:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidContent("a byte string is no base64") from None
    if base64.b64encode(data).decode().rstrip("=") != text:
        raise InvalidContent("a byte string is not in the one form it has in dag-json")
    return data


def node_of(value: PBNode) -> dict[str, Any]:
    """A dag-pb node as the map that its data model is: Links, and Data where there is any."""
    found: dict[str, Any] = {"Links": [_link_of(link) for link in value.links]}
    if value.data is not None:
        found["Data"] = value.data
    return found


def _link_of(link: PBLink) -> dict[str, Any]:
    found: dict[str, Any] = {"Hash": link.cid}
    if link.name is not None:
        found["Name"] = link.name
    if link.tsize is not None:
        found["Tsize"] = link.tsize
    return found


def to_node(value: Any) -> PBNode:
    """The dag-pb node that a map stands for. InvalidContent if it stands for none."""
    if not isinstance(value, dict) or not set(value) <= {"Links", "Data"}:
        raise InvalidContent("a dag-pb node is a map of Links and Data")
    links, data = value.get("Links"), value.get("Data")
    if not isinstance(links, list) or not (data is None or isinstance(data, bytes)):
        raise InvalidContent("a dag-pb node has a list of Links, and bytes as Data")
    return PBNode([_to_link(link) for link in links], data)


def _to_link(value: Any) -> PBLink:
    if not isinstance(value, dict) or not set(value) <= {"Hash", "Name", "Tsize"}:
        raise InvalidContent("a dag-pb link is a map of Hash, Name and Tsize")
    cid, name, tsize = value.get("Hash"), value.get("Name"), value.get("Tsize")
    if not isinstance(cid, Cid) or not (name is None or isinstance(name, str)):
        raise InvalidContent("a dag-pb link has a link as Hash, and a text as Name")
    if tsize is not None and (
        not isinstance(tsize, int) or isinstance(tsize, bool) or not 0 <= tsize < 1 << 63
    ):
        raise InvalidContent("a dag-pb link has a size as Tsize")
    return PBLink(cid, name, tsize)

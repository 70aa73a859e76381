"""What a gateway request asks for: its form, the CAR's parameters, ranges, conditions. Pure.

Sources: specs.ipfs.tech, trustless-gateway and path-gateway.
"""

from __future__ import annotations

import enum
import re
import urllib.parse
from collections.abc import Mapping

import msgspec

from ...common.errors import InvalidCid, InvalidRequest
from ...common.ipld.cid import Cid

MAX_PATH_NAMES = 1_000
_BYTES = re.compile(r"(-?\d{1,19}):(\*|-?\d{1,19})")
_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")


class Form(enum.Enum):
    """What the answer is to be."""

    PLAIN = ""  # the file itself, or a page that lists the folder
    RAW = "raw"
    CAR = "car"
    TAR = "tar"
    DAG_JSON = "dag-json"
    DAG_CBOR = "dag-cbor"
    JSON = "json"
    CBOR = "cbor"
    RECORD = "ipns-record"


TYPES = {
    "application/vnd.ipld.raw": Form.RAW,
    "application/vnd.ipld.car": Form.CAR,
    "application/x-tar": Form.TAR,
    "application/vnd.ipld.dag-json": Form.DAG_JSON,
    "application/vnd.ipld.dag-cbor": Form.DAG_CBOR,
    "application/json": Form.JSON,
    "application/cbor": Form.CBOR,
    "application/vnd.ipfs.ipns-record": Form.RECORD,
}


class CarOptions(msgspec.Struct, frozen=True):
    """*first*, *last*: the entity's bytes, inclusive; last None: to its end; negative ones count from the end."""

    scope: str = "all"
    dups: bool = False
    first: int = 0
    last: int | None = None
    ranged: bool = False

    @property
    def tag(self) -> str:
        """Distinguishes the bodies of one root."""
        last = "*" if self.last is None else self.last
        entity = f"{self.first}-{last}" if self.ranged else ""
        return f"{self.scope}.{'y' if self.dups else 'n'}.{entity}"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    form: Form
    car: CarOptions = CarOptions()
    filename: str = ""
    download: bool = False
    negotiated: bool = False  # the form is the Accept header's, and the URL does not say it


def parse_form(query: Mapping[str, str], accept: str) -> Asked:
    """InvalidRequest for parameters that mean nothing. The query wins over the Accept header."""
    form = Form.PLAIN
    accepted: dict[str, str] = {}
    wanted = query.get("format", "")
    if wanted:
        try:
            form = Form(wanted)
        except ValueError:
            raise InvalidRequest(f"this gateway has no format {wanted[:40]!r}") from None
    for entry in accept[:4096].split(","):
        kind, _, rest = entry.partition(";")
        found = TYPES.get(kind.strip().lower())
        if found is None or (wanted and found != form):
            continue
        form = found
        for parameter in rest.split(";"):
            name, _, value = parameter.partition("=")
            accepted[name.strip().lower()] = value.strip().strip('"').lower()
        break
    car = _car_options(query, accepted) if form == Form.CAR else CarOptions()
    return Asked(
        form=form,
        car=car,
        filename=query.get("filename", "")[:255],
        download=query.get("download", "") == "true",
        negotiated=form != Form.PLAIN and not wanted,
    )


def location(raw_path: str, query: str, asked: Asked) -> str:
    """The URL that says by itself what was negotiated, for caches that know only URLs (Content-Location). *query*: as sent."""
    said = [entry for entry in query.split("&") if entry]
    said.append(f"format={asked.form.value}")
    if asked.form == Form.CAR:
        named = {entry.partition("=")[0] for entry in said}
        chosen = {"car-version": "1", "car-order": "dfs", "car-dups": "ny"[asked.car.dups]}
        said += [f"{name}={value}" for name, value in chosen.items() if name not in named]
    return f"{raw_path}?{'&'.join(said)}"


def is_page_wanted(accept: str) -> bool:
    """Whether a person's browser asks."""
    return "text/html" in accept[:4096].lower()


def _car_options(query: Mapping[str, str], accepted: Mapping[str, str]) -> CarOptions:
    version = query.get("car-version") or accepted.get("version") or "1"
    if version != "1":
        raise InvalidRequest(f"this gateway makes CARs of version 1, not {version[:20]!r}")
    order = query.get("car-order") or accepted.get("order") or "dfs"
    if order not in ("dfs", "unk"):
        raise InvalidRequest(f"there is no order {order[:20]!r} of a CAR")
    dups = query.get("car-dups") or accepted.get("dups") or "n"
    if dups not in ("y", "n"):
        raise InvalidRequest("dups of a CAR is y or n")
    scope = query.get("dag-scope", "all")
    if scope not in ("block", "entity", "all"):
        raise InvalidRequest("dag-scope is block, entity or all")
    if "entity-bytes" not in query:
        return CarOptions(scope, dups == "y")
    found = _BYTES.fullmatch(query["entity-bytes"])
    if found is None:
        raise InvalidRequest("entity-bytes is FROM:TO, with * as the end")
    first, last = int(found[1]), None if found[2] == "*" else int(found[2])
    if last is not None and (first < 0) == (last < 0) and last < first:
        raise InvalidRequest("entity-bytes ends before it begins")
    if dag_scope_given(query) and scope != "entity":
        raise InvalidRequest("entity-bytes means dag-scope=entity")
    return CarOptions("entity", dups == "y", first, last, True)


def dag_scope_given(query: Mapping[str, str]) -> bool:
    return "dag-scope" in query


def entity_range(options: CarOptions, size: int) -> tuple[int, int]:
    """[start, end) of a file of *size* bytes that *entity-bytes* means; empty where it lies outside."""
    first = options.first if options.first >= 0 else max(0, size + options.first)
    last = size - 1 if options.last is None else options.last
    if last < 0:
        last = size + last
    return min(first, size), max(min(first, size), min(last + 1, size))


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """[start, end) that a Range header means; None: the whole (no range, several, or malformed ones, as HTTP allows).

    Raises InvalidRange where nothing of it lies in the content.
    """
    found = _RANGE.fullmatch(header.replace(" ", ""))
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        length = int(found[2])
        if length == 0 or size == 0:
            raise OutsideRange(f"bytes */{size}")
        return max(0, size - length), size
    start = int(found[1])
    if found[2] and int(found[2]) < start:
        return None
    end = int(found[2]) + 1 if found[2] else size
    if start >= size:
        raise OutsideRange(f"bytes */{size}")
    return start, min(end, size)


class OutsideRange(Exception):
    """416: nothing of the range is in the content; the message is the Content-Range header."""


def matches(if_none_match: str, etag: str) -> bool:
    """Whether If-None-Match names *etag* (weakly compared)."""
    if if_none_match.strip() == "*":
        return True
    bare = etag.removeprefix("W/")
    return any(
        entry.strip().removeprefix("W/") == bare for entry in if_none_match[:8192].split(",")
    )


def parse_path(raw_path: str, prefix: str) -> tuple[str, list[str], bool]:
    """(root, names, ends in a slash) of the still escaped path after *prefix*. InvalidRequest for names no DAG has."""
    rest = raw_path[len(prefix) :]
    root, _, tail = rest.partition("/")
    try:
        names = [urllib.parse.unquote(name, errors="strict") for name in tail.split("/") if name]
        root = urllib.parse.unquote(root, errors="strict")
    except UnicodeDecodeError:
        raise InvalidRequest("the path is no UTF-8") from None
    if len(names) > MAX_PATH_NAMES:
        raise InvalidRequest("the path is too deep")
    if any(name in (".", "..") or "\0" in name for name in names):
        raise InvalidRequest("the path has names that no folder has")
    return root, names, rest.endswith("/")


def parse_cid(text: str) -> Cid:
    """InvalidCid with a message that fits in a page."""
    if len(text) > 512:
        raise InvalidCid("the CID is too long")
    return Cid.parse(text)


def escape(text: str) -> str:
    """For X-Ipfs-Path and Location: everything outside of what a path may have is escaped."""
    return urllib.parse.quote(text, safe="/!$&'()*+,;=:@-._~")


def disposition(kind: str, name: str) -> str:
    """A Content-Disposition header; names outside of ASCII as RFC 5987 has them."""
    plain = "".join(c if " " <= c <= "~" and c not in '"\\%/' else "_" for c in name)
    if plain == name:
        return f'{kind}; filename="{plain}"'
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{urllib.parse.quote(name, safe='')}"

"""Pins: what keeps content from being collected. Recursive ones hold a whole DAG, direct ones a single block."""

from __future__ import annotations

from ..common.content import (
    ListPins,
    Pin,
    PinAdd,
    PinPage,
    PinRemove,
    PinsRemoved,
)
from ..common.errors import (
    ContentNotFound,
    InvalidRequest,
    PermissionDenied,
    PinExists,
    PinNotFound,
)
from ..common.ipld import multihash
from ..common.ipld.cid import DAG_PB, SHA2_256, Cid
from ..common.model import INodeId
from .dags import Content, adopt, rows_of
from .permissions import Caller
from .store.base import NewEvent, Transaction

RECURSIVE, DIRECT = 1, 2
_KINDS = {"recursive": RECURSIVE, "direct": DIRECT}
_NAMES = {RECURSIVE: "recursive", DIRECT: "direct"}


def _row(tx: Transaction, key: bytes) -> Content:
    row = rows_of(tx, [key]).get(key)
    if row is None:
        raise ContentNotFound(
            "the cluster does not hold this CID as content; add or fetch it first"
        )
    return row


def add(tx: Transaction, caller: Caller, request: PinAdd, *, now_ms: int) -> Pin:
    """Pin what is held. A recursive pin needs all that is below: ContentNotFound otherwise. The same pin again: PinExists."""
    if request.version == 0 and not _fits_v0(request):
        raise InvalidRequest("only a sha2-256 dag-pb CID can be of version 0")
    row = _row(tx, request.multihash)
    kind = _KINDS[request.kind]
    if tx.one(
        "SELECT 1 FROM pins WHERE content_id = ? AND kind = ? AND name = ?",
        (row.content_id, kind, request.name),
    ):
        raise PinExists("this CID is pinned so already")
    if kind == RECURSIVE and not row.complete and not adopt(tx, row):
        raise ContentNotFound("not all that is below this CID is held; add or fetch it first")
    tx.execute(
        "INSERT INTO pins (content_id, kind, name, codec, version, owner, pinned_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            row.content_id,
            kind,
            request.name,
            request.codec,
            request.version,
            caller.user,
            now_ms,
        ),
    )
    column = "refs" if kind == RECURSIVE else "direct"
    tx.execute(
        f"UPDATE contents SET {column} = {column} + 1 WHERE content_id = ?", (row.content_id,)
    )
    pin = _pin(
        row.multihash, request.codec, request.version, kind, request.name, caller.user, now_ms
    )
    _tell(tx, now_ms, "pin", pin, caller)
    return pin


def _fits_v0(request: PinAdd) -> bool:
    return request.codec == DAG_PB and multihash.split(request.multihash)[0] == SHA2_256


def remove(tx: Transaction, caller: Caller, request: PinRemove, *, now_ms: int) -> PinsRemoved:
    """Take pins off. PinNotFound if there is none that fits, PermissionDenied for another's."""
    row = rows_of(tx, [request.multihash]).get(request.multihash)
    where, params = "content_id = ?", [row.content_id if row is not None else -1]
    if request.kind is not None:
        where, params = f"{where} AND kind = ?", [*params, _KINDS[request.kind]]
    found = [
        entry
        for entry in tx.all(
            f"SELECT kind, name, owner, codec, version, pinned_ms FROM pins WHERE {where}", params
        )
        if request.name is None or entry[1] == request.name
    ]
    if row is None or not found:
        raise PinNotFound("no such pin")
    own = [entry for entry in found if caller.superuser or entry[2] == caller.user]
    if not own:
        raise PermissionDenied(f"the pin belongs to {found[0][2]}")
    for kind, name, _, codec, version, _ in own:
        tx.execute(
            "DELETE FROM pins WHERE content_id = ? AND kind = ? AND name = ?",
            (row.content_id, kind, name),
        )
        column = "refs" if kind == RECURSIVE else "direct"
        tx.execute(
            f"UPDATE contents SET {column} = {column} - 1 WHERE content_id = ?", (row.content_id,)
        )
        pin = _pin(row.multihash, codec, version, kind, name, caller.user, now_ms)
        _tell(tx, now_ms, "unpin", pin, caller)
    return PinsRemoved(count=len(own))


def _pin(
    key: bytes, codec: int, version: int, kind: int, name: str, owner: str, pinned_ms: int
) -> Pin:
    return Pin(
        cid=bytes(Cid(version, codec, key)),
        kind=_NAMES[kind],  # type: ignore[arg-type]
        name=name,
        owner=owner,
        pinned_ms=pinned_ms,
    )


def _tell(tx: Transaction, now_ms: int, kind: str, pin: Pin, caller: Caller) -> None:
    cid = str(Cid.from_bytes(pin.cid))
    tx.emit(NewEvent(now_ms, kind, f"/ipfs/{cid}", caller.user, INodeId(0)))


def listed(tx: Transaction, caller: Caller, request: ListPins) -> PinPage:
    """Pins in the order of content, kind and name."""
    after: tuple[int, int, str] = (-1, 0, "")
    if request.after:
        number, _, rest = request.after.partition("/")
        kind, _, name = rest.partition("/")
        if not number.isdecimal() or not kind.isdecimal() or len(number) > 18 or len(kind) > 4:
            raise InvalidRequest("the page does not begin where a page can begin")
        after = (int(number), int(kind), name)
    where, params = "", list[object]()
    if request.kind is not None:
        where, params = " AND p.kind = ?", [_KINDS[request.kind]]
    if request.name is not None:
        where, params = f"{where} AND p.name = ?", [*params, request.name]
    if request.multihash is not None:
        where, params = f"{where} AND c.multihash = ?", [*params, request.multihash]
    rows = tx.all(
        "SELECT p.content_id, p.kind, p.name, p.codec, p.version, p.owner, p.pinned_ms, c.multihash"
        " FROM pins p JOIN contents c ON c.content_id = p.content_id WHERE"
        " (p.content_id > ? OR (p.content_id = ? AND (p.kind > ? OR (p.kind = ? AND p.name > ?))))"
        f"{where} ORDER BY p.content_id, p.kind, p.name LIMIT ?",
        (after[0], after[0], after[1], after[1], after[2], *params, request.limit + 1),
    )
    more = len(rows) > request.limit
    del rows[request.limit :]
    found = [_pin(bytes(r[7]), r[3], r[4], r[1], r[2], r[5], r[6]) for r in rows]
    last = rows[-1] if more else None
    return PinPage(pins=found, next_after=f"{last[0]}/{last[1]}/{last[2]}" if last else "")

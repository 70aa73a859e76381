"""Mutable names of this peer: its keys, publishing and resolving, and handing records on until they are over."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from pathlib import Path

from ...common.errors import (
    ContentNotFound,
    DfsError,
    InvalidRequest,
    StoreDamaged,
    TimedOut,
)
from ...common.ipld.cid import Cid
from ...common.ipns import IpnsRecord, check_value, make_record, read_record
from ...common.peerid import KEY_BYTES, Identity, name_of, parse
from ...common.runtime import Clock
from ..gateway.asked import parse_cid
from ..volumes import storage_error
from .node import PeerNode
from .partial import write_file

log = logging.getLogger(__name__)
SELF = "self"
KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_KEYS = 1_000
MAX_STEPS = 8  # names that lead to names
DEFAULT_LIFETIME_S = 48 * 3600.0
DEFAULT_TTL_S = 300.0
MAX_CACHED_S = 300


def load_identity(path: Path) -> Identity:
    """The key in *path*, made when there is none. Only this account may read it."""
    try:
        if not path.exists():
            write_file(path, os.urandom(KEY_BYTES))
        seed = path.read_bytes()
    except OSError as error:
        raise storage_error(error, f"the key {path} can't be used") from None
    if len(seed) != KEY_BYTES:
        raise StoreDamaged(f"{path} is no key")
    return Identity(seed)


class Names:
    """What this peer publishes, and what it can resolve."""

    def __init__(self, folder: Path, node: PeerNode, clock: Clock) -> None:
        self._folder = folder
        self._node = node
        self._clock = clock

    def keys(self) -> dict[str, Identity]:
        """Own keys by what they are called here. Blocks."""
        found = {SELF: self._node.identity}
        for path in sorted((self._folder / "keys").glob("*.key"))[:MAX_KEYS]:
            found[path.stem] = load_identity(path)
        return found

    def _key(self, called: str) -> Identity:
        if called == SELF:
            return self._node.identity
        if not KEY_NAME.fullmatch(called):
            raise InvalidRequest(f"{called[:64]!r} is no name for a key")
        (self._folder / "keys").mkdir(mode=0o700, exist_ok=True)
        return load_identity(self._folder / "keys" / f"{called}.key")

    def _record_file(self, name: bytes) -> Path:
        return self._folder / "names" / name_of(name)

    def load(self) -> None:
        """Offer what was published in an earlier life of this process. Blocks."""
        for path in sorted((self._folder / "names").glob("k*"))[:MAX_KEYS]:
            try:
                record = read_record(parse(path.name), path.read_bytes())
            except (DfsError, OSError) as error:
                log.warning("the record %s can't be used: %s", path, error)
                continue
            self._node.names.offer(record, self._clock.wall_ms())

    def _sign(
        self, called: str, value: str, sequence: int, lifetime_s: float, ttl_s: float
    ) -> IpnsRecord:
        key = self._key(called)
        path = self._record_file(key.peer_id)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if path.exists():
            sequence = max(sequence, read_record(key.peer_id, path.read_bytes()).sequence + 1)
        expires_ms = self._clock.wall_ms() + int(lifetime_s * 1000)
        raw = make_record(key, value, sequence, expires_ms=expires_ms, ttl_s=ttl_s)
        write_file(path, raw)
        return read_record(key.peer_id, raw)

    async def publish(
        self,
        value: str,
        *,
        key: str = SELF,
        lifetime_s: float = DEFAULT_LIFETIME_S,
        ttl_s: float = DEFAULT_TTL_S,
    ) -> tuple[IpnsRecord, int]:
        """A new record of one of our names, kept here and handed out; (record, how many peers took it).

        Its number is higher than any that can be found, so that it counts also where another device published before.
        """
        check_value(value)
        if value.startswith("/ipfs/"):
            parse_cid(value.split("/")[2])
        else:
            parse(value.split("/")[2])
        if not 60 <= lifetime_s <= 10 * 365 * 86_400 or not 0 <= ttl_s <= lifetime_s:
            raise InvalidRequest("a name's lifetime is a minute to ten years, its TTL within that")
        identity = await asyncio.to_thread(self._key, key)
        try:
            newest = (await self._node.resolve_name(identity.peer_id)).sequence + 1
        except ContentNotFound:
            newest = 0
        record = await asyncio.to_thread(self._sign, key, value, newest, lifetime_s, ttl_s)
        return record, await self._node.publish_name(record.raw, record.peer_id)

    async def accept(self, name: bytes, raw: bytes) -> IpnsRecord:
        """A record that somebody hands in; it proves itself."""
        record = read_record(name, raw)
        if record.expires_ms <= self._clock.wall_ms():
            raise InvalidRequest("the record has expired")
        await self._node.publish_name(raw, name)
        return record

    async def resolve(self, text: str) -> tuple[Cid, list[str], int, bytes]:
        """(root, path below it, seconds it holds, the first record) of a name, followed through names. ContentNotFound."""
        first: bytes | None = None
        holds_s = float(MAX_CACHED_S)
        path: list[str] = []
        for _ in range(MAX_STEPS):
            record = await self._node.resolve_name(parse(text))
            first = record.raw if first is None else first
            left_s = (record.expires_ms - self._clock.wall_ms()) / 1000
            holds_s = max(0.0, min(holds_s, record.ttl_s, left_s))
            parts = [part for part in record.value.split("/") if part]
            path = parts[2:] + path
            if len(parts) < 2:
                raise InvalidRequest("the name's record leads nowhere")
            if parts[0] == "ipfs":
                return parse_cid(parts[1]), path, int(holds_s), first
            text = parts[1]
        raise TimedOut("the name leads from name to name")

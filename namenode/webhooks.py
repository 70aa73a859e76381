"""Webhooks: events POSTed to a URL, signed.

The body is a JSON object {"webhook", "cluster", "events": [...]}. The header X-TwinFS-Signature is `t=MS,v1=HEX`: HMAC-SHA256 with the
webhook's secret over "MS." and the body, MS being when it was sent. An answer of 2xx takes all events of the body; anything else,
a redirect included, takes none. 4xx (but 408, 409, 425, 429) says that sending the same again is useless.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import urllib.parse
from collections.abc import Sequence
from typing import Final

import aiohttp
import msgspec

from ..common.codec import from_json
from ..common.errors import InvalidRequest, PermissionDenied
from ..common.follow import (
    MAX_WEBHOOKS,
    AddWebhook,
    DeadLetter,
    DeadLetters,
    GetDeadLetters,
    PauseWebhook,
    Settled,
    SettleDeadLetters,
    Webhook,
    WebhookName,
)
from ..common.model import Event, Struct
from ..common.runtime import Clock
from . import events
from .groups import committed_offset, set_offset
from .permissions import Caller
from .push import Refused
from .store.base import MetadataStore, Row, Transaction
from .tail import Entry

log = logging.getLogger(__name__)
TIMEOUT_S: Final = 10.0
MAX_DEAD: Final = 100_000  # dead letters of one webhook; the oldest make room
WORTH_TRYING: Final = frozenset({408, 409, 425, 429})
COLUMNS: Final = "name, url, secret, path_prefix, kinds, paused, failures, last_error, created_ms"


class Hook(Struct, frozen=True, kw_only=True):
    """A row of the table."""

    name: str
    url: str
    secret: str
    path_prefix: str
    kinds: list[str]
    paused: bool
    failures: int
    last_error: str
    created_ms: int

    @property
    def group(self) -> str:
        return group_of(self.name)


def group_of(name: str) -> str:
    return f"webhook:{name}"


def _hook(row: Row) -> Hook:
    return Hook(
        name=row[0],
        url=row[1],
        secret=row[2],
        path_prefix=row[3],
        kinds=json.loads(row[4]),
        paused=bool(row[5]),
        failures=row[6],
        last_error=row[7],
        created_ms=row[8],
    )


def sign(secret: str, sent_ms: int, body: bytes) -> str:
    """The header's value."""
    mac = hmac.new(secret.encode(), f"{sent_ms}.".encode() + body, hashlib.sha256)
    return f"t={sent_ms},v1={mac.hexdigest()}"


class HttpTarget:
    """The other side of a webhook."""

    def __init__(
        self, hook: Hook, cluster_id: str, clock: Clock, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._hook = hook
        self._cluster_id = cluster_id
        self._clock = clock
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, entries: Sequence[Entry]) -> None:
        head = json.dumps({"webhook": self._hook.name, "cluster": self._cluster_id})[:-1]
        body = f'{head}, "events": ['.encode() + b",".join(e.encoded for e in entries) + b"]}"
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar()
            )
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "TwinFS",
            "X-TwinFS-Webhook": self._hook.name,
            "X-TwinFS-Signature": sign(self._hook.secret, self._clock.wall_ms(), body),
        }
        try:
            async with self._session.post(
                self._hook.url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
        except TimeoutError:
            raise Refused(f"no answer within {self._timeout.total:.0f} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Refused(f"{type(error).__name__}: {str(error)[:200]}") from None
        if not 200 <= status < 300:
            poison = 400 <= status < 500 and status not in WORTH_TRYING
            raise Refused(f"it answered {status}", poison=poison)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


class HookLetters:
    """The dead-letter list of one webhook, and the note of how it does."""

    def __init__(self, name: str, store: MetadataStore, clock: Clock) -> None:
        self._name = name
        self._store = store
        self._clock = clock

    async def bury(self, entry: Entry, attempts: int, reason: str) -> None:
        name, now_ms = self._name, self._clock.wall_ms()

        def work(tx: Transaction) -> None:
            tx.execute(
                "INSERT INTO dead_letters (webhook, event_offset, attempts, failed_ms, error, event,"
                " retry) VALUES (?, ?, ?, ?, ?, ?, 0) ON CONFLICT (webhook, event_offset) DO UPDATE"
                " SET attempts = dead_letters.attempts + excluded.attempts, retry = 0,"
                " failed_ms = excluded.failed_ms, error = excluded.error",
                (name, entry.event.offset, attempts, now_ms, reason[:500], entry.encoded),
            )
            tx.execute(
                "DELETE FROM dead_letters WHERE webhook = ? AND event_offset <="
                " (SELECT event_offset FROM dead_letters WHERE webhook = ?"
                "  ORDER BY event_offset DESC LIMIT 1 OFFSET ?)",
                (name, name, MAX_DEAD),
            )

        await self._store.run(work)

    async def noted(self, failures: int, reason: str) -> None:
        name = self._name
        await self._store.run(
            lambda tx: tx.execute(
                "UPDATE webhooks SET failures = ?, last_error = ? WHERE name = ?",
                (failures, reason[:500], name),
            )
        )


# --- operations --------------------------------------------------------------------------------------


def _require_superuser(caller: Caller) -> None:
    # Events tell of everybody's files, and a POST reaches what only the NameNode may.
    if not caller.superuser:
        raise PermissionDenied("webhooks are for superusers")


def add(tx: Transaction, caller: Caller, request: AddWebhook, *, now_ms: int) -> None:
    _require_superuser(caller)
    try:
        parts = urllib.parse.urlsplit(request.url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not request.url.isprintable() or " " in request.url:
        raise InvalidRequest("the URL must be http://HOST/... or https://HOST/...")
    if parts.username or parts.password:
        raise InvalidRequest(
            "the URL must not have a password in it: the signature is what authenticates"
        )
    row = tx.one("SELECT COUNT(*) FROM webhooks WHERE name <> ?", (request.name,))
    if row is not None and row[0] >= MAX_WEBHOOKS:
        raise InvalidRequest(f"there are {MAX_WEBHOOKS} webhooks already")
    _, last = events.ends(tx)
    if request.after is not None and request.after > last:
        raise InvalidRequest(f"there is no event {request.after} yet: the last one is {last}")
    known = tx.one("SELECT created_ms FROM webhooks WHERE name = ?", (request.name,))
    tx.execute(
        f"INSERT INTO webhooks ({COLUMNS}) VALUES (?, ?, ?, ?, ?, 0, 0, '', ?)"
        " ON CONFLICT (name) DO UPDATE SET url = excluded.url, secret = excluded.secret,"
        " path_prefix = excluded.path_prefix, kinds = excluded.kinds, paused = 0, failures = 0,"
        " last_error = '', created_ms = excluded.created_ms",
        (
            request.name,
            request.url,
            request.secret,
            request.path_prefix.rstrip("/"),
            json.dumps(request.kinds),
            # The loop that delivers is made anew when this changes.
            now_ms if known is None else max(now_ms, known[0] + 1),
        ),
    )
    if known is None or request.after is not None:
        start = last if request.after is None else request.after
        set_offset(tx, group_of(request.name), start, now_ms)


def _existing(tx: Transaction, name: str) -> Hook:
    row = tx.one(f"SELECT {COLUMNS} FROM webhooks WHERE name = ?", (name,))
    if row is None:
        raise InvalidRequest(f"there is no webhook {name!r}")
    return _hook(row)


def delete(tx: Transaction, caller: Caller, request: WebhookName, *, now_ms: int) -> None:
    _require_superuser(caller)
    _existing(tx, request.name)
    tx.execute("DELETE FROM webhooks WHERE name = ?", (request.name,))
    tx.execute("DELETE FROM dead_letters WHERE webhook = ?", (request.name,))
    tx.execute("DELETE FROM event_groups WHERE name = ?", (group_of(request.name),))


def pause(tx: Transaction, caller: Caller, request: PauseWebhook, *, now_ms: int) -> None:
    _require_superuser(caller)
    _existing(tx, request.name)
    tx.execute("UPDATE webhooks SET paused = ? WHERE name = ?", (int(request.paused), request.name))


def settle(tx: Transaction, caller: Caller, request: SettleDeadLetters, *, now_ms: int) -> Settled:
    _require_superuser(caller)
    _existing(tx, request.name)
    if request.action == "drop":
        count = tx.execute("DELETE FROM dead_letters WHERE webhook = ?", (request.name,))
    else:
        count = tx.execute("UPDATE dead_letters SET retry = 1 WHERE webhook = ?", (request.name,))
    return Settled(count=count)


def all_hooks(tx: Transaction) -> list[Hook]:
    return [_hook(row) for row in tx.all(f"SELECT {COLUMNS} FROM webhooks ORDER BY name")]


def list_hooks(tx: Transaction, last: int) -> list[Webhook]:
    dead = {
        row[0]: row[1]
        for row in tx.all("SELECT webhook, COUNT(*) FROM dead_letters GROUP BY webhook")
    }
    found = []
    for hook in all_hooks(tx):
        offset = committed_offset(tx, hook.group)
        found.append(
            Webhook(
                name=hook.name,
                url=hook.url,
                path_prefix=hook.path_prefix,
                kinds=hook.kinds,
                paused=hook.paused,
                offset=offset,
                lag=max(0, last - offset),
                dead=dead.get(hook.name, 0),
                failures=hook.failures,
                last_error=hook.last_error,
                created_ms=hook.created_ms,
            )
        )
    return found


def dead_letters(tx: Transaction, request: GetDeadLetters) -> DeadLetters:
    _existing(tx, request.name)
    rows = tx.all(
        "SELECT event, attempts, failed_ms, error FROM dead_letters WHERE webhook = ?"
        " AND event_offset > ? ORDER BY event_offset LIMIT ?",
        (request.name, request.after, request.limit),
    )
    return DeadLetters(
        letters=[
            DeadLetter(
                event=from_json(bytes(row[0]), Event),
                attempts=row[1],
                failed_ms=row[2],
                error=row[3],
            )
            for row in rows
        ]
    )


def to_retry(tx: Transaction, name: str, limit: int) -> list[Entry]:
    """Dead letters that are to be sent once more, oldest first."""
    rows = tx.all(
        "SELECT event FROM dead_letters WHERE webhook = ? AND retry = 1"
        " ORDER BY event_offset LIMIT ?",
        (name, limit),
    )
    return [Entry(msgspec.json.decode(row[0], type=Event), bytes(row[0])) for row in rows]


def settled(tx: Transaction, name: str, offset: int) -> None:
    """A dead letter was taken after all."""
    tx.execute("DELETE FROM dead_letters WHERE webhook = ? AND event_offset = ?", (name, offset))

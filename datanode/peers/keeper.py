"""Keeps the pins that peers share: learns of them, fetches what falls to this peer, lets go of what others hold."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from ...common.errors import DfsError, PinNotFound, QuotaExceeded
from ...common.ipld.cid import Cid
from ...common.peering import (
    MAX_KEYS,
    MAX_MEMBERS,
    PINS_OF_PAGE,
    Answer,
    AskGroup,
    AskRoots,
    PeerRecord,
    SharedPin,
    check_pin,
    sign_pin,
)
from ...common.runtime import Clock
from .collector import Root
from .fetching import Fetcher
from .group import Group
from .journal import Journal, LocalPin
from .node import PeerNode
from .routing import contact_of

log = logging.getLogger(__name__)
FORGET_SILENT_S = 24 * 3600.0
MAX_PAGES = 500
FETCHES = 2  # at a time
Run = Callable[..., Awaitable[object]]


class Keeper:
    """The shared and the own pins of one peer."""

    def __init__(
        self,
        node: PeerNode,
        fetcher: Fetcher,
        journal: Journal,
        *,
        clock: Clock,
        run: Callable[..., Awaitable[None]],
        dead_after_s: float,
        accept: bool,
        quota_bytes: int,
    ) -> None:
        """*run* runs a blocking call in a thread."""
        self.group = Group(node.me, dead_after_s=dead_after_s)
        self.held: dict[bytes, int] = journal.held()
        self.own: dict[tuple[bytes, str, str], LocalPin] = {p.key: p for p in journal.pins()}
        # Told of every new pin before it is acknowledged, so that a collection that goes on spares it.
        self.protect: Callable[[Root], Awaitable[None]] = _nobody_collects
        self.moved_bytes = 0  # fetched because a pin fell to this peer
        for pin in journal.shared():
            self.group.learn(pin)
        self._node = node
        self._fetcher = fetcher
        self._journal = journal
        self._clock = clock
        self._run = run
        self._period_s = dead_after_s / 4
        self._accept = accept
        self._quota_bytes = quota_bytes
        self._asking: dict[bytes, asyncio.Task[None]] = {}
        self._tried: dict[bytes, float] = {}
        self._wake = asyncio.Event()
        self._newcomers: list[PeerRecord] = []  # who said so; they are asked before they count

    # --- answering ---

    async def answer(self, question: AskGroup | AskRoots) -> Answer:
        if isinstance(question, AskRoots):
            return Answer(whole=[self.has_whole(cid) for cid in question.cids])
        self._node.check(question.sender)
        if self.group.meet(question.sender):
            self._newcomers.append(question.sender)
            self._wake.set()
        members = [self.group.me, *self.group.members()][:MAX_MEMBERS]
        if question.digest == self.group.digest():
            return Answer(members=members, digest=self.group.digest())
        pins = self.group.all_pins()[question.page : question.page + PINS_OF_PAGE]
        more = question.page + PINS_OF_PAGE < len(self.group.all_pins())
        return Answer(members=members, pins=pins, more=more, digest=self.group.digest())

    def has_whole(self, cid: bytes) -> bool:
        return cid in self.held or any(
            pin.cid == cid and pin.kind == "recursive" for pin in self.own.values()
        )

    def own_roots(self) -> set[bytes]:
        """What this peer's own pins are of."""
        return {pin.cid for pin in self.own.values()}

    async def roots(self) -> AsyncIterator[Root]:
        """All that collections must spare: own pins, what is held for the group, and what the group wants and may not have yet."""
        for pin in list(self.own.values()):
            yield Root(Cid.from_bytes(pin.cid), deep=pin.kind == "recursive")
        for cid in list(self.held):
            yield Root(Cid.from_bytes(cid))
        shared = {pin.cid for pin in self.group.pins()} - set(self.held)
        here = [cid for cid in sorted(shared) if await self._fetcher.has(Cid.from_bytes(cid))]
        for start in range(0, len(here), MAX_KEYS):
            for cid in sorted(await self._unsure(here[start : start + MAX_KEYS])):
                yield Root(Cid.from_bytes(cid), whole=False)

    # --- pinning ---

    async def pin(self, cid: Cid, *, kind: str, name: str, here: bool = False) -> None:
        """Keep a DAG (or one block) on this peer: fetched if it is not *here*, durable when this returns."""
        with self._fetcher.claims.adding():
            if here:
                pass
            elif kind == "recursive":
                await self._fetcher.fetch(cid)
            else:
                await self._fetcher.fetch_block(cid)
            pin = LocalPin(bytes(cid), kind, name, self._clock.wall_ms())
            await self._run(self._journal.pin, pin)
            self.own[pin.key] = pin
        await self.protect(Root(cid, deep=kind == "recursive", whole=False))
        await self._provide(bytes(cid))

    async def pin_shared(self, cid: Cid, replicas: int, *, name: str) -> list[bytes]:
        """Have the group keep *replicas* copies; the peers that they fall to now."""
        raw = bytes(cid)
        pin = sign_pin(
            self._node.identity, raw, replicas, name=name, changed_ms=self._clock.wall_ms()
        )
        self.group.learn(pin)
        await self._run(self._journal.share, [pin])
        await self.protect(Root(cid, whole=False))
        self._wake.set()
        return self.group.holders_of(raw, replicas, self._clock.monotonic_s())

    async def unpin(self, cid: Cid, *, kind: str = "", name: str | None = None) -> int:
        """Neither this peer nor, on this peer's word, the group keeps it; with *kind* and *name*, of pins like that alone.

        How many pins were removed. PinNotFound.
        """
        raw = bytes(cid)
        own = [
            pin
            for pin in self.own.values()
            if pin.cid == raw and kind in ("", pin.kind) and name in (None, pin.name)
        ]
        shared = [
            pin
            for pin in self.group.pins()
            if pin.cid == raw and pin.owner == self._node.identity.peer_id
            if kind in ("", "recursive") and name in (None, pin.name)
        ]
        if not own and not shared:
            raise PinNotFound(f"{cid} is not pinned by this peer")
        if own:
            await self._run(self._journal.unpin, own)
        for local in own:
            self.own.pop(local.key, None)
        for pin in shared:
            gone = sign_pin(
                self._node.identity,
                raw,
                0,
                name=pin.name,
                changed_ms=max(self._clock.wall_ms(), pin.changed_ms + 1),
            )
            self.group.learn(gone)
            await self._run(self._journal.share, [gone])
        self._wake.set()
        return len(own) + len(shared)

    async def _provide(self, raw: bytes) -> None:
        await self._node.provide([Cid.from_bytes(raw).multihash])

    # --- the loop ---

    async def run(self) -> None:
        """For ever."""
        due_s = self._clock.monotonic_s()
        try:
            while True:
                newcomers, self._newcomers = self._newcomers, []
                try:
                    if newcomers and self._clock.monotonic_s() < due_s:
                        await self._ask_all(newcomers)
                    else:
                        due_s = self._clock.monotonic_s() + self._period_s
                        await self.look_around()
                    await self.settle()
                except DfsError as error:
                    log.warning("keeping shared pins: %s", error.message)
                self._wake.clear()
                try:
                    async with asyncio.timeout(self._period_s):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            for task in self._asking.values():
                task.cancel()
            await asyncio.gather(*self._asking.values(), return_exceptions=True)

    async def look_around(self) -> None:
        """Ask every member whether it is there and what it knows."""
        for contact in self._node.table.contacts():
            self.group.meet(contact.record)
        await self._ask_all(self.group.members())
        self.group.forget_silent(self._clock.monotonic_s(), FORGET_SILENT_S)
        self.group.forget_removed(self._clock.wall_ms())

    async def _ask_all(self, records: Sequence[PeerRecord]) -> None:
        asked = await asyncio.gather(*map(self._ask, records), return_exceptions=True)
        for result in asked:
            if isinstance(result, BaseException) and not isinstance(result, DfsError):
                raise result

    async def _ask(self, record: PeerRecord) -> None:
        contact = contact_of(record)
        news: list[SharedPin] = []
        for page in range(MAX_PAGES):
            question = AskGroup(
                sender=self._node.me, digest=self.group.digest(), page=page * PINS_OF_PAGE
            )
            answer = await self._node.ask(contact, question)
            self.group.heard(record, self._clock.monotonic_s())
            for member in answer.members:
                try:
                    self._node.check(member)
                except DfsError:
                    continue
                self.group.meet(member)
            for pin in answer.pins:
                check_pin(pin)
                if pin.changed_ms <= self._clock.wall_ms() + 3_600_000 and self.group.learn(pin):
                    news.append(pin)
            if not answer.more:
                break
        if news:
            await self._run(self._journal.share, news)
        for pin in news:
            if pin.replicas:
                await self.protect(Root(Cid.from_bytes(pin.cid), whole=False))

    async def settle(self) -> None:
        """Begin to fetch what is ours, and let go of what is not."""
        now_s = self._clock.monotonic_s()
        mine = self.group.mine(now_s)
        for cid in sorted(mine - set(self.held) - set(self._asking)):
            if len(self._asking) >= FETCHES:
                break
            if not self._accept and not self._is_own(cid):
                continue
            if now_s < self._tried.get(cid, 0.0):
                continue
            task = asyncio.create_task(self._take(cid), name="shared pin")
            self._asking[cid] = task
            task.add_done_callback(functools.partial(self._taken, cid))
        await self._let_go(mine)

    def _is_own(self, cid: bytes) -> bool:
        return (self._node.identity.peer_id, cid) in {pin.key for pin in self.group.pins()}

    async def _take(self, cid: bytes) -> None:
        left = self._quota_bytes - sum(self.held.values())
        if left <= 0:
            raise QuotaExceeded("this peer holds as much of others' pins as it may")
        root = Cid.from_bytes(cid)
        with self._fetcher.claims.adding():
            progress = await self._fetcher.fetch(root, max_bytes=left)
            self.moved_bytes += progress.size_bytes
            await self._run(self._journal.hold, cid, progress.size_bytes)
            self.held[cid] = progress.size_bytes
        await self.protect(Root(root, whole=False))
        await self._provide(cid)

    def _taken(self, cid: bytes, done: asyncio.Task[None]) -> None:
        self._asking.pop(cid, None)
        if not done.cancelled() and (error := done.exception()) is not None:
            if not isinstance(error, DfsError):
                log.error("a shared pin failed", exc_info=error)
            else:
                log.info("a shared pin has to wait: %s", error.message)
            self._tried[cid] = self._clock.monotonic_s() + 4 * self._period_s
            while len(self._tried) > 10_000:
                del self._tried[next(iter(self._tried))]
        self._wake.set()

    async def _let_go(self, mine: set[bytes]) -> None:
        """What fell to others is dropped once all of them have it."""
        others = [cid for cid in self.held if cid not in mine][:MAX_KEYS]
        if not others:
            return
        unsure = await self._unsure(others)
        for cid in others:
            if cid not in unsure:
                await self._run(self._journal.release, cid)
                del self.held[cid]
                if cid not in self.own_roots():
                    await self._node.withdraw([Cid.from_bytes(cid).multihash])

    async def _unsure(self, cids: Sequence[bytes]) -> set[bytes]:
        """Those of *cids* (at most `MAX_KEYS`) that not all who are to hold them say they have."""
        now_s = self._clock.monotonic_s()
        wanted = self.group.wanted(now_s)
        by_peer: dict[bytes, list[bytes]] = {}
        for cid in cids:
            for peer in self.group.holders_of(cid, wanted.get(cid, 0), now_s):
                by_peer.setdefault(peer, []).append(cid)
        records = {record.peer: record for record in self.group.alive(now_s)}
        unsure: set[bytes] = set()
        for peer, asked in by_peer.items():
            try:
                question = AskRoots(cids=asked, sender=self._node.me)
                answer = await self._node.ask(contact_of(records[peer]), question)
                whole = answer.whole
            except DfsError:
                whole = []
            if len(whole) != len(asked):
                unsure.update(asked)
            else:
                unsure.update(cid for cid, has in zip(asked, whole, strict=True) if not has)
        return unsure


async def _nobody_collects(root: Root) -> None:
    return

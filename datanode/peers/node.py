"""A peer in the network: answers others' questions, and asks its own. I/O is the transport's."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...common.errors import (
    ChecksumMismatch,
    ContentNotFound,
    DfsError,
    InvalidConfig,
    InvalidRequest,
    Unsupported,
)
from ...common.hosts import is_loopback
from ...common.ipns import IpnsRecord, read_record
from ...common.peerid import Identity, is_signed_by
from ...common.peering import (
    MAX_KEYS,
    MAX_PROVIDERS,
    Announce,
    Answer,
    AskGroup,
    AskRoots,
    FindPeers,
    GetName,
    GetProviders,
    Greet,
    PeerRecord,
    PutName,
    Question,
    check_announce,
    check_record,
    greeting,
    point_of_key,
    point_of_name,
    point_of_peer,
    sign_announce,
    sign_record,
    split_address,
)
from ...common.runtime import Clock
from .records import NameStore, ProviderStore
from .routing import Contact, RoutingTable, Search, contact_of

log = logging.getLogger(__name__)
MAX_GREETINGS = 16  # strangers that are being asked who they are
REFRESHED_BUCKETS = 4  # at a time; the far ones, which hold most peers, first
MAX_LOST = 512  # peers that did not answer, and may come back
MAX_CHECKED = 16_384  # records whose signature is known to be good


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSettings:
    """How a peer behaves in the network."""

    width: int = 20  # k: peers in a bucket, and to keep each record; 20 as in IPFS
    parallel: int = 3  # alpha: questions of one search at a time
    slow_s: float = 0.1  # after which another peer is asked meanwhile
    timeout_s: float = 3.0  # after which a peer has failed
    provider_ttl_s: float = 24 * 3600.0  # IPFS: 48 h
    provide_every_s: float = 11 * 3600.0  # two chances within the time to live
    name_every_s: float = 3600.0  # names of ours and of others are handed on
    refresh_s: float = 60.0  # buckets, lost peers, expiry
    quiet_s: float = 60.0  # a peer not heard of for so long is asked whether it is there

    def __post_init__(self) -> None:
        if self.provide_every_s >= self.provider_ttl_s:
            raise InvalidConfig("provider records would expire before they are renewed")


class Transport(Protocol):
    """How questions get to other peers."""

    async def ask(self, address: str, question: Question) -> Answer:
        """Raises a ServiceError when nobody answers, another DfsError when the peer refuses."""


class PeerNode:
    """One peer. `join` it to a network, then ask; `run` keeps it up."""

    def __init__(
        self,
        identity: Identity,
        addresses: list[str],
        transport: Transport,
        *,
        clock: Clock,
        rng: random.Random,
        settings: PeerSettings | None = None,
        holds: Callable[[bytes], Awaitable[bool]] | None = None,
        group: Callable[[AskGroup | AskRoots], Awaitable[Answer]] | None = None,
    ) -> None:
        """*holds*: whether a block is here, whether or not that was announced; *group* answers what concerns shared pins."""
        self.settings = settings or PeerSettings()
        self.identity = identity
        self.me = sign_record(identity, addresses, clock.wall_ms())
        self.table = RoutingTable(identity.peer_id, width=self.settings.width)
        self.providers = ProviderStore()
        self.names = NameStore()
        self.provided: dict[bytes, None] = {}  # what we announce, in order
        self.questions = 0  # that we asked, ever
        self._transport = transport
        self._clock = clock
        self._rng = rng
        self._holds = holds
        self._group = group
        self._greeting: set[bytes] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lost: collections.OrderedDict[bytes, PeerRecord] = collections.OrderedDict()
        self._checked: collections.OrderedDict[bytes, None] = collections.OrderedDict()
        self._bootstrap: list[str] = []
        self._local_only = all(is_loopback(split_address(address)[0]) for address in addresses)

    # --- answering ---

    async def answer(self, question: Question) -> Answer:
        """What another peer gets. DfsError for what it may not ask."""
        sender = getattr(question, "sender", None)
        if sender is not None and not isinstance(question, Announce):
            self.consider(sender)
        if isinstance(question, FindPeers):
            return Answer(nearer=self._near(question.target, sender))
        if isinstance(question, GetProviders):
            now_ms = self._clock.wall_ms()
            found = self.providers.of(question.key, now_ms, MAX_PROVIDERS - 1, self._rng)
            if self._holds is not None and await self._holds(question.key):
                found.append(self.me)
            return Answer(providers=found, nearer=self._near(point_of_key(question.key), sender))
        if isinstance(question, Announce):
            return self._announced(question)
        if isinstance(question, GetName):
            known = self.names.get(question.name, self._clock.wall_ms())
            return Answer(
                record=known.raw if known is not None else b"",
                nearer=self._near(point_of_name(question.name), sender),
            )
        if isinstance(question, PutName):
            return self._named(question)
        if isinstance(question, AskGroup | AskRoots):
            if self._group is None:
                raise Unsupported("this peer keeps no pins with others")
            return await self._group(question)
        return Answer(me=self.me, proof=self.identity.sign(greeting(question.nonce)))

    def _near(self, target: bytes, sender: PeerRecord | None) -> list[PeerRecord]:
        found = self.table.nearest(int.from_bytes(target, "big"), self.settings.width)
        asking = b"" if sender is None else sender.peer
        return [contact.record for contact in found if contact.peer != asking]

    def _announced(self, announce: Announce) -> Answer:
        if announce.to != self.identity.peer_id:
            raise InvalidRequest("the announcement is for another peer")
        self.check(announce.sender)
        check_announce(announce)
        self.consider(announce.sender)
        if announce.withdraw:
            self.providers.withdraw(announce.sender.peer, announce.keys)
            return Answer(stored=len(announce.keys))
        now_ms = self._clock.wall_ms()
        stored = self.providers.add(announce.sender, announce.keys, announce.expires_ms, now_ms)
        return Answer(stored=stored)

    def _named(self, question: PutName) -> Answer:
        record = read_record(question.name, question.record)
        now_ms = self._clock.wall_ms()
        kept = self.names.offer(record, now_ms)
        known = self.names.get(question.name, now_ms)
        # Who puts an old record learns of the newer one.
        return Answer(stored=int(kept), record=known.raw if known is not None else b"")

    # --- who is there ---

    def check(self, record: PeerRecord) -> None:
        """ChecksumMismatch, InvalidRequest; remembers what was good."""
        key = record.signature + record.peer
        if key in self._checked:
            self._checked.move_to_end(key)
            return
        check_record(record)
        if not self._local_only and all(
            is_loopback(split_address(address)[0]) for address in record.addresses
        ):
            # Their "this machine" is not ours: whoever says so has us call services of our own.
            raise InvalidRequest("a peer elsewhere names addresses of this machine")
        self._checked[key] = None
        while len(self._checked) > MAX_CHECKED:
            self._checked.popitem(last=False)

    def _believed(self, records: Iterable[PeerRecord]) -> list[Contact]:
        found = []
        for record in records:
            with contextlib.suppress(DfsError):
                self.check(record)
                found.append(contact_of(record))
        return found

    def consider(self, record: PeerRecord) -> None:
        """Somebody says where a peer is: if there is room for it, ask it to prove itself."""
        peer = record.peer
        known = self.table.get(peer)
        if known is not None and known.record.sequence >= record.sequence:
            return
        if peer in self._greeting or len(self._greeting) >= MAX_GREETINGS:
            return
        if not self.table.wants(peer):
            return
        try:
            self.check(record)
        except DfsError:
            return
        self._greeting.add(peer)
        task = asyncio.create_task(self._greet_record(record), name="greet")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _greet_record(self, record: PeerRecord) -> None:
        try:
            await self.greet(record.addresses[0], record.peer)
        except DfsError:
            self._lose(record)
        finally:
            self._greeting.discard(record.peer)

    async def greet(self, address: str, peer: bytes | None = None) -> PeerRecord:
        """Have whoever is at *address* prove who it is, and take it in."""
        nonce = self._rng.randbytes(16)
        answer = await self._ask_address(address, Greet(nonce=nonce, sender=self.me))
        if answer.me is None or answer.proof is None:
            raise InvalidRequest(f"{address} does not say who it is")
        if peer is not None and answer.me.peer != peer:
            raise ChecksumMismatch(f"another peer than expected is at {address}")
        if not is_signed_by(answer.me.peer, answer.proof, greeting(nonce)):
            raise ChecksumMismatch(f"the peer at {address} can't prove who it is")
        self.check(answer.me)
        self.table.alive(contact_of(answer.me), self._clock.monotonic_s())
        self.providers.learn(answer.me)
        self._lost.pop(answer.me.peer, None)
        return answer.me

    def _lose(self, record: PeerRecord) -> None:
        self._lost[record.peer] = record
        self._lost.move_to_end(record.peer)
        while len(self._lost) > MAX_LOST:
            self._lost.popitem(last=False)

    async def _ask_address(self, address: str, question: Question) -> Answer:
        self.questions += 1
        return await self._transport.ask(address, question)

    async def ask(self, contact: Contact, question: Question) -> Answer:
        """Ask a peer; whether it answers is noted."""
        try:
            answer = await self._ask_address(contact.record.addresses[0], question)
        except DfsError as error:
            if error.retryable and self.table.failed(contact.peer):
                self._lose(contact.record)
            raise
        now_s = self._clock.monotonic_s()
        if contact.peer in self.table:
            self.table.alive(contact, now_s)
        else:
            self.consider(contact.record)
        return answer

    # --- searching ---

    async def _search(
        self,
        target: bytes,
        ask: Callable[[Contact], Awaitable[Answer]],
        enough: Callable[[], bool] = lambda: False,
    ) -> Search:
        point = int.from_bytes(target, "big")
        settings = self.settings
        search = Search(
            point,
            self.table.nearest(point, settings.width),
            me=self.identity.peer_id,
            width=settings.width,
            parallel=settings.parallel,
        )
        running: dict[asyncio.Task[Answer], tuple[Contact, float]] = {}
        try:
            while not enough() and not search.done:
                now_s = self._clock.monotonic_s()
                for contact in search.next():
                    task = asyncio.ensure_future(ask(contact))
                    running[task] = (contact, now_s)
                if not running:
                    break
                done, _ = await asyncio.wait(
                    running, timeout=settings.slow_s, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    contact, _ = running.pop(task)
                    if task.cancelled() or task.exception() is not None:
                        error = None if task.cancelled() else task.exception()
                        if error is not None and not isinstance(error, DfsError):
                            raise error
                        search.failed(contact)
                    else:
                        search.answered(contact, self._believed(task.result().nearer))
                now_s = self._clock.monotonic_s()
                for contact, since_s in running.values():
                    if now_s - since_s >= settings.slow_s:
                        search.slow(contact)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        return search

    async def find_nearest(self, target: bytes) -> list[Contact]:
        """The peers nearest to a point, as the network knows them."""
        question = FindPeers(target=target, sender=self.me)
        search = await self._search(target, lambda contact: self.ask(contact, question))
        return search.nearest(self.settings.width)

    async def find_peer(self, peer: bytes) -> PeerRecord:
        """Where a peer is. ContentNotFound."""
        if peer == self.identity.peer_id:
            return self.me
        known = self.table.get(peer)
        if known is not None:
            return known.record
        found: list[PeerRecord] = []
        question = FindPeers(target=point_of_peer(peer), sender=self.me)

        async def ask(contact: Contact) -> Answer:
            answer = await self.ask(contact, question)
            found.extend(record for record in answer.nearer if record.peer == peer)
            return answer

        await self._search(point_of_peer(peer), ask, lambda: bool(self._believed(found)))
        believed = self._believed(found)
        if not believed:
            raise ContentNotFound("nobody knows where this peer is")
        return max((contact.record for contact in believed), key=lambda record: record.sequence)

    async def find_providers(self, key: bytes, limit: int = 20) -> AsyncIterator[PeerRecord]:
        """Peers that are said to have a block, as they are found; not ourselves."""
        queue: asyncio.Queue[PeerRecord | None] = asyncio.Queue()
        seen = {self.identity.peer_id}
        question = GetProviders(key=key, sender=self.me)

        def take(records: Sequence[PeerRecord]) -> None:
            for contact in self._believed(records):
                if contact.peer not in seen and len(seen) <= limit:
                    seen.add(contact.peer)
                    queue.put_nowait(contact.record)

        silent = False

        async def ask(contact: Contact) -> Answer:
            nonlocal silent
            try:
                answer = await self.ask(contact, question)
            except DfsError as error:
                silent = silent or error.retryable
                raise
            take(answer.providers)
            return answer

        async def work() -> None:
            try:
                await self._search(point_of_key(key), ask, lambda: len(seen) > limit)
                if silent and len(seen) == 1:
                    # Nobody, but somebody did not answer: once more, before it counts as lost.
                    await self._search(point_of_key(key), ask, lambda: len(seen) > limit)
            finally:
                queue.put_nowait(None)

        take(self.providers.of(key, self._clock.wall_ms(), limit, self._rng))
        task = asyncio.create_task(work(), name="find providers")
        try:
            while (record := await queue.get()) is not None:
                yield record
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # --- telling ---

    async def provide(self, keys: Sequence[bytes]) -> int:
        """Tell the network that we have these blocks, now and from now on; how many peers keep the least known of them."""
        for key in keys:
            self.provided[key] = None
        return await self._announce(keys)

    async def withdraw(self, keys: Sequence[bytes]) -> None:
        """We don't have these blocks any more."""
        gone = [key for key in keys if self.provided.pop(key, 0) is None]
        await self._announce(gone, withdraw=True)

    async def _announce(self, keys: Sequence[bytes], *, withdraw: bool = False) -> int:
        told: dict[bytes, int] = dict.fromkeys(keys, 0)
        for start in range(0, len(keys), MAX_KEYS):
            part = keys[start : start + MAX_KEYS]
            by_peer: dict[bytes, tuple[Contact, list[bytes]]] = {}
            for key in part:
                for contact in await self._keepers(point_of_key(key)):
                    by_peer.setdefault(contact.peer, (contact, []))[1].append(key)
            expires_ms = self._clock.wall_ms() + int(self.settings.provider_ttl_s * 1000)
            slots = asyncio.Semaphore(16)

            async def tell(
                contact: Contact, wanted: list[bytes], expires_ms: int, slots: asyncio.Semaphore
            ) -> None:
                announce = sign_announce(
                    self.identity, self.me, contact.peer, wanted, expires_ms, withdraw=withdraw
                )
                async with slots:
                    with contextlib.suppress(DfsError):
                        answer = await self.ask(contact, announce)
                        if answer.stored:
                            for key in wanted:
                                told[key] += 1

            await asyncio.gather(*(tell(*entry, expires_ms, slots) for entry in by_peer.values()))
        return min(told.values(), default=0)

    async def _keepers(self, target: bytes) -> list[Contact]:
        """Who keeps records of a point: the nearest of all, found by a search where we don't know everybody."""
        if len(self.table) < self.settings.width:
            return self.table.nearest(int.from_bytes(target, "big"), self.settings.width)
        return await self.find_nearest(target)

    # --- names ---

    async def publish_name(self, raw: bytes, name: bytes) -> int:
        """Hand a record to those who keep it; how many took it. Learns of a newer one if there is."""
        record = read_record(name, raw)
        self.names.offer(record, self._clock.wall_ms())
        question = PutName(name=name, record=raw)

        async def put(contact: Contact) -> int:
            try:
                answer = await self.ask(contact, question)
                if answer.record and answer.record != raw:
                    self.names.offer(read_record(name, answer.record), self._clock.wall_ms())
            except DfsError:
                return 0
            return answer.stored

        keepers = await self._keepers(point_of_name(name))
        return sum(await asyncio.gather(*(put(contact) for contact in keepers)))

    async def resolve_name(self, name: bytes) -> IpnsRecord:
        """The record of the highest sequence number that can be found; those who keep an older one are told. ContentNotFound."""
        found: dict[bytes, tuple[Contact, IpnsRecord | None]] = {}
        question = GetName(name=name, sender=self.me)
        now_ms = self._clock.wall_ms()

        async def ask(contact: Contact) -> Answer:
            answer = await self.ask(contact, question)
            record = None
            with contextlib.suppress(DfsError):
                record = read_record(name, answer.record) if answer.record else None
            if record is not None and record.expires_ms <= now_ms:
                record = None
            found[contact.peer] = (contact, record)
            return answer

        search = await self._search(point_of_name(name), ask)
        records = [record for _, record in found.values() if record is not None]
        if (mine := self.names.get(name, now_ms)) is not None:
            records.append(mine)
        if not records:
            raise ContentNotFound("nobody knows a record of this name")
        best = max(records, key=lambda record: record.rank)
        self.names.offer(best, now_ms)
        nearest = {contact.peer for contact in search.nearest(self.settings.width)}
        behind = [
            contact
            for peer, (contact, record) in found.items()
            if peer in nearest and (record is None or record.rank < best.rank)
        ]
        await asyncio.gather(
            *(self.ask(contact, PutName(name=name, record=best.raw)) for contact in behind),
            return_exceptions=True,
        )
        return best

    # --- staying up ---

    async def join(self, bootstrap: Sequence[str]) -> int:
        """Get to know the network through the peers at these addresses; how many peers are known then."""
        for address in bootstrap:
            split_address(address)
        self._bootstrap = list(bootstrap)
        results = await asyncio.gather(
            *(self.greet(address) for address in bootstrap), return_exceptions=True
        )
        for address, result in zip(bootstrap, results, strict=True):
            if isinstance(result, DfsError):
                log.warning("no peer at %s: %s", address, result.message)
            elif isinstance(result, BaseException):
                raise result
        if len(self.table):
            await self.refresh()
        return len(self.table)

    async def refresh(self) -> None:
        """Search for ourselves, which tells those around us that we are there, and in the buckets that have room."""
        me = self.identity.peer_id
        for contact in await self.find_nearest(point_of_peer(me)):
            self.consider(contact.record)
        points = self.table.refresh_points(int.from_bytes(self._rng.randbytes(32), "big"))
        for point in points[:REFRESHED_BUCKETS]:
            for contact in await self.find_nearest(point.to_bytes(32, "big")):
                self.consider(contact.record)
        await self.settle()

    async def settle(self) -> None:
        """Until nobody is being greeted."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def run(self) -> None:
        """Keep the table fresh, drop what expired, say again what we provide, hand names on. For ever."""
        settings = self.settings
        last_provided_s = last_named_s = self._clock.monotonic_s()
        while True:
            # Jittered, so that peers started together do not all ask at once.
            await asyncio.sleep(settings.refresh_s * self._rng.uniform(0.7, 1.3))
            try:
                await self._look_around()
                now_s = self._clock.monotonic_s()
                if now_s - last_provided_s >= settings.provide_every_s:
                    last_provided_s = now_s
                    await self._announce(list(self.provided))
                if now_s - last_named_s >= settings.name_every_s:
                    last_named_s = now_s
                    for record in self.names.all(self._clock.wall_ms()):
                        await self.publish_name(record.raw, record.peer_id)
            except DfsError as error:
                log.warning("keeping the peer table: %s", error.message)

    async def _look_around(self) -> None:
        now_s, now_ms = self._clock.monotonic_s(), self._clock.wall_ms()
        self.providers.expire(now_ms)
        question = FindPeers(target=point_of_peer(self.identity.peer_id), sender=self.me)
        quiet = self.table.quiet(now_s - self.settings.quiet_s, 64)
        await asyncio.gather(
            *(self.ask(contact, question) for contact in quiet), return_exceptions=True
        )
        # Those who provide something and are gone: nobody should be sent to them.
        for record in self.providers.peers()[:256]:
            if record.peer in self._lost:
                self.providers.forget_peer(record.peer)
            elif record.peer not in self.table:
                try:
                    await self.greet(record.addresses[0], record.peer)
                except DfsError:
                    self._lose(record)
        lost = list(self._lost.values())
        again = self._rng.sample(lost, min(8, len(lost)))
        addresses = [record.addresses[0] for record in again]
        known = {a for contact in self.table.contacts() for a in contact.record.addresses}
        addresses += [address for address in self._bootstrap if address not in known]
        await asyncio.gather(*(self.greet(a) for a in addresses), return_exceptions=True)
        if len(self.table):
            await self.refresh()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

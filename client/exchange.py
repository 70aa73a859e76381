"""CID blocks from many peers at once: every peer is an IPFS trustless gateway, and every such gateway a peer.

A block is asked of the peer that should have it here first; if that takes long, of a second one too. What comes is verified
before anybody sees it. A peer that sends wrong bytes is not asked again; one that stalls, breaks off or refuses is left
alone for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import aiohttp

from ..common.errors import (
    ChecksumMismatch,
    ContentNotFound,
    DfsError,
    InvalidContent,
    Unavailable,
    system_reason,
)
from ..common.ipld.cid import MAX_BLOCK_BYTES, Cid, verify
from ..common.runtime import Clock
from .ranking import Ranking

log = logging.getLogger(__name__)
EXPECTED_BYTES = 1024 * 1024
SEARCH_EVERY_S = 5.0
HASH_IN_THREAD_BYTES = 128 * 1024


class Finder(Protocol):
    """Where peers come from."""

    def providers(self, cid: Cid) -> AsyncIterator[str]:
        """Base URLs of gateways that are said to have a block, as they are found."""


class NoFinder:
    """For exchanges whose peers are named beforehand."""

    async def providers(self, cid: Cid) -> AsyncIterator[str]:
        none: tuple[str, ...] = ()
        for url in none:
            yield url


class _Missing(Exception):
    """404: the peer does not have the block."""


class Exchange:
    """Blocks by hash from peers. To be closed on the loop it was made on."""

    def __init__(
        self,
        finder: Finder,
        *,
        clock: Clock,
        rng: random.Random,
        peers: tuple[str, ...] = (),
        stall_s: float = 10.0,
        give_up_s: float = 60.0,
        max_requests: int = 64,
        on_lie: Callable[[str, Cid], None] | None = None,
    ) -> None:
        """*stall_s*: a peer that sends nothing for so long has failed; *give_up_s*: so long a block is looked for."""
        self.ranking = Ranking(rng)
        for url in peers:
            self.ranking.add(url)
        self._finder = finder
        self._clock = clock
        self._stall_s = stall_s
        self._give_up_s = give_up_s
        self._slots = asyncio.Semaphore(max_requests)
        self._session: aiohttp.ClientSession | None = None
        self._on_lie = on_lie
        self._searched: dict[bytes, float] = {}
        self._flights: dict[bytes, asyncio.Task[bytes]] = {}
        self.received_bytes = 0  # of blocks, verified
        self.received_blocks = 0
        self.failures = 0  # requests to peers that brought none
        self._changed = asyncio.Event()  # a peer became free, or a new one is known

    async def block(self, cid: Cid, *, root: Cid | None = None) -> bytes:
        """The verified bytes. ContentNotFound when nobody has it. *root*: whose providers are asked first.

        Those who ask for one block at the same time share one request.
        """
        if cid.is_identity:
            return cid.digest
        key = cid.multihash
        task = self._flights.get(key)
        if task is None:
            task = asyncio.ensure_future(self._block(cid, root or cid))
            self._flights[key] = task
            task.add_done_callback(lambda _: self._flights.pop(key, None))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _block(self, cid: Cid, root: Cid) -> bytes:
        key = cid.multihash
        deadline_s = self._clock.monotonic_s() + self._give_up_s
        running: dict[asyncio.Task[bytes], str] = {}
        lost: Exception | None = None
        began_s = 0.0
        try:
            while True:
                now_s = self._clock.monotonic_s()
                if now_s > deadline_s:
                    break
                if not running or now_s - began_s > self._patience(running):
                    name = self.ranking.choose(key, EXPECTED_BYTES, now_s, without=running.values())
                    if name is not None:
                        task = asyncio.ensure_future(self._from(name, cid))
                        running[task] = name
                        began_s = now_s
                    elif not running and not await self._wait_for_a_peer(cid, root, deadline_s):
                        break
                if not running:
                    continue
                done, _ = await asyncio.wait(
                    running,
                    timeout=max(0.02, self._patience(running) - (now_s - began_s)),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    running.pop(task)
                    try:
                        return task.result()
                    except (_Missing, DfsError) as error:
                        lost = error
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        if isinstance(lost, DfsError):
            raise ContentNotFound(f"no peer gives the block {cid}: {lost.message}")
        raise ContentNotFound(f"no peer has the block {cid}")

    def _patience(self, running: dict[asyncio.Task[bytes], str]) -> float:
        if len(running) > 1:
            return self._stall_s
        return max(self.ranking.patience_s(name, 0) for name in running.values()) if running else 0

    async def _wait_for_a_peer(self, cid: Cid, root: Cid, deadline_s: float) -> bool:
        """Until somebody can be asked; False if nobody will ever have it."""
        found = await self._find_more(cid, root)
        if found:
            return True
        key = cid.multihash
        now_s = self._clock.monotonic_s()
        if self.ranking.hopeless(key):
            return False
        wait_s = self.ranking.next_chance_s(key, now_s)
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(wait_s or 1.0, max(0.01, deadline_s - now_s))):
                await self._changed.wait()
        return True

    async def _find_more(self, cid: Cid, root: Cid) -> bool:
        """Ask the finder for providers of the root, then of the block itself; whether a new peer is known."""
        for wanted in (root, cid) if root != cid else (cid,):
            now_s = self._clock.monotonic_s()
            last_s = self._searched.get(wanted.multihash)
            if last_s is not None and now_s - last_s < SEARCH_EVERY_S:
                continue
            self._searched[wanted.multihash] = now_s
            while len(self._searched) > 10_000:
                del self._searched[next(iter(self._searched))]
            found = False
            async for url in self._finder.providers(wanted):
                found = self.ranking.add(url) or found
            if found:
                self._changed.set()
                return True
        return False

    async def _from(self, name: str, cid: Cid) -> bytes:
        """The block from one peer, verified. _Missing, or a DfsError."""
        ranking, key = self.ranking, cid.multihash
        ranking.began(name, EXPECTED_BYTES)
        began_s = self._clock.monotonic_s()
        try:
            async with self._slots:
                data = await self._get(name, cid)
                if len(data) > HASH_IN_THREAD_BYTES:
                    await asyncio.to_thread(verify, cid, data)
                else:
                    verify(cid, data)
        except _Missing:
            self.failures += 1
            ranking.lacks(name, key)
            raise
        except (ChecksumMismatch, InvalidContent) as error:
            self.failures += 1
            if not ranking.peers[name].lies:  # once, however many of its answers are under way
                log.warning("%s sends wrong bytes for %s; it is not asked again", name, cid)
            ranking.lied(name)
            if self._on_lie is not None:
                self._on_lie(name, cid)
            raise error
        except DfsError as error:
            self.failures += 1
            if not ranking.peers[name].failures:  # the first in a row
                log.info("%s; it is left alone for a while", error.message)
            ranking.failed(name, self._clock.monotonic_s())
            raise
        else:
            self.received_bytes += len(data)
            self.received_blocks += 1
            ranking.received(name, len(data), self._clock.monotonic_s() - began_s)
            return data
        finally:
            ranking.ended(name, EXPECTED_BYTES)
            self._changed.set()

    async def _get(self, name: str, cid: Cid) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, limit_per_host=8),
                timeout=aiohttp.ClientTimeout(
                    total=self._stall_s * 6, sock_connect=5.0, sock_read=self._stall_s
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept": "application/vnd.ipld.raw"},
                auto_decompress=False,
                read_bufsize=256 * 1024,
                trust_env=False,
            )
        try:
            async with self._session.get(
                f"{name}/ipfs/{cid}?format=raw", allow_redirects=False
            ) as response:
                if response.status in (404, 410, 412):
                    raise _Missing
                if response.status != 200:
                    raise Unavailable(f"{name} answers with status {response.status}")
                length = response.content_length
                if length is not None and length > MAX_BLOCK_BYTES:
                    raise InvalidContent(f"{name} sends {length} bytes for a block")
                body = bytearray()
                async for piece in response.content.iter_any():
                    body += piece
                    if len(body) > MAX_BLOCK_BYTES:
                        response.close()
                        raise InvalidContent(f"{name} sends more than a block may have")
                return bytes(body)
        except TimeoutError:
            raise Unavailable(f"{name} sends nothing") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unavailable(f"can't get a block from {name}: {system_reason(error)}") from None

    async def close(self) -> None:
        tasks = list(self._flights.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()


__all__ = ["Exchange", "Finder", "NoFinder"]

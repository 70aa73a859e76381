"""Collection on a peer: what no pin holds goes, in small steps, while everything goes on.

Marking follows the pins' DAGs through our own nodes and notes the replicas that their blocks lie in; then what was neither marked nor
claimed (`datanode/claims.py`) is removed, a few replicas at a time. What cannot be followed is never guessed: a pinned node that is neither
here nor to be had from others ends the collection before anything is removed.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import sys
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import NamedTuple

from ...common.errors import Busy, DfsError, InvalidContent, Unsupported
from ...common.ipld import dag
from ...common.ipld.cid import RAW, Cid
from ...common.model import BlockId, BlockRef
from ...common.runtime import Clock
from ..cidstore import ID_BITS_BELOW_MS, LOCAL_GENERATION
from ..claims import KEPT, WALKED, Marks
from ..content import Content
from ..index import FIRST_LOCAL_BLOCK

log = logging.getLogger(__name__)
STEP_REPLICAS = 128  # a step is what others may have to wait for ...
STEP_BESIDE_ADDS = 32  # ... and so much less where somebody does
STEP_BYTES = 256 * 1024 * 1024
SLICE_BLOCKS = 200  # marked by one visit of a thread
PAGE = 5_000
PAUSE_S = 0.002  # after each slice and step, at least; and as long as it took ...
BESIDE_ADDS = 3  # ... so many times, when somebody who adds was heard of in the last
ADDS_S = 1.0  # seconds
# While a collection goes on, threads hand over the interpreter after so long at the latest (Python: 0.005 s). A request changes threads
# a dozen times, and would wait for that long each time.
SWITCH_S = 0.0005


class Root(NamedTuple):
    """A reason to keep content. *deep*: all that is below it. *whole*: it is said to be here, all of it."""

    cid: Cid
    deep: bool = True
    whole: bool = True


class Step(NamedTuple):
    """What one step removed, or would."""

    replicas: int
    size_bytes: int


class Collector:
    """The collections of one peer, one at a time."""

    def __init__(
        self, content: Content, clock: Clock, roots: Callable[[], AsyncIterator[Root]]
    ) -> None:
        """*roots*: all that is to stay, as of now."""
        self._content = content
        self._cids = content.cids
        self._clock = clock
        self._roots = roots
        self._marks: Marks | None = None
        self._walked: set[bytes] = set()  # nodes in replicas that have no mark of their own
        self._quiet = asyncio.Lock()  # while a new pin marks, nothing is removed
        self._busy = False

    async def collect(self, *, grace_s: float = 0.0, dry_run: bool = False) -> AsyncGenerator[Step]:
        """Remove what nothing holds, step by step; what was made in the last *grace_s* stays. Busy while another one goes on."""
        if self._busy:
            raise Busy("a collection is going on already")
        self._busy = True
        claims = self._cids.claims
        usual_s = sys.getswitchinterval()
        sys.setswitchinterval(min(SWITCH_S, usual_s))
        try:
            before = FIRST_LOCAL_BLOCK + (
                (self._clock.wall_ms() - int(grace_s * 1000)) << ID_BITS_BELOW_MS
            )
            ids = await self._snapshot(before)
            marks = self._marks = Marks(ids)
            # From now on new pins and claims mark for themselves (`protect`, `claim`), so that none falls between.
            await self._content.run(claims.start, marks)
            async for root in self._roots():
                await self._mark(root)
            async for step in self._sweep(marks, dry_run=dry_run):
                yield step
        finally:
            sys.setswitchinterval(usual_s)
            claims.stop()
            self._marks = None
            self._walked.clear()
            self._busy = False

    async def protect(self, root: Root) -> None:
        """A pin that has just been made: a collection that goes on must spare it too. Before the pin is acknowledged."""
        if self._marks is not None:
            async with self._quiet:
                await self._mark(root)

    async def _snapshot(self, before: int) -> array[int]:
        """The ids of this peer's own replicas, ascending."""
        parts: list[array[int]] = []
        for volume in self._cids.store.volumes:
            part = array("Q")
            after = FIRST_LOCAL_BLOCK - 1
            while not volume.failure:
                page = await self._content.run(volume.index.ids, after, PAGE)
                part.extend(block_id for block_id in page if block_id < before)
                if len(page) < PAGE or page[-1] >= before:
                    break
                after = page[-1]
            parts.append(part)
        if len(parts) == 1:
            return parts[0]
        return await self._content.run(lambda: array("Q", heapq.merge(*parts)))

    # --- marking ---

    async def _mark(self, root: Root) -> None:
        stack = [root.cid]
        while stack and self._marks is not None:
            began_s = self._clock.monotonic_s()
            absent = await self._content.run(self._mark_some, stack, self._marks, root.deep)
            await self._rest(began_s)
            if absent is None:
                continue
            try:
                block = await self._content.block(absent)
            except DfsError as error:
                if not root.whole:
                    continue  # a part that was never here has nothing below it that anybody relies on
                raise type(error)(
                    f"nothing is collected: {absent}, a part of the pinned {root.cid}, is not to be had: {error.message}"
                ) from None
            stack += dag.links_of(absent, block)

    def _mark_some(self, stack: list[Cid], marks: Marks, deep: bool) -> Cid | None:
        """Mark blocks, those below them going on the *stack*; a node that can't be read here ends it."""
        left = SLICE_BLOCKS
        while stack and left > 0:
            leaves: list[Cid] = []
            while stack and len(leaves) < left and not (deep and stack[-1].codec != RAW):
                leaves.append(stack.pop())
            left -= len(leaves)
            self._mark_leaves(leaves, marks)
            if not stack or left <= 0:
                break
            left -= 1
            cid = stack.pop()
            if not self._mark_copies(cid, marks, WALKED):
                continue
            try:
                block = cid.digest if cid.is_identity else self._cids.read(cid)
                stack += dag.links_of(cid, block)
            except (Unsupported, InvalidContent):
                continue  # nobody could follow it, so nothing was ever held by it
            except DfsError:
                return cid
        return None

    def _mark_leaves(self, leaves: Sequence[Cid], marks: Marks) -> None:
        """Mark blocks below which there is nothing to follow: many at a time, by the directory of hashes alone."""
        places = self._cids.replicas([cid.multihash for cid in leaves])
        for cid in leaves:
            good = places.get(cid.multihash, ())
            # A row of a replica that is gone is among no marks; who has no other may still be found by a closer look.
            if not any(marks.mark(block_id) is not None for block_id in good):
                self._mark_copies(cid, marks, KEPT)

    def _mark_copies(self, cid: Cid, marks: Marks, flag: int) -> bool:
        """Mark what a block lies in; with WALKED, whether nobody has followed it yet."""
        copies = [] if cid.is_identity else self._cids.own(cid.multihash)
        new: bool | None = None
        # One good copy is enough; damaged ones stay as long as there is no other.
        for copy in [copy for copy in copies if not copy.damaged][:1] or copies:
            new = marks.mark(copy.block_id, flag if copy.whole else KEPT)
            if not copy.whole:
                new = None  # the mark is of all that is in the replica
        return flag == WALKED and (self._unseen(cid) if new is None else new)

    def _unseen(self, cid: Cid) -> bool:
        if cid.multihash in self._walked:
            return False
        self._walked.add(cid.multihash)
        return True

    # --- removing ---

    async def _sweep(self, marks: Marks, *, dry_run: bool) -> AsyncGenerator[Step]:
        at = 0
        while at < len(marks.ids):
            began_s = self._clock.monotonic_s()
            async with self._quiet:
                most = STEP_BESIDE_ADDS if self._beside_adds() else STEP_REPLICAS
                at, step = await self._content.run(self._sweep_some, marks, at, most, dry_run)
            await self._rest(began_s)
            if step.replicas:
                yield step

    def _sweep_some(self, marks: Marks, at: int, most: int, dry_run: bool) -> tuple[int, Step]:
        """One step of *most* replicas from position *at* on: (where the next one begins, what went)."""
        wanted: dict[int, int] = {}  # position -> bytes
        size_bytes = 0
        end = min(len(marks.ids), at + 50_000)
        while at < end and len(wanted) < most and size_bytes < STEP_BYTES:
            at = marks.flags.find(0, at, end)
            if at < 0:
                at = end
                break
            found = self._cids.store.find(marks.ids[at])
            if found is not None:
                wanted[at] = found[1].length
                size_bytes += found[1].length
            at += 1
        if dry_run:
            return at, Step(len(wanted), size_bytes)
        claims = self._cids.claims
        going = claims.doom(list(wanted))
        try:
            self._remove([marks.ids[position] for position in going])
        finally:
            claims.removed()
        return at, Step(len(going), sum(wanted[position] for position in going))

    def _remove(self, ids: Sequence[int]) -> None:
        self._cids.store.remove(
            [BlockRef(block_id=BlockId(number), generation=LOCAL_GENERATION) for number in ids]
        )

    def _beside_adds(self) -> bool:
        return self._cids.claims.heard_within(ADDS_S)

    async def _rest(self, began_s: float) -> None:
        """Let others have the disk and the processor as long as this had them, and longer if somebody adds."""
        times = BESIDE_ADDS if self._beside_adds() else 1
        pause_s = times * (self._clock.monotonic_s() - began_s)
        await asyncio.sleep(max(PAUSE_S, min(0.5, pause_s)))

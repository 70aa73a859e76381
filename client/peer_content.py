"""Content of one peer, with the same face as a cluster's (`content_api.ContentApi`): the commands don't know which of the two they have."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from ..common.content import Collected, ContentTotals, PinKind
from ..common.errors import PinExists
from ..common.ipld import car, dag
from ..common.ipld.car import CarBlock
from ..common.ipld.cid import Cid
from ..common.ipld.dag import Block, Entity, Entry
from ..common.model import Struct
from ..common.runtime import SystemClock, system_random
from .checking import check_dag
from .content_reader import read_file
from .exchange import Exchange, Finder, NoFinder
from .peer_client import PeerClient
from .routing_client import RoutingFinder

T = TypeVar("T")
AHEAD = 16
CAR_PIECE_BYTES = 1024 * 1024


class PeerPin(Struct, frozen=True, kw_only=True):
    """As `common.content.Pin`; *replicas* and *holders* of one that peers keep together."""

    cid: bytes
    kind: PinKind
    name: str
    owner: str
    pinned_ms: int
    replicas: int = 0
    holders: list[str] = []
    held_here: bool = True


class PeerReader:
    """CID blocks from a peer and, unless *alone*, from whom it knows to have them. Each is verified before anything is made of it."""

    def __init__(self, url: str, *, alone: bool = False) -> None:
        self._router: RoutingFinder | None = None if alone else RoutingFinder([url])
        finder: Finder = self._router or NoFinder()
        self._exchange = Exchange(finder, clock=SystemClock(), rng=system_random(), peers=(url,))
        self._root: Cid | None = None

    async def close(self) -> None:
        await self._exchange.close()
        if self._router is not None:
            await self._router.close()

    async def get(self, cid: Cid) -> bytes:
        """ContentNotFound."""
        return await self._exchange.block(cid, root=self._root or cid)

    async def find(self, cid: Cid) -> None:
        """Where a NameNode has it: there is none."""
        return

    async def prefetch(self, wanted: Sequence[Cid]) -> None:
        return

    def forget(self) -> None:
        return

    async def resolve(self, root: Cid, names: list[str]) -> Cid:
        self._root = root  # who has it most likely has what is below it
        return (await dag.run_async(dag.resolve(root, names), self.get)).cid

    async def entity(self, cid: Cid) -> Entity:
        return dag.entity(cid, await self.get(cid))

    async def entries(self, found: Entity) -> list[Entry]:
        listed = await dag.run_async(dag.entries(found), self.get)
        return sorted(listed, key=lambda entry: entry.name.encode())

    def read(self, found: Entity, start: int = 0, end: int | None = None) -> AsyncIterator[Block]:
        return read_file(self.get, found, start, end, ahead=AHEAD)


class PeerContent:
    """What one peer holds. To be used with `async with`."""

    def __init__(self, client: PeerClient) -> None:
        self.client = client
        self.reader = PeerReader(client.url)
        self._own = PeerReader(client.url, alone=True)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="peer")  # the client is for one

    async def __aenter__(self) -> PeerContent:
        """Unavailable if the peer does not answer: whoever only reads would look for others who have the content, and wait."""
        try:
            await self._run(self.client.get, "/healthz")
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.reader.close()
        await self._own.close()
        with contextlib.suppress(Exception):
            await self._run(self.client.end_add)
        self._thread.shutdown()
        self.client.close()

    async def _run(self, call: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        return await self._run(self.client.call, method, path, body)

    async def _lines(self, path: str, body: Any) -> AsyncIterator[Any]:
        lines = self.client.lines("POST", path, body)
        while (line := await self._run(next, lines, None)) is not None:
            yield line

    # --- adding ---

    async def put_blocks(
        self, blocks: Sequence[tuple[Cid, bytes]], replication: int | None = None
    ) -> set[bytes]:
        """Keep CID blocks; durable when this returns."""
        await self._import(blocks)
        return set()

    async def import_blocks(self, blocks: Iterable[CarBlock]) -> tuple[int, int]:
        """Keep verified blocks that come in any order; (how many, 0). Spared by collections until this object is closed."""
        return await self._import((block.cid, block.data) for block in blocks), 0

    async def _import(self, blocks: Iterable[tuple[Cid, bytes]]) -> int:
        await self._run(self.client.begin_add)
        answer = await self._run(self.client.import_car, _as_car(blocks))
        return int(answer["blocks"])

    # --- pins ---

    async def pin(
        self,
        cid: Cid,
        *,
        kind: PinKind = "recursive",
        name: str = "",
        fetch: bool = True,
        replicas: int = 0,
    ) -> PeerPin:
        """Keep a DAG or a block on this peer, or (*replicas*) on so many peers; what it lacks is fetched from others first. PinExists, ContentNotFound."""
        if replicas:
            await self.reader.get(cid)  # a pin of what nobody has would wait for ever
        else:
            async for known in self.pins(kind=kind, name=name, cid=cid):
                if not known.replicas:
                    raise PinExists(f"{cid} is pinned already")
        body = {"cid": str(cid), "kind": kind, "name": name, "replicas": replicas}
        await self._run(self.client.begin_add)
        if kind == "recursive" and not replicas:
            # However long it takes: with signs of life.
            async for _ in self._lines("/v1/peer/fetch", {"cid": str(cid)}):
                pass
            body["here"] = True
        answer = await self._call("POST", "/v1/peer/pins", body)
        return PeerPin(
            cid=bytes(cid),
            kind=kind,
            name=name,
            owner=answer["owner"],
            pinned_ms=answer["pinned_ms"],
            replicas=replicas,
            holders=answer["holders"],
        )

    async def pin_if_new(self, cid: Cid, *, name: str = "") -> None:
        with contextlib.suppress(PinExists):
            await self.pin(cid, name=name)

    async def unpin(self, cid: Cid, *, kind: PinKind | None = None, name: str | None = None) -> int:
        """How many pins were removed. PinNotFound."""
        answer = await self._run(partial(self.client.unpin, cid, kind=kind, name=name))
        return int(answer)

    async def pins(
        self, *, kind: PinKind | None = None, name: str | None = None, cid: Cid | None = None
    ) -> AsyncIterator[PeerPin]:
        for pin in (await self._call("GET", "/v1/peer/pins"))["pins"]:
            found = Cid.parse(pin["cid"])
            if kind not in (None, pin["kind"]) or name not in (None, pin["name"]):
                continue
            if cid is None or cid.multihash == found.multihash:
                yield PeerPin(
                    cid=bytes(found),
                    kind=pin["kind"],
                    name=pin["name"],
                    owner=pin["owner"],
                    pinned_ms=pin["pinned_ms"],
                    replicas=pin["replicas"],
                    holders=pin.get("holders", []),
                    held_here=pin.get("held_here", True),
                )

    # --- looking after it ---

    async def collect(
        self, *, grace_s: float = 0.0, dry_run: bool = False
    ) -> AsyncIterator[Collected]:
        """Collect what nothing holds, step by step. Leaving off early ends it."""
        body = {"grace_s": grace_s, "dry_run": dry_run}
        async for line in self._lines("/v1/peer/collect", body):
            if not line["done"]:
                yield Collected(work=line["blocks"], blocks=line["blocks"], bytes=line["bytes"])

    async def totals(self) -> ContentTotals:
        """Of this peer's own content; *loose* is not counted."""
        held = await self._call("GET", "/v1/peer/content")
        pins = [pin async for pin in self.pins()]
        return ContentTotals(blocks=held["replicas"], bytes=held["bytes"], loose=0, pins=len(pins))

    async def check(self, cid: Cid, *, deep: bool = True) -> tuple[int, list[str]]:
        """(CID blocks read and hashed, what is wrong or missing on this peer) of a DAG, or of its root alone."""
        return await check_dag(self._own, cid, deep=deep)

    async def check_all(
        self, progress: Callable[[int], None]
    ) -> AsyncIterator[tuple[int, list[str]]]:
        """The same of all that the peer holds, in parts; it reads and hashes by itself."""
        async for line in self._lines("/v1/peer/verify", {}):
            progress(line["bytes"])
            yield line["blocks"], line["bad"]


def _as_car(blocks: Iterable[tuple[Cid, bytes]]) -> Iterator[bytes]:
    """Without roots, in pieces of some size: each is a chunk of HTTP."""
    out = bytearray(car.header([]))
    for cid, data in blocks:
        out += car.frame(cid, data)
        if len(out) >= CAR_PIECE_BYTES:
            yield bytes(out)
            out.clear()
    if out:
        yield bytes(out)


__all__ = ["PeerContent", "PeerPin", "PeerReader"]

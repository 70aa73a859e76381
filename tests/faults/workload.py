"""A mixed workload that knows what the cluster owes it.

Each worker owns one directory and does one operation at a time, so that its model says exactly what must be
there: for each path the contents it may have. An answered operation leaves one possibility. One that failed with an error
that does not tell whether it happened leaves both, before and after. `check` compares the
cluster with the model, byte for byte.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from twinfs.client.filesystem import FileSystem
from twinfs.common.errors import (
    BlockError,
    DfsError,
    PathNotFound,
    ServiceError,
    StorageError,
)

MIB = 1024 * 1024
# Errors that may come in the middle of a crash and leave open whether the operation happened.
UNDECIDED = (ServiceError, BlockError, StorageError)


@dataclass(frozen=True)
class Contents:
    """What a path holds: *data*, of which at least *synced* bytes must be there if it was cut off."""

    data: bytes
    synced: int | None = None  # None: closed, whole

    def allows(self, found: bytes) -> bool:
        if self.synced is None:
            return found == self.data
        return self.synced <= len(found) <= len(self.data) and self.data.startswith(found)


ABSENT = None
State = Contents | None


@dataclass
class Worker:
    """One client of the workload; *model* maps each of its paths to the states it may be in."""

    fs: FileSystem
    home: str
    rng: random.Random
    model: dict[str, tuple[State, ...]] = field(default_factory=dict)
    done: int = 0
    undecided: int = 0
    serial: int = 0
    # Renames of unknown outcome: one of the two paths must hold the file as long as nothing else touched them.
    moves: list[tuple[str, str]] = field(default_factory=list)

    def payload(self, size: int) -> bytes:
        return self.rng.randbytes(size)

    def new_path(self) -> str:
        self.serial += 1
        return f"{self.home}/f{self.serial:05d}"

    def known(self) -> list[str]:
        """Paths whose state is certain and which hold a closed file."""
        return [
            path
            for path, states in self.model.items()
            if len(states) == 1 and states[0] is not None and states[0].synced is None
        ]

    async def attempt(
        self, changes: dict[str, State], action: Callable[[], Awaitable[object]]
    ) -> bool:
        """Run *action*, which turns each path into the state given; note what is certain after it."""
        before = {path: self.model.get(path, (ABSENT,)) for path in changes}
        try:
            await action()
        except UNDECIDED:
            self.undecided += 1
            for path, after in changes.items():
                self.model[path] = (*before[path], after)
            return False
        for path, after in changes.items():
            self.model[path] = (after,)
        self.done += 1
        return True

    async def step(self) -> None:
        actions = [self.write_small] * 5 + [self.write_large, self.stream, self.append]
        actions += [self.rename, self.delete, self.overwrite, self.truncate, self.copy]
        await self.rng.choice(actions)()

    async def write_small(self) -> None:
        path, data = self.new_path(), self.payload(self.rng.randrange(20_000))
        await self.attempt({path: Contents(data)}, lambda: self.fs.write_bytes(path, data))

    async def write_large(self) -> None:
        path, data = self.new_path(), self.payload(self.rng.randrange(3 * MIB))
        await self.attempt({path: Contents(data)}, lambda: self.fs.write_bytes(path, data))

    async def overwrite(self) -> None:
        if known := self.known():
            path, data = self.rng.choice(known), self.payload(self.rng.randrange(100_000))
            await self.attempt(
                {path: Contents(data)}, lambda: self.fs.write_bytes(path, data, overwrite=True)
            )

    async def stream(self) -> None:
        """A file written in pieces through a handle, some of them synced."""
        path = self.new_path()
        pieces = [self.payload(self.rng.randrange(1, 700_000)) for _ in range(4)]
        synced = 0
        written = b""

        async def write() -> None:
            nonlocal synced, written
            async with await self.fs.open(path, "xb", block_size=MIB) as file:
                for piece in pieces:
                    await file.write(piece)
                    written += piece
                    if self.rng.random() < 0.5:
                        await file.sync()
                        synced = len(written)

        if not await self.attempt({path: Contents(b"".join(pieces))}, write):
            # It may be absent only if nothing was synced; else what was synced has to be there.
            cut = Contents(b"".join(pieces), synced=synced)
            self.model[path] = (cut,) if synced else (ABSENT, cut)

    async def append(self) -> None:
        if known := self.known():
            path, more = self.rng.choice(known), self.payload(self.rng.randrange(1, 50_000))
            (old,) = self.model[path]
            assert old is not None

            async def write() -> None:
                async with await self.fs.open(path, "ab") as file:
                    await file.write(more)

            if not await self.attempt({path: Contents(old.data + more)}, write):
                self.model[path] = (Contents(old.data + more, synced=len(old.data)),)

    async def truncate(self) -> None:
        known = [path for path in self.known() if self.model[path][0].data]  # type: ignore[union-attr]
        if known:
            path = self.rng.choice(known)
            (old,) = self.model[path]
            assert old is not None
            length = self.rng.randrange(len(old.data))
            await self.attempt(
                {path: Contents(old.data[:length])}, lambda: self.fs.truncate(path, length)
            )

    async def rename(self) -> None:
        if known := self.known():
            source, target = self.rng.choice(known), self.new_path()
            (state,) = self.model[source]
            decided = await self.attempt(
                {source: ABSENT, target: state}, lambda: self.fs.rename(source, target)
            )
            if not decided:
                self.moves.append((source, target))

    async def copy(self) -> None:
        if known := self.known():
            source, target = self.rng.choice(known), self.new_path()
            (state,) = self.model[source]
            await self.attempt({target: state}, lambda: self.fs.copy(source, target))

    async def delete(self) -> None:
        if known := self.known():
            path = self.rng.choice(known)
            await self.attempt({path: ABSENT}, lambda: self.fs.delete(path))

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.step()


async def check(fs: FileSystem, worker: Worker) -> list[str]:
    """Everything that is not as the model says, as sentences; empty when all is well."""
    wrong = []
    listed = {status.path async for status in fs.list(worker.home)}
    for path in sorted(listed - set(worker.model)):
        wrong.append(f"{path} is there, but nobody made it")
    for path, states in worker.model.items():
        try:
            found: bytes | None = await fs.read_bytes(path)
        except PathNotFound:
            found = None
        except DfsError as error:
            wrong.append(f"{path} can't be read: {error.code}: {error}")
            continue
        fits = [
            state
            for state in states
            if (state is None and found is None)
            or (state is not None and found is not None and state.allows(found))
        ]
        if not fits:
            size = "absent" if found is None else f"{len(found)} bytes"
            wanted = ", ".join(
                "absent" if s is None else f"{len(s.data)} bytes (synced {s.synced})"
                for s in states
            )
            wrong.append(f"{path} is {size}; it should be one of: {wanted}")
        if (found is not None) != (path in listed):
            wrong.append(f"{path} reads differently from how its directory lists it")
    for source, target in worker.moves:
        if len(listed & {source, target}) != 1:
            wrong.append(f"of {source} and {target} exactly one should be there after a rename")
    return wrong

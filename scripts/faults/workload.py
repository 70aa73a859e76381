"""Clients that do everything at once on a few shared names, and write down what they asked and were answered."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from scripts.checker.history import Recorder
from scripts.checker.pieces import MIN_BYTES, identify, piece
from twinfs.client.filesystem import FileSystem
from twinfs.common.config import ClientConfig
from twinfs.common.errors import (
    DfsError,
    InternalError,
    LeaseConflict,
    LeaseLost,
    NamespaceError,
    PathNotFound,
    RequestError,
)
from twinfs.common.runtime import Clock

MIB = 1 << 20
OPERATION_LIMIT_S = 90.0
FILES = ("f0", "f1", "f2", "f3")
FOLDERS = ("d0", "d1")
INNER = "g"


@dataclass(slots=True)
class Shared:
    """What all clients of a run have in common."""

    recorder: Recorder
    clock: Clock
    seed: int
    arenas: list[str] = field(default_factory=list)  # directories with the names above
    streams: list[str] = field(default_factory=list)
    appended: list[str] = field(default_factory=list)
    next_write: int = 1
    going: asyncio.Event = field(default_factory=asyncio.Event)  # clients wait while it is not set
    surprises: list[str] = field(default_factory=list)  # errors that no client should see
    slowest_s: float = 0.0

    def now_s(self) -> float:
        return self.clock.monotonic_s()

    def new_write(self) -> int:
        self.next_write += 1
        return self.next_write


class Client:
    """One client: an operation at a time, chosen by its own chance."""

    def __init__(self, name: str, shared: Shared, config: ClientConfig, rng: random.Random) -> None:
        self.name = name
        self.fs = FileSystem(config)
        self._shared = shared
        self._rng = rng
        self._home = f"/chaos/{name}"
        self._own: list[
            str
        ] = []  # files that this client alone appends to, while their state is known
        self._count = 0

    async def run(self, stop: asyncio.Event) -> None:
        actions = [self._put] * 6 + [self._read] * 6 + [self._stat] * 2 + [self._list] * 2
        actions += [self._delete] * 3 + [self._rename] * 4 + [self._mkdir]
        actions += [self._stream, self._append, self._append, self._read_own, self._read_own]
        while not stop.is_set():
            await self._shared.going.wait()
            await self._rng.choice(actions)()

    async def close(self) -> None:
        await self.fs.close()

    # --- recording ---

    async def attempt(
        self, kind: str, call: Callable[[], Awaitable[Any]], **args: Any
    ) -> tuple[str, Any]:
        """Do it and write it down: ("ok", result), ("fail", code) or ("unknown", code)."""
        shared = self._shared
        began_s = shared.now_s()
        id = shared.recorder.invoke(self.name, kind, began_s, **args)
        try:
            async with asyncio.timeout(OPERATION_LIMIT_S):
                result = await call()
        except (LeaseConflict, LeaseLost) as error:
            shared.recorder.unknown(id, error.code, shared.now_s())
            return "unknown", error.code
        except NamespaceError as error:
            shared.recorder.fail(id, error.code, shared.now_s())
            return "fail", error.code
        except (DfsError, TimeoutError) as error:
            code = error.code if isinstance(error, DfsError) else "no answer"
            if isinstance(error, InternalError | RequestError):
                shared.surprises.append(f"#{id} {self.name} {kind} {args}: {code}: {error}")
            shared.recorder.unknown(id, f"{code}: {error}", shared.now_s())
            return "unknown", code
        except asyncio.CancelledError:
            shared.recorder.unknown(id, "cancelled", shared.now_s())
            raise
        shared.recorder.ok(id, result, shared.now_s())
        shared.slowest_s = max(shared.slowest_s, shared.now_s() - began_s)
        return "ok", result

    def _piece(self, number: int, length: int) -> bytes:
        return piece(self._shared.seed, number, length)

    # --- shared names ---

    def _arena(self) -> str:
        return self._rng.choice(self._shared.arenas[-3:])

    def _file(self) -> str:
        arena = self._arena()
        if self._rng.random() < 0.25:
            return f"{arena}/{self._rng.choice(FOLDERS)}/{INNER}"
        return f"{arena}/{self._rng.choice(FILES)}"

    def _size(self) -> int:
        if self._rng.random() < 0.15:
            return self._rng.randrange(MIB, 5 * MIB // 2)
        return self._rng.randrange(MIN_BYTES, 200_000)

    async def _put(self) -> None:
        path, number, length = self._file(), self._shared.new_write(), self._size()
        overwrite = self._rng.random() < 0.6

        async def call() -> None:
            data = self._piece(number, length)
            await self.fs.write_bytes(path, data, overwrite=overwrite, block_size=MIB)

        await self.attempt("put", call, path=path, write=number, length=length, overwrite=overwrite)

    async def read(self, path: str) -> None:
        async def call() -> list[list[int]] | str:
            data = await self.fs.read_bytes(path)
            found = identify(self._shared.seed, data)
            return found if isinstance(found, str) else [list(part) for part in found]

        await self.attempt("read", call, path=path)

    async def _read(self) -> None:
        await self.read(self._file())

    async def _stat(self) -> None:
        path = self._rng.choice([self._file(), f"{self._arena()}/{self._rng.choice(FOLDERS)}"])

        async def call() -> str | int:
            status = await self.fs.stat(path)
            return "directory" if status.is_directory else status.length

        await self.attempt("stat", call, path=path)

    async def list(self, path: str) -> None:
        async def call() -> list[str]:
            return [status.name async for status in self.fs.list(path)]

        await self.attempt("list", call, path=path)

    async def _list(self) -> None:
        arena = self._arena()
        await self.list(self._rng.choice([arena, f"{arena}/{self._rng.choice(FOLDERS)}"]))

    async def mkdir(self, path: str) -> None:
        async def call() -> None:
            await self.fs.mkdirs(path, parents=False)

        await self.attempt("mkdir", call, path=path)

    async def _mkdir(self) -> None:
        await self.mkdir(f"{self._arena()}/{self._rng.choice(FOLDERS)}")

    async def _delete(self) -> None:
        if self._rng.random() < 0.2:
            path, recursive = f"{self._arena()}/{self._rng.choice(FOLDERS)}", True
        else:
            path, recursive = self._file(), False
        await self.attempt(
            "delete",
            lambda: self.fs.delete(path, recursive=recursive),
            path=path,
            recursive=recursive,
        )

    async def _rename(self) -> None:
        if self._rng.random() < 0.3:
            arena = self._arena()
            source, target = (f"{arena}/{name}" for name in self._rng.sample(FOLDERS, 2))
        else:
            source = self._file()
            arena = source.rpartition("/chaos/")[2].split("/")[0]
            names = [f"/chaos/{arena}/{name}" for name in (*FILES, f"{FOLDERS[0]}/{INNER}")]
            target = self._rng.choice([name for name in names if name != source])
        overwrite = self._rng.random() < 0.5

        async def call() -> None:
            await self.fs.rename(source, target, overwrite=overwrite)

        await self.attempt("rename", call, source=source, destination=target, overwrite=overwrite)

    # --- files of its own, read by all ---

    def _new_path(self, kind: str) -> str:
        self._count += 1
        return f"{self._home}/{kind}{self._count}"

    async def _stream(self) -> None:
        """Written in pieces through a handle, some of them synced."""
        path = self._new_path("s")
        opened: list[Any] = []

        async def open_it() -> None:
            opened.append(await self.fs.open(path, "xb", block_size=MIB))

        outcome, _ = await self.attempt("stream-open", open_it, path=path)
        self._shared.streams.append(path)
        if outcome != "ok":
            return
        (file,) = opened
        for _ in range(self._rng.randrange(1, 6)):
            number = self._shared.new_write()
            length = self._rng.randrange(MIN_BYTES, 700_000)
            data = self._piece(number, length)
            outcome, _ = await self.attempt(
                "stream-write",
                lambda data=data: file.write(data),
                path=path,
                write=number,
                length=length,  # type: ignore[misc]
            )
            if outcome == "ok" and self._rng.random() < 0.5:
                outcome, _ = await self.attempt("stream-sync", file.sync, path=path)
            if outcome != "ok":
                break
        else:
            await self.attempt("stream-close", file.close, path=path)

    async def _append(self) -> None:
        if len(self._own) < 2:
            path, number = self._new_path("a"), self._shared.new_write()
            length = self._rng.randrange(MIN_BYTES, 300_000)

            async def put() -> None:
                await self.fs.write_bytes(path, self._piece(number, length), block_size=MIB)

            outcome, _ = await self.attempt("put", put, path=path, write=number, length=length)
            self._shared.appended.append(path)
            if outcome == "ok":
                self._own.append(path)
            return
        path, number = self._rng.choice(self._own), self._shared.new_write()
        length = self._rng.randrange(MIN_BYTES, 300_000)

        async def append() -> None:
            async with await self.fs.open(path, "ab") as file:
                await file.write(self._piece(number, length))

        outcome, _ = await self.attempt("append", append, path=path, write=number, length=length)
        if outcome != "ok" or self._rng.random() < 0.2:
            # It may be open, and what another append would meet is not told by the model.
            self._own.remove(path)

    async def _read_own(self) -> None:
        paths = [*self._shared.streams[-8:], *self._shared.appended[-8:]]
        if paths:
            await self.read(self._rng.choice(paths))


async def settle(fs: FileSystem, shared: Shared) -> None:
    """Close what lost its writer."""
    for path in [*shared.streams, *shared.appended]:
        while True:
            try:
                if not (await fs.stat(path)).under_construction:
                    break
                await fs.recover_lease(path)
            except PathNotFound:
                break
            except LeaseConflict:
                pass
            await asyncio.sleep(0.3)


async def read_everything(client: Client, shared: Shared) -> None:
    """The last words of a history: every name that could be there is read."""
    for arena in shared.arenas:
        await client.list(arena)
        for name in (*FILES, *(f"{folder}/{INNER}" for folder in FOLDERS)):
            await client.read(f"{arena}/{name}")
    for path in [*shared.streams, *shared.appended]:
        await client.read(path)

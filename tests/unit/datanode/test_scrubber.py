"""The scrubber's loop: orders, and volumes that can't be read."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from twinfs.common.checksum import digest_of
from twinfs.common.model import BlockId, BlockRef, GenerationStamp
from twinfs.common.runtime import SystemClock
from twinfs.common.transfer import SmallBlock
from twinfs.datanode import past_cache, quarantine, scrubber
from twinfs.datanode.blockstore import BlockStore
from twinfs.datanode.index import Index
from twinfs.datanode.pacing import Pace
from twinfs.datanode.past_cache import PastCache
from twinfs.datanode.scrubber import Pass, Scrubber, read_pass
from twinfs.datanode.volumes import Volume

LIMIT_S = 30.0
RATE = 1 << 30
MIB = 1 << 20


def filled(tmp_path: Path) -> BlockStore:
    """Two volumes with some small blocks."""
    volumes = [Volume(tmp_path / name, reserved_bytes=0) for name in ("one", "two")]
    store = BlockStore(volumes, small_block_bytes=1024, rng=random.Random(1))
    for number in range(20):
        data = f"block {number}".encode()
        item = SmallBlock(
            block_id=BlockId(1_000 + number),
            generation=GenerationStamp(1),
            length=len(data),
            digest=digest_of(data),
        )
        for future in store.put_small([item], memoryview(data), durable=False):
            future.result()
    return store


def write_block(store: BlockStore, block_id: int, data: bytes) -> BlockRef:
    """A replica that is a file."""
    block = BlockRef(block_id=BlockId(block_id), generation=GenerationStamp(1))
    replica = store.begin(block, store, len(data))
    for start in range(0, len(data), MIB):
        piece = memoryview(data)[start : start + MIB]
        replica.append(store, start, piece, digest_of(piece))
    store.finalize(replica, store, durable=True)
    return block


@asynccontextmanager
async def running(
    store: BlockStore, bad: list[BlockRef], *, bytes_per_s: int = 0, last: bool = True
) -> AsyncIterator[Scrubber]:
    """A scrubber; without a rate it reads on order only. *last*: the store is closed after it."""
    threads = ThreadPoolExecutor(2)
    loop = Scrubber(
        store,
        SystemClock(),
        threads,
        bytes_per_s=bytes_per_s,
        interval_s=3_600.0,
        busy=lambda: 0,
        bad=bad.append,
        missing=lambda _block: None,
        received=lambda _replica: None,
        renewed=lambda: None,
    )
    task = asyncio.create_task(loop.run())
    try:
        yield loop
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        threads.shutdown()
        if last:
            store.close()


async def scrubbed(volume: Volume, number: int) -> None:
    async with asyncio.timeout(LIMIT_S):
        while read_pass(volume.path).number < number or read_pass(volume.path).running:
            await asyncio.sleep(0)


async def test_an_order_reads_every_volume(tmp_path: Path) -> None:
    store = filled(tmp_path)
    async with running(store, []) as loop:
        for number in (1, 2):
            loop.order(RATE)
            for volume in store.volumes:
                await scrubbed(volume, number)
    assert sum(read_pass(volume.path).checked for volume in store.volumes) == 20


async def test_a_volume_out_of_service_keeps_nobody_waiting(tmp_path: Path) -> None:
    """An order reaches it, too; it is never carried out, and the loop must not run round without a pause meanwhile."""
    store = filled(tmp_path)
    gone, left = store.volumes
    gone.fail("No such file or directory")
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with running(store, []) as loop:
        other = asyncio.create_task(others())
        loop.order(RATE)
        await scrubbed(left, 1)
        before = turns
        async with asyncio.timeout(LIMIT_S):
            while turns < before + 10:
                await asyncio.sleep(0)
        loop.order(RATE)
        await scrubbed(left, 2)
        other.cancel()
    assert read_pass(gone.path).number == 0


async def test_an_order_for_a_volume_that_comes_back_is_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its index was being made anew just then."""
    monkeypatch.setattr(scrubber, "IDLE_S", 0.02)
    store = filled(tmp_path)
    away, left = store.volumes
    away.failure = "its index was damaged and is being made anew"
    async with running(store, []) as loop:
        loop.order(RATE)
        await scrubbed(left, 1)
        away.failure = ""
        await scrubbed(away, 1)


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_pass_goes_on_after_a_restart_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ordered: bool
) -> None:
    """Every replica is read once, by the one process or by the other, at the rate that was asked for."""
    monkeypatch.setattr(scrubber, "START_DELAY_S", 0.0)
    monkeypatch.setattr(scrubber, "SAVE_S", 0.0)
    monkeypatch.setattr(scrubber, "LEAST_BYTES", 1)
    # The index alone would take hours at the rates below.
    monkeypatch.setattr(Index, "inspect", lambda index, pause: "")
    store = filled(tmp_path)
    seen: list[int] = []
    verify = quarantine.verify

    def noted(where: BlockStore, block: BlockRef, pause: Callable[[int], None]) -> str:
        verdict = verify(where, block, pause)
        seen.append(block.block_id)
        return verdict

    monkeypatch.setattr(quarantine, "verify", noted)
    # The budget lets three of these blocks through at once, and then holds the pass up for seconds at each.
    rate = 1 if ordered else 100
    async with running(store, [], bytes_per_s=0 if ordered else rate, last=False) as loop:
        if ordered:
            loop.order(rate)
        async with asyncio.timeout(LIMIT_S):
            while not any(read_pass(volume.path).checked for volume in store.volumes):
                await asyncio.sleep(0)
    before = list(seen)
    assert 0 < len(before) < 20
    found = [read_pass(volume.path) for volume in store.volumes]
    # What was read when the process went is read again, at most: one replica.
    assert len(before) - sum(state.checked for state in found) <= 1
    (begun,) = [state for state in found if state.running]
    assert begun.ordered == (rate if ordered else None)

    for volume in store.volumes:
        state = read_pass(volume.path)
        if state.ordered is not None:  # not to wait for so long here
            scrubber.save(volume, msgspec.structs.replace(state, ordered=0.0))
    (resumed,) = [v for v, state in zip(store.volumes, found, strict=True) if state.running]
    held = len(resumed.index.page(0, 100))
    async with running(store, [], bytes_per_s=0 if ordered else RATE):
        await scrubbed(resumed, 1)
    assert read_pass(resumed.path).checked == held
    assert set(before[:-1]).isdisjoint(seen[len(before) :])


async def test_an_order_replaces_a_pass_that_was_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrubber, "START_DELAY_S", 3_600.0)
    store = filled(tmp_path)
    for volume in store.volumes:
        scrubber.save(volume, Pass(number=5, began_ms=1, after=1_010, checked=3, ordered=0.0))
    async with running(store, []) as loop:
        loop.order(RATE)
        for volume in store.volumes:
            await scrubbed(volume, 6)
    assert sum(read_pass(volume.path).checked for volume in store.volumes) == 20


def test_a_place_written_by_an_older_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "scrub.json").write_text('{"number": 3, "after": 7, "began_ms": 1}')
    found = read_pass(tmp_path)
    assert (found.number, found.after, found.running, found.ordered) == (3, 7, True, None)


async def test_an_order_breaks_off_the_reading_of_a_large_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a low rate one takes hours. The rate holds within it, piece by piece."""
    monkeypatch.setattr(Index, "inspect", lambda index, pause: "")
    store = filled(tmp_path)
    data = bytes(range(256)) * (9 * MIB // 256)
    write_block(store, 1, data)
    found = store.find(1)
    assert found is not None
    volume = found[0]
    pieces = pieces_of(monkeypatch)
    bad: list[BlockRef] = []
    async with running(store, bad) as loop:
        loop.order(1)
        async with asyncio.timeout(LIMIT_S):
            while not pieces:
                await asyncio.sleep(0)
        assert loop.passes[volume.volume_id].running  # which is told while it goes on
        loop.order(RATE)
        for one in store.volumes:
            await scrubbed(one, 2 if one is volume else 1)
    assert [size for size in pieces if size >= MIB][-3:] == [4 * MIB, 4 * MIB, MIB]
    assert sum(read_pass(one.path).checked for one in store.volumes) == 21
    assert not bad


def pieces_of(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What scrubbers ask leave to read from now on."""
    pieces: list[int] = []
    wait_s = Scrubber._wait_s

    def noted(self: Scrubber, size_bytes: int, pace: Pace, now_s: float) -> float:
        pieces.append(size_bytes)
        return wait_s(self, size_bytes, pace, now_s)

    monkeypatch.setattr(Scrubber, "_wait_s", noted)
    return pieces


async def test_an_order_breaks_off_the_reading_of_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read at the rate of the pass; and small replicas cost what it takes to find them."""
    store = filled(tmp_path)
    pieces = pieces_of(monkeypatch)
    async with running(store, []) as loop:
        loop.order(1)
        async with asyncio.timeout(LIMIT_S):
            while not pieces:
                await asyncio.sleep(0)
        assert not any(read_pass(volume.path).checked for volume in store.volumes)
        loop.order(RATE)
        for volume in store.volumes:
            await scrubbed(volume, 2 if read_pass(volume.path).number == 2 else 1)
    assert sum(read_pass(volume.path).checked for volume in store.volumes) == 20
    assert len(pieces) >= 20 + len(store.volumes)
    assert min(pieces) == scrubber.LEAST_BYTES


async def test_the_end_of_the_process_waits_for_no_budget(tmp_path: Path) -> None:
    store = filled(tmp_path)
    async with asyncio.timeout(LIMIT_S):
        async with running(store, []) as loop:
            loop.order(1)
            while not any(volume.path.joinpath("scrub.json").exists() for volume in store.volumes):
                await asyncio.sleep(0)


def test_what_is_truncated_while_it_is_read_is_not_called_damaged(tmp_path: Path) -> None:
    store = filled(tmp_path)
    block = write_block(store, 1, bytes(9 * MIB))
    found = store.find(1)
    assert found is not None
    volume, _ = found

    def truncate(size_bytes: int) -> None:
        """As a truncation would: another length, another generation, one file."""
        if volume.final_path(1, 1).exists():
            os.truncate(volume.final_path(1, 1), MIB)
            volume.remove([1])

    assert quarantine.verify(store, block, truncate) == "unknown"
    assert not quarantine.is_marked(store, 1)
    store.close()


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 4 * MIB, 4 * MIB + 1, 9 * MIB + 4097])
def test_reading_past_the_cache_brings_the_bytes_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, direct: bool
) -> None:
    if not direct:
        monkeypatch.setattr(past_cache, "DIRECT", 0)
    data = random.Random(length).randbytes(length)
    path = tmp_path / "f"
    path.write_bytes(data)
    sizes: list[int] = []
    descriptor = os.open(path, os.O_RDONLY)
    try:
        reader = PastCache(descriptor, sizes.append)
        found = b"".join(bytes(reader.read(MIB, at)) for at in range(0, length + MIB, MIB))
    finally:
        os.close(descriptor)
    assert found == data
    assert sum(sizes) == length
    assert all(size == 4 * MIB for size in sizes[: length // (4 * MIB)])


async def test_what_can_not_be_told_is_not_counted_as_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path)
    monkeypatch.setattr(quarantine, "verify", lambda *_: "unknown")
    async with running(store, []) as loop:
        loop.order(RATE)
        for volume in store.volumes:
            await scrubbed(volume, 1)
    found = [read_pass(volume.path) for volume in store.volumes]
    assert (sum(one.checked for one in found), sum(one.damaged for one in found)) == (20, 0)

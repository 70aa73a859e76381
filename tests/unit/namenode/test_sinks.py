"""Publishing to Kafka: nothing about a path overtakes what is older about it, though the broker fails in between."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from twinfs.common.codec import to_json
from twinfs.common.model import Event, INodeId
from twinfs.namenode import sinks
from twinfs.namenode.push import Refused
from twinfs.namenode.tail import Entry


def entries(paths: list[str], first: int = 1) -> list[Entry]:
    found = []
    for offset, path in enumerate(paths, first):
        event = Event(
            offset=offset, time_ms=1, kind="put", path=path, user="u", inode_id=INodeId(1)
        )
        found.append(Entry(event, to_json(event)))
    return found


class Broker:
    """Stores or fails each record by chance; as aiokafka's producer, it takes a record before it knows of the one before."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.stored: list[tuple[bytes, int]] = []

    async def send(
        self, topic: str, value: bytes, *, key: bytes, timestamp_ms: int, headers: Any
    ) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        chance = self.rng.random()
        if chance < 0.8:
            self.stored.append((key, int(headers[0][1])))
        if chance < 0.6:
            future.set_result(None)
        else:
            future.set_exception(OSError("the answer was lost, or the record"))
            future.exception()
        return future

    async def stop(self) -> None: ...


@pytest.mark.parametrize("seed", range(20))
async def test_first_arrivals_of_a_path_are_in_order(seed: int) -> None:
    """Method: a producer that fails at random; what is refused is sent again, whole, as the pushing loop does."""
    rng = random.Random(seed)
    broker = Broker(rng)
    sink = sinks.KafkaSink(sinks.parse("kafka://h:1/topic"))
    wanted = entries([f"/p{rng.randrange(4)}" for _ in range(40)])
    for start in range(0, len(wanted), 8):
        batch = wanted[start : start + 8]
        for _ in range(100_000):
            sink._producer = broker
            try:
                await sink.send(batch)
                break
            except Refused:
                continue
        else:
            raise AssertionError("it never got through")
    firsts: dict[bytes, list[int]] = {}
    for key, offset in broker.stored:
        seen = firsts.setdefault(key, [])
        if offset not in seen:
            seen.append(offset)
    assert all(offsets == sorted(offsets) for offsets in firsts.values())
    assert sorted(n for offsets in firsts.values() for n in offsets) == list(range(1, 41))


def test_waves_name_each_path_once() -> None:
    parts = sinks.waves(entries(["/a", "/b", "/a", "/c", "/a", "/b"]))
    assert [[e.event.offset for e in part] for part in parts] == [[1, 2, 4], [3, 6], [5]]
    assert sinks.waves([]) == []

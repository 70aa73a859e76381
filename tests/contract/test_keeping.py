"""The charts' history is found again by the NameNode that comes after, and by no other."""

from __future__ import annotations

from dataclasses import replace

from twinfs.common.config import NameNodeConfig
from twinfs.common.runtime import ManualClock, SystemClock
from twinfs.common.watch import HistoryPoint
from twinfs.namenode.history import DAY_S, Kept
from twinfs.namenode.keeping import Keeping
from twinfs.namenode.store import open_store
from twinfs.namenode.store.base import MetadataStore, Transaction


class Watched:
    """What is kept of a NameNode."""

    def __init__(self, point: int = 0) -> None:
        self.fine = [HistoryPoint(time_ms=point, calls_s=1.5)] if point else []
        self.found: Kept | None = None

    def to_keep(self, now_ms: int) -> Kept:
        return Kept(saved_ms=now_ms, fine=self.fine, since_ms={"dead-1": 7})

    def take_back(self, kept: Kept) -> None:
        self.found = kept


def rows(tx: Transaction) -> list[str]:
    return [row[0] for row in tx.all("SELECT name FROM meta WHERE name LIKE 'history%'")]


async def test_what_one_wrote_the_next_one_finds(config: NameNodeConfig) -> None:
    clock = ManualClock()
    store = await open_store(config, SystemClock())
    first = Keeping(config, store, Watched(5), clock)
    await first.load()  # there is nothing yet
    await first.save()
    await first.save()
    await store.close()
    store = await open_store(config, SystemClock())
    watched = Watched()
    await Keeping(config, store, watched, clock).load()
    assert watched.found == Kept(
        saved_ms=clock.wall_ms(), fine=Watched(5).fine, since_ms={"dead-1": 7}
    )
    assert len(await store.read(rows)) == 1
    await store.close()


async def test_a_history_that_cannot_be_read_stops_nobody(
    config: NameNodeConfig, store: MetadataStore
) -> None:
    watched = Watched(5)
    keeping = Keeping(config, store, watched, ManualClock())
    await keeping.save()
    await store.run(lambda tx: tx.execute("UPDATE meta SET value = 'x' WHERE name LIKE 'history%'"))
    await keeping.load()
    assert watched.found is None
    await keeping.save()
    await keeping.load()
    assert watched.found is not None


async def test_several_namenodes_have_a_row_each_and_leave_few_behind(
    config: NameNodeConfig, store: MetadataStore
) -> None:
    if not config.database:
        config = replace(config, database="postgresql://as-if")
    clock = ManualClock()
    for port in range(5):
        at = replace(config, port=9000 + port)
        await Keeping(at, store, Watched(port + 1), clock).save()
    assert len(await store.read(rows)) == 5
    watched = Watched()
    await Keeping(replace(config, port=9003), store, watched, clock).load()
    assert watched.found is not None
    assert watched.found.fine[0].time_ms == 4
    clock.advance(DAY_S + 60)
    await Keeping(replace(config, port=9100), store, Watched(9), clock).save()
    assert len(await store.read(rows)) == 1

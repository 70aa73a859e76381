"""Replicas on the volumes of one DataNode: written, published, read, deleted, reported.

All methods block and are called from threads. Publishing is crash-safe: a replica is recorded in its volume's index only
when its bytes are durable under their final name, and whoever is told that it is finalized is told after that.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ..common import disk
from ..common.errors import (
    BlockNotFound,
    ChecksumMismatch,
    DfsError,
    InvalidRequest,
    StaleGeneration,
    VolumeFailed,
)
from ..common.messages import ReplicaReport
from ..common.model import BlockRef
from ..common.transfer import SmallBlock
from .exclusive import Exclusive
from .index import FIRST_LOCAL_BLOCK, Added, Name, Replica
from .replicas import (
    Found,
    drop,
    mark_damaged,
    merged_page,
    renew,
    report_stored,
    report_writing,
    same_generation,
    settle,
    start_from,
    take_back,
    write_whole,
)
from .volumes import Volume, choose_volume, storage_error
from .writing import WritingReplica

log = logging.getLogger(__name__)
REMOVED_AT_ONCE = 128  # replicas, in one transaction: who writes has to wait for it


class BlockStore:
    """Everything this DataNode holds."""

    def __init__(
        self, volumes: Sequence[Volume], *, small_block_bytes: int, rng: random.Random
    ) -> None:
        self.volumes = list(volumes)
        self._small_block_bytes = small_block_bytes
        self.rng = rng
        # What moves a finalized replica, takes it back, renews, deletes it or puts it aside, holds its block.
        self.changing = Exclusive()
        self._lock = threading.Lock()
        self._writing: dict[int, WritingReplica] = {}
        self._puts = itertools.count()
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="writeback")
        for volume in self.volumes:
            for block_id, generation, path in list(volume.files("writing")):
                known = self._writing.get(block_id)
                if known is not None and known.generation >= generation:
                    continue
                found = self.find(block_id)
                if found is not None and found[1].generation >= generation:
                    # A copy that was being made while the volume of this one was out of service. Nobody would ever
                    # end it or take it away, and no other copy could be made here while it stays.
                    log.info("%s is left from a copy that is here in whole", path)
                    path.unlink()
                    continue
                replica = WritingReplica(volume, block_id, generation, path)
                replica.length = path.stat().st_size
                self._writing[block_id] = replica

    def volume_for(self, size_bytes: int) -> Volume:
        """A volume for so many more bytes. DiskFull, VolumeFailed."""
        return choose_volume(self.volumes, size_bytes, self.rng)

    def written_on(self, volume: Volume) -> int:
        """How many replicas are being written on a volume."""
        with self._lock:
            return sum(replica.volume is volume for replica in self._writing.values())

    def let_go(self, volume: Volume) -> None:
        """Have the store know a volume no more; closing it is the caller's affair."""
        # Another list, since threads go through the old one.
        self.volumes = [known for known in self.volumes if known is not volume]
        with self._lock:
            for block_id, replica in list(self._writing.items()):
                if replica.volume is volume:
                    del self._writing[block_id]

    # --- finding ---

    def find(self, block_id: int) -> tuple[Volume, Replica] | None:
        """The finalized replica of a block. Not for who holds the block."""
        return self.changing.look(block_id, lambda: self._look(block_id))

    def _look(self, block_id: int) -> tuple[Volume, Replica] | None:
        for volume in self.volumes:
            if not volume.failure and (replica := volume.index.get(block_id)) is not None:
                return volume, replica
        return None

    def writing(self, block_id: int) -> WritingReplica | None:
        with self._lock:
            return self._writing.get(block_id)

    def open(self, block: BlockRef) -> Found:
        """A replica of exactly this generation, finalized or being written.

        Raises BlockNotFound, StaleGeneration, VolumeFailed.
        """
        found = self.find(block.block_id)
        if found is None:
            replica = self.writing(block.block_id)
            if replica is None or (replica.descriptor < 0 and not replica.length):
                raise BlockNotFound(f"block {block.block_id} is not on this DataNode")
            generation, length, digests = self._snapshot(replica)
            same_generation(block, generation)
            return Found(
                generation,
                length,
                digests,
                False,
                None,
                self._open_file(replica.volume, replica.path),
            )
        try:
            return self._open_finalized(block, *found)
        except BlockNotFound:
            # Moved since it was found, or gone.
            with self.changing.hold([block.block_id]):
                found = self._look(block.block_id)
                if found is None:
                    raise
                return self._open_finalized(block, *found)

    def _open_finalized(self, block: BlockRef, volume: Volume, stored: Replica) -> Found:
        same_generation(block, stored.generation)
        if stored.inline:
            data = volume.index.data(block.block_id)
            if data is None:
                raise BlockNotFound(f"block {block.block_id} is not on this DataNode")
            return Found(stored.generation, stored.length, stored.digests, True, data, -1)
        path = volume.final_path(block.block_id, stored.generation)
        descriptor = self._open_file(volume, path)
        return Found(stored.generation, stored.length, stored.digests, True, None, descriptor)

    def _snapshot(self, replica: WritingReplica) -> tuple[int, int, bytes]:
        with replica.lock:
            dormant = replica.descriptor < 0
        if dormant:
            # Left by a former life of this process: hash it once.
            replica.take_over(None, replica.generation)
            with replica.lock:
                if replica.descriptor < 0:
                    replica.open_existing(replica.length, b"")
        return replica.snapshot()

    def _open_file(self, volume: Volume, path: Path) -> int:
        try:
            disk.reading(path)
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            volume.check()
            raise BlockNotFound(f"the file of the replica, {path}, is gone") from None
        except OSError as error:
            volume.check()
            raise storage_error(error, "can't read the replica") from None

    def small(self, block_ids: Sequence[int]) -> dict[int, tuple[int, bytes]]:
        """block id -> (generation, bytes) of those that live inside an index."""
        found: dict[int, tuple[int, bytes]] = {}
        for volume in self.volumes:
            if not volume.failure:
                found.update(volume.index.small(block_ids))
        return found

    # --- writing ---

    def begin(
        self, block: BlockRef, owner: object, expected_bytes: int, *, copy: bool = False
    ) -> WritingReplica:
        """A new, empty replica, written by *owner*; a *copy* is not reported before it is finalized, and a damaged replica
        may be here, which it is to take the place of."""
        if not copy and self.find(block.block_id) is not None:
            raise StaleGeneration(f"block {block.block_id} is finalized here already")
        with self._lock:
            known = self._writing.get(block.block_id)
        if known is not None:
            # The client begins the block anew in a later generation.
            if known.generation >= block.generation:
                raise StaleGeneration(f"block {block.block_id} is being written here already")
            self.discard(known)
        volume = choose_volume(self.volumes, expected_bytes, self.rng)
        path = volume.writing_path(block.block_id, block.generation)
        replica = WritingReplica(volume, block.block_id, block.generation, path)
        replica.owner, replica.is_copy = owner, copy
        try:
            replica.open_new()
        except DfsError:
            self._refuse_second(block.block_id)
            volume.check()
            raise
        self._register(replica)
        return replica

    def _refuse_second(self, block_id: int) -> None:
        if self.writing(block_id) is not None:
            raise StaleGeneration(f"block {block_id} is being written here already")

    def _register(self, replica: WritingReplica) -> None:
        """From now on it is the one being written; StaleGeneration if another came first."""
        with self._lock:
            first = self._writing.setdefault(replica.block_id, replica)
        if first is not replica:
            replica.close()
            if first.path != replica.path:
                replica.path.unlink(missing_ok=True)
            raise StaleGeneration(f"block {replica.block_id} is being written here already")

    def begin_from(
        self, block: BlockRef, owner: object, base: BlockRef, length: int
    ) -> WritingReplica | None:
        """As `begin`, with the first *length* bytes of a finalized replica here; None if it is not here, or damaged.

        Whole files are shared by a hard link when this name would be the only other one: the bytes up to the old replica's
        length are never written again, and what comes after them is the new one's.
        """
        with self.changing.hold([base.block_id]):
            return self._begin_from(block, owner, base, length)

    def _begin_from(
        self, block: BlockRef, owner: object, base: BlockRef, length: int
    ) -> WritingReplica | None:
        found = self._look(base.block_id)
        if found is None or found[1].generation != base.generation or found[1].length < length:
            return None
        volume, stored = found
        if base.block_id in volume.index.damaged:
            return None
        if self.writing(block.block_id) is not None or self._look(block.block_id) is not None:
            raise StaleGeneration(f"block {block.block_id} is here already")
        path = volume.writing_path(block.block_id, block.generation)
        replica = WritingReplica(volume, block.block_id, block.generation, path)
        replica.owner = owner
        try:
            start_from(volume, stored, path, length)
            replica.open_existing(length, stored.digests, stored.length)
        except FileExistsError:
            self._refuse_second(block.block_id)
            raise VolumeFailed(f"{path} is there, and nobody knows of it") from None
        except (OSError, DfsError) as error:
            replica.close()
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)  # nobody knows of it yet
            if isinstance(error, ChecksumMismatch):
                mark_damaged(volume, stored, error)
                return None
            if isinstance(error, DfsError):
                raise
            volume.check()
            raise storage_error(error, f"can't begin {path.name}") from None
        self._register(replica)
        return replica

    def resume(self, block: BlockRef, owner: object, length: int) -> WritingReplica:
        """Go on with a replica being written, cut to *length*, in a new generation.

        One that was finalized here is taken back: its writer never learnt that it was, or other nodes failed.
        """
        replica = self._taken_over(block.block_id, owner, block.generation)
        if replica is None:
            replica = self._reopened(block, owner)
        replica.cut(length)
        self._rename_writing(replica, block.generation)
        return replica

    def _taken_over(self, block_id: int, owner: object, generation: int) -> WritingReplica | None:
        """The replica being written, *owner*'s from now on; None if there is none (any more)."""
        replica = self.writing(block_id)
        if replica is None:
            return None
        with replica.publishing:
            if self.writing(block_id) is not replica:
                return None  # finalized while this waited
            replica.take_over(owner, generation)
            with replica.lock:
                if replica.descriptor < 0:
                    replica.open_existing(replica.length, b"")
        return replica

    def _reopened(self, block: BlockRef, owner: object) -> WritingReplica:
        """Turn a finalized replica of an older generation into one being written. Its bytes stay durable throughout."""
        with self.changing.hold([block.block_id]):
            self.settle(block.block_id)
            return self._take_back(block, owner)

    def _take_back(self, block: BlockRef, owner: object) -> WritingReplica:
        found = self._look(block.block_id)
        if found is None:
            raise BlockNotFound(f"block {block.block_id} is not being written on this DataNode")
        volume, stored = found
        if stored.generation >= block.generation:
            raise StaleGeneration(
                f"block {block.block_id} is finalized here in generation {stored.generation}"
            )
        path = volume.writing_path(block.block_id, block.generation)
        replica = WritingReplica(volume, block.block_id, block.generation, path)
        replica.owner = owner
        # Known before anything changes on the disk, so that two who want it don't both take it back; who comes second
        # waits for the first, and finds a replica that is being written.
        with replica.publishing:
            with self._lock:
                first = self._writing.setdefault(block.block_id, replica)
            if first is not replica:
                raise StaleGeneration(f"block {block.block_id} is being written here already")
            try:
                take_back(replica, stored)
            except DfsError:
                if replica.length == 0:
                    self._forget_writing(replica)
                raise
            if self.writing(block.block_id) is not replica:
                path.unlink(missing_ok=True)
                raise StaleGeneration(f"block {block.block_id} was deleted here meanwhile")
        return replica

    def _forget_writing(self, replica: WritingReplica) -> None:
        with self._lock:
            if self._writing.get(replica.block_id) is replica:
                del self._writing[replica.block_id]

    def _rename_writing(self, replica: WritingReplica, generation: int) -> None:
        path = replica.volume.writing_path(replica.block_id, generation)
        if path != replica.path:
            try:
                disk.rename(replica.path, path, "replica.generation")
            except OSError as error:
                raise storage_error(error, f"can't rename {replica.path.name}") from None
            with replica.lock:
                replica.path, replica.generation = path, generation

    def writeback(self, replica: WritingReplica) -> None:
        replica.start_writeback(self._threads)

    def finalize(
        self,
        replica: WritingReplica,
        owner: object,
        *,
        durable: bool,
        names: Sequence[Name] = (),
    ) -> bytes:
        """Publish a replica: durable under its final name, then recorded with *names*. Its chunk digests.

        *durable* False leaves the bytes to the kernel; the record is durable always.
        """
        with replica.publishing:
            return self._publish(replica, owner, durable, names)

    def _publish(
        self, replica: WritingReplica, owner: object, durable: bool, names: Sequence[Name]
    ) -> bytes:
        volume = replica.volume
        generation, length, digests = replica.snapshot()
        with replica.lock:
            if replica.owner is not owner:
                raise StaleGeneration("another writer or a recovery has taken this block over")
        try:
            if length <= self._small_block_bytes:
                data = os.pread(replica.descriptor, length, 0)
                stored = Replica(replica.block_id, generation, length, True, digests)
                volume.add([stored], [(replica.block_id, data)], names).result()
                replica.close()
                replica.path.unlink(missing_ok=True)
            else:
                if durable:
                    replica.sync()
                final = volume.final_path(replica.block_id, generation)
                volume.make_folder(final)
                disk.rename(replica.path, final, "replica.rename")
                try:
                    if durable:
                        disk.fsync_directory(final.parent, "replica.folder")
                    stored = Replica(replica.block_id, generation, length, False, digests)
                    volume.add([stored], (), names).result()
                except (OSError, DfsError):
                    # Still being written, then, and where its name says so.
                    with contextlib.suppress(OSError):
                        disk.rename(final, replica.path, "replica.unpublish")
                    raise
                replica.close()
        except OSError as error:
            volume.check()
            raise storage_error(error, f"can't publish block {replica.block_id}") from None
        with self._lock:
            self._writing.pop(replica.block_id, None)
        return digests

    def discard(self, replica: WritingReplica) -> None:
        """Give up a replica being written, and its bytes."""
        replica.take_over(object(), replica.generation)
        self._forget_writing(replica)
        with replica.lock:
            replica.close()
        with contextlib.suppress(OSError):
            replica.path.unlink(missing_ok=True)

    def put_small(
        self,
        items: Sequence[SmallBlock],
        payload: memoryview,
        *,
        durable: bool,
        names: Sequence[Name] = (),
    ) -> list[Future[Added]]:
        """Store whole blocks of at most one chunk; the futures are done when all is durable.

        Their digests were verified. *names*: further hashes of them. A block that is here already in this generation is stored again, harmlessly.
        """
        blocks = [
            Replica(i.block_id, i.generation, i.length, False, i.digest if i.length else b"")
            for i in items
        ]
        return self.put_whole(blocks, payload, durable=durable, names=names)

    def put_whole(
        self,
        blocks: Sequence[Replica],
        payload: memoryview,
        *,
        durable: bool,
        names: Sequence[Name] = (),
    ) -> list[Future[Added]]:
        """As `put_small`, of blocks of any length whose bytes follow each other in *payload*."""
        volume = choose_volume(self.volumes, sum(block.length for block in blocks), self.rng)
        records: list[Replica] = []
        data: list[tuple[int, bytes | memoryview]] = []
        files: list[Replica] = []
        contents: list[memoryview] = []
        offset = 0
        for block in blocks:
            piece = payload[offset : offset + block.length]
            offset += block.length
            inline = block.length <= self._small_block_bytes
            records.append(block._replace(inline=inline))
            if inline:
                data.append((block.block_id, piece))
            else:
                files.append(block)
                contents.append(piece)
        try:
            write_whole(volume, files, contents, self._puts, durable=durable)
        except OSError as error:
            volume.check()
            raise storage_error(error, "can't store small blocks") from None
        return [volume.add(records, data, names)]

    # --- deleting ---

    def remove(self, blocks: Sequence[BlockRef]) -> list[BlockRef]:
        """Delete replicas of these generations and older ones; all of *blocks*, unless a volume failed."""
        with self.changing.hold([block.block_id for block in blocks]):
            by_volume: dict[int, list[Replica]] = {}
            for block in blocks:
                replica = self.writing(block.block_id)
                if replica is not None and replica.generation <= block.generation:
                    self.discard(replica)
                for number, volume in enumerate(self.volumes):
                    if volume.failure:
                        continue
                    stored = volume.index.get(block.block_id)
                    if stored is not None and stored.generation <= block.generation:
                        by_volume.setdefault(number, []).append(stored)
            for number, replicas in by_volume.items():
                for start in range(0, len(replicas), REMOVED_AT_ONCE):
                    drop(self.volumes[number], replicas[start : start + REMOVED_AT_ONCE])
        return list(blocks)

    def settle(self, block_id: int) -> None:
        """Have one replica of a block where two volumes have one: a crash came between the parts of a move, or a batch was
        sent again. Its block is held by the caller."""
        settle([volume for volume in self.volumes if not volume.failure], block_id)

    # --- recovery ---

    def begin_recovery(self, block: BlockRef, generation: int) -> tuple[int, bytes, bool, int]:
        """(length, digests, finalized, generation here); writers of the replica are stopped."""
        replica = self.writing(block.block_id)
        if replica is not None and replica.generation > generation:
            raise StaleGeneration(f"block {block.block_id} is of a later generation here")
        owner = ("recovery", generation)
        replica = replica and self._taken_over(block.block_id, owner, replica.generation)
        if replica is not None:
            here, length, digests = replica.snapshot()
            return length, digests, False, here
        found = self.find(block.block_id)
        if found is None:
            raise BlockNotFound(f"block {block.block_id} is not on this DataNode")
        stored = found[1]
        if stored.generation > generation:
            raise StaleGeneration(f"block {block.block_id} has been recovered already")
        return stored.length, stored.digests, True, stored.generation

    def finish_recovery(self, block: BlockRef, generation: int, length: int) -> bytes:
        """Finalize in the new generation with *length* bytes; the digests."""
        with self.changing.hold([block.block_id]):
            self.settle(block.block_id)
            found = self._look(block.block_id)
            if found is not None:
                volume, stored = found
                if stored.length != length or stored.generation > generation:
                    raise InvalidRequest(
                        f"block {block.block_id} is finalized here with {stored.length} bytes"
                    )
                if stored.generation != generation:
                    renew(volume, stored, generation)
                return stored.digests
        owner = ("recovery", generation)
        replica = self.writing(block.block_id)
        if replica is None:
            raise BlockNotFound(f"block {block.block_id} is not on this DataNode")
        if replica.owner != owner:
            raise StaleGeneration("the recovery was overtaken")
        replica.owner = owner = replica.owner  # finalize compares by identity
        replica.cut(length)
        self._rename_writing(replica, generation)
        return self.finalize(replica, owner, durable=True)

    # --- checking and reporting ---

    def report_of(self, block: BlockRef) -> ReplicaReport | None:
        """What an incremental report says of a replica."""
        found = self.find(block.block_id)
        if found is not None:
            return report_stored(*found)
        replica = self.writing(block.block_id)
        return None if replica is None else report_writing(replica)

    def pages(self, limit: int) -> Iterator[tuple[int, list[ReplicaReport], bool]]:
        """(start_after, replicas, last) in the order of ids, over all volumes; without content of a peer's own."""
        after = 0
        while True:
            volumes = [volume for volume in self.volumes if not volume.failure]
            merged, twice, complete, end = merged_page(volumes, after, limit)
            for block_id in twice:
                with self.changing.hold([block_id]):
                    self.settle(block_id)
                    kept = self._look(block_id)
                del merged[block_id]
                merged |= {block_id: report_stored(*kept)} if kept else {}
            with self._lock:
                for block_id, replica in self._writing.items():
                    if after < block_id < FIRST_LOCAL_BLOCK and not replica.is_copy:
                        merged.setdefault(block_id, report_writing(replica))
            keys = [key for key in sorted(merged) if key <= end]
            if len(keys) > limit:
                # Full pages of several volumes, and what is being written: too many for one message.
                complete, end = False, keys[limit - 1]
            replicas = [merged[key] for key in keys[:limit]]
            yield after, replicas, complete
            if complete:
                return
            after = end

    def totals(self) -> int:
        """How many replicas are finalized."""
        return max(0, sum(volume.replicas for volume in self.volumes if not volume.failure))

    def states(self) -> dict[str, int]:
        """Replicas by state; damaged ones are finalized, too."""
        damaged = sum(len(volume.index.damaged) for volume in self.volumes if not volume.failure)
        return {"finalized": self.totals(), "writing": len(self._writing), "damaged": damaged}

    def release_thread(self) -> None:
        """Let go of what the calling thread holds; before it ends."""
        for volume in self.volumes:
            volume.index.release_reader()

    def close(self) -> None:
        with self._lock:
            replicas = list(self._writing.values())
        for replica in replicas:
            with replica.lock:
                replica.close()
        self._threads.shutdown()
        for volume in self.volumes:
            volume.close()

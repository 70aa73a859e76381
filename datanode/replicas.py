"""The bytes of single replicas: an opened one, checking it, copying and writing files."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..common import disk
from ..common.checksum import CHUNK_BYTES, DIGEST_BYTES, block_digest, chunk_count, digest_of
from ..common.errors import ChecksumMismatch, DfsError, StaleGeneration, StoreDamaged
from ..common.messages import ReplicaReport
from ..common.model import BlockId, BlockRef, GenerationStamp
from .index import FIRST_LOCAL_BLOCK, Replica
from .past_cache import PastCache
from .volumes import Volume, storage_error
from .writing import WritingReplica

log = logging.getLogger(__name__)
OPEN_AT_ONCE = 64  # files of a batch: a request may have a thousand blocks, and so may many at once


class Found(NamedTuple):
    """A replica to read: from *data*, or from *descriptor* (the caller's to close)."""

    generation: int
    length: int
    digests: bytes
    finalized: bool
    data: bytes | None
    descriptor: int


def is_intact(found: Found, pause: Callable[[int], None] | None = None) -> bool:
    """Whether the bytes of a finalized replica fit its length and digests. Reads all of them; OSError if they can't be read.

    With *pause*, which is called with the size of each piece before that is read, those of a file come from the disk, whatever the
    system remembers.
    """
    if found.data is not None:
        if pause is not None:
            pause(found.length)
        if len(found.data) != found.length:
            return False
        return not found.length or digest_of(found.data) == found.digests
    disk.reading(found.descriptor)
    disk_itself = None if pause is None else PastCache(found.descriptor, pause)
    for number in range(chunk_count(found.length)):
        at = number * CHUNK_BYTES
        size = min(CHUNK_BYTES, found.length - at)
        chunk = (
            os.pread(found.descriptor, size, at)
            if disk_itself is None
            else disk_itself.read(size, at)
        )
        wanted = found.digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]
        if len(chunk) != size or digest_of(chunk) != wanted:
            return False
    return True


def same_generation(block: BlockRef, here: int) -> None:
    """StaleGeneration unless the replica *here* is of the block's."""
    if block.generation != here:
        raise StaleGeneration(
            f"block {block.block_id} is of generation {here} here, not {block.generation}"
        )


def require_digest(payload: memoryview, digest: bytes, what: str) -> None:
    """ChecksumMismatch unless *payload* has *digest*."""
    if digest_of(payload) != digest:
        raise ChecksumMismatch(f"{what} does not match its digest")


def write_files(paths: Sequence[Path], contents: Sequence[memoryview], *, durable: bool) -> None:
    """Make files, each of its bytes. OSError leaves some of them."""
    for start in range(0, len(paths), OPEN_AT_ONCE):
        descriptors: list[int] = []
        try:
            part = slice(start, start + OPEN_AT_ONCE)
            for path, content in zip(paths[part], contents[part], strict=True):
                descriptors.append(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
                disk.write_all(descriptors[-1], content)
            if durable:
                # Not one after the other with their writing: most of what one of them waits for is the same for all.
                for descriptor in descriptors:
                    disk.fdatasync(descriptor, "batch.sync")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def write_whole(
    volume: Volume,
    blocks: Sequence[Replica],
    contents: Sequence[memoryview],
    names: Iterator[int],
    *,
    durable: bool,
) -> None:
    """Make the files of blocks, whole, under their final names. OSError leaves none that is not complete.

    *names* gives numbers that are not used twice: the same block may be on its way here a second time.
    """
    temporary = [
        volume.path / "writing" / f"put_{block.block_id}_{block.generation}_{next(names)}"
        for block in blocks
    ]
    folders: set[Path] = set()
    try:
        write_files(temporary, contents, durable=durable)
        for block, written in zip(blocks, temporary, strict=True):
            final = volume.final_path(block.block_id, block.generation)
            volume.make_folder(final)
            disk.rename(written, final, "batch.rename")
            folders.add(final.parent)
        if durable:
            for folder in folders:
                disk.fsync_directory(folder, "batch.folder")
    except OSError:
        for written in temporary:
            with contextlib.suppress(OSError):
                written.unlink(missing_ok=True)
        raise


def copy_prefix(source: os.PathLike[str], target: os.PathLike[str], length: int) -> None:
    """Make *target*, which must not exist, of the first *length* bytes of *source*. ChecksumMismatch if there are fewer."""
    with open(source, "rb") as reader, open(target, "xb") as writer:  # noqa: PTH123
        disk.writing(writer.fileno(), 0)
        done = 0
        while done < length:
            copied = os.copy_file_range(reader.fileno(), writer.fileno(), length - done)
            if copied == 0:
                raise ChecksumMismatch("the replica is shorter than recorded")
            done += copied


def start_from(volume: Volume, stored: Replica, path: Path, length: int) -> None:
    """Make *path* of the first *length* bytes of a finalized replica, and what more there is of their last chunk: its digest is
    that of all of it. FileExistsError, other OSErrors."""
    wanted = min(stored.length, chunk_count(length) * CHUNK_BYTES)
    if stored.inline:
        with path.open("xb", buffering=0) as file:
            disk.write_all(
                file.fileno(), memoryview(volume.index.data(stored.block_id) or b"")[:wanted]
            )
        return
    source = volume.final_path(stored.block_id, stored.generation)
    if length == stored.length and source.stat().st_nlink == 1:
        disk.link(source, path, "base.link")
    else:
        copy_prefix(source, path, wanted)


def mark_damaged(volume: Volume, stored: Replica, error: DfsError) -> None:
    """A writer who wanted to go on with it has found it so."""
    log.error("block %d can't be gone on with: %s", stored.block_id, error.message)
    volume.index.mark(stored.block_id, stored.generation, damaged=True)


def require_tail(volume: Volume, stored: Replica) -> None:
    """ChecksumMismatch, and a mark, unless the last chunk of a finalized replica is as its digest says."""
    begins = max(0, chunk_count(stored.length) - 1) * CHUNK_BYTES
    if stored.inline:
        data = (volume.index.data(stored.block_id) or b"")[begins:]
    else:
        try:
            with volume.final_path(stored.block_id, stored.generation).open("rb") as file:
                data = os.pread(file.fileno(), stored.length - begins, begins)
        except OSError as error:
            raise storage_error(error, f"can't read block {stored.block_id}") from None
    if stored.length and digest_of(data) != stored.digests[-DIGEST_BYTES:]:
        problem = ChecksumMismatch(f"the replica of block {stored.block_id} is damaged")
        mark_damaged(volume, stored, problem)
        raise problem


def settle(volumes: Sequence[Volume], block_id: int) -> None:
    """Leave the best of the replicas that volumes have of a block: the latest, whole, where it may stay. None goes as long as the
    row of one can't be trusted."""
    try:
        held = [
            (
                (stored.generation, block_id not in volume.index.damaged, volume.takes_bytes),
                volume,
                stored,
            )
            for volume in volumes
            if (stored := volume.index.sure(block_id)) is not None
        ]
    except StoreDamaged:
        return
    if len(held) < 2:
        return
    held.sort(key=lambda entry: entry[0])
    (_, sound, _), volume, stored = held.pop()
    if sound and volume.has_file(stored):
        for _, volume, stored in held:
            drop(volume, [stored])


def drop(volume: Volume, replicas: Sequence[Replica]) -> None:
    """Forget finalized replicas of a volume, and then their files."""
    volume.remove([stored.block_id for stored in replicas])
    for stored in replicas:
        if not stored.inline:
            with contextlib.suppress(OSError):
                volume.final_path(stored.block_id, stored.generation).unlink()


def merged_page(
    volumes: Sequence[Volume], after: int, limit: int
) -> tuple[dict[int, ReplicaReport], set[int], bool, int]:
    """What volumes have of blocks after *after*: reports by id, ids that two of them have, whether that is all, and the id up
    to which it is."""
    merged: dict[int, ReplicaReport] = {}
    twice: set[int] = set()
    complete, end = True, 2**63
    for volume in volumes:
        page = volume.index.page(after, limit, before=FIRST_LOCAL_BLOCK)
        if len(page) == limit:
            complete = False
            end = min(end, page[-1].block_id)
        for stored in page:
            if stored.block_id in merged:
                twice.add(stored.block_id)
            merged[stored.block_id] = report_stored(volume, stored)
    return merged, twice, complete, end


def report_stored(volume: Volume, replica: Replica) -> ReplicaReport:
    return report_finalized(replica, replica.block_id in volume.index.damaged)


def report_finalized(replica: Replica, damaged: bool) -> ReplicaReport:
    return ReplicaReport(
        block_id=BlockId(replica.block_id),
        generation=GenerationStamp(replica.generation),
        length=replica.length,
        digest=block_digest(replica.digests),
        damaged=damaged,
    )


def report_writing(replica: WritingReplica) -> ReplicaReport:
    return ReplicaReport(
        block_id=BlockId(replica.block_id),
        generation=GenerationStamp(replica.generation),
        length=replica.length,
        finalized=False,
    )


def take_back(replica: WritingReplica, stored: Replica) -> None:
    """Make the bytes of a finalized replica those of *replica*, open for writing. Durable throughout.

    If that fails and nothing has changed on the disk, its length is 0 after that.
    """
    volume, path = replica.volume, replica.path
    final = volume.final_path(stored.block_id, stored.generation)
    require_tail(volume, stored)
    try:
        if stored.inline:
            with path.open("wb", buffering=0) as file:
                disk.write_all(file.fileno(), memoryview(volume.index.data(stored.block_id) or b""))
                disk.fdatasync(file.fileno(), "reopen.sync")
        else:
            disk.rename(final, path, "reopen.rename")
        # Found at a restart by its newer generation, even while the record is still there.
        disk.fsync_directory(path.parent, "reopen.folder")
        volume.remove([stored.block_id])
    except (OSError, DfsError) as error:
        with contextlib.suppress(OSError):
            if stored.inline:
                path.unlink(missing_ok=True)
            elif path.exists():
                disk.rename(path, final, "reopen.back")
        volume.check()
        if isinstance(error, DfsError):
            raise
        raise storage_error(error, f"can't reopen block {stored.block_id}") from None
    try:
        replica.open_existing(stored.length, stored.digests, stored.length)
    except DfsError:
        replica.length = stored.length  # the bytes are its own, and it is opened by whoever is next
        raise


def renew(volume: Volume, stored: Replica, generation: int) -> None:
    """Give a finalized replica a later generation."""
    renewed = stored._replace(generation=generation)
    if stored.inline:
        volume.add([renewed]).result()
        return
    source = volume.final_path(stored.block_id, stored.generation)
    target = volume.final_path(stored.block_id, generation)
    try:
        # Both names until the record is durable: a crash leaves one that fits it.
        with contextlib.suppress(FileExistsError):
            disk.link(source, target, "recovery.link")
        disk.fsync_directory(target.parent, "recovery.folder")
        volume.add([renewed]).result()
        source.unlink()
    except OSError as error:
        raise storage_error(error, "can't renew the replica") from None

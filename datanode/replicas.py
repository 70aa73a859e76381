"""The bytes of single replicas: an opened one, checking it, copying and writing files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..common import disk
from ..common.checksum import CHUNK_BYTES, DIGEST_BYTES, block_digest, chunk_count, digest_of
from ..common.errors import ChecksumMismatch, DfsError, StaleGeneration
from ..common.messages import ReplicaReport
from ..common.model import BlockId, BlockRef, GenerationStamp
from .index import Replica
from .volumes import Volume, storage_error
from .writing import WritingReplica

OPEN_AT_ONCE = 64  # files of a batch: a request may have a thousand blocks, and so may many at once


class Found(NamedTuple):
    """A replica to read: from *data*, or from *descriptor* (the caller's to close)."""

    generation: int
    length: int
    digests: bytes
    finalized: bool
    data: bytes | None
    descriptor: int


def is_intact(found: Found) -> bool:
    """Whether the bytes of a finalized replica fit its length and digests. Reads all of them; OSError if they can't be read."""
    if found.data is not None:
        if len(found.data) != found.length:
            return False
        return not found.length or digest_of(found.data) == found.digests
    disk.reading(found.descriptor)
    for number in range(chunk_count(found.length)):
        size = min(CHUNK_BYTES, found.length - number * CHUNK_BYTES)
        chunk = os.pread(found.descriptor, size, number * CHUNK_BYTES)
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


def copy_prefix(source: os.PathLike[str], target: os.PathLike[str], length: int) -> None:
    """Make *target*, which must not exist, of the first *length* bytes of *source*."""
    with open(source, "rb") as reader, open(target, "xb") as writer:  # noqa: PTH123
        disk.writing(writer.fileno(), 0)
        done = 0
        while done < length:
            copied = os.copy_file_range(reader.fileno(), writer.fileno(), length - done)
            if copied == 0:
                raise OSError(5, "the replica is shorter than recorded")
            done += copied


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
        replica.open_existing(stored.length, stored.digests)
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

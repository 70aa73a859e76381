"""The bytes of single replicas: an opened one, checking it, copying and writing files."""

from __future__ import annotations

import os
from typing import NamedTuple

from ..common import disk
from ..common.checksum import CHUNK_BYTES, DIGEST_BYTES, block_digest, chunk_count, digest_of
from ..common.errors import ChecksumMismatch
from ..common.messages import ReplicaReport
from ..common.model import BlockId, GenerationStamp
from .index import Replica
from .writing import WritingReplica


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


def require_digest(payload: memoryview, digest: bytes, what: str) -> None:
    """ChecksumMismatch unless *payload* has *digest*."""
    if digest_of(payload) != digest:
        raise ChecksumMismatch(f"{what} does not match its digest")


def write_all(descriptor: int, data: memoryview) -> None:
    disk.writing(descriptor, 0)
    done = 0
    while done < len(data):
        done += os.write(descriptor, data[done:])


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

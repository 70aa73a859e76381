"""Finalized replicas from one volume of a DataNode to another."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

from ..common import disk
from ..common.checksum import CHUNK_BYTES, DIGEST_BYTES, digest_of
from ..common.errors import ChecksumMismatch
from .blockstore import BlockStore
from .index import Replica
from .replicas import drop
from .volumes import Volume, storage_error


def move_replica(
    store: BlockStore,
    source: Volume,
    target: Volume,
    replica: Replica,
    pace: Callable[[int], None],
) -> bool:
    """Have a finalized replica on *target* instead; False if it has changed meanwhile. Readers find it all the while.

    Any number of threads may do this beside each other and beside writers: the bytes are copied first, and then the block is
    held while the one replica takes the other's place.
    """
    if replica.inline:
        data = source.index.data(replica.block_id)
        if data is None or (data and digest_of(data) != replica.digests):
            return False
        pace(len(data))
        return _replace(store, source, target, replica, data)
    name = f"put_move_{replica.block_id}_{replica.generation}_{threading.get_ident()}"
    copy = target.path / "writing" / name
    try:
        _copy_bytes(source, replica, copy, pace)
        return _replace(store, source, target, replica, copy)
    except OSError as error:
        raise storage_error(error, f"can't move block {replica.block_id}") from None
    finally:
        with contextlib.suppress(OSError):
            copy.unlink(missing_ok=True)


def _copy_bytes(source: Volume, replica: Replica, copy: Path, pace: Callable[[int], None]) -> None:
    """Make *copy* durable; ChecksumMismatch if the bytes are not what was recorded."""
    with (
        source.final_path(replica.block_id, replica.generation).open("rb", buffering=0) as old,
        copy.open("wb", buffering=0) as new,
    ):
        for number in range(len(replica.digests) // DIGEST_BYTES):
            chunk = old.read(min(CHUNK_BYTES, replica.length - number * CHUNK_BYTES))
            wanted = replica.digests[number * DIGEST_BYTES :][:DIGEST_BYTES]
            if digest_of(chunk) != wanted:
                raise ChecksumMismatch(f"the replica of block {replica.block_id} is damaged")
            pace(len(chunk))
            disk.write_all(new.fileno(), chunk)
        disk.fsync(new.fileno(), "move.sync")


def _replace(
    store: BlockStore, source: Volume, target: Volume, replica: Replica, copy: Path | bytes
) -> bool:
    with store.changing.hold([replica.block_id]):
        if source.index.get(replica.block_id) != replica or not target.takes_bytes:
            return False  # deleted, rewritten or moved while it was copied, or not wanted there any more
        if target.index.get(replica.block_id) is not None:
            store.settle(replica.block_id)
            return False
        names = source.index.names_of(replica.block_id)
        if isinstance(copy, bytes):
            target.add([replica], [(replica.block_id, copy)], names).result()
        else:
            final = target.final_path(replica.block_id, replica.generation)
            target.make_folder(final)
            disk.rename(copy, final, "move.rename")
            disk.fsync_directory(final.parent, "move.folder")
            target.add([replica], (), names).result()
        drop(source, [replica])
        return True

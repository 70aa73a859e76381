"""Replicas whose bytes do not fit their digests: found, marked, put aside, replaced.

A damaged replica stays where it is and is offered to readers only when nothing better is left (its other chunks may be whole, and
each is verified). It is deleted when the NameNode says that the block has its copies again, or put aside when a good copy
takes its place here.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ..common import disk
from ..common.errors import BlockNotFound, DfsError, StaleGeneration
from ..common.model import BlockRef
from .blockstore import BlockStore
from .replicas import is_intact

log = logging.getLogger(__name__)
Verdict = Literal["good", "missing", "corrupt", "unknown"]


def verify(
    store: BlockStore, block: BlockRef, pause: Callable[[int], None] | None = None
) -> Verdict:
    """Read a replica, compare its digests, and remember what came out. "unknown" while that can't be told. *pause*: see `is_intact`;
    what it raises goes to the caller."""
    if any(volume.renewing for volume in store.volumes):
        return "unknown"
    try:
        found = store.open(block)
    except StaleGeneration:
        return "missing"
    except BlockNotFound:
        # Recorded, but its file is gone: nothing is left to be put aside.
        _forget(store, block)
        return "missing"
    except DfsError as error:
        log.error("block %d can't be opened: %s", block.block_id, error.message)
        return "corrupt"
    try:
        good = not found.finalized or is_intact(found, pause)
    except OSError:
        good = False
    finally:
        if found.descriptor >= 0:
            os.close(found.descriptor)
    if not good and not _is_as_it_was(store, block):
        return "unknown"  # truncated or replaced while it was read
    if found.finalized:
        mark(store, block, damaged=not good)
    return "good" if good else "corrupt"


def mark(store: BlockStore, block: BlockRef, *, damaged: bool) -> None:
    """Remember whether a finalized replica is damaged."""
    for volume in store.volumes:
        if volume.failure or damaged == (block.block_id in volume.index.damaged):
            continue
        stored = volume.index.get(block.block_id)
        if stored is not None and stored.generation == block.generation:
            if damaged:
                log.error("the replica of block %d in %s is damaged", block.block_id, volume.path)
            volume.index.mark(block.block_id, block.generation, damaged=damaged)


def _is_as_it_was(store: BlockStore, block: BlockRef) -> bool:
    found = store.find(block.block_id)
    return found is not None and found[1].generation == block.generation


def is_marked(store: BlockStore, block_id: int) -> bool:
    return any(block_id in volume.index.damaged for volume in store.volumes if not volume.failure)


def _forget(store: BlockStore, block: BlockRef) -> None:
    with store.changing.hold([block.block_id]):
        for volume in store.volumes:
            stored = None if volume.failure else volume.index.get(block.block_id)
            if stored is None or stored.generation != block.generation or stored.inline:
                continue
            if not volume.final_path(stored.block_id, stored.generation).exists():
                volume.remove([stored.block_id])


def put_aside(store: BlockStore, block: BlockRef) -> list[Path]:
    """Make room for a good copy of a damaged replica; the files that keep its bytes until that is published."""
    with store.changing.hold([block.block_id]):
        return _put_aside(store, block)


def _put_aside(store: BlockStore, block: BlockRef) -> list[Path]:
    kept: list[Path] = []
    for volume in store.volumes:
        stored = None if volume.failure else volume.index.get(block.block_id)
        if stored is None or stored.generation > block.generation:
            continue
        if not stored.inline:
            path = volume.final_path(stored.block_id, stored.generation)
            aside = volume.path / "quarantine" / path.name
            with contextlib.suppress(OSError):
                disk.rename(path, aside, "quarantine.rename")
                kept.append(aside)
        volume.remove([stored.block_id])
    return kept

"""`dfs put --dedup`: what the cluster has already is linked, not sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...common.errors import BlockNotFound
from ...common.ipld.layout import TWINFS
from ..importer import Importer, NoSink
from ..trees import mode_of


async def put_known(
    fs: Any, local: Path, goal: str, *, overwrite: bool, replication: int | None
) -> Any:
    """The status of *goal*, made of blocks that are there; None if the cluster does not have the file's bytes as one file."""
    facts = local.stat()
    node = await Importer(TWINFS, NoSink()).path(local, "")
    if node.filesize != facts.st_size:
        return None
    blocks = await fs.content.same_file(node.cid, node.filesize)
    if blocks is None:
        return None
    try:
        return await fs.content.link_blocks(
            blocks,
            goal,
            overwrite=overwrite,
            create_parents=False,
            replication=replication,
            mode=mode_of(facts),
            mtime_ms=facts.st_mtime_ns // 1_000_000,
        )
    except BlockNotFound:
        return None  # it went in the meantime

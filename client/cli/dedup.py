"""`dfs put --dedup`: what the cluster has already is linked, not sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...common.messages import PutFile
from ..dedup import Dedup
from ..trees import mode_of


async def put_known(
    fs: Any, local: Path, goal: str, *, overwrite: bool, replication: int | None
) -> Any:
    """The status of *goal*, made of blocks that are there; None if the cluster does not have the file's bytes as one file."""
    facts = local.stat()
    dedup = Dedup(fs.content)
    cid, length = await dedup.cid_of(local)
    if length != facts.st_size:
        return None
    file = PutFile(
        path=goal,
        overwrite=overwrite,
        create_parents=False,
        replication=replication,
        mode=mode_of(facts),
        mtime_ms=facts.st_mtime_ns // 1_000_000,
    )
    return await dedup.link(cid, length, file)

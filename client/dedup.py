"""Files whose bytes the cluster has already, as one file: found by CID, and linked instead of sent."""

from __future__ import annotations

from pathlib import Path

from ..common.errors import BlockNotFound
from ..common.ipld.cid import Cid
from ..common.ipld.layout import TWINFS
from ..common.messages import PutFile
from ..common.model import FileStatus
from .content_api import ContentApi
from .importer import Importer, NoSink


class Dedup:
    """Looks for local files in the cluster."""

    def __init__(self, content: ContentApi) -> None:
        self._content = content

    async def cid_of(self, local: Path) -> tuple[Cid, int]:
        """(CID, length) of a local file: one pass over its bytes. Unsupported, StorageError."""
        node = await Importer(TWINFS, NoSink()).path(local, "")
        return node.cid, node.filesize

    def look_again(self) -> None:
        """What was not there before may be there now."""
        self._content.reader.forget()

    async def link(self, cid: Cid, length: int, file: PutFile) -> FileStatus | None:
        """*file*, made of blocks that are there; None if the cluster does not have these bytes as one file."""
        blocks = await self._content.same_file(cid, length)
        if blocks is None:
            return None
        try:
            return await self._content.link_blocks(
                blocks,
                file.path,
                overwrite=file.overwrite,
                create_parents=file.create_parents,
                replication=file.replication,
                mode=file.mode,
                mtime_ms=file.mtime_ms,
            )
        except BlockNotFound:
            return None  # it went in the meantime


__all__ = ["Dedup"]

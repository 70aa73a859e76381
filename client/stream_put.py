"""Bytes whose number is not known beforehand: a file that appears when all of it is there, an append that adds all or nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from ..common.codec import error_of
from ..common.errors import DfsError, InvalidRequest
from ..common.messages import (
    AbandonBlock,
    AddBlock,
    Allocate,
    Allocation,
    BlockCommit,
    CancelAppend,
    OpenedFile,
    PutFile,
    PutFiles,
    StatusList,
)
from ..common.model import MIB, BlockId, BlockRef, FileStatus, INodeId, TargetBlock
from ..common.transfer import Flag
from .file_writer import FileWriter
from .session import Session

MAX_BLOCKS = 65_536  # of `PutFile.blocks`
MAX_APPENDED_BLOCKS = 1_024  # of `Complete.commits`


class StreamPut(FileWriter):
    """A FileWriter whose file appears in one step, durable, when `close` returns; until then what is there stays.

    Blocks are allocated without a file and written through pipelines that recover as FileWriter's do. Abandoning it gives the
    blocks back. `flush` and `sync` do not exist here: nobody could see what they make visible.
    """

    def __init__(
        self, session: Session, file: PutFile, *, replication: int, block_size: int
    ) -> None:
        """Use `start`. *file* is given without blocks."""
        status = FileStatus(
            path=file.path,
            type="file",
            length=0,
            owner=session.user,
            group="",
            mode=file.mode,
            mtime_ms=0,
            atime_ms=0,
            inode_id=INodeId(0),
            replication=replication,
            block_size=block_size,
        )
        super().__init__(session, OpenedFile(status=status), fresh=True)
        self._file = file
        self._allocated: set[BlockId] = set()
        self._done: list[BlockCommit] = []

    @classmethod
    async def start(cls, session: Session, file: PutFile) -> StreamPut:
        info = await session.info()
        await session.keep_lease()
        block_size = file.block_size or session.config.block_bytes or info.default_block_size
        replication = file.replication or session.config.replication or info.default_replication
        rounded = -(-block_size // MIB) * MIB
        return cls(session, file, replication=replication, block_size=rounded)

    async def _add_block(self) -> TargetBlock:
        if len(self._allocated) >= MAX_BLOCKS:
            raise InvalidRequest(f"a file put in one step may have {MAX_BLOCKS} blocks")
        self._done += await self._commits(wait=False)
        allocation: Allocation = await self._session.placing.call(
            "allocate",
            lambda excluded: Allocate(
                holder=self._session.holder,
                count=1,
                length=self._block_size,
                replication=self._status.replication,
                exclude=excluded,
                near=self._session.near,
            ),
        )
        block_id = allocation.first_block_id
        self._allocated.add(block_id)
        return TargetBlock(
            block=BlockRef(block_id=block_id, generation=allocation.generation),
            nodes=allocation.nodes,
        )

    async def _give_back(self, target: TargetBlock) -> None:
        self._allocated.discard(target.block.block_id)
        await self._abandon_block(target.block.block_id)

    async def _abandon_block(self, block_id: BlockId) -> None:
        await self._session.namenode.call(
            "abandon_block",
            AbandonBlock(inode_id=INodeId(0), holder=self._session.holder, block_id=block_id),
        )

    async def _complete(self) -> FileStatus:
        self._done += await self._commits(wait=True)
        put = PutFile(
            path=self._file.path,
            mode=self._file.mode,
            overwrite=self._file.overwrite,
            create_parents=self._file.create_parents,
            replication=self._status.replication,
            block_size=self._block_size,
            mtime_ms=self._file.mtime_ms,
            blocks=self._done,
            unmasked=self._file.unmasked,
            dag=await self._dag(),
        )
        answer: StatusList = await self._session.namenode.call(
            "put_files", PutFiles(holder=self._session.holder, files=[put])
        )
        (result,) = answer.results
        if result.failure is not None:
            raise error_of(result.failure)
        assert result.status is not None
        self._allocated.clear()
        return result.status

    async def _sync(self, flags: Flag) -> None:
        raise InvalidRequest(f"{self.path} does not exist before it is closed: it can't be flushed")

    async def abandon(self) -> None:
        """Stop, and give back what was written. Nothing has happened to the path."""
        await super().abandon()
        blocks: Sequence[BlockId] = sorted(self._allocated)
        self._allocated.clear()

        async def give_back(block_id: BlockId) -> None:
            with contextlib.suppress(DfsError):  # it goes when this client's lease does
                await self._abandon_block(block_id)

        await asyncio.gather(*(give_back(block_id) for block_id in blocks))


class StreamAppend(FileWriter):
    """A FileWriter for an append that can be taken back: until `close`, no block of it is committed, so `abandon` leaves the
    file as it was."""

    def __init__(self, session: Session, opened: OpenedFile) -> None:
        super().__init__(session, opened, fresh=False)
        self._done: list[BlockCommit] = []
        self._count = 0

    async def _add_block(self) -> TargetBlock:
        self._done += await self._commits(wait=False)
        self._count += 1
        if self._count > MAX_APPENDED_BLOCKS:
            raise InvalidRequest(f"one append may add {MAX_APPENDED_BLOCKS} blocks")
        target: TargetBlock = await self._session.placing.call(
            "add_block",
            lambda excluded: AddBlock(
                path=self._status.path,
                inode_id=self._status.inode_id,
                holder=self._session.holder,
                exclude=excluded,
                near=self._session.near,
            ),
        )
        return target

    async def _commits(self, *, wait: bool) -> list[BlockCommit]:
        found = await super()._commits(wait=wait)
        if wait:  # it is about to be closed
            found, self._done = self._done + found, []
        return found

    async def _sync(self, flags: Flag) -> None:
        raise InvalidRequest(f"an append to {self.path} that can be taken back can't be flushed")

    async def abandon(self) -> None:
        """Stop, and take back what was written. If that fails, lease recovery closes the file."""
        await super().abandon()
        with contextlib.suppress(DfsError):
            await self._session.namenode.call(
                "cancel_append",
                CancelAppend(inode_id=self._status.inode_id, holder=self._session.holder),
            )

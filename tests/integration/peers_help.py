"""DataNodes as peers, several in this process, over real HTTP on loopback."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import aiohttp

from twinfs.common.checksum import CHUNK_BYTES
from twinfs.common.config import DataNodeConfig
from twinfs.common.ipld import dag_pb, unixfs
from twinfs.common.ipld.cid import DAG_PB, RAW, Cid
from twinfs.common.ipld.dag_pb import PBLink
from twinfs.datanode.content import Content
from twinfs.datanode.peers.service import PeerService
from twinfs.datanode.server import DataNodeServer


class Peer:
    """One DataNode without a NameNode."""

    def __init__(self, folder: Path, bootstrap: tuple[str, ...], **settings: Any) -> None:
        self.folder = folder
        self.bootstrap = bootstrap or ("none",)
        self.settings = {"peer_refresh_s": 0.5, "pin_dead_after_s": 4.0, **settings}
        self.address = ""
        self.port = 0
        self._server: DataNodeServer | None = None

    async def start(self) -> None:
        config = DataNodeConfig(
            dir=(str(self.folder),),
            bootstrap=self.bootstrap,
            port=self.port,
            data_port=0,
            socket="none",
            **self.settings,
        )
        self._server = DataNodeServer(config)
        facts = await self._server.start()
        self.address = str(facts["http"])
        self.port = int(self.address.rpartition(":")[2])

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()
            self._server = None

    @property
    def alive(self) -> bool:
        return self._server is not None

    @property
    def service(self) -> PeerService:
        assert self._server is not None and self._server.peer is not None
        return self._server.peer

    @property
    def content(self) -> Content:
        assert self._server is not None and self._server.content is not None
        return self._server.content

    @property
    def id(self) -> bytes:
        return self.service.node.identity.peer_id

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    async def whole(self, blocks: dict[Cid, bytes]) -> bool:
        """Whether all blocks are here, right."""
        for cid, data in blocks.items():
            if not self.content.cids.has(cid.multihash) or self.content.cids.read(cid) != data:
                return False
        return True


class Peers:
    """A network of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.all: list[Peer] = []
        self.session = aiohttp.ClientSession()

    async def grow(self, count: int, *, alone: bool = False, **settings: Any) -> list[Peer]:
        """*alone*: told of nobody."""
        made = []
        for _ in range(count):
            bootstrap = (self.all[0].address,) if self.all and not alone else ()
            peer = Peer(self.folder / f"peer{len(self.all)}", bootstrap, **settings)
            await peer.start()
            self.all.append(peer)
            made.append(peer)
        return made

    async def ask(self, peer: Peer, method: str, path: str, **options: Any) -> Any:
        async with self.session.request(method, peer.url + path, **options) as answer:
            body = await answer.json(content_type=None)
            assert answer.status == 200, body
            return body

    async def close(self) -> None:
        await self.session.close()
        for peer in self.all:
            with contextlib.suppress(Exception):
                await peer.stop()


def file_dag(seed: int, size: int) -> tuple[Cid, dict[Cid, bytes], bytes]:
    """(root, blocks, bytes) of a file of several chunks."""
    data = random.Random(seed).randbytes(size)
    chunks = [data[i : i + CHUNK_BYTES] for i in range(0, size, CHUNK_BYTES)]
    leaves = [Cid.of(RAW, chunk) for chunk in chunks]
    blocks = dict(zip(leaves, chunks, strict=True))
    links = [PBLink(cid, "", len(chunk)) for cid, chunk in zip(leaves, chunks, strict=True)]
    sizes = [len(chunk) for chunk in chunks]
    node = dag_pb.encode(links, unixfs.encode_file(size, sizes))
    root = Cid.of(DAG_PB, node)
    blocks[root] = node
    return root, blocks, data

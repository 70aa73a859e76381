"""A DataNode's gateway in this process, and a tree of content in it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from twinfs.common.checksum import CHUNK_BYTES
from twinfs.common.config import DataNodeConfig
from twinfs.common.ipld import car, dag_pb, unixfs
from twinfs.common.ipld.cid import DAG_PB, RAW, Cid
from twinfs.common.ipld.dag_pb import PBLink
from twinfs.common.ipld.unixfs import Kind, UnixFs
from twinfs.datanode.content import Content
from twinfs.datanode.server import DataNodeServer


def folder(entries: dict[str, tuple[Cid, int]]) -> tuple[Cid, bytes]:
    links = dag_pb.sorted_links([PBLink(c, n, s) for n, (c, s) in entries.items()])
    block = dag_pb.encode(links, unixfs.DIRECTORY_DATA)
    return Cid.of(DAG_PB, block), block


def symlink(target: str) -> tuple[Cid, bytes]:
    block = dag_pb.encode([], unixfs.encode(UnixFs(kind=Kind.SYMLINK, data=target.encode())))
    return Cid.of(DAG_PB, block), block


class Tree:
    """/ : hello.txt, big.bin (3 chunks and a bit), page/index.html, ünï cödé/"a b", link -> hello.txt"""

    def __init__(self) -> None:
        self.blocks: dict[Cid, bytes] = {}
        self.hello = self.add(Cid.of(RAW, b"hello, peers\n"), b"hello, peers\n")
        self.data = random.Random(7).randbytes(3 * CHUNK_BYTES + 4321)
        chunks = [self.data[i : i + CHUNK_BYTES] for i in range(0, len(self.data), CHUNK_BYTES)]
        self.leaves = [self.add(Cid.of(RAW, chunk), chunk) for chunk in chunks]
        sizes = [len(chunk) for chunk in chunks]
        links = [PBLink(cid, "", size) for cid, size in zip(self.leaves, sizes, strict=True)]
        block = dag_pb.encode(links, unixfs.encode_file(len(self.data), sizes))
        self.big = self.add(Cid.of(DAG_PB, block), block)
        html = b"<!doctype html><p>hi"
        self.html = self.add(Cid.of(RAW, html), html)
        self.page = self.add(*folder({"index.html": (self.html, 20)}))
        self.strange = self.add(*folder({"a b": (self.hello, 13)}))
        self.link = self.add(*symlink("hello.txt"))
        self.root = self.add(
            *folder(
                {
                    "hello.txt": (self.hello, 13),
                    "big.bin": (self.big, len(self.data) + len(block)),
                    "page": (self.page, 100),
                    "ünï cödé": (self.strange, 100),
                    "link": (self.link, 30),
                    "<script>": (self.hello, 13),
                }
            )
        )

    def add(self, cid: Cid, data: bytes) -> Cid:
        self.blocks[cid] = data
        return cid


class Gateway:
    """Asks one over HTTP, or its content directly."""

    def __init__(self, base: str, session: aiohttp.ClientSession, content: Content) -> None:
        self.base, self.session, self.content = base, session, content

    async def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, Any, bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = URL(self.base + path, encoded=True)
        async with self.session.request(
            method, url, headers=named, allow_redirects=False
        ) as answer:
            return answer.status, answer.headers, await answer.read()


class Client(Gateway):
    """Of a gateway that has a `Tree`."""

    tree: Tree


@contextlib.asynccontextmanager
async def serving(
    folder: Path, blocks: Mapping[Cid, bytes], kind: type[Gateway] = Gateway
) -> AsyncIterator[Any]:
    """A *kind* of client of a DataNode that has *blocks*."""
    server = DataNodeServer(
        DataNodeConfig(dir=(str(folder),), namenode=("none",), port=0, data_port=0, socket="none")
    )
    facts = await server.start()
    try:
        assert server.content is not None
        await server.content.put(list(blocks.items()))
        async with aiohttp.ClientSession() as session:
            yield kind(f"http://{facts['http']}", session, server.content)
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def serving_tree(folder: Path) -> AsyncIterator[Client]:
    tree = Tree()
    async with serving(folder, tree.blocks, Client) as client:
        client.tree = tree
        yield client


def cids_of(body: bytes) -> list[Cid]:
    return [block.cid for block in car.read_all(body)[1]]

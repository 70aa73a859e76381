"""A peer as a process collects without a pause while files of many chunks are added to it: nothing of any add is lost."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from twinfs.client.peer_client import PeerClient
from twinfs.client.peer_import import Importer
from twinfs.common.checksum import CHUNK_BYTES
from twinfs.common.errors import BlockNotFound, Busy
from twinfs.common.ipld import dag
from twinfs.common.ipld.cid import RAW, Cid
from twinfs.common.ipld.layout import PROFILES
from twinfs.common.peering import ANSWER_HEAD, LEAVES_PROTOCOL

from ..support.cluster import Server

ROUNDS = 8
CHUNKS = 5


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("peer")
    arguments = ["--dir", str(folder / "one"), "--bootstrap", "none", "--port", "0"]
    arguments += ["--data-port", "0", "--socket", "none"]
    server = Server(folder, "one", "twinfs.datanode", arguments)
    server.start()
    try:
        yield f"http://{server.facts['http']}"
    finally:
        server.stop()


class Collecting:
    """Collects again and again, from entering to leaving."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._over = threading.Event()
        self._thread = ThreadPoolExecutor(1)
        self.times = self.removed = 0

    def _run(self) -> None:
        client = PeerClient(self._url)
        while not self._over.is_set():
            try:
                for line in client.lines("POST", "/v1/peer/collect", {}):
                    self.removed += line.get("blocks", 0)
            except Busy:
                continue
            self.times += 1
        client.close()

    def __enter__(self) -> Collecting:
        self._running = self._thread.submit(self._run)
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._running.result()
        self._thread.shutdown()


def everything(client: PeerClient, root: Cid) -> bytes:
    """All of a DAG, from the peer's own disks, verified: what its leaves say in order."""
    block = client.get(f"/ipfs/{root}?format=raw")
    root.verify(block)
    if root.codec == RAW:
        return block
    return b"".join(everything(client, child) for child in dag.links_of(root, block))


@pytest.mark.parametrize("profile", ["twinfs", "unixfs-v1-2025"])
def test_an_add_loses_nothing_to_collections_that_go_on(
    url: str, tmp_path: Path, profile: str
) -> None:
    """Leaves are sent, or found to be there and not sent, while nothing refers to them; each add ends with its pin."""

    def adds(seed: int) -> int:
        rng = random.Random(f"{profile} {seed}")
        client = PeerClient(url)
        file = tmp_path / f"file{seed}"
        found = 0
        for number in range(ROUNDS):
            # Half of it was added before, and never pinned: it may be going at this very moment.
            old = rng.randbytes(CHUNKS * CHUNK_BYTES)
            file.write_bytes(old)
            client.begin_add()
            loose = Importer(client, PROFILES[profile])
            loose.add(file)
            loose.close()
            client.end_add()
            data = old + rng.randbytes(CHUNKS * CHUNK_BYTES + number)
            file.write_bytes(data)
            client.begin_add()
            importer = Importer(client, PROFILES[profile])
            added = importer.add(file)
            importer.close()
            found += added.sent_bytes < len(data)
            client.call(
                "POST", "/v1/peer/pins", {"cid": str(added.root), "name": "kept", "here": True}
            )
            client.end_add()
            assert everything(client, added.root) == data
            client.unpin(added.root, name="kept")
        client.close()
        return found

    with Collecting(url) as collecting, ThreadPoolExecutor(2) as threads:
        list(threads.map(adds, range(2)))
    assert collecting.times > 2 and collecting.removed > ROUNDS


def test_a_slow_sender_of_leaves_is_waited_for(url: str) -> None:
    """Collections come and go while one replica is being sent, under an add with a name; then it is pinned, and all there."""
    chunks = [random.Random(n).randbytes(CHUNK_BYTES) for n in range(3)]
    client = PeerClient(url)
    client.begin_add()
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as sock:
        sock.sendall(
            f"POST /v1/peer/leaves?length={3 * CHUNK_BYTES} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
            f"Upgrade: {LEAVES_PROTOCOL}\r\nX-TwinFS-Add: {client._add}\r\n\r\n".encode()
        )
        assert b" 101 " in sock.recv(65536)
        other = PeerClient(url)
        for chunk in chunks:
            sock.sendall(chunk)
            assert list(other.lines("POST", "/v1/peer/collect", {}))[-1]["done"]
        head = sock.recv(struct.calcsize(ANSWER_HEAD), socket.MSG_WAITALL)
        assert struct.unpack(ANSWER_HEAD, head) == (0, 3 * 32)
    removed = list(other.lines("POST", "/v1/peer/collect", {}))
    cids = [Cid.of(RAW, chunk) for chunk in chunks]
    assert client.have(cids) == [True] * 3, removed
    for cid, chunk in zip(cids, chunks, strict=True):
        assert everything(client, cid) == chunk
    # Without a pin it goes when the add has ended.
    client.end_add()
    first, *_ = other.lines("POST", "/v1/peer/collect", {})
    assert first["blocks"] >= 1
    with pytest.raises(BlockNotFound):
        client.get(f"/ipfs/{cids[0]}?format=raw")
    client.close()
    other.close()

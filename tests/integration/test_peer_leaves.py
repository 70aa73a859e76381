"""Chunks of a file sent to a peer over an upgraded connection: by its own client, and by clients that err."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from twinfs.client.peer_client import PeerClient
from twinfs.client.peer_import import Importer
from twinfs.common.checksum import CHUNK_BYTES
from twinfs.common.ipld.cid import RAW, SHA2_256, Cid
from twinfs.common.ipld.layout import PROFILES
from twinfs.common.peering import ANSWER_HEAD, LEAVES_PROTOCOL
from twinfs.common.runtime import elapsed_timer

from ..support.cluster import eventually
from .peers_help import Peer, Peers

UPGRADE = f"Connection: Upgrade\r\nUpgrade: {LEAVES_PROTOCOL}\r\n"


@pytest_asyncio.fixture
async def peer(tmp_path: Path) -> AsyncIterator[Peer]:
    found = Peers(tmp_path)
    try:
        yield (await found.grow(1))[0]
    finally:
        await found.close()


def raw(peer: Peer, query: str, headers: str, *bodies: bytes) -> tuple[bytes, bytes]:
    """What comes back before anything is sent, and after *bodies* and an end."""
    host, _, port = peer.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        sock.sendall(f"POST /v1/peer/leaves?{query} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        first = sock.recv(65536)
        with contextlib.suppress(OSError):
            for body in bodies:
                sock.sendall(body)
            sock.shutdown(socket.SHUT_WR)
        rest = bytearray()
        with contextlib.suppress(OSError):
            while piece := sock.recv(65536):
                rest += piece
        return first, bytes(rest)


async def test_leaves_of_both_hashes_are_kept_and_not_sent_twice(
    peer: Peer, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(random.Random(1).randbytes(130 * CHUNK_BYTES + 77))
    data = file.read_bytes()
    for name, code in (("twinfs", None), ("unixfs-v1-2025", SHA2_256)):

        def work(name: str = name) -> list[int]:
            client = PeerClient(peer.url)
            importer = Importer(client, PROFILES[name])
            try:
                return [importer.add(file).sent_bytes for _ in range(2)]
            finally:
                importer.close()
                client.close()

        sent = await asyncio.to_thread(work)
        assert sent[0] >= len(data) and sent[1] == 0
        for start in (0, 129 * CHUNK_BYTES, 130 * CHUNK_BYTES):
            chunk = data[start : start + CHUNK_BYTES]
            cid = Cid.of(RAW, chunk) if code is None else Cid.of(RAW, chunk, code)
            assert peer.content.cids.read(cid) == chunk


async def test_what_is_no_upgrade_or_of_no_allowed_length_is_refused(peer: Peer) -> None:
    for query, headers, status in (
        ("length=5", "Content-Length: 0\r\n", b"400"),
        ("length=0", UPGRADE, b"413"),
        ("length=-1", UPGRADE, b"413"),
        ("length=134217729", UPGRADE, b"413"),
        ("length=99999999999999999999", UPGRADE, b"413"),
        ("length=x", UPGRADE, b"413"),
        ("", UPGRADE, b"413"),
        ("length=5&hash=md5", UPGRADE, b"400"),
        ("length=5", UPGRADE + "Origin: http://evil\r\n", b"403"),
    ):
        first, _ = await asyncio.to_thread(raw, peer, query, headers)
        assert first.split(b" ", 2)[1] == status, (query, first)


async def test_who_breaks_off_leaves_nothing_behind_and_who_goes_on_is_cut(peer: Peer) -> None:
    data = random.Random(2).randbytes(3 * CHUNK_BYTES)
    first, rest = await asyncio.to_thread(
        raw, peer, f"length={len(data)}", UPGRADE, data[: CHUNK_BYTES + 5]
    )
    assert b" 101 " in first and rest == b""

    async def empty() -> bool:
        return not [p for p in (peer.folder / "writing").glob("*") if p.is_file()]

    await eventually(empty, "that the unfinished replica goes", 30.0)
    assert not peer.content.cids.has(Cid.of(RAW, data[:CHUNK_BYTES]).multihash)
    # More than was promised is not looked at; what was promised is kept.
    first, rest = await asyncio.to_thread(
        raw, peer, f"length={len(data)}", UPGRADE, data, b"GET / HTTP/1.1\r\n\r\n" * 100
    )
    if rest:  # the reset for the rest may overtake the answer
        head = struct.calcsize(ANSWER_HEAD)
        assert struct.unpack(ANSWER_HEAD, rest[:head]) == (0, 3 * 32)
        assert rest[head:] == b"".join(
            Cid.of(RAW, data[at : at + CHUNK_BYTES]).digest
            for at in range(0, len(data), CHUNK_BYTES)
        )
    assert peer.content.cids.read(Cid.of(RAW, data[:CHUNK_BYTES])) == data[:CHUNK_BYTES]


async def test_a_peer_that_is_stopped_waits_a_while_for_senders_and_not_longer(
    tmp_path: Path,
) -> None:
    network = Peers(tmp_path)
    try:
        (peer,) = await network.grow(1, stop_grace_s=0.5)
        host, _, port = peer.address.partition(":")
        with socket.create_connection((host, int(port)), timeout=30) as sock:
            query = f"length={3 * CHUNK_BYTES}"
            sock.sendall(
                f"POST /v1/peer/leaves?{query} HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".encode()
            )
            assert b" 101 " in await asyncio.to_thread(sock.recv, 65536)
            sock.sendall(bytes(CHUNK_BYTES))  # and then nothing more
            began_s = elapsed_timer()
            await peer.stop()
            assert elapsed_timer() - began_s < 20  # a sender that stalls is given 60 s otherwise
            assert sock.recv(65536) == b""
    finally:
        await network.close()

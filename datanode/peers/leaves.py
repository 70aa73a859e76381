"""Chunks of a file that a peer's own user sends: straight from the socket to the disk, in a thread.

The request is an upgrade: once it is agreed to, the connection carries nothing but the promised bytes one way, then one
answer the other way (`ANSWER_HEAD`, then digests, or a Failure as JSON), and ends. Event loop and HTTP parser stay out of it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from ...common.checksum import CHUNK_BYTES
from ...common.codec import failure_of, to_json
from ...common.errors import ConnectionLost, DfsError, InternalError, InvalidRequest, ShuttingDown
from ...common.framing import FrameSocket
from ...common.ipld import multihash
from ...common.peering import ANSWER_HEAD
from ..cidstore import CidStore, LocalWriter

SENDERS = 8  # connections whose leaves are taken at a time; more wait
STALL_S = 60.0


class Leaves:
    """The connections that leaves come over, each with a thread of its own."""

    def __init__(self, cids: CidStore) -> None:
        self._cids = cids
        self._threads = ThreadPoolExecutor(SENDERS, thread_name_prefix="leaves")
        self._lock = threading.Lock()
        self._open: set[FrameSocket] = set()
        self._taking: set[Future[None]] = set()
        self._closed = False

    def require_open(self) -> None:
        """ShuttingDown once `close` was called."""
        if self._closed:
            raise ShuttingDown("the peer is being stopped")

    async def take(
        self, connected: socket.socket, length: int, code: int, renew: Callable[[], None]
    ) -> None:
        """Serve one upgraded connection, by a duplicate of its socket.

        *length* bytes become one durable replica; the digests of its chunks, by the hash function *code*, are the answer.
        *renew* is called before it is published: the add that it is part of goes on. Its error is the answer.
        """
        connection = FrameSocket(connected.dup(), stall_timeout_s=STALL_S)
        with self._lock:
            if self._closed:
                connection.close()
                return
            taking = self._threads.submit(self._serve, connection, length, code, renew)
            self._open.add(connection)
            self._taking.add(taking)
        taking.add_done_callback(lambda done: self._ended(connection, done))
        await asyncio.wrap_future(taking)

    def _ended(self, connection: FrameSocket, taking: Future[None]) -> None:
        with self._lock:
            self._open.discard(connection)
            self._taking.discard(taking)
        connection.close()

    def close(self, grace_s: float) -> None:
        """Take no more; what is under way after *grace_s* is cut off. The store is not touched afterwards."""
        with self._lock:
            self._closed = True
            taking = set(self._taking)
        concurrent.futures.wait(taking, grace_s)
        with self._lock:
            for connection in self._open:
                connection.abort()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _serve(
        self, connection: FrameSocket, length: int, code: int, renew: Callable[[], None]
    ) -> None:
        try:
            body, failed = _take(self._cids, connection, length, code, renew), 0
        except ConnectionLost:
            return
        except DfsError as error:
            body, failed = to_json(failure_of(error)), 1
        except Exception as error:
            reason = InternalError(f"the peer failed: {type(error).__name__}")
            connection.send(_answer(to_json(failure_of(reason)), 1))
            raise
        with contextlib.suppress(DfsError):
            connection.send(_answer(body, failed))
            if failed:
                _let_go(connection)


def _answer(body: bytes, failed: int) -> bytes:
    return struct.pack(ANSWER_HEAD, failed, len(body)) + body


def _let_go(connection: FrameSocket) -> None:
    """What is still under way is taken: a reset would take the answer away from its reader."""
    connection.sock.shutdown(socket.SHUT_WR)
    connection.set_timeout(2.0)
    scrap = bytearray(CHUNK_BYTES)
    with contextlib.suppress(OSError):
        for _ in range(256):
            if not connection.sock.recv_into(scrap):
                return


def _take(
    cids: CidStore, connection: FrameSocket, length: int, code: int, renew: Callable[[], None]
) -> bytes:
    writer = cids.begin(length)
    try:
        digests = _write(connection, writer, length, code)
        names = []
        if code != multihash.BLAKE3:
            for number, digest in enumerate(digests):
                start = number * CHUNK_BYTES
                size = min(CHUNK_BYTES, length - start)
                names.append((bytes((code,)) + digest, start, size))
        # A slow sender may have taken longer than a claim lasts; from the next line on collections can see the replica.
        renew()
        writer.finish(names)
        return b"".join(digests)
    finally:
        writer.abandon()


def _write(connection: FrameSocket, writer: LocalWriter, length: int, code: int) -> list[bytes]:
    buffer = memoryview(bytearray(min(CHUNK_BYTES, length)))
    digests = []
    for start in range(0, length, CHUNK_BYTES):
        chunk = buffer[: min(CHUNK_BYTES, length - start)]
        connection.receive_into(chunk)
        digest = multihash.digest(code, chunk)[2:]
        writer.write(chunk, digest if code == multihash.BLAKE3 else b"")
        digests.append(digest)
    return digests


def hash_code(name: str) -> int:
    """Of a hash function that leaves may be named by. InvalidRequest."""
    code = multihash.NAMES.get(name, -1)
    if code not in (multihash.BLAKE3, multihash.SHA2_256):
        raise InvalidRequest("leaves are hashed by blake3 or sha2-256")
    return code

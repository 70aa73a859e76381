"""Chunks of a file that a peer's own user sends: straight from the socket to the disk, in a thread.

The request is an upgrade: once it is agreed to, the connection carries nothing but the promised bytes one way, then one
answer the other way (`ANSWER_HEAD`, then digests, or a Failure as JSON), and ends. Event loop and HTTP parser stay out of it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct

from ...common.checksum import CHUNK_BYTES
from ...common.codec import failure_of, to_json
from ...common.errors import ConnectionLost, DfsError, InternalError, InvalidRequest
from ...common.framing import FrameSocket
from ...common.ipld import multihash
from ...common.peering import ANSWER_HEAD
from ..cidstore import CidStore, LocalWriter


def take(cids: CidStore, descriptor: int, length: int, code: int, stall_timeout_s: float) -> None:
    """Serve one upgraded connection. *descriptor* of its socket is ours from now on.

    *length* bytes become one durable replica; the digests of its chunks, by the hash function *code*, are the answer.
    """
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        return
    with contextlib.closing(FrameSocket(sock, stall_timeout_s=stall_timeout_s)) as connection:
        try:
            body, failed = _take(cids, connection, length, code), 0
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


def _take(cids: CidStore, connection: FrameSocket, length: int, code: int) -> bytes:
    writer = cids.begin(length)
    try:
        digests = _write(connection, writer, length, code)
        names = []
        if code != multihash.BLAKE3:
            for number, digest in enumerate(digests):
                start = number * CHUNK_BYTES
                size = min(CHUNK_BYTES, length - start)
                names.append((bytes((code,)) + digest, start, size))
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

"""Between the thread that receives an upload and the one that writes it: all bytes, in order, in bounded memory."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from twinfs.common.checksum import CHUNK_BYTES
from twinfs.common.errors import InvalidRequest
from twinfs.common.http_body import Rest
from twinfs.common.request_lines import TakenBody
from twinfs.datanode.direct import ClientGone
from twinfs.datanode.intake import BUFFERS, Intake

LIMIT_S = 30.0


class Upload:
    """An Intake, its receiving thread, and the client's end of its connection."""

    def __init__(self, rest: Rest, first: tuple[bytes, ...] = (), room: int = CHUNK_BYTES) -> None:
        self.client, server = socket.socketpair()
        server.setblocking(False)
        self.server = server
        body = cast("TakenBody", SimpleNamespace(socket=server, rest=rest))
        self.patience_s = LIMIT_S
        self.intake = Intake(body, first, room, lambda: self.patience_s)
        self.thread = threading.Thread(target=self.intake.run, daemon=True)
        self.thread.start()

    def send(self, data: bytes) -> threading.Thread:
        thread = threading.Thread(target=self.client.sendall, args=(data,), daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        self.intake.stop()
        self.thread.join(LIMIT_S)
        assert not self.thread.is_alive()
        self.client.close()
        self.server.close()


@pytest.fixture
def uploads() -> Iterator[list[Upload]]:
    found: list[Upload] = []
    yield found
    for upload in found:
        upload.close()


@pytest.mark.parametrize("needed", [0, 3 * CHUNK_BYTES])
def test_every_byte_comes_in_order(uploads: list[Upload], needed: int) -> None:
    """Also while the pipeline still needs what was taken last, which stays as it was."""
    data = random.Random(1).randbytes(12 * CHUNK_BYTES + 77)
    upload = Upload(Rest(chunked=False, left=len(data) - 5), (data[:2], data[2:5]), room=1000)
    uploads.append(upload)
    upload.send(data[5:])
    taken: list[memoryview] = []
    found = bytearray()
    limit = 1000
    while piece := upload.intake.take(limit):
        taken.append(piece)
        assert len(piece) == min(limit, len(data) - len(found))
        found += piece
        limit = CHUNK_BYTES
        upload.intake.settle(min(needed, len(found)))
        kept, at = 0, len(found)
        for view in reversed(taken):
            kept += len(view)
            if kept > needed:
                break
            assert view == found[at - len(view) : at]
            at -= len(view)
    assert bytes(found) == data
    assert not upload.intake.more()
    assert upload.intake._buffers <= BUFFERS + needed // CHUNK_BYTES + 1


def test_a_sender_is_held_back(uploads: list[Upload]) -> None:
    """Nobody takes: no more than the buffers' bytes, and the kernel's, are received."""
    size = 64 * CHUNK_BYTES
    upload = Upload(Rest(chunked=False, left=size))
    uploads.append(upload)
    upload.client.settimeout(0.5)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < size:
            sent += upload.client.send(bytes(CHUNK_BYTES))
    assert sent < (BUFFERS + 8) * CHUNK_BYTES


def test_a_cut_and_broken_chunks_are_told_to_the_writer(uploads: list[Upload]) -> None:
    for rest, data, kind in (
        (Rest(chunked=False, left=100), b"too little", ClientGone),
        (Rest(chunked=True, left=0), b"no size\r\n", InvalidRequest),
    ):
        upload = Upload(rest)
        uploads.append(upload)
        upload.client.sendall(data)
        upload.client.shutdown(socket.SHUT_WR)
        for _ in range(2):  # whoever asks again does not take it for the end
            with pytest.raises(kind):
                while upload.intake.take(CHUNK_BYTES):
                    pass


def test_a_writer_that_waits_is_stopped(uploads: list[Upload]) -> None:
    upload = Upload(Rest(chunked=False, left=100))
    uploads.append(upload)
    threading.Timer(0.05, upload.intake.stop).start()
    with pytest.raises(ClientGone):
        upload.intake.more()


def test_a_client_that_says_nothing_is_given_up(uploads: list[Upload]) -> None:
    upload = Upload(Rest(chunked=False, left=100))
    uploads.append(upload)
    upload.patience_s = 0.0
    with pytest.raises(ClientGone, match="sends nothing"):
        upload.intake.more()


def test_what_fails_in_the_receiving_thread_is_no_silence(uploads: list[Upload]) -> None:
    upload = Upload(Rest(chunked=False, left=100))
    uploads.append(upload)

    def broken(view: memoryview) -> int:
        raise MemoryError

    other: Any = Intake(cast("TakenBody", SimpleNamespace(socket=upload.server, rest=Rest(False, 9))), (), 9, lambda: 60.0)  # fmt: skip
    other._reader._receive = broken
    other.run()
    with pytest.raises(MemoryError):
        other.more()

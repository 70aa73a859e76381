"""Our own HTTP connection, against a server that answers whatever a test says."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence

import pytest

from twinfs.client.http_call import MAX_HEAD_BYTES, Answer, HttpConnection
from twinfs.common.errors import InvalidRequest

OK = b"HTTP/1.1 200 OK\r\n"


class Server:
    """Answers one request after the other by what it was given; each connection begins with the next answer."""

    def __init__(self, answers: Sequence[bytes], at_once: int) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._answers = list(answers)
        self._at_once = at_once  # bytes in one piece
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while self._answers:
                connection, _ = self._listener.accept()
                self.connections += 1
                with connection, contextlib.suppress(OSError):
                    while self._answers and (request := connection.recv(65536)):
                        self.requests.append(request)
                        answer = self._answers.pop(0)
                        for at in range(0, len(answer), self._at_once):
                            connection.sendall(answer[at : at + self._at_once])
                        if b"\r\n\r\n" not in answer or b"close" in answer:
                            break

    def close(self) -> None:
        self._listener.close()
        self._thread.join(timeout=10)


@contextlib.contextmanager
def asked(*answers: bytes, at_once: int = 1 << 20) -> Iterator[tuple[HttpConnection, Server]]:
    server = Server(answers, at_once)
    connection = HttpConnection("127.0.0.1", server.port, connect_timeout_s=10, timeout_s=10)
    try:
        yield connection, server
    finally:
        connection.close()
        server.close()


@pytest.mark.parametrize("at_once", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (OK + b"content-length:0\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok", b"ok"),
        (
            OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: 1\r\n\r\n",
            b"abc0123456789",
        ),
        (OK + b"Connection: close\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)  # fmt: skip
def test_answers_are_read_whole(answer: bytes, body: bytes, at_once: int) -> None:
    with asked(answer, OK + b"Content-Length: 1\r\n\r\n!", at_once=at_once) as (connection, server):
        first = connection.post("/v1/x", b"question", {"X-A": "b"})
        assert first.body == body
        assert connection.post("/v1/y", b"", {}) == Answer(200, "OK", b"!")
        assert server.connections == (2 if b"close" in answer else 1)
        head, _, sent = server.requests[0].partition(b"\r\n\r\n")
        assert sent == b"question"
        assert head.split(b"\r\n") == [
            b"POST /v1/x HTTP/1.1", b"Host: 127.0.0.1:%d" % server.port, b"X-A: b", b"Content-Length: 8",
        ]  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        OK + b"Content-Length: 10\r\nConnection: close\r\n\r\nshort",
        OK + b"Content-Length: 99999999999999\r\n\r\n",
        OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        OK + b"Content-Length: -1\r\nConnection: close\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n",
        OK + b"X: " + b"a" * (2 * MAX_HEAD_BYTES) + b"\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_a_lost_connection_and_the_next_one_is_new(answer: bytes) -> None:
    with asked(answer, OK + b"Content-Length: 1\r\n\r\n!") as (connection, server):
        with pytest.raises(OSError):
            connection.post("/", b"", {})
        assert connection.post("/", b"", {}).body == b"!"
        assert server.connections == 2


def test_a_header_cannot_smuggle_another() -> None:
    with asked() as (connection, server):
        with pytest.raises(InvalidRequest):
            connection.post("/", b"", {"X-User": "me\r\nX-Admin: yes"})
        assert server.connections == 0

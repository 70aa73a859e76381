"""WebHDFS between real processes, request by request: shapes, redirects, bytes, errors."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import json
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from twinfs.common.webhdfs import PREFIX
from twinfs.namenode.api.webhdfs import KNOWN

from ..support.cluster import Cluster, running, wait_until

MIB = 1 << 20
ROOT = "root"
# Accounts and groups of one name that every Debian has: who belongs to what comes from the NameNode's machine.
SUPERGROUP = "daemon"
MEMBER = "games"


class Answer:
    def __init__(self, response: http.client.HTTPResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = body

    @property
    def json(self) -> Any:
        assert self.headers["Content-Type"].startswith("application/json"), self.body
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        """(status, Java class) of a RemoteException."""
        told = self.json["RemoteException"]
        assert set(told) == {"exception", "javaClassName", "message"}
        assert told["javaClassName"].endswith(told["exception"])
        return self.status, told["javaClassName"]


class Web:
    """A client that does nothing by itself."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.host = urlsplit(cluster.url).netloc

    def url(self, path: str, op: str, user: str | None = ROOT, **parameters: Any) -> str:
        query = [("op", op), *([("user.name", user)] if user else []), *parameters.items()]
        text = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query)
        return f"http://{self.host}{PREFIX}{quote(path)}?{text}"

    def send(
        self, method: str, url: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        where = urlsplit(url)
        connection = http.client.HTTPConnection(where.netloc, timeout=60)
        try:
            target = f"{where.path}?{where.query}"
            connection.request(method, target, body=body, headers=headers or {})
            response = connection.getresponse()
            return Answer(response, response.read())
        finally:
            connection.close()

    def get(self, path: str, op: str, **more: Any) -> Answer:
        return self.send("GET", self.url(path, op, **more))

    def put(self, path: str, op: str, **more: Any) -> Answer:
        return self.send("PUT", self.url(path, op, **more))

    def post(self, path: str, op: str, **more: Any) -> Answer:
        return self.send("POST", self.url(path, op, **more))

    def delete(self, path: str, **more: Any) -> Answer:
        return self.send("DELETE", self.url(path, "DELETE", **more))

    def redirected(self, method: str, path: str, op: str, **more: Any) -> str:
        answer = self.send(method, self.url(path, op, **more))
        assert answer.status == 307, answer.body
        assert answer.body == b""
        assert answer.headers["Content-Length"] == "0"
        return str(answer.headers["Location"])

    def create(self, path: str, data: Any, **more: Any) -> Answer:
        first = self.send("PUT", self.url(path, "CREATE", **more))
        if first.status != 307:
            return first
        return self.send("PUT", first.headers["Location"], body=data)

    def append(self, path: str, data: Any, **more: Any) -> Answer:
        return self.send("POST", self.redirected("POST", path, "APPEND", **more), body=data)

    def open(self, path: str, **more: Any) -> bytes:
        answer = self.send("GET", self.redirected("GET", path, "OPEN", **more))
        assert answer.status == 200, answer.body
        assert int(answer.headers["Content-Length"]) == len(answer.body)
        return answer.body

    def status(self, path: str) -> Any:
        return self.get(path, "GETFILESTATUS").json["FileStatus"]


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    options = ("--user", ROOT, "--replication", "2", "--cors-origins", "http://page.example")
    options += ("--supergroup", SUPERGROUP)
    folder = tmp_path_factory.mktemp("webhdfs")
    with running(folder, datanodes=3, namenode_options=options) as cluster:
        yield Web(cluster)
        assert not cluster.tracebacks(), cluster.logs()


@pytest.fixture
def place(web: Web, request: pytest.FixtureRequest) -> str:
    path = f"/t{abs(hash(request.node.name))}"
    assert web.put(path, "MKDIRS").json == {"boolean": True}
    return path


def data_of(size: int) -> bytes:
    return hashlib.shake_128(b"%d" % size).digest(size)


# --- bytes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1, 3 * MIB + 17])
def test_what_is_written_is_read(web: Web, place: str, size: int) -> None:
    data = data_of(size)
    answer = web.create(f"{place}/f", data, blocksize=MIB, replication=1, permission=640)
    assert (answer.status, answer.body) == (201, b"")
    assert web.open(f"{place}/f") == data
    assert web.open(f"{place}/f", offset=size // 2, length=100) == data[size // 2 :][:100]
    assert web.open(f"{place}/f", offset=size) == b""
    assert web.open(f"{place}/f", length=10 * MIB) == data
    status = web.status(f"{place}/f")
    assert (status["length"], status["permission"], status["replication"]) == (size, "640", 1)
    assert (status["blockSize"], status["type"], status["pathSuffix"]) == (MIB, "FILE", "")


def test_bodies_of_unknown_length(web: Web, place: str) -> None:
    pieces = [b"a" * 100, b"b" * MIB, b"", b"c" * 5]
    location = web.redirected("PUT", f"{place}/f", "CREATE")
    assert web.send("PUT", location, body=iter(pieces)).status == 201
    assert web.open(f"{place}/f") == b"".join(pieces)


def test_the_data_url_is_good_for_any_offset_and_as_often_as_one_likes(
    web: Web, place: str
) -> None:
    data = data_of(3 * MIB)
    web.create(f"{place}/f", data, blocksize=MIB, replication=1)
    location = web.redirected("GET", f"{place}/f", "OPEN")
    for offset in (2 * MIB + 5, 0, MIB - 1, 2 * MIB + 5):
        assert web.send("GET", f"{location}&offset={offset}&length=20").body == data[offset:][:20]


def test_appending(web: Web, place: str) -> None:
    web.create(f"{place}/f", b"one")
    location = web.redirected("POST", f"{place}/f", "APPEND")
    for piece in (b" two", b"", b" three", b"x" * MIB):
        assert web.send("POST", location, body=piece).status == 200
    assert web.open(f"{place}/f") == b"one two three" + b"x" * MIB


def test_truncating_and_joining(web: Web, place: str) -> None:
    web.create(f"{place}/a", data_of(2 * MIB), blocksize=MIB)
    for length in (2 * MIB, MIB + 5, MIB, 0):
        assert web.post(f"{place}/a", "TRUNCATE", newlength=length).json == {"boolean": True}
        assert web.open(f"{place}/a") == data_of(2 * MIB)[:length]
    for name in "bc":
        web.create(f"{place}/{name}", name.encode())
    joined = web.post(f"{place}/a", "CONCAT", sources=f"{place}/b,{place}/c")
    assert (joined.status, joined.body) == (200, b"")
    assert web.open(f"{place}/a") == b"bc"
    assert web.get(f"{place}/b", "GETFILESTATUS").status == 404


def test_no_redirect(web: Web, place: str) -> None:
    answer = web.put(f"{place}/f", "CREATE", noredirect="true")
    assert answer.status == 200
    assert web.send("PUT", answer.json["Location"], body=b"x").status == 201
    location = web.get(f"{place}/f", "OPEN", noredirect="true").json["Location"]
    assert web.send("GET", location).body == b"x"
    location = web.post(f"{place}/f", "APPEND", noredirect="true").json["Location"]
    assert web.send("POST", location, body=b"y").status == 200
    location = web.get(f"{place}/f", "GETFILECHECKSUM", noredirect="TRUE").json["Location"]
    assert web.send("GET", location).json["FileChecksum"]["length"] == 28
    assert web.open(f"{place}/f") == b"xy"


def test_a_client_that_never_follows_leaves_nothing(web: Web, place: str) -> None:
    web.redirected("PUT", f"{place}/f", "CREATE", overwrite="true")
    assert web.get(f"{place}/f", "GETFILESTATUS").status == 404


@contextlib.contextmanager
def upload(location: str, head: str) -> Iterator[socket.socket]:
    """A connection on which the head of a PUT or POST was sent."""
    where = urlsplit(location)
    host, _, port = where.netloc.partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        request = head.format(target=f"{where.path}?{where.query}", host=where.netloc)
        connection.sendall(request.replace("\n", "\r\n").encode())
        yield connection


CUT = [
    "PUT {target} HTTP/1.1\nHost: {host}\nContent-Length: 9000000\n\n",
    "PUT {target} HTTP/1.1\nHost: {host}\nTransfer-Encoding: chunked\n\n400000\n",
]


@pytest.mark.parametrize("head", CUT)
def test_an_upload_that_breaks_off_leaves_what_was_there(web: Web, place: str, head: str) -> None:
    web.create(f"{place}/kept", b"before")
    for name, more in (("fresh", {}), ("kept", {"overwrite": "true"})):
        location = web.redirected("PUT", f"{place}/{name}", "CREATE", **more)
        with upload(location, head) as connection:
            connection.sendall(b"x" * 3_000_000)
    assert web.open(f"{place}/kept") == b"before"
    assert web.get(f"{place}/fresh", "GETFILESTATUS").status == 404
    names = [
        s["pathSuffix"] for s in web.get(place, "LISTSTATUS").json["FileStatuses"]["FileStatus"]
    ]
    assert names == ["kept"]


@pytest.mark.parametrize("head", CUT)
def test_an_append_that_breaks_off_adds_nothing(web: Web, place: str, head: str) -> None:
    web.create(f"{place}/f", b"before")
    location = web.redirected("POST", f"{place}/f", "APPEND")
    with upload(location, head.replace("PUT", "POST")) as connection:
        connection.sendall(b"x" * 3_000_000)

    def settled() -> bool:
        """The next append is let in once the former is taken back."""
        return web.send("POST", location, body=b" after").status == 200

    wait_until(settled, "the file closed again", 60)
    assert web.open(f"{place}/f") == b"before after"


def framed(data: bytes, chunk: int) -> tuple[str, bytes]:
    """(framing header, body): in chunks of that size, or as it is for 0."""
    if not chunk:
        return f"Content-Length: {len(data)}", data
    parts = [data[at : at + chunk] for at in range(0, len(data), chunk)]
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return "Transfer-Encoding: chunked", body + b"0\r\n\r\n"


def answer_of(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    told = b""
    while piece := connection.recv(65_536):
        told += piece
    return told


@pytest.mark.parametrize("more", ["", "Expect: 100-continue\n", "Upgrade: tea\n"])
@pytest.mark.parametrize("chunk", [0, 1000, 3 * MIB])
def test_large_uploads_in_every_framing(web: Web, place: str, chunk: int, more: str) -> None:
    """Received by the DataNode's own threads, and where the framing is odd (an upgrade that nobody makes) by aiohttp."""
    data = data_of(6 * MIB + 100)
    framing, body = framed(data, chunk)
    for method, op, whole in (("PUT", "CREATE", data), ("POST", "APPEND", data * 2)):
        extra: dict[str, int] = {"blocksize": 2 * MIB} if op == "CREATE" else {}
        location = web.redirected(method, f"{place}/f", op, **extra)
        head = method + " {target} HTTP/1.1\nHost: {host}\n" + f"{framing}\n{more}\n"
        with upload(location, head) as connection:
            if more.startswith("Expect"):
                assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(body)
            if not more:
                connection.shutdown(socket.SHUT_WR)  # as simple programs do
            else:
                connection.settimeout(60)
            status = b"201" if op == "CREATE" else b"200"
            assert connection.recv(65_536).startswith(b"HTTP/1.1 " + status)
        assert web.open(f"{place}/f") == whole
    assert web.status(f"{place}/f")["length"] == 2 * len(data)


def test_broken_chunks_are_a_bad_request_and_no_file(web: Web, place: str) -> None:
    location = web.redirected("PUT", f"{place}/f", "CREATE")
    head = "PUT {target} HTTP/1.1\nHost: {host}\nTransfer-Encoding: chunked\n\n"
    with upload(location, head) as connection:
        connection.sendall(b"300000\r\n" + b"x" * 0x300000 + b"\r\nno size\r\n")
        connection.sendall(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")  # never looked at
        connection.shutdown(socket.SHUT_WR)
        told = answer_of(connection)
    assert told.startswith(b"HTTP/1.1 400 "), told
    assert told.count(b"HTTP/1.1") == 1
    assert b"IllegalArgumentException" in told
    assert web.get(f"{place}/f", "GETFILESTATUS").status == 404


def test_a_refusal_in_the_middle_reaches_who_is_still_sending(web: Web, place: str) -> None:
    """The space that is allowed ends within the body."""
    web.put(place, "SETQUOTA", namespacequota=100, storagespacequota=3 * MIB)
    location = web.redirected("PUT", f"{place}/f", "CREATE", blocksize=MIB, replication=1)
    head = "PUT {target} HTTP/1.1\nHost: {host}\nTransfer-Encoding: chunked\n\n"
    with upload(location, head) as connection:
        connection.sendall(framed(data_of(12 * MIB), 100_000)[1])
        told = answer_of(connection)
    assert told.startswith(b"HTTP/1.1 403 "), told
    assert b"DSQuotaExceededException" in told
    assert web.get(f"{place}/f", "GETFILESTATUS").status == 404


def test_who_only_listens_any_more_is_answered(web: Web, place: str) -> None:
    """Simple programs close their half once they have asked; the fixture looks for tracebacks at the end."""
    web.create(f"{place}/f", data_of(3 * MIB))
    location = web.redirected("PUT", f"{place}/g", "CREATE")
    for url, head, status, end in (
        (web.url(place, "LISTSTATUS"), "GET {target} HTTP/1.1\nHost: {host}\n\n", 200, b"]}}"),
        (web.url(f"{place}/f", "OPEN"), "GET {target} HTTP/1.1\nHost: {host}\n\n", 307, b"\r\n"),
        (location, "PUT {target} HTTP/1.1\nHost: {host}\nContent-Length: 4\n\nfour", 201, b"\r\n"),
        (
            web.redirected("GET", f"{place}/f", "OPEN"),
            "GET {target} HTTP/1.1\nHost: {host}\n\n",
            200,
            data_of(3 * MIB)[-100:],
        ),
    ):
        with upload(url, head) as connection:
            connection.shutdown(socket.SHUT_WR)
            told = answer_of(connection)
        assert told.startswith(b"HTTP/1.1 %d " % status), told[:300]
        assert told.endswith(end)
    assert web.open(f"{place}/g") == b"four"


def test_the_first_copy_is_on_the_node_that_was_sent_the_bytes(web: Web, place: str) -> None:
    for number in range(3):
        location = web.redirected("PUT", f"{place}/f{number}", "CREATE", replication=1)
        assert web.send("PUT", location, body=data_of(MIB)).status == 201
        found = web.get(f"{place}/f{number}", "GETFILEBLOCKLOCATIONS").json["BlockLocations"]
        (block,) = found["BlockLocation"]
        serving = urlsplit(location).netloc
        node = next(d for d in web.cluster.datanodes if d.facts["http"] == serving)
        assert block["names"] == [node.facts["data"]]


def test_expect_continue(web: Web, place: str) -> None:
    """Neither half asks for bytes it would throw away."""
    head = "PUT {target} HTTP/1.1\nHost: {host}\nContent-Length: 5\nExpect: 100-continue\n\n"
    with upload(web.url(f"{place}/f", "CREATE"), head) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 307 ")
    location = web.redirected("PUT", f"{place}/f", "CREATE")
    with upload(location, head) as connection:
        assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello")
        assert connection.recv(4096).startswith(b"HTTP/1.1 201 ")
    with upload(location, head) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 403 ")  # it exists


def test_who_goes_before_being_told_to_continue_leaves_nothing(web: Web, place: str) -> None:
    """The fixture looks for tracebacks at the end."""
    head = "PUT {target} HTTP/1.1\nHost: {host}\nContent-Length: 5\nExpect: 100-continue\n\n"
    location = web.redirected("PUT", f"{place}/f", "CREATE")
    for _ in range(5):
        with upload(location, head) as connection:
            connection.shutdown(socket.SHUT_WR)
            assert b"201" not in answer_of(connection)
    assert web.get(f"{place}/f", "GETFILESTATUS").status == 404


def test_a_reader_may_go_when_it_has_enough(web: Web, place: str) -> None:
    web.create(f"{place}/f", data_of(20 * MIB), replication=1)
    location = web.redirected("GET", f"{place}/f", "OPEN")
    for _ in range(5):
        with upload(location, "GET {target} HTTP/1.1\nHost: {host}\n\n") as connection:
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert hashlib.md5(web.open(f"{place}/f")).digest() == hashlib.md5(data_of(20 * MIB)).digest()


def test_one_writer_at_a_time(web: Web, place: str) -> None:
    """Appending is refused while another appends; who creates without overwriting is refused if another was quicker."""
    web.create(f"{place}/f", b"before")
    append = web.redirected("POST", f"{place}/f", "APPEND")
    create = web.redirected("PUT", f"{place}/new", "CREATE")
    with upload(append, CUT[0].replace("PUT", "POST")) as first, upload(create, CUT[0]) as late:
        first.sendall(b"x" * 3_000_000)
        late.sendall(b"x" * 3_000_000)

        def refused() -> bool:
            """As soon as the first has begun."""
            answer = web.send("POST", append, body=b"")
            writing = "org.apache.hadoop.hdfs.protocol.AlreadyBeingCreatedException"
            return answer.status != 200 and answer.error == (403, writing)

        wait_until(refused, "the first client's append begun")
        assert web.open(f"{place}/f") == b"before"
        assert web.create(f"{place}/new", b"quicker").status == 201
        first.sendall(b"x" * 6_000_000)
        late.sendall(b"x" * 6_000_000)
        assert first.recv(65_536).startswith(b"HTTP/1.1 200 ")
        told = late.recv(65_536)
    assert told.startswith(b"HTTP/1.1 403 "), told
    assert b"FileAlreadyExistsException" in told
    assert web.open(f"{place}/new") == b"quicker"
    assert web.status(f"{place}/f")["length"] == 6 + 9_000_000


# --- names -------------------------------------------------------------------------------------

NAMES = [
    "a b",
    "100%",
    "%41",
    "a+b",
    "#x",
    "q?x",
    "s;x=1",
    "a&b=c",
    "😀",
    "e\u0301",
    "new\nline",
    "\t",
    "c:d",
    "ä" * 100,
]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_in_both_halves(web: Web, place: str, name: str) -> None:
    path = f"{place}/{name}"
    assert web.create(path, name.encode()).status == 201
    assert web.open(path) == name.encode()
    assert web.put(path, "RENAME", destination=path + "2").json == {"boolean": True}
    (entry,) = web.get(place, "LISTSTATUS").json["FileStatuses"]["FileStatus"]
    assert entry["pathSuffix"] == name + "2"
    assert web.open(path + "2") == name.encode()
    assert web.delete(path + "2").json == {"boolean": True}


@pytest.mark.parametrize("packets", [1, 3, 1000])
def test_raw_bytes_in_request_lines(web: Web, place: str, packets: int) -> None:
    """As Hadoop sends names: in pieces, pipelined, behind bodies that hold the same bytes."""
    raw = f"{PREFIX}{place}/ä😀".encode()
    host = b"Host: x\r\n"
    requests = b"".join(
        [
            b"PUT " + raw + b"?op=MKDIRS&user.name=root HTTP/1.1\r\n" + host,
            b"Content-Length: 4\r\n\r\n" + "😀".encode(),
        ]
    )
    requests += (
        b"GET " + raw + b"?op=GETFILESTATUS HTTP/1.1\r\n" + host + b"Connection: close\r\n\r\n"
    )
    where, _, port = web.host.partition(":")
    step = -(-len(requests) // packets)
    with socket.create_connection((where, int(port)), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(requests), step):
            connection.sendall(requests[at : at + step])
        told = b""
        while piece := connection.recv(65_536):
            told += piece
    # A request with a body is answered and the connection closed: nobody reads what does not belong here.
    assert told.startswith(b"HTTP/1.1 200 OK")
    assert b'{"boolean":true}' in told
    assert web.status(f"{place}/ä😀")["type"] == "DIRECTORY"


def test_the_root_and_slashes(web: Web) -> None:
    for tail in ("", "/", "//"):
        answer = web.send("GET", f"http://{web.host}{PREFIX}{tail}?op=GETFILESTATUS")
        assert answer.json["FileStatus"]["type"] == "DIRECTORY"
        assert answer.json["FileStatus"]["fileId"] == 1


# --- the tree ----------------------------------------------------------------------------------


def test_listing_in_pages(web: Web, place: str) -> None:
    for index in range(3):
        web.put(f"{place}/d{index}", "MKDIRS", permission=1777)
    page = web.get(place, "LISTSTATUS_BATCH", startAfter="d0").json["DirectoryListing"]
    entries = page["partialListing"]["FileStatuses"]["FileStatus"]
    assert [entry["pathSuffix"] for entry in entries] == ["d1", "d2"]
    assert page["remainingEntries"] == 0
    assert entries[0]["permission"] == "1777"
    web.put(f"{place}/d2/a/b", "MKDIRS")
    web.put(f"{place}/d2/c", "MKDIRS")
    entries = web.get(place, "LISTSTATUS").json["FileStatuses"]["FileStatus"]
    assert [entry["childrenNum"] for entry in entries] == [0, 0, 2]
    assert (web.status(place)["childrenNum"], web.status(f"{place}/d1")["childrenNum"]) == (3, 0)
    web.create(f"{place}/f", b"x")
    (only,) = web.get(f"{place}/f", "LISTSTATUS").json["FileStatuses"]["FileStatus"]
    assert only["pathSuffix"] == ""


def test_a_large_directory_is_one_answer_in_gzip_if_wanted(web: Web, place: str) -> None:
    count = 2_300
    for start in range(0, count, 1_000):
        paths = [f"{place}/n{n:05}" for n in range(start, min(count, start + 1_000))]
        body = json.dumps({"directories": [{"path": p} for p in paths]})
        made = web.send(
            "POST",
            f"http://{web.host}/v1/mkdirs_many",
            body=body,
            headers={"Content-Type": "application/json", "X-TwinFS-User": ROOT},
        )
        assert made.status == 200
    plain = web.get(place, "LISTSTATUS")
    names = [s["pathSuffix"] for s in plain.json["FileStatuses"]["FileStatus"]]
    assert names == [f"n{n:05}" for n in range(count)]
    packed = web.send("GET", web.url(place, "LISTSTATUS"), headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    first = web.get(place, "LISTSTATUS_BATCH").json["DirectoryListing"]
    assert first["remainingEntries"] == count - 1_000
    assert web.status(place)["childrenNum"] == count


@pytest.mark.parametrize(
    ("header", "packed"),
    [("gzip", True), ("br, GZIP;q=0.5", True), ("gzip;q=0, br", False), ("", False)],
)
def test_what_is_asked_for_packed_comes_packed(
    web: Web, place: str, header: str, packed: bool
) -> None:
    for name in "abc":
        web.put(f"{place}/{name}", "MKDIRS")
    found = web.send("GET", web.url(place, "LISTSTATUS"), headers={"Accept-Encoding": header})
    assert found.headers["Content-Encoding"] == ("gzip" if packed else None)
    body = gzip.decompress(found.body) if packed else found.body
    assert len(json.loads(body)["FileStatuses"]["FileStatus"]) == 3


def test_renaming(web: Web, place: str) -> None:
    for name in ("a", "b"):
        web.create(f"{place}/{name}", name.encode())
    web.put(f"{place}/d", "MKDIRS")

    def move(source: str, target: str, **more: Any) -> Answer:
        return web.put(f"{place}/{source}", "RENAME", destination=f"{place}/{target}", **more)

    assert move("a", "b").json == {"boolean": False}
    assert move("none", "x").json == {"boolean": False}
    assert move("a", "no/where").json == {"boolean": False}
    assert move("d", "d/e").json == {"boolean": False}
    assert move("a", "a").json == {"boolean": True}
    assert move("a", "d").json == {"boolean": True}
    assert web.open(f"{place}/d/a") == b"a"
    exists = "org.apache.hadoop.fs.FileAlreadyExistsException"
    assert move("d/a", "b", renameoptions="NONE").error == (403, exists)
    assert move("d/a", "b", renameoptions="OVERWRITE").status == 200
    assert web.open(f"{place}/b") == b"a"
    assert move("none", "x", renameoptions="OVERWRITE").error[0] == 404
    assert web.put("/", "RENAME", destination="/x").json == {"boolean": False}
    # With options: exceptions in place of false, a directory replaces an empty one only, nothing is moved into another.
    io_error = "java.io.IOException"
    web.put(f"{place}/e/full", "MKDIRS")
    assert move("d", "e", renameoptions="OVERWRITE").error == (403, io_error)
    assert move("d", "d/x", renameoptions="NONE").error == (403, io_error)
    assert move("b", "d", renameoptions="OVERWRITE").error == (403, io_error)
    assert move("d", "b", renameoptions="OVERWRITE").error == (403, io_error)
    assert move("b", "b", renameoptions="NONE").error == (403, exists)
    assert move("b", "no/where", renameoptions="NONE").error[0] == 404
    assert move("e/full", "d", renameoptions="overwrite,to_trash").status == 200
    assert web.status(f"{place}/e")["childrenNum"] == 0
    assert move("b", "fresh", renameoptions="TO_TRASH").body == b""


def test_deleting(web: Web, place: str) -> None:
    web.create(f"{place}/d/f", b"x")
    refused = web.delete(f"{place}/d")
    assert refused.error == (403, "org.apache.hadoop.fs.PathIsNotEmptyDirectoryException")
    assert web.delete(f"{place}/d", recursive="true").json == {"boolean": True}
    assert web.delete(f"{place}/d", recursive="true").json == {"boolean": False}
    assert web.delete("/", recursive="true").json == {"boolean": False}


def test_sums_and_quotas(web: Web, place: str) -> None:
    web.create(f"{place}/f", b"12345", replication=2)
    summary = web.get(place, "GETCONTENTSUMMARY").json["ContentSummary"]
    wanted = {"directoryCount": 1, "fileCount": 1, "length": 5, "spaceConsumed": 10, "quota": -1}
    assert wanted.items() <= summary.items()
    invalid = (400, "java.lang.IllegalArgumentException")
    assert web.put(place, "SETQUOTA").error == invalid
    assert web.put(place, "SETQUOTA", namespacequota=0).error == invalid
    assert web.put(place, "SETQUOTA", storagetype="SSD", storagespacequota=1).error[0] == 400
    denied = (403, "org.apache.hadoop.security.AccessControlException")
    assert web.put(place, "SETQUOTA", user="bob", namespacequota=3).error == denied
    assert web.put(place, "SETQUOTA", namespacequota=3, storagespacequota=MIB).status == 200
    usage = web.get(place, "GETQUOTAUSAGE").json["QuotaUsage"]
    assert usage == {
        "fileAndDirectoryCount": 2,
        "quota": 3,
        "spaceConsumed": 10,
        "spaceQuota": MIB,
        "typeQuota": {},
    }
    assert web.put(f"{place}/d", "MKDIRS").status == 200
    quota = "org.apache.hadoop.hdfs.protocol.NSQuotaExceededException"
    assert web.put(f"{place}/e", "MKDIRS").error == (403, quota)
    space = "org.apache.hadoop.hdfs.protocol.DSQuotaExceededException"
    assert web.create(f"{place}/f", b"x" * MIB, overwrite="true").error == (403, space)
    assert web.open(f"{place}/f") == b"12345"
    assert web.put(place, "SETQUOTA", namespacequota=-1, storagespacequota=-1).status == 200


def test_attributes(web: Web, place: str) -> None:
    web.create(f"{place}/f", b"x")
    f = f"{place}/f"
    assert web.put(f, "SETREPLICATION", replication=1).json == {"boolean": True}
    assert web.put(place, "SETREPLICATION", replication=1).json == {"boolean": False}
    for op, more in (
        ("SETPERMISSION", {"permission": "1750"}),
        ("SETOWNER", {"owner": "ann", "group": "staff"}),
        ("SETTIMES", {"modificationtime": 5, "accesstime": 6}),
        ("SETTIMES", {"modificationtime": -1, "accesstime": 7}),
    ):
        answer = web.put(f, op, **more)
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["Content-Length"] == "0"
    status = web.status(f)
    shown = {k: status[k] for k in ("owner", "group", "permission", "modificationTime")}
    assert shown == {"owner": "ann", "group": "staff", "permission": "1750", "modificationTime": 5}
    assert (status["accessTime"], status["replication"]) == (7, 1)


def test_access_lists(web: Web, place: str) -> None:
    spec = "user:bob:r-x,default:user:eve:rwx"
    assert web.put(place, "MODIFYACLENTRIES", aclspec=spec).status == 200
    status = web.get(place, "GETACLSTATUS").json["AclStatus"]
    assert status["entries"][:2] == ["user:bob:r-x", "group::r-x"]
    assert (status["permission"], status["stickyBit"], status["owner"]) == ("755", False, ROOT)
    assert web.status(place)["aclBit"] is True
    web.put(f"{place}/d", "MKDIRS", permission=700, unmaskedpermission=777)
    assert web.get(f"{place}/d", "GETACLSTATUS").json["AclStatus"]["permission"] == "775"
    assert web.get(place, "CHECKACCESS", user="bob", fsaction="r-x").status == 200
    denied = (403, "org.apache.hadoop.security.AccessControlException")
    assert web.get(place, "CHECKACCESS", user="bob", fsaction="rwx").error == denied
    assert web.put(place, "REMOVEACL", user="bob").error == denied
    assert web.put(place, "REMOVEACLENTRIES", aclspec="user:bob:").status == 200
    assert web.put(place, "REMOVEDEFAULTACL").status == 200
    assert web.put(place, "REMOVEACL").status == 200
    assert "aclBit" not in web.status(place)
    acl = (403, "org.apache.hadoop.hdfs.protocol.AclException")
    assert web.put(place, "SETACL", aclspec="user:bob:rwx").error == acl


def test_extended_attributes(web: Web, place: str) -> None:
    def put(name: str, value: str, flag: str) -> Answer:
        return web.put(
            place, "SETXATTR", **{"xattr.name": name, "xattr.value": value, "flag": flag}
        )

    assert put("user.color", "0x726564", "CREATE").status == 200
    assert put("user.color", "0x726564", "CREATE").error == (403, "java.io.IOException")
    assert put("user.color", "0scmVk", "REPLACE").status == 200
    assert put("user.none", "x", "REPLACE").error == (403, "java.io.IOException")
    assert put("user.text", '"quoted"', "CREATE,REPLACE").status == 200
    assert put("color", "x", "CREATE").error[0] == 400
    assert put("user.x", "0xzz", "CREATE").error[0] == 400
    assert put("user.x", "x", "NONSENSE").error[0] == 400
    for encoding, value in (("hex", "0x726564"), ("BASE64", "0scmVk"), ("text", '"red"')):
        found = web.get(place, "GETXATTRS", **{"xattr.name": "user.color", "encoding": encoding})
        assert found.json == {"XAttrs": [{"name": "user.color", "value": value}]}
    names = web.get(place, "LISTXATTRS").json["XAttrNames"]
    assert json.loads(names) == ["user.color", "user.text"]
    missing = web.get(place, "GETXATTRS", **{"xattr.name": "user.none", "encoding": "hex"})
    assert missing.error == (403, "java.io.IOException")
    assert web.put(place, "REMOVEXATTR", **{"xattr.name": "user.text"}).status == 200
    assert put("trusted.x", "1", "CREATE").status == 200
    denied = web.put(place, "SETXATTR", user="bob", **{"xattr.name": "trusted.y", "flag": "CREATE"})
    assert denied.error == (403, "org.apache.hadoop.security.AccessControlException")


def test_what_the_cluster_says_of_itself(web: Web, place: str) -> None:
    assert web.get("/", "GETHOMEDIRECTORY", user="ann").json == {"Path": "/user/ann"}
    assert web.get("/", "GETHOMEDIRECTORY", user=None).json == {"Path": "/user/dr.who"}
    assert web.get("/x", "GETTRASHROOT", user="ann").json == {"Path": "/user/ann/.Trash"}
    assert web.get("/", "GETSERVERDEFAULTS").json["FsServerDefaults"]["replication"] == 2
    status = web.get("/", "GETSTATUS").json["FsStatus"]
    assert status["capacity"] > status["used"] >= 0
    (policy,) = web.get("/", "GETALLSTORAGEPOLICY").json["BlockStoragePolicies"][
        "BlockStoragePolicy"
    ]
    assert policy["name"] == "HOT"
    assert web.get(place, "GETSTORAGEPOLICY").json["BlockStoragePolicy"]["id"] == policy["id"]
    assert web.put(place, "SETSTORAGEPOLICY", storagepolicy="HOT").status == 200
    assert web.put(place, "SETSTORAGEPOLICY", storagepolicy="COLD").error[0] == 400
    assert web.put(place, "SATISFYSTORAGEPOLICY").status == 200
    denied = (403, "org.apache.hadoop.security.AccessControlException")
    assert web.put(place, "SATISFYSTORAGEPOLICY", user="bob").error == denied
    assert web.post(place, "UNSETSTORAGEPOLICY").status == 200
    web.create(f"{place}/f", data_of(2 * MIB), blocksize=MIB)
    blocks = web.get(f"{place}/f", "GETFILEBLOCKLOCATIONS").json["BlockLocations"]["BlockLocation"]
    assert [(b["offset"], b["length"], len(b["hosts"])) for b in blocks] == [
        (0, MIB, 2),
        (MIB, MIB, 2),
    ]
    located = web.get(f"{place}/f", "GET_BLOCK_LOCATIONS", offset=0, length=10).json[
        "LocatedBlocks"
    ]
    assert len(located["locatedBlocks"]) == 1
    assert located["lastLocatedBlock"]["startOffset"] == MIB
    web.create(f"{place}/empty", b"")
    located = web.get(f"{place}/empty", "GET_BLOCK_LOCATIONS").json["LocatedBlocks"]
    assert (located["locatedBlocks"], located["lastLocatedBlock"]) == ([], None)


def test_tokens(web: Web) -> None:
    token = web.get("/", "GETDELEGATIONTOKEN", user="ann", renewer="bob").json["Token"]["urlString"]

    def home(**more: Any) -> Answer:
        return web.get("/", "GETHOMEDIRECTORY", user=None, **more)

    assert home(delegation=token).json == {"Path": "/user/ann"}
    forged = token[:60] + ("A" if token[60] != "A" else "B") + token[61:]
    assert home(delegation=forged).status in (400, 403)
    assert home(delegation="!").error == (400, "java.lang.IllegalArgumentException")
    denied = (403, "org.apache.hadoop.security.AccessControlException")
    assert web.put("/", "RENEWDELEGATIONTOKEN", user="ann", token=token).error == denied
    assert web.put("/", "RENEWDELEGATIONTOKEN", user="bob", token=token).json["long"] > 0
    assert web.put("/", "CANCELDELEGATIONTOKEN", user="eve", token=token).error == denied
    assert web.put("/", "CANCELDELEGATIONTOKEN", user="ann", token=token).status == 200
    invalid = "org.apache.hadoop.security.token.SecretManager$InvalidToken"
    assert home(delegation=token).error == (403, invalid)
    assert web.get("/", "GETHOMEDIRECTORY", doas="ann").json == {"Path": "/user/ann"}
    assert web.get("/", "GETHOMEDIRECTORY", user="bob", doas="ann").error == denied


def test_users_are_told_apart(web: Web, place: str) -> None:
    web.put(place, "SETOWNER", owner="ann")
    web.put(place, "SETPERMISSION", permission=700)
    assert web.create(f"{place}/f", b"hers", user="ann").status == 201
    assert web.status(f"{place}/f")["owner"] == "ann"
    denied = (403, "org.apache.hadoop.security.AccessControlException")
    assert web.get(f"{place}/f", "OPEN", user="bob").error == denied
    # Nor by asking the DataNode alone.
    location = web.redirected("GET", f"{place}/f", "OPEN", user="ann").replace("=ann", "=bob")
    assert web.send("GET", location).error == denied
    location = web.redirected("PUT", f"{place}/g", "CREATE", user="ann").replace("=ann", "=bob")
    assert web.send("PUT", location, body=b"x" * 100).error == denied
    assert web.create(f"{place}/g", b"", user="bob").error == denied
    assert web.get(f"{place}/f", "GETFILECHECKSUM", user="bob").error == denied


def test_the_superuser_and_the_supergroup_may_everything(web: Web, place: str) -> None:
    web.put(place, "SETOWNER", owner="ann", group="staff")
    web.put(place, "SETPERMISSION", permission=700)
    web.create(f"{place}/f", b"hers", user="ann", permission=600)
    denied = (403, "org.apache.hadoop.security.AccessControlException")
    for user in (ROOT, SUPERGROUP):
        location = web.redirected("GET", f"{place}/f", "OPEN", user=user)
        assert web.send("GET", location).body == b"hers"
        assert web.put(f"{place}/f", "SETOWNER", user=user, owner="bob").status == 200
        assert web.put(f"{place}/f", "SETOWNER", user=user, owner="ann").status == 200
        assert web.put(place, "SETQUOTA", user=user, namespacequota=100).status == 200
        assert web.put(f"{place}/{user}", "MKDIRS", user=user).status == 200
    for user in ("bob", MEMBER, None):
        assert web.get(f"{place}/f", "OPEN", user=user).error == denied
        assert web.put(f"{place}/f", "SETOWNER", user=user, owner="bob").error == denied
        assert web.put(place, "SETQUOTA", user=user, namespacequota=1).error == denied
    # Not even its owner may give a file away, only to a group that he is in.
    assert web.put(f"{place}/f", "SETOWNER", user="ann", owner="bob").error == denied
    assert web.put(f"{place}/f", "SETOWNER", user="ann", group=MEMBER).error == denied


def test_groups_are_those_of_the_namenodes_machine(web: Web, place: str) -> None:
    web.create(f"{place}/f", b"ours", permission=640)
    web.put(f"{place}/f", "SETOWNER", group=MEMBER)
    assert web.get(f"{place}/f", "CHECKACCESS", user=MEMBER, fsaction="r--").status == 200
    denied = (403, "org.apache.hadoop.security.AccessControlException")
    assert web.get(f"{place}/f", "CHECKACCESS", user=MEMBER, fsaction="-w-").error == denied
    assert web.get(f"{place}/f", "OPEN", user="bob").error == denied
    web.put(f"{place}/f", "MODIFYACLENTRIES", aclspec=f"group:{MEMBER}:---")
    web.put(f"{place}/f", "SETOWNER", group="staff")
    assert web.get(f"{place}/f", "OPEN", user=MEMBER).error == denied


def test_the_sticky_bit_keeps_others_files(web: Web, place: str) -> None:
    web.put(place, "SETPERMISSION", permission=1777)
    web.create(f"{place}/f", b"hers", user="ann")
    denied = (403, "org.apache.hadoop.security.AccessControlException")
    assert web.delete(f"{place}/f", user="bob").error == denied
    moved = web.put(f"{place}/f", "RENAME", user="bob", destination=f"{place}/g")
    assert moved.error == denied
    assert web.delete(f"{place}/f", user="ann").json == {"boolean": True}


# --- errors ------------------------------------------------------------------------------------


def test_missing_and_misplaced(web: Web, place: str) -> None:
    missing = (404, "java.io.FileNotFoundException")
    for op in (
        "GETFILESTATUS",
        "LISTSTATUS",
        "OPEN",
        "GETFILECHECKSUM",
        "GETACLSTATUS",
        "GETXATTRS",
        "LISTSTATUS_BATCH",
        "GETCONTENTSUMMARY",
    ):
        assert web.get(f"{place}/none", op).error == missing, op
    told = web.get(f"{place}/none", "OPEN").json["RemoteException"]["message"]
    assert told == f"File does not exist: {place}/none"
    assert web.post(f"{place}/none", "APPEND").error == missing
    assert web.post(f"{place}/none", "TRUNCATE", newlength=0).error == missing
    web.create(f"{place}/f", b"123")
    exists = (403, "org.apache.hadoop.fs.FileAlreadyExistsException")
    assert web.put(f"{place}/f", "MKDIRS").error == exists
    assert web.create(f"{place}/f", b"x").error == exists
    assert web.create(place, b"x", overwrite="true").error == exists
    parent = (403, "org.apache.hadoop.fs.ParentNotDirectoryException")
    assert web.put(f"{place}/f/d", "MKDIRS").error == parent
    assert web.create(f"{place}/f/d", b"").error == parent
    assert web.create(f"{place}/no/d", b"", createparent="false").error == missing
    assert web.get(place, "OPEN").error == missing
    assert web.get(place, "GETFILECHECKSUM").error == missing
    io_error = (403, "java.io.IOException")
    assert web.get(place, "GETLINKTARGET").error == io_error
    assert web.get(f"{place}/none", "GETLINKTARGET").error == missing
    assert web.get(f"{place}/f", "GETFILELINKSTATUS").json["FileStatus"]["type"] == "FILE"
    quota = "org.apache.hadoop.fs.PathIsNotDirectoryException"
    assert web.put(f"{place}/f", "SETQUOTA", namespacequota=5).error == (403, quota)
    assert web.get(f"{place}/f", "OPEN", offset=4).error == io_error
    location = web.redirected("GET", f"{place}/f", "OPEN")
    assert web.send("GET", location + "&offset=4").error == io_error
    assert web.post(f"{place}/f", "TRUNCATE", newlength=4).error == io_error


# What Hadoop's document has and TwinFS has not: refused as Hadoop refuses what is switched off.
NOT_YET = {
    "GET": {
        *(
            "GETECPOLICY",
            "GETECPOLICIES",
            "GETECCODECS",
            "GETSNAPSHOTDIFF",
            "GETSNAPSHOTDIFFLISTING",
        ),
        *("GETSNAPSHOTTABLEDIRECTORYLIST", "GETSNAPSHOTLIST", "GETTRASHROOTS"),
    },
    "PUT": {
        *("ALLOWSNAPSHOT", "DISALLOWSNAPSHOT", "ENABLEECPOLICY", "DISABLEECPOLICY", "SETECPOLICY"),
        *("CREATESYMLINK", "SETQUOTABYSTORAGETYPE"),
    },
    "POST": {"UNSETECPOLICY"},
}


def test_what_is_not_there_is_said_so(web: Web, place: str) -> None:
    for method, ops in NOT_YET.items():
        for op in ops:
            unsupported = (400, "java.lang.UnsupportedOperationException")
            assert web.send(method, web.url(place, op, destination="/x")).error == unsupported, op


BAD = [
    ("GET", "?op=NONSENSE"),
    ("GET", "?op=CREATE"),
    ("GET", ""),
    ("GET", "?op=MKDIRS"),
    ("PUT", "?op=OPEN"),
    ("DELETE", "?op=OPEN"),
    ("POST", "?op=GETFILESTATUS"),
    ("PATCH", "?op=OPEN"),
    ("GET", "?op=OPEN&offset=-1"),
    ("GET", "?op=OPEN&offset=x"),
    ("GET", "?op=OPEN&length=99999999999999999999"),
    ("GET", "?op=GETFILESTATUS&op=LISTSTATUS"),
    ("GET", "?op=GETFILESTATUS&user.name=a&user.name=b"),
    ("GET", "?op=GETFILESTATUS&user.name=/../etc"),
    ("GET", "?op=GETFILESTATUS&user.name=%00"),
    ("GET", "?op=GETFILESTATUS&x=%ff"),
    ("GET", "?op=CHECKACCESS&fsaction=abc"),
    ("GET", "?op=CHECKACCESS"),
    ("GET", "?op=GETXATTRS&encoding=rot13"),
    ("PUT", "?op=CREATE&permission=888"),
    ("PUT", "?op=CREATE&permission=-1"),
    ("PUT", "?op=CREATE&replication=0"),
    ("PUT", "?op=CREATE&replication=100000"),
    ("PUT", "?op=CREATE&blocksize=0"),
    ("PUT", "?op=CREATE&overwrite=maybe"),
    ("PUT", "?op=RENAME"),
    ("PUT", "?op=RENAME&destination=relative"),
    ("PUT", "?op=RENAME&destination=/x&renameoptions=SIDEWAYS"),
    ("PUT", "?op=SETOWNER"),
    ("PUT", "?op=SETREPLICATION&replication=x"),
    ("PUT", "?op=SETACL"),
    ("PUT", "?op=SETACL&aclspec=nonsense"),
    ("PUT", "?op=SETXATTR&xattr.name=user.x&xattr.value=1"),
    ("PUT", "?op=SETQUOTA&namespacequota=x"),
    ("PUT", "?op=RENEWDELEGATIONTOKEN"),
    ("PUT", "?op=CANCELDELEGATIONTOKEN&token=xyz"),
    ("POST", "?op=CONCAT"),
    ("POST", "?op=CONCAT&sources=,"),
    ("POST", "?op=TRUNCATE"),
    ("POST", "?op=TRUNCATE&newlength=-5"),
    ("GET", "/%ff?op=GETFILESTATUS"),
    ("GET", "/%00?op=GETFILESTATUS"),
    ("GET", "/a/%2e%2e/b?op=GETFILESTATUS"),
    *(("GET", f"?op={op}") for op in sorted(NOT_YET["GET"])),
    *(("PUT", f"?op={op}&destination=/x") for op in sorted(NOT_YET["PUT"])),
    *(("POST", f"?op={op}") for op in sorted(NOT_YET["POST"])),
    ("PUT", "?op=RENAMESNAPSHOT&snapshotname=s"),
    ("DELETE", "?op=DELETESNAPSHOT"),
    ("PUT", "?op=CREATE&buffersize=0"),
    ("GET", "?op=OPEN&buffersize=x"),
    ("POST", "?op=APPEND&buffersize=-1"),
    ("PUT", "?op=CREATE&createflag=create,append"),
    ("PUT", "?op=CREATE&createflag=sideways"),
    ("PUT", "?op=SETSTORAGEPOLICY"),
    ("GET", "?op=GETDELEGATIONTOKEN&delegation=AAAAAA"),
    ("GET", "?" + "&".join(f"p{n}=1" for n in range(500))),
]


@pytest.mark.parametrize(("method", "tail"), BAD)
def test_bad_requests_are_told_so(web: Web, method: str, tail: str) -> None:
    for host in (web.host, web.cluster.datanodes[0].facts["http"]):
        answer = web.send(
            method, f"http://{host}{PREFIX}{tail if tail.startswith('/') else '/' + tail}"
        )
        status, java = answer.error
        assert status == 400
        assert java in (
            "java.lang.IllegalArgumentException",
            "java.lang.UnsupportedOperationException",
            "org.apache.hadoop.fs.InvalidPathException",
        )


def test_who_uses_the_wrong_method_is_told_the_right_one(web: Web) -> None:
    def told(answer: Answer) -> str:
        return str(answer.json["RemoteException"]["message"])

    assert "MKDIRS is a PUT, not a GET" in told(web.get("/x", "mkdirs"))
    assert "TRUNCATE is a POST, not a PUT" in told(web.put("/x", "TRUNCATE", newlength=0))
    assert "the NameNode has no such operation for GET" in told(web.get("/x", "NONSENSE"))
    url = web.url("/x", "LISTSTATUS").replace(web.host, web.cluster.datanodes[0].facts["http"])
    assert "a DataNode has no such operation for GET" in told(web.send("GET", url))


def test_snapshots_are_refused_as_hadoop_does(web: Web, place: str) -> None:
    snapshot = (403, "org.apache.hadoop.hdfs.protocol.SnapshotException")
    assert web.put(place, "CREATESNAPSHOT", snapshotname="s").error == snapshot
    assert web.send("DELETE", web.url(place, "DELETESNAPSHOT", snapshotname="s")).error == snapshot
    renamed = web.put(place, "RENAMESNAPSHOT", oldsnapshotname="s", snapshotname="t")
    assert renamed.error == snapshot
    missing = (404, "java.io.FileNotFoundException")
    assert web.put(f"{place}/none", "CREATESNAPSHOT").error == missing


GARBAGE = [
    *("", "0", "-1", "9" * 30, "1e5", "null", "true", "%00", "%ff", "%", "%zz", "ä"),
    *(
        "/",
        "/..",
        "a" * 300,
        "user:bob:rwx",
        "0x",
        "0sé",
        ",",
        "&",
        "=",
        "CREATE",
        "777",
        "NaN",
        "'",
        '"',
        "<x>",
    ),
]


@pytest.mark.parametrize("seed", range(4))
def test_no_garbage_is_answered_by_500(web: Web, seed: int) -> None:
    """Every operation of both halves with parameters that are missing, senseless, or too much."""
    rng = random.Random(seed)
    names = ["offset", "length", "permission", "destination", "owner", "aclspec", "xattr.name"]
    names += ["xattr.value", "flag", "encoding", "fsaction", "sources", "newlength", "replication"]
    names += ["user.name", "doas", "delegation", "token", "overwrite", "blocksize", "startAfter"]
    names += ["renameoptions", "namespacequota", "modificationtime", "noredirect", "recursive"]
    hosts = [web.host, web.cluster.datanodes[0].facts["http"]]
    for _ in range(150):
        method, op = rng.choice([(m, op) for m, ops in KNOWN.items() for op in sorted(ops)])
        chosen = rng.sample(names, rng.randint(0, 4))
        query = "&".join([f"op={op}", *(f"{n}={rng.choice(GARBAGE)}" for n in chosen)])
        path = quote(rng.choice(["/", "/garbage", "/garbage/x", "/" + rng.choice(GARBAGE)]))
        answer = web.send(
            method,
            quote(f"http://{rng.choice(hosts)}{PREFIX}", safe=":/")
            + f"{path}?{quote(query, safe='=&%/,:')}",
        )
        assert answer.status < 500, (method, path, query, answer.body)
        if answer.status >= 400:
            assert answer.error[0] == answer.status


# --- browsers ----------------------------------------------------------------------------------


def test_pages_of_other_origins(web: Web) -> None:
    url = web.url("/", "GETFILESTATUS")
    allowed = web.send("GET", url, headers={"Origin": "http://page.example"})
    assert allowed.headers["Access-Control-Allow-Origin"] == "http://page.example"
    other = web.send("GET", url, headers={"Origin": "http://evil.example"})
    assert other.headers["Access-Control-Allow-Origin"] is None
    asked = web.send("OPTIONS", url, headers={"Origin": "http://page.example"})
    assert asked.status == 200
    assert "PUT" in asked.headers["Access-Control-Allow-Methods"]


def test_browsers_must_show_that_the_page_means_it(web: Web, place: str) -> None:
    browser = {"User-Agent": "Mozilla/5.0 (X11)"}
    url = web.url(f"{place}/d", "MKDIRS")
    assert web.send("PUT", url, headers=browser).error == (
        400,
        "java.lang.IllegalArgumentException",
    )
    assert web.send("PUT", url, headers={"Origin": "http://x.example"}).status == 400
    assert web.send("PUT", url, headers={**browser, "X-XSRF-HEADER": ""}).status == 200
    location = web.redirected("PUT", f"{place}/f", "CREATE")
    assert web.send("PUT", location, body=b"x", headers=browser).status == 400


def test_safe_mode(web: Web, place: str) -> None:
    """Reading goes on; what changes anything is refused with the exception that clients wait upon."""

    def switch(action: str) -> None:
        told = web.send(
            "POST",
            f"http://{web.host}/v1/safe_mode",
            body=json.dumps({"action": action}),
            headers={"Content-Type": "application/json", "X-TwinFS-User": ROOT},
        )
        assert told.status == 200, told.body

    web.create(f"{place}/f", b"here")
    location = web.redirected("PUT", f"{place}/g", "CREATE")
    switch("enter")
    try:
        safe = (403, "org.apache.hadoop.hdfs.server.namenode.SafeModeException")
        assert web.open(f"{place}/f") == b"here"
        assert web.put(f"{place}/d", "MKDIRS").error == safe
        assert web.delete(f"{place}/f").error == safe
        assert web.put(f"{place}/f", "RENAME", destination=f"{place}/x").error == safe
        assert web.send("PUT", location, body=b"").error == safe
    finally:
        switch("leave")
    assert web.put(f"{place}/d", "MKDIRS").json == {"boolean": True}


# --- failures ----------------------------------------------------------------------------------


def test_a_datanode_dies_while_a_file_is_sent(tmp_path: Path) -> None:
    """The pipeline goes on with the rest; the file is whole."""
    options = ("--user", ROOT, "--replication", "3", "--min-replicas", "1")
    with running(tmp_path, datanodes=3, namenode_options=options) as cluster:
        web = Web(cluster)
        location = web.redirected("PUT", "/f", "CREATE")
        serving = urlsplit(location).netloc
        victim = next(d for d in cluster.datanodes if d.facts["http"] != serving)

        def pieces() -> Iterator[bytes]:
            for number in range(24):
                if number == 8:
                    victim.kill()
                yield bytes([number]) * MIB

        assert web.send("PUT", location, body=pieces()).status == 201
        found = web.open("/f")
        assert found == b"".join(bytes([number]) * MIB for number in range(24))
        assert not cluster.tracebacks()

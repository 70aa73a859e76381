"""What is malformed, cut off or plainly wrong gets a typed error; the server lives, and nothing half-done is left.

Every interface: the NameNode's HTTP and WebSocket, and the DataNode's block streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import json
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import msgspec
import pytest

from twinfs.client.filesystem import FileSystem
from twinfs.client.http_namenode import HttpNameNode
from twinfs.common import transfer
from twinfs.common.checksum import CHUNK_BYTES, digest_of
from twinfs.common.errors import (
    BlockNotFound,
    BlockUnavailable,
    ChecksumMismatch,
    ConnectionLost,
    DfsError,
    InvalidRequest,
    LeaseConflict,
    PathExists,
    RequestTooLarge,
    StaleGeneration,
    VersionMismatch,
)
from twinfs.common.framing import FrameSocket, ask
from twinfs.common.messages import (
    MAX_CALLS_PER_FRAME,
    MAX_FRAME_BYTES,
    WIRE_VERSION,
    Allocate,
    Allocation,
    BlockCommit,
    GetServerInfo,
    PutFile,
    PutFiles,
    Stat,
)
from twinfs.common.model import BlockId, BlockRef, GenerationStamp, NodeAddress, NodeId
from twinfs.common.operations import OPERATIONS
from twinfs.common.transfer import (
    HEADER,
    PREAMBLE,
    Flag,
    Kind,
    OpenReplica,
    PacketAck,
    ReadBlock,
    ReadMany,
    ReadManyReady,
    ReadReady,
    SmallBlock,
    WriteBlock,
    WriteDone,
    WriteMany,
    WriteManyDone,
    WriteReady,
    pack_frame,
    pack_packet_header,
)

from ..support.cluster import Cluster, eventually, running

LEASE_S = 2.0
LIMIT_S = 30.0
OPTIONS = ("--lease-timeout-s", str(LEASE_S), "--lease-hard-timeout-s", "600")
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Whatever the tests of this module do to it, no server may log a traceback."""
    with running(tmp_path_factory.mktemp("cluster"), namenode_options=OPTIONS) as found:
        yield found
        assert found.tracebacks() == []


@pytest.fixture
def namenode(cluster: Cluster) -> Iterator[HttpNameNode]:
    found = HttpNameNode(cluster.url, user="root")
    yield found
    found.close()


@pytest.fixture(autouse=True)
def _alive(cluster: Cluster) -> Iterator[None]:
    """After each test everybody still answers."""
    yield
    assert sum(node.state == "live" for node in cluster.report().nodes) == 3


# --- the NameNode's HTTP ---


def send(
    cluster: Cluster,
    path: str,
    body: bytes | Iterator[bytes] | None,
    *,
    method: str = "POST",
    headers: dict[str, str] = JSON,
) -> tuple[int, dict[str, Any], http.client.HTTPMessage]:
    """Status, decoded body and headers of the answer."""
    connection = http.client.HTTPConnection(cluster.url.partition("://")[2], timeout=LIMIT_S)
    try:
        chunked = isinstance(body, Iterator)
        connection.request(method, path, body=body, headers=headers, encode_chunked=chunked)
        answer = connection.getresponse()
        data = answer.read()
        assert answer.headers["Content-Type"] == "application/json", data
        return answer.status, json.loads(data), answer.headers
    finally:
        connection.close()


SURROGATE = b'{"path": "/\\ud800"}'
NO_JSON = [
    *[b"", b"{", b"null", b"[]", b'"/"', b"path=/", b'{"path"}', b"\xff\xfe", b'{"path": "/a"} x'],
    *[b"[" * 100_000, b'{"x":' * 100_000, b"\x00", b'{"path": "/a', SURROGATE],
    b'{"path": "/\xed\xa0\x80"}',
]
WRONG_VALUES: list[tuple[str, Any, str]] = [
    ("stat", {}, "invalid-request"),
    ("stat", {"path": 5}, "invalid-request"),
    ("stat", {"path": None}, "invalid-request"),
    ("stat", {"path": ["/"]}, "invalid-request"),
    ("stat", {"path": ""}, "invalid-path"),
    ("stat", {"path": "relative"}, "invalid-path"),
    ("stat", {"path": "/a/../b"}, "invalid-path"),
    ("stat", {"path": "/./a"}, "invalid-path"),
    ("stat", {"path": "/a\x00b"}, "invalid-path"),
    ("stat", {"path": "/" + "n" * 256}, "name-too-long"),
    ("stat", {"path": "/" + "é" * 128}, "name-too-long"),
    ("stat", {"path": "/a" * 1001}, "path-too-deep"),
    ("stat", {"path": "/" + "long" * 2_000}, "path-too-long"),
    ("stat", {"path": "/" + "long" * 10_000}, "invalid-request"),
    ("mkdirs", {"path": "/x", "mode": -1}, "invalid-request"),
    ("mkdirs", {"path": "/x", "mode": 0o10000}, "invalid-request"),
    ("mkdirs", {"path": "/x", "mode": "755"}, "invalid-request"),
    ("mkdirs", {"path": "/x", "parents": 1}, "invalid-request"),
    ("locate", {"path": "/", "offset": -1}, "invalid-request"),
    ("locate", {"path": "/", "length": -2}, "invalid-request"),
    ("locate", {"path": "/", "offset": 2**63}, "invalid-request"),
    ("locate", {"path": "/", "offset": 10**400}, "invalid-request"),
    ("locate", {"path": "/", "offset": 1.5}, "invalid-request"),
    ("list", {"path": "/", "limit": 0}, "invalid-request"),
    ("list", {"path": "/", "limit": 10**9}, "invalid-request"),
    ("list", {"path": "/", "start_after": "a\x00"}, "invalid-request"),
    ("events", {"path_prefix": "/\x00"}, "invalid-request"),
    ("truncate", {"path": "/x", "holder": "h", "length": -1}, "invalid-request"),
    ("create", {"path": "/x", "holder": ""}, "invalid-request"),
    ("create", {"path": "/x", "holder": "h\x00"}, "invalid-request"),
    ("create", {"path": "/x", "holder": "h", "replication": 0}, "invalid-request"),
    ("create", {"path": "/x", "holder": "h", "replication": 513}, "invalid-request"),
    ("create", {"path": "/x", "holder": "h", "block_size": 0}, "invalid-request"),
    ("create", {"path": "/x", "holder": "h", "block_size": 2**40}, "invalid-request"),
    ("set_owner", {"path": "/", "owner": "a\x00"}, "invalid-request"),
    ("set_owner", {"path": "/", "owner": ""}, "invalid-request"),
    ("set_times", {"path": "/", "mtime_ms": 2**62}, "invalid-request"),
    ("set_xattr", {"path": "/", "name": "", "value": ""}, "invalid-request"),
    ("set_xattr", {"path": "/", "name": "user.a", "value": "no base64!"}, "invalid-request"),
    ("set_quota", {"path": "/", "names": -2}, "invalid-request"),
    ("complete", {"path": "/x", "inode_id": -1, "holder": "h"}, "invalid-request"),
    ("complete", {"path": "/x", "inode_id": 2**70, "holder": "h"}, "invalid-request"),
    ("stat_many", {"paths": ["/"] * 1025}, "invalid-request"),
    ("concat", {"target": "/x", "sources": []}, "invalid-request"),
    ("register", {"wire_version": 1, "version": "", "uuid": "u"}, "invalid-request"),
    ("heartbeat", {"node_id": 1, "uuid": "x", "wait_s": -1}, "invalid-request"),
    ("heartbeat", {"node_id": 1, "uuid": "x", "wait_s": 1e300}, "invalid-request"),
]


@pytest.mark.parametrize("body", NO_JSON, ids=lambda body: ascii(body[:20]))
def test_bodies_that_are_no_request(cluster: Cluster, body: bytes) -> None:
    status, answer, _ = send(cluster, "/v1/stat", body)
    assert (status, answer["code"]) == (400, "invalid-request")
    assert answer["message"]
    assert not answer["reference"]


@pytest.mark.parametrize(("operation", "request_", "code"), WRONG_VALUES)
def test_wrong_values(cluster: Cluster, operation: str, request_: Any, code: str) -> None:
    status, answer, _ = send(cluster, f"/v1/{operation}", json.dumps(request_).encode())
    assert (status, answer["code"]) == (400, code), answer
    packed = msgspec.msgpack.encode(
        {k: v for k, v in request_.items() if not isinstance(v, int) or abs(v) < 2**64}
    )
    headers = {"Content-Type": "application/msgpack", "Accept": "application/json"}
    status, answer, _ = send(cluster, f"/v1/{operation}", packed, headers=headers)
    assert 200 <= status < 500, answer
    assert not answer.get("reference")


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
@pytest.mark.parametrize("body", [b"{}", b"[]", b"\x80", b'{"path": {}}', b"\xc1", b"\x00" * 64])
@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_every_operation_survives_nonsense(
    cluster: Cluster, operation: str, body: bytes, form: str
) -> None:
    headers = {"Content-Type": f"application/{form}", "Accept": "application/json"}
    status, answer, _ = send(cluster, f"/v1/{operation}", body, headers=headers)
    assert status != 500, answer
    if status != 200:
        known = {"invalid-request", "unsupported", "version-mismatch", "permission-denied"}
        assert answer["code"] in known, answer


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "allow"),
    [
        ("POST", "/v1/nope", 404, "unknown-operation", None),
        ("POST", "/v1/stat/", 404, "unknown-operation", None),
        ("POST", "/v1/", 404, "unknown-operation", None),
        ("POST", "/v1/%00", 404, "unknown-operation", None),
        ("POST", "/v1/" + "x" * 4000, 404, "unknown-operation", None),
        ("GET", "/v1/nope", 404, "unknown-operation", None),
        ("GET", "/v1/stat", 405, "wrong-method", "POST"),
        ("PUT", "/v1/stat", 405, "wrong-method", "POST"),
        ("DELETE", "/v1/delete", 405, "wrong-method", "POST"),
        ("OPTIONS", "/v1/stat", 405, "wrong-method", "POST"),
        ("PATCH", "/v1/stat", 405, "wrong-method", "POST"),
        ("POST", "/v1/rpc", 405, "wrong-method", "GET"),
        ("POST", "/v1/openapi.json", 405, "wrong-method", "GET"),
    ],
)
def test_wrong_methods_and_paths(
    cluster: Cluster, method: str, path: str, status: int, code: str, allow: str | None
) -> None:
    got, answer, headers = send(cluster, path, b'{"path": "/"}', method=method)
    assert (got, answer["code"], headers["Allow"]) == (status, code, allow)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "nonsense"]
)
def test_only_json_and_msgpack_are_requests(cluster: Cluster, kind: str) -> None:
    """A page elsewhere can make a browser send the first three without asking."""
    status, answer, _ = send(
        cluster, "/v1/mkdirs", b'{"path": "/f"}', headers={"Content-Type": kind}
    )
    assert (status, answer["code"]) == (415, "wrong-media-type")
    status, answer, _ = send(cluster, "/v1/mkdirs", b'{"path": "/f"}', headers={})
    assert (status, answer["code"]) == (415, "wrong-media-type")
    status, answer, _ = send(cluster, "/v1/stat", b'{"path": "/f"}')
    assert status == 404


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-TwinFS-Request", "nonsense"),
        ("X-TwinFS-Request", "00-1"),
        ("X-TwinFS-Request", "0" * 32 + "-x"),
        ("X-TwinFS-Request", "0" * 32 + "-" + "9" * 40),
        ("X-TwinFS-User", "a/b"),
        ("X-TwinFS-User", "u" * 256),
        ("X-TwinFS-User", "tab\there"),
    ],
)
def test_wrong_headers(cluster: Cluster, name: str, value: str) -> None:
    status, answer, _ = send(
        cluster, "/v1/mkdirs", b'{"path": "/h"}', headers={**JSON, name: value}
    )
    assert (status, answer["code"]) == (400, "invalid-request")


def test_bodies_that_are_too_large(cluster: Cluster) -> None:
    """Announced, it is refused unread; unannounced, when the limit is passed."""
    head = b"POST /v1/stat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with dial(cluster.url.partition("://")[2]) as raw:
        raw.sendall(head + b"Content-Length: 1000000000000\r\n\r\n")
        assert b" 413 " in raw.recv(4096)
    with dial(cluster.url.partition("://")[2]) as raw:
        raw.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        received = b""
        with contextlib.suppress(OSError):
            for _ in range(40):
                raw.sendall(b"100000\r\n" + b" " * 0x100000 + b"\r\n")
        with contextlib.suppress(OSError):
            received = raw.recv(4096)
        assert not received or b" 413 " in received


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "nonsense"])
def test_compressed_bodies_are_not_unpacked(cluster: Cluster, encoding: str) -> None:
    """A few bytes may stand for a great many."""
    packed = gzip.compress(b" " * (64 << 20))
    headers = {**JSON, "Content-Encoding": encoding}
    status, answer, _ = send(cluster, "/v1/stat", packed, headers=headers)
    assert (status, answer["code"]) == (415, "wrong-media-type")


@pytest.mark.parametrize(
    "tail",
    [
        b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-5\r\n{}\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n{}\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n{}",
        b"Content-Length: -1\r\n\r\n{}",
        b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"Content-Length: x\r\n\r\n{}",
        b"no header at all\r\n\r\n{}",
        b"X: " + b"y" * 100_000 + b"\r\n\r\n{}",
    ],
)
def test_bodies_whose_framing_is_broken(cluster: Cluster, tail: bytes) -> None:
    head = b"POST /v1/mkdirs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with dial(cluster.url.partition("://")[2]) as raw:
        with contextlib.suppress(ConnectionError):
            raw.sendall(head + tail)
            answer = raw.recv(4096)
            assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")), answer


def dial(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), LIMIT_S)


def hang_up(raw: socket.socket) -> None:
    """Reset, as a process that is killed may."""
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_goes_away_at_any_byte_of_its_request(
    cluster: Cluster, namenode: HttpNameNode, reset: bool
) -> None:
    """What was not sent whole is not done at all."""
    folder = f"/gone-{reset}"
    sizes = []
    position = 0
    while True:
        body = json.dumps({"path": f"{folder}/{position:04}"}).encode()
        request = (
            f"POST /v1/mkdirs HTTP/1.1\r\nHost: {cluster.url}\r\nX-TwinFS-User: root\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        raw = dial(cluster.url.partition("://")[2])
        raw.sendall(request[:position])
        if reset:
            hang_up(raw)
        elif position < len(request):
            raw.close()
        else:
            assert b" 200 " in raw.recv(4096)
            raw.close()
        sizes.append(position)
        if position >= len(request):
            break
        position += 1
    assert len(sizes) > 150
    listed = send(cluster, "/v1/list", json.dumps({"path": folder}).encode())
    if reset and listed[0] == 404:
        return  # the last one, sent whole, may be lost by the reset
    assert [entry["path"] for entry in listed[1]["entries"]] == [f"{folder}/{sizes[-1]:04}"]


def test_many_who_say_nothing_keep_nobody_waiting(cluster: Cluster, namenode: HttpNameNode) -> None:
    silent = [dial(cluster.url.partition("://")[2]) for _ in range(200)]
    try:
        for raw in silent[::2]:
            raw.sendall(b"POST /v1/stat HTTP/1.1\r\nContent-Length: 100\r\n")
        assert namenode.call("stat", Stat(path="/")).is_directory
    finally:
        for raw in silent:
            raw.close()


# --- the NameNode's WebSocket ---


def hello(**changes: Any) -> bytes:
    fields = {"wire_version": WIRE_VERSION, "client_id": b"c" * 16, "user": "root"}
    return msgspec.msgpack.encode({**fields, **changes})


@contextlib.asynccontextmanager
async def rpc(cluster: Cluster) -> Any:
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(f"{cluster.url}/v1/rpc", max_msg_size=0) as found:
            yield found


async def told(found: aiohttp.ClientWebSocketResponse) -> Any:
    async with asyncio.timeout(LIMIT_S):
        message = await found.receive()
    assert message.type == aiohttp.WSMsgType.BINARY, message
    return msgspec.msgpack.decode(message.data)


async def greeted(found: aiohttp.ClientWebSocketResponse) -> None:
    await found.send_bytes(hello())
    assert (await told(found))["cluster_id"]


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (b"", "invalid-request"),
        (b"\xc1", "invalid-request"),
        ("text", "invalid-request"),
        (msgspec.msgpack.encode([1, 2]), "invalid-request"),
        (hello(client_id=b"short"), "invalid-request"),
        (hello(user="a/b"), "invalid-request"),
        (hello(user="u" * 300), "invalid-request"),
        (hello(wire_version="1"), "invalid-request"),
        (hello(wire_version=WIRE_VERSION + 1), "version-mismatch"),
        (hello(wire_version=-(2**60)), "version-mismatch"),
    ],
)
async def test_greetings_that_are_none(cluster: Cluster, first: bytes | str, code: str) -> None:
    async with rpc(cluster) as found:
        await (found.send_str(first) if isinstance(first, str) else found.send_bytes(first))
        assert (await told(found))["code"] == code
        async with asyncio.timeout(LIMIT_S):
            closing = await found.receive()
        assert closing.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        b"\x81\xa1a\x01",
        msgspec.msgpack.encode("calls"),
        msgspec.msgpack.encode([1]),
        msgspec.msgpack.encode([[1, "stat"]]),
        msgspec.msgpack.encode([["1", "stat", {"path": "/"}]]),
        msgspec.msgpack.encode([[0, "stat", {"path": "/"}]]),
        msgspec.msgpack.encode([[-1, "stat", {"path": "/"}]]),
        msgspec.msgpack.encode([[2**63, "stat", {"path": "/"}]]),
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 50_000,
        "text",
        msgspec.msgpack.encode(
            [[n + 1, "stat", {"path": "/"}] for n in range(MAX_CALLS_PER_FRAME + 1)]
        ),
    ],
    ids=lambda frame: ascii(frame[:16]),
)
async def test_frames_that_are_none(cluster: Cluster, frame: bytes | str) -> None:
    """An error says why, and the connection ends: what comes after can't be trusted to be in step."""
    async with rpc(cluster) as found:
        await greeted(found)
        await (found.send_str(frame) if isinstance(frame, str) else found.send_bytes(frame))
        assert (await told(found))["code"] in ("invalid-request", "request-too-large")
        async with asyncio.timeout(LIMIT_S):
            assert (await found.receive()).type in (
                aiohttp.WSMsgType.CLOSE,
                aiohttp.WSMsgType.CLOSED,
            )


async def test_a_frame_that_is_too_large_ends_the_connection(cluster: Cluster) -> None:
    async with rpc(cluster) as found:
        await greeted(found)
        with contextlib.suppress(ConnectionError):
            await found.send_bytes(b"\x90" * (MAX_FRAME_BYTES + 1))
        async with asyncio.timeout(LIMIT_S):
            closing = await found.receive()
        assert closing.type in (
            *(aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR),
        )


async def test_a_wrong_call_hurts_nobody_else_in_its_frame(cluster: Cluster) -> None:
    calls = [
        (1, "stat", {"path": "/"}, None),
        (2, "nope", {}, "unknown-operation"),
        (3, "stat", {"path": 5}, "invalid-request"),
        (4, "mkdirs", {"path": "/frame/a"}, None),
        (5, "mkdirs", {"path": "/frame/b", "mode": "x"}, "invalid-request"),
        (6, "mkdirs", {"path": "/frame/../b"}, "invalid-path"),
        (7, "stat", {"path": "/a\x00"}, "invalid-path"),
        (8, "heartbeat", [], "invalid-request"),
        (9, "create", {"path": "/frame/c"}, "invalid-request"),
        (10, "put_files", {"holder": "h", "files": [{}]}, "invalid-request"),
        (11, "list", {"path": "/", "limit": -5}, "invalid-request"),
        (12, "stat", {"path": "/none"}, "path-not-found"),
        (13, "mkdirs", {"path": "/frame/d"}, None),
        (14, "x" * 100_000, {}, "unknown-operation"),
    ]
    async with rpc(cluster) as found:
        await greeted(found)
        await found.send_bytes(msgspec.msgpack.encode([call[:3] for call in calls]))
        replies: dict[int, Any] = {}
        while len(replies) < len(calls):
            for call_id, ok, value in await told(found):
                replies[call_id] = None if ok else value["code"]
                assert ok or (len(value["message"]) < 1000 and not value["reference"])
        assert replies == {call[0]: call[3] for call in calls}
        # The connection goes on.
        await found.send_bytes(msgspec.msgpack.encode([[20, "stat", {"path": "/frame/d"}]]))
        [[call_id, ok, _]] = await told(found)
        assert (call_id, ok) == (20, True)


async def test_a_client_that_goes_away_at_any_byte_of_a_frame(cluster: Cluster) -> None:
    """Whole frames are carried out, cut ones are not; the server goes on."""
    upgrade = (
        b"GET /v1/rpc HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )

    def framed(payload: bytes) -> bytes:
        assert len(payload) < 126
        return bytes([0x82, 0x80 | len(payload), 0, 0, 0, 0]) + payload

    def attempt(position: int) -> int:
        call = msgspec.msgpack.encode([[1, "mkdirs", {"path": f"/ws/{position:04}"}]])
        whole = framed(hello()) + framed(call)
        with dial(cluster.url.partition("://")[2]) as raw:
            raw.sendall(upgrade)
            assert b" 101 " in raw.recv(4096)
            raw.sendall(whole[:position])
            if position >= len(whole):
                assert raw.recv(4096)
        return len(whole)

    size = await asyncio.to_thread(attempt, 0)
    for position in range(1, size + 1):
        await asyncio.to_thread(attempt, position)
    async with FileSystem.connect(cluster.url) as fs:

        async def done() -> bool:
            return await fs.exists("/ws")

        await eventually(done, "the whole frame is carried out")
        assert [status.name async for status in fs.list("/ws")] == [f"{size:04}"]


# --- the DataNode's block streams ---


@pytest.fixture
def allocation(namenode: HttpNameNode) -> Allocation:
    """Blocks nobody has written yet, and where they are to go."""
    request = Allocate(holder="bad-input", count=64, length=1 << 20)
    return namenode.call("allocate", request)  # type: ignore[no-any-return]


@pytest.fixture
def node(allocation: Allocation) -> NodeAddress:
    return allocation.nodes[0]


@contextlib.contextmanager
def stream(node: NodeAddress, preamble: bytes = PREAMBLE) -> Iterator[FrameSocket]:
    raw = dial(node.data)
    try:
        framed = FrameSocket(raw, stall_timeout_s=LIMIT_S)
        framed.send(preamble)
        yield framed
    finally:
        raw.close()


def ref(allocation: Allocation, number: int = 0) -> BlockRef:
    block_id = BlockId(allocation.first_block_id + number)
    return BlockRef(block_id=block_id, generation=allocation.generation)


def absent(node: NodeAddress, block: BlockRef) -> bool:
    """Whether the node has no finalized replica of the block."""
    with stream(node) as connection:
        try:
            return not ask(connection, ReadBlock(block=block), ReadReady).finalized
        except (BlockNotFound, StaleGeneration):
            return True


def ended(connection: FrameSocket) -> bool:
    """Whether the other side has closed, after whatever it still had to say."""
    with contextlib.suppress(ConnectionLost):
        while True:
            connection.receive_body(1)
    return True


@pytest.mark.parametrize("preamble", [b"GET / HT", b"\x00" * 8, PREAMBLE[:-1] + b"\xff"])
def test_strangers_are_told_and_left(node: NodeAddress, preamble: bytes) -> None:
    with stream(node, preamble) as connection:
        with pytest.raises(VersionMismatch):
            connection.receive_response(ReadReady)
        assert ended(connection)


def header(length: int, kind: int = Kind.REQUEST, flags: int = 0, zero: int = 0) -> bytes:
    return HEADER.pack(length, kind, flags, zero)


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (header(5, kind=0) + b"x" * 5, InvalidRequest),
        (header(5, kind=9) + b"x" * 5, InvalidRequest),
        (header(5, flags=99) + b"x" * 5, InvalidRequest),
        (header(5, zero=7) + b"x" * 5, InvalidRequest),
        (header(2**32 - 1), RequestTooLarge),
        (header(transfer.MAX_CONTROL_BYTES + 1), RequestTooLarge),
        (header(2**31, kind=Kind.PACKET), RequestTooLarge),
        (header(10, kind=Kind.PACKET) + b"x" * 10, InvalidRequest),
        (header(3, kind=Kind.ACK) + b"x" * 3, InvalidRequest),
    ],
)
def test_frames_out_of_step_end_the_stream(
    node: NodeAddress, sent: bytes, kind: type[DfsError]
) -> None:
    with stream(node) as connection:
        connection.send(sent)
        with pytest.raises(kind):
            connection.receive_response(ReadReady)
        assert ended(connection)


def body_of(**fields: Any) -> bytes:
    return msgspec.msgpack.encode(fields)


BLOCK = {"block_id": 1, "generation": 1}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x91" * 10_000,
        b"\xdf\xff\xff\xff\xff",
        body_of(),
        body_of(type="format-disk"),
        body_of(type="read-block"),
        body_of(type="read-block", block={"block_id": -1, "generation": 1}),
        body_of(type="read-block", block={"block_id": 2**63, "generation": 1}),
        body_of(type="read-block", block=BLOCK, offset=-1),
        body_of(type="read-block", block=BLOCK, offset="0"),
        body_of(type="read-many", blocks=[]),
        body_of(type="read-many", blocks=[BLOCK] * (transfer.MAX_MANY_ITEMS + 1)),
        body_of(type="write-many", items=[]),
        body_of(type="write-block", block=BLOCK, resume_at=-5),
        body_of(type="write-block", block=BLOCK, durability="hopefully"),
        body_of(type="write-block", block=BLOCK, targets=[{"node_id": 1}]),
        body_of(type="finish-recovery", block=BLOCK, new_generation=-1, length=0),
    ],
    ids=lambda body: ascii(body[:24]),
)
def test_wrong_requests(node: NodeAddress, body: bytes) -> None:
    """Bytes may follow that belong to it, so the stream ends with the error."""
    with stream(node) as connection:
        connection.send(header(len(body)) + body)
        with pytest.raises(InvalidRequest):
            connection.receive_response(ReadReady)
        assert ended(connection)


def test_a_stream_goes_on_after_an_error(node: NodeAddress, allocation: Allocation) -> None:
    with stream(node) as connection:
        for _ in range(3):
            with pytest.raises(BlockNotFound):
                ask(connection, ReadBlock(block=ref(allocation, 63)), ReadReady)
            with pytest.raises(InvalidRequest, match="Unix"):
                ask(connection, OpenReplica(block=ref(allocation, 63)), ReadReady)


def write_one(
    node: NodeAddress,
    block: BlockRef,
    packets: list[tuple[int, int, bytes, bytes, Flag]],
    targets: list[NodeAddress] | None = None,
) -> WriteDone:
    """Open a pipeline and send *packets*: (sequence, offset, digest, payload, flags)."""
    with stream(node) as connection:
        ask(connection, WriteBlock(block=block, targets=targets or []), WriteReady)
        for packet in packets:
            connection.send_packet(*packet)
        while True:
            length, kind, flags = connection.receive_header()
            body = connection.receive_body(length)
            if kind == Kind.RESPONSE:
                return connection.response_in(body, kind, flags, WriteDone)
            assert msgspec.msgpack.decode(body, type=PacketAck).failed == []


A, B = b"a" * 1000, b"b" * 500
WRONG_PACKETS: list[tuple[str, list[tuple[int, int, bytes, bytes, Flag]], type[DfsError]]] = [
    ("digest", [(0, 0, digest_of(B), A, Flag.LAST)], ChecksumMismatch),
    (
        "second digest",
        [(0, 0, digest_of(A), A, Flag.NONE), (1, 1000, digest_of(A), B, Flag.LAST)],
        ChecksumMismatch,
    ),
    ("gap", [(0, 10, digest_of(A), A, Flag.LAST)], InvalidRequest),
    (
        "overlap",
        [(0, 0, digest_of(A), A, Flag.NONE), (1, 900, digest_of(B), B, Flag.LAST)],
        InvalidRequest,
    ),
    ("far away", [(0, 2**63, digest_of(A), A, Flag.LAST)], InvalidRequest),
    (
        "across a chunk",
        [
            (0, 0, digest_of(A), A, Flag.NONE),
            (1, 1000, digest_of(b"c" * CHUNK_BYTES), b"c" * CHUNK_BYTES, Flag.LAST),
        ],
        InvalidRequest,
    ),
]


@pytest.mark.parametrize(
    ("packets", "kind"), [w[1:] for w in WRONG_PACKETS], ids=[w[0] for w in WRONG_PACKETS]
)
@pytest.mark.parametrize("copies", [1, 3])
def test_wrong_packets_are_never_stored(
    allocation: Allocation,
    packets: list[tuple[int, int, bytes, bytes, Flag]],
    kind: type[DfsError],
    copies: int,
) -> None:
    block = ref(allocation)
    first, *rest = allocation.nodes[:copies]
    with pytest.raises(kind):
        write_one(first, block, packets, rest)
    assert all(absent(one, block) for one in allocation.nodes)
    # The node is as ready for the next writer as before.
    good = [(0, 0, digest_of(A), A, Flag.LAST)]
    assert len(write_one(first, ref(allocation, 1), good, rest).nodes) == copies


@pytest.mark.parametrize("reset", [False, True])
def test_a_writer_that_goes_away_at_any_byte(
    allocation: Allocation, namenode: HttpNameNode, reset: bool
) -> None:
    """A block that was not sent whole is on no node, and can't become part of a file."""
    first, *rest = allocation.nodes
    payload = b"x" * 40
    packet = pack_packet_header(0, 0, digest_of(payload), len(payload), Flag.LAST) + payload
    request = pack_frame(Kind.REQUEST, WriteBlock(block=ref(allocation), targets=rest))
    whole = PREAMBLE + request + packet
    # Every byte of the preamble, the headers and the packet; the inside of the request in steps.
    inside = range(len(PREAMBLE) + HEADER.size + 1, len(PREAMBLE) + len(request), 29)
    edges = [*range(len(PREAMBLE) + HEADER.size), *range(len(whole) - len(packet), len(whole))]
    for number, position in enumerate(sorted({*edges, *inside})):
        block = ref(allocation, number % 60)
        request = pack_frame(Kind.REQUEST, WriteBlock(block=block, targets=rest))
        raw = dial(first.data)
        raw.sendall((PREAMBLE + request + packet)[:position])
        hang_up(raw) if reset else raw.close()
    for number in range(60):
        assert all(absent(one, ref(allocation, number)) for one in allocation.nodes)
    commit = BlockCommit(
        block_id=ref(allocation).block_id,
        generation=allocation.generation,
        length=len(payload),
        digest=digest_of(payload),
        nodes=[NodeId(2**40)],
    )
    files = [PutFile(path="/never", blocks=[commit])]
    answer = namenode.call("put_files", PutFiles(holder="bad-input", files=files))
    # Its lease may have run out by now, too.
    assert answer.results[0].failure.code in ("invalid-request", "lease-lost")


def test_a_batch_that_is_cut_off_or_wrong(allocation: Allocation) -> None:
    first, *rest = allocation.nodes
    payloads = [b"one", b"two"]

    def request(digests: list[bytes]) -> WriteMany:
        items = [
            SmallBlock(
                block_id=ref(allocation, number).block_id,
                generation=allocation.generation,
                length=len(data),
                digest=digest,
            )
            for number, (data, digest) in enumerate(zip(payloads, digests, strict=True))
        ]
        return WriteMany(items=items, targets=rest)

    right = request([digest_of(data) for data in payloads])
    whole = PREAMBLE + pack_frame(Kind.REQUEST, right) + b"".join(payloads)
    for position in [*range(0, len(whole) - 12, 37), *range(len(whole) - 12, len(whole))]:
        with dial(first.data) as raw:
            raw.sendall(whole[:position])
    wrong = request([digest_of(b"one"), digest_of(b"not two")])
    with stream(first) as connection:
        connection.send_frame(Kind.REQUEST, wrong)
        connection.send(*payloads)
        with pytest.raises(ChecksumMismatch):
            connection.receive_response(WriteManyDone)
        blocks = [ref(allocation, 0), ref(allocation, 1)]
        for one in allocation.nodes:
            with stream(one) as other:
                assert ask(other, ReadMany(blocks=blocks), ReadManyReady).lengths == [-1, -1]
        # Both of the batch were refused; the same stream takes the right one.
        connection.send_frame(Kind.REQUEST, right)
        connection.send(*payloads)
        done = connection.receive_response(WriteManyDone)
        assert (len(done.nodes), done.failed) == (3, [])


@pytest.mark.parametrize("place", [0, 1])
def test_a_pipeline_to_a_dead_node_goes_on_without_it(allocation: Allocation, place: int) -> None:
    first, second, _ = allocation.nodes
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[1]
    dead = NodeAddress(node_id=NodeId(77), host="x", data=f"127.0.0.1:{nobody}", http="x:1")
    targets = [second]
    targets.insert(place, dead)
    block = ref(allocation)
    with stream(first) as connection:
        ready = ask(connection, WriteBlock(block=block, targets=targets), WriteReady)
        assert ready.failed == [77]
        assert str(nobody) in ready.failures[0]
        connection.send_packet(0, 0, digest_of(A), A, Flag.LAST)
        length, kind, _ = connection.receive_header()
        connection.receive_body(length)
        assert kind == Kind.ACK
        done = connection.receive_response(WriteDone)
    assert done.nodes == [first.node_id, second.node_id]


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:x", "127.0.0.1:99999", "", ":", "[::1"])
def test_a_pipeline_to_no_address_at_all(allocation: Allocation, address: str) -> None:
    wrong = NodeAddress(node_id=NodeId(78), host="x", data=address, http="x:1")
    with stream(allocation.nodes[0]) as connection:
        request = WriteBlock(block=ref(allocation), targets=[wrong])
        assert ask(connection, request, WriteReady).failed == [78]


def test_two_writers_of_one_block(allocation: Allocation) -> None:
    """The later one wins the replica or is refused; bytes of both never mix."""
    node, block = allocation.nodes[0], ref(allocation)
    with stream(node) as slow:
        ask(slow, WriteBlock(block=block), WriteReady)
        slow.send_packet(0, 0, digest_of(A), A, Flag.NONE)
        with contextlib.suppress(DfsError):
            write_one(node, block, [(0, 0, digest_of(B), B, Flag.LAST)])
        with contextlib.suppress(DfsError):
            slow.send_packet(1, 1000, digest_of(A), A, Flag.LAST)
            while slow.receive_header()[1] != Kind.RESPONSE:
                slow.receive_body(struct.calcsize("0B"))
    with stream(node) as connection:
        ready = ask(connection, ReadBlock(block=block), ReadReady)
        found = bytes(connection.receive_body(ready.length))
    assert found in (A, A + A, B)


def test_reading_what_is_not_there(allocation: Allocation) -> None:
    node, block = allocation.nodes[0], ref(allocation)
    write_one(node, block, [(0, 0, digest_of(A), A, Flag.LAST)])
    wrong: list[tuple[ReadBlock, type[DfsError]]] = [
        (ReadBlock(block=ref(allocation, 5)), BlockNotFound),
        (
            ReadBlock(
                block=BlockRef(
                    block_id=block.block_id, generation=GenerationStamp(block.generation + 1)
                )
            ),
            StaleGeneration,
        ),
        (ReadBlock(block=block, offset=1001), InvalidRequest),
        (ReadBlock(block=block, offset=2**63 - 1), InvalidRequest),
    ]
    with stream(node) as connection:
        for request, kind in wrong:
            with pytest.raises((kind, BlockNotFound)):
                ask(connection, request, ReadReady)
        ready = ask(connection, ReadBlock(block=block, offset=1000, length=5), ReadReady)
        assert ready.length == 0
        ready = ask(connection, ReadBlock(block=block, offset=990, length=2**62), ReadReady)
        assert bytes(connection.receive_body(ready.length)) == A[990:]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/blocks/x?generation=1", {}, 400),
        ("/v1/blocks/-1?generation=1", {}, 400),
        ("/v1/blocks/1", {}, 400),
        ("/v1/blocks/1?generation=" + "9" * 40, {}, 400),
        ("/v1/blocks/999999999?generation=1", {}, 404),
    ],
)
def test_the_datanodes_http(
    node: NodeAddress, path: str, headers: dict[str, str], status: int
) -> None:
    connection = http.client.HTTPConnection(node.http, timeout=LIMIT_S)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        assert answer.status == status
        assert json.loads(answer.read())["message"]
    finally:
        connection.close()


# --- two writers, and writers that are gone ---


async def test_two_writers_of_one_path(cluster: Cluster) -> None:
    """Who has the file open keeps it; who puts it whole, one of them has it in the end."""
    async with FileSystem.connect(cluster.url) as one, FileSystem.connect(cluster.url) as two:
        file = await one.open("/both", "xb")
        await file.write(b"one")
        refused: list[Callable[[], Any]] = [
            lambda: two.open("/both", "xb"),
            lambda: two.open("/both", "ab"),
            lambda: two.truncate("/both", 0),
            lambda: two.write_bytes("/both", b"two"),
        ]
        for attempt in refused:
            with pytest.raises((LeaseConflict, PathExists)):
                await attempt()
        await file.close()
        assert await two.read_bytes("/both") == b"one"
        results = await asyncio.gather(
            *(fs.write_bytes("/race", data) for fs, data in ((one, b"one"), (two, b"two"))),
            return_exceptions=True,
        )
        winners = [r for r in results if not isinstance(r, BaseException)]
        assert len(winners) == 1
        assert isinstance(next(r for r in results if r not in winners), PathExists)
        assert await one.read_bytes("/race") == (b"one" if results[0] in winners else b"two")


async def test_a_writer_that_vanishes_leaves_no_stuck_lease(cluster: Cluster) -> None:
    """Its connection is cut without a word; after the lease timeout the next writer gets the file, as it was synced."""
    lost = FileSystem.connect(cluster.url)
    file = await lost.open("/lost-lease", "xb")
    await file.write(b"kept")
    await file.sync()
    await file.write(b"never acknowledged")
    await file.abandon()
    await lost.close()
    async with FileSystem.connect(cluster.url) as fs:

        async def taken() -> bool:
            try:
                async with await fs.open("/lost-lease", "ab") as mine:
                    await mine.write(b" and more")
            except LeaseConflict:
                return False
            return True

        await eventually(taken, "the lease is taken over", 60.0)
        data = await fs.read_bytes("/lost-lease")
        assert data.startswith(b"kept")
        assert data.endswith(b" and more")
        assert not (await fs.stat("/lost-lease")).under_construction


async def test_a_file_that_names_blocks_it_does_not_own(cluster: Cluster) -> None:
    """Nobody can make another's blocks his own, nor blocks that were never written."""
    async with FileSystem.connect(cluster.url) as fs:
        status = await fs.write_bytes("/owned", b"x" * 100_000)
        (located,) = (await fs.locate("/owned")).blocks
        assert located.block.digest is not None
        for holder in ("nobody", "bad-input"):
            commit = BlockCommit(
                block_id=located.block.block_id,
                generation=located.block.generation,
                length=located.block.length,
                digest=located.block.digest,
                nodes=[node.node_id for node in located.nodes],
            )
            files = [PutFile(path="/stolen", blocks=[commit])]
            answer = await fs.call("put_files", PutFiles(holder=holder, files=files))
            assert answer.results[0].failure is not None
        assert not await fs.exists("/stolen")
        assert (await fs.stat("/owned")).inode_id == status.inode_id
        with pytest.raises((BlockUnavailable, InvalidRequest, DfsError)):
            await fs.read_bytes("/owned", -1)


def test_the_namenode_still_knows_itself(namenode: HttpNameNode) -> None:
    assert namenode.call("server_info", GetServerInfo()).min_replicas == 2

"""The server of block streams: one thread a connection, on TCP and on a Unix socket."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from ..common import tracing
from ..common.errors import (
    Busy,
    ConnectionLost,
    DfsError,
    InternalError,
    InvalidConfig,
    InvalidRequest,
    RequestTooLarge,
    TimedOut,
    VersionMismatch,
    system_reason,
)
from ..common.framing import FrameSocket
from ..common.model import BlockRef, GenerationStamp
from ..common.transfer import (
    MAX_MANY_BYTES,
    MAX_MANY_FILES,
    MAX_PACKET_BYTES,
    PREAMBLE,
    BeginRecovery,
    FinishRecovery,
    Kind,
    OpenReplica,
    ReadBlock,
    ReadMany,
    ReadManyReady,
    ReadReady,
    ReplicaInfo,
    Request,
    WriteBlock,
    WriteDone,
    WriteMany,
    decode_request,
)
from .blockstore import BlockStore
from .metrics import StreamMetrics, Timing, name_of
from .pacing import ServeLimit, stand_back
from .pipeline import BlockReceiver, Peers, receive_many
from .replicas import Found

log = logging.getLogger(__name__)
UNIX_PATH_LIMIT = 107
BUFFER_WAIT_S = 30.0


class Budget:
    """Bytes that all transfers may hold in buffers together."""

    def __init__(self, total_bytes: int) -> None:
        self._free_bytes = total_bytes
        self._total_bytes = total_bytes
        self._condition = threading.Condition()

    @property
    def free_bytes(self) -> int:
        return self._free_bytes

    @contextlib.contextmanager
    def hold(self, size_bytes: int) -> Iterator[None]:
        """Wait for *size_bytes*; Busy if they don't come free in time."""
        size_bytes = min(size_bytes, self._total_bytes)
        with self._condition:
            if not self._condition.wait_for(
                lambda: self._free_bytes >= size_bytes, timeout=BUFFER_WAIT_S
            ):
                raise Busy("the DataNode's transfer buffers are all in use; try again")
            self._free_bytes -= size_bytes
        try:
            yield
        finally:
            with self._condition:
                self._free_bytes += size_bytes
                self._condition.notify_all()


class StreamServer:
    """Accepts connections and serves each in a thread of its own."""

    def __init__(
        self,
        store: BlockStore,
        peers: Peers,
        *,
        max_connections: int,
        transfer_memory_bytes: int,
        idle_timeout_s: float,
        stall_timeout_s: float,
        on_bad: Callable[[BlockRef], None],
        metrics: StreamMetrics | None = None,
        limit: ServeLimit | None = None,
    ) -> None:
        """*on_bad* is told of replicas that turned out to be unreadable or gone. *limit*: of what is sent over TCP."""
        self._limit = limit
        self._store = store
        self._peers = peers
        self._max_connections = max_connections
        self._budget = Budget(transfer_memory_bytes)
        self._idle_timeout_s = idle_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._on_bad = on_bad
        self.metrics = metrics or StreamMetrics(slow_s=float("inf"))
        self._listeners: list[socket.socket] = []
        self._connections: set[FrameSocket] = set()
        self._busy: set[FrameSocket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()
        self._unix_path = ""

    # --- listening ---

    def listen_tcp(self, host: str, port: int) -> int:
        """Listen; the port."""
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = socket.create_server((host, port), family=family, backlog=512)
        except OSError as error:
            raise InvalidConfig(f"can't listen on {host}:{port}: {system_reason(error)}") from None
        # Buffers of accepted sockets: receive ones must be set before the handshake.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        self._start(listener)
        return int(listener.getsockname()[1])

    def listen_unix(self, wanted: str) -> str:
        """Listen on a Unix socket for clients of this machine; its path (another one, where *wanted* is too long)."""
        path = wanted
        if len(os.fsencode(path)) > UNIX_PATH_LIMIT:
            path = str(Path(tempfile.mkdtemp(prefix="twinfs-")) / "data.sock")
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(Path(path).stat().st_mode):
                Path(path).unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(path)
            listener.listen(512)
        except OSError as error:
            listener.close()
            raise InvalidConfig(f"can't listen on {path}: {error.strerror or error}") from None
        self._unix_path = path
        self._start(listener)
        return path

    def _start(self, listener: socket.socket) -> None:
        self._listeners.append(listener)
        thread = threading.Thread(
            target=self._accept_loop, args=(listener,), name="accept", daemon=True
        )
        thread.start()
        self._threads.append(thread)

    def _accept_loop(self, listener: socket.socket) -> None:
        while not self._closing.is_set():
            try:
                sock, _ = listener.accept()
            except OSError:
                if self._closing.is_set():
                    return
                # Out of descriptors, most likely: those that are open will end.
                self._closing.wait(0.1)
                continue
            connection = FrameSocket(sock, stall_timeout_s=self._stall_timeout_s)
            with self._lock:
                full = len(self._connections) >= self._max_connections
                if not full:
                    self._connections.add(connection)
            if full:
                with contextlib.suppress(DfsError):
                    connection.send_error(Busy("the DataNode serves as many connections as it may"))
                connection.close()
                continue
            try:
                threading.Thread(
                    target=self._serve, args=(connection,), name="stream", daemon=True
                ).start()
            except RuntimeError:
                # No more threads may be started: the loop goes on for when some have ended.
                with self._lock:
                    self._connections.discard(connection)
                connection.close()

    @property
    def unix_path(self) -> str:
        return self._unix_path

    @property
    def active(self) -> int:
        """Connections with a request under way."""
        return len(self._busy)

    @property
    def open(self) -> int:
        """Connections, idle ones included."""
        return len(self._connections)

    @property
    def free_buffer_bytes(self) -> int:
        """What transfers may still take of the memory for their buffers."""
        return self._budget.free_bytes

    # --- serving ---

    def _serve(self, connection: FrameSocket) -> None:
        try:
            preamble = connection.receive_body(len(PREAMBLE))
            if preamble != PREAMBLE:
                known = preamble[:-1] == PREAMBLE[:-1]
                raise VersionMismatch(
                    f"this DataNode speaks version {PREAMBLE[-1]} of the block stream protocol"
                    if known
                    else "this port speaks TwinFS's block stream protocol; HTTP is on another one"
                )
            while not self._closing.is_set():
                if not self._wait_for_request(connection):
                    return
                length, kind, _ = connection.receive_header()
                if kind != Kind.REQUEST:
                    raise InvalidRequest("a request was expected")
                request = _request_in(connection.receive_body(length))
                with self._lock:
                    self._busy.add(connection)
                try:
                    with (
                        _origin_of(request),
                        self.metrics.timed(connection, request) as timing,
                    ):
                        self._handle(connection, request, timing)
                finally:
                    with self._lock:
                        self._busy.discard(connection)
        except ConnectionLost:
            pass  # the peer has gone; that is its right at any moment
        except DfsError as error:
            with contextlib.suppress(DfsError):
                connection.send_error(error)
                self._drain(connection)
        except Exception as error:
            log.exception("a block stream failed")
            with contextlib.suppress(DfsError):
                connection.send_error(InternalError(f"the DataNode failed: {type(error).__name__}"))
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()
            self._store.release_thread()

    def _wait_for_request(self, connection: FrameSocket) -> bool:
        poller = select.poll()
        poller.register(connection.fileno(), select.POLLIN)
        return bool(poller.poll(int(self._idle_timeout_s * 1000)))

    def _handle(self, connection: FrameSocket, request: Request, timing: Timing) -> None:
        """Answer one request. An error that leaves the framing whole is answered, and the connection goes on."""
        if isinstance(request, WriteBlock):
            self._write_block(connection, request, timing)
            return
        if isinstance(request, WriteMany):
            self._write_many(connection, request, timing)
            return
        if isinstance(request, ReadBlock | ReadMany) and request.background:
            stand_back()  # for the rest of the connection, which is its own
        try:
            if isinstance(request, ReadBlock):
                self._read_block(connection, request)
            elif isinstance(request, ReadMany):
                self._read_many(connection, request)
            elif isinstance(request, OpenReplica):
                self._open_replica(connection, request)
            elif isinstance(request, ReplicaInfo):
                self._info(connection, request)
            elif isinstance(request, BeginRecovery):
                self._begin_recovery(connection, request)
            else:
                assert isinstance(request, FinishRecovery)
                self._finish_recovery(connection, request)
        except (ConnectionLost, TimedOut):
            raise
        except DfsError as error:
            connection.send_error(error)

    # --- writing ---

    def _write_block(self, connection: FrameSocket, request: WriteBlock, timing: Timing) -> None:
        with self._budget.hold(MAX_PACKET_BYTES):
            receiver = BlockReceiver(self._store, self._peers, connection, request, timing)
            try:
                receiver.run(memoryview(bytearray(MAX_PACKET_BYTES)))
            except ConnectionLost:
                raise
            except DfsError as error:
                log.info("block %d: %s", request.block.block_id, error.message)
                # Packets may be under way, so the framing can't go on after the answer.
                connection.send_error(error)
                self._drain(connection)
                raise ConnectionLost("the stream was cut") from None

    @staticmethod
    def _drain(connection: FrameSocket) -> None:
        """Close so that the peer can still read the error: say so first, then take what is under way."""
        with contextlib.suppress(OSError, DfsError):
            connection.sock.shutdown(socket.SHUT_WR)
            connection.set_timeout(2.0)
            scrap = bytearray(256 * 1024)
            for _ in range(256):
                if connection.sock.recv_into(scrap) == 0:
                    return

    def _write_many(self, connection: FrameSocket, request: WriteMany, timing: Timing) -> None:
        total = sum(item.length for item in request.items)
        if total > MAX_MANY_BYTES:
            raise RequestTooLarge(f"a batch may have {MAX_MANY_BYTES} bytes, not {total}")
        with self._budget.hold(total):
            with timing.of("sender"):
                payload = memoryview(connection.receive_body(total))
            try:
                receive_many(self._store, self._peers, connection, request, payload, timing)
            except (ConnectionLost, TimedOut):
                raise
            except DfsError as error:
                connection.send_error(error)

    # --- reading ---

    def _open(self, block: BlockRef) -> Found:
        try:
            return self._store.open(block)
        except DfsError:
            self._on_bad(block)
            raise

    def _read_block(self, connection: FrameSocket, request: ReadBlock) -> None:
        found = self._open(request.block)
        try:
            if request.offset > found.length:
                raise InvalidRequest(
                    f"offset {request.offset} is beyond the replica's {found.length} bytes"
                )
            left = found.length - request.offset
            length = left if request.length < 0 else min(left, request.length)
            ready = ReadReady(
                length=length,
                block_length=found.length,
                digests=found.digests if request.digests else b"",
                finalized=found.finalized,
                generation=request.block.generation,
            )
            connection.send_frame(Kind.RESPONSE, ready)
            if found.data is not None:
                self._wait(connection, length)
                connection.send(memoryview(found.data)[request.offset : request.offset + length])
            else:
                try:
                    self._send_file(connection, found.descriptor, request.offset, length)
                except OSError as error:
                    log.error("can't read block %d: %s", request.block.block_id, error)
                    self._on_bad(request.block)
                    raise ConnectionLost("the replica could not be read to its end") from None
        finally:
            if found.descriptor >= 0:
                os.close(found.descriptor)

    def _send_file(
        self, connection: FrameSocket, descriptor: int, offset: int, length: int
    ) -> None:
        step = (self._limit.slice_bytes if self._limit is not None else 0) or max(1, length)
        for start in range(offset, offset + length, step):
            size = min(step, offset + length - start)
            self._wait(connection, size)
            connection.send_file(descriptor, start, size)

    def _wait(self, connection: FrameSocket, size_bytes: int) -> None:
        """Until so many bytes more may be sent; clients of this machine are not limited."""
        if self._limit is not None and not _is_near(connection):
            delay_s = self._limit.delay_s(size_bytes)
            if delay_s:
                self._closing.wait(delay_s)

    def _read_many(self, connection: FrameSocket, request: ReadMany) -> None:
        # An open file spares both sides its bytes' way through a socket.
        most_files = MAX_MANY_FILES if request.files and _is_near(connection) else 0
        answer = _Many(most_files)
        try:
            inline = self._store.small([block.block_id for block in request.blocks])
            for block in request.blocks:
                known = inline.get(block.block_id)
                if known is not None and known[0] == block.generation:
                    answer.add(known[1])
                elif known is not None or not self._add_file(block, answer):
                    answer.lengths.append(-1)
                    self._on_bad(block)
            self._wait(connection, answer.total_bytes)
            with self._budget.hold(answer.total_bytes):
                ready = ReadManyReady(lengths=answer.lengths, files=answer.places)
                if answer.descriptors:
                    connection.send_with_descriptors(ready, answer.descriptors)
                else:
                    connection.send_frame(Kind.RESPONSE, ready)
                for start in range(0, len(answer.parts), 256):
                    connection.send(*answer.parts[start : start + 256])
        finally:
            for descriptor in answer.descriptors:
                os.close(descriptor)

    def _add_file(self, block: BlockRef, answer: _Many) -> bool:
        """Whether the block is here, finalized and readable."""
        try:
            found = self._store.open(block)
        except DfsError:
            return False
        if found.data is not None:
            answer.add(found.data)
            return True
        try:
            return found.finalized and answer.add_file(found.descriptor, found.length)
        except OSError:
            return False
        finally:
            os.close(found.descriptor)

    def _open_replica(self, connection: FrameSocket, request: OpenReplica) -> None:
        if not _is_near(connection):
            raise InvalidRequest("open files can be handed over a Unix socket only")
        found = self._open(request.block)
        ready = ReadReady(
            length=0,
            block_length=found.length,
            digests=found.digests if request.digests else b"",
            finalized=found.finalized,
            generation=request.block.generation,
            descriptor=found.descriptor >= 0,
        )
        if found.descriptor < 0:
            connection.send_frame(Kind.RESPONSE, ready)
            return
        try:
            connection.send_with_descriptors(ready, [found.descriptor])
        finally:
            os.close(found.descriptor)

    def _info(self, connection: FrameSocket, request: ReplicaInfo) -> None:
        found = self._open(request.block)
        if found.descriptor >= 0:
            os.close(found.descriptor)
        ready = ReadReady(
            length=0,
            block_length=found.length,
            digests=found.digests,
            finalized=found.finalized,
            generation=request.block.generation,
        )
        connection.send_frame(Kind.RESPONSE, ready)

    # --- recovery ---

    def _begin_recovery(self, connection: FrameSocket, request: BeginRecovery) -> None:
        length, digests, finalized, generation = self._store.begin_recovery(
            request.block, request.new_generation
        )
        ready = ReadReady(
            length=0,
            block_length=length,
            digests=digests,
            finalized=finalized,
            generation=GenerationStamp(generation),
        )
        connection.send_frame(Kind.RESPONSE, ready)

    def _finish_recovery(self, connection: FrameSocket, request: FinishRecovery) -> None:
        digests = self._store.finish_recovery(request.block, request.new_generation, request.length)
        done = WriteDone(length=request.length, digests=digests, nodes=[self._peers.node_id])
        connection.send_frame(Kind.RESPONSE, done)

    # --- the end ---

    def close(self, grace_s: float) -> None:
        """Take no more connections, give requests under way *grace_s* to end, then cut them."""
        self._closing.set()
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for thread in self._threads:
            thread.join()
        if self._unix_path:
            Path(self._unix_path).unlink(missing_ok=True)
        with self._lock:
            idle = self._connections - self._busy
        for connection in idle:
            connection.abort()
        self._wait_until_idle(grace_s)
        with self._lock:
            left = list(self._connections)
        for connection in left:
            connection.abort()
        self._wait_until_idle(2.0)

    def _wait_until_idle(self, limit_s: float) -> None:
        pause = threading.Event()
        for _ in range(int(limit_s / 0.02)):
            if not self._connections:
                return
            pause.wait(0.02)


@contextlib.contextmanager
def _origin_of(request: Request) -> Iterator[None]:
    """What is done inside is done for whoever *request* says it comes from."""
    if not request.request_id:
        yield
        return
    origin = tracing.Origin(request.request_id, request.traceparent)
    with tracing.span(name_of(request), "server", origin=origin):
        yield


class _Many:
    """What ReadMany is answered with."""

    def __init__(self, most_files: int) -> None:
        self._most_files = most_files
        self.lengths: list[int] = []
        self.places: list[int] = []
        self.descriptors: list[int] = []
        self.parts: list[bytes] = []
        self.total_bytes = 0

    def add(self, data: bytes) -> None:
        if not self._fits(len(data)):
            return self.lengths.append(-3)
        self.lengths.append(len(data))
        self.parts.append(data)
        self.total_bytes += len(data)

    def add_file(self, descriptor: int, length: int) -> bool:
        """Of the caller's descriptor, which stays the caller's; whether so many bytes are there. OSError."""
        if len(self.descriptors) < self._most_files:
            self.descriptors.append(os.dup(descriptor))
            self.places.append(len(self.lengths))
            self.lengths.append(length)
        elif not self._fits(length):
            self.lengths.append(-3)
        else:
            data = os.pread(descriptor, length, 0)
            if len(data) < length:
                return False
            self.add(data)
        return True

    def _fits(self, length: int) -> bool:
        return self.total_bytes + length <= MAX_MANY_BYTES


def _is_near(connection: FrameSocket) -> bool:
    return connection.sock.family == socket.AF_UNIX


def _request_in(body: bytearray) -> Request:
    """The request of a frame; InvalidRequest if it is none, or names blocks that can't be."""
    try:
        request = decode_request(body)
    except RecursionError:
        raise InvalidRequest("malformed request: it is nested too deeply") from None
    if isinstance(request, WriteMany):
        numbers = [n for item in request.items for n in (item.block_id, item.generation)]
    else:
        refs = request.blocks if isinstance(request, ReadMany) else [request.block]
        if isinstance(request, WriteBlock) and request.base is not None:
            refs = [*refs, request.base.block]
        numbers = [n for ref in refs for n in (ref.block_id, ref.generation)]
        if isinstance(request, BeginRecovery | FinishRecovery):
            numbers.append(request.new_generation)
    if not all(0 <= number < 2**63 for number in numbers):
        raise InvalidRequest("block ids and generations are numbers from 0 to 2^63 - 1")
    return request

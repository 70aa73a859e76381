"""Frames of the block stream protocol on blocking sockets. See `common/transfer.py` for what they mean."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from . import tracing
from .codec import error_of, unpack
from .errors import ConnectionLost, DfsError, InvalidRequest, TimedOut, Unavailable
from .messages import Failure
from .model import Struct
from .proxy import Proxy, connect_tcp
from .transfer import (
    HEADER,
    MAX_PACKET_BYTES,
    PACKET_HEAD,
    PREAMBLE,
    Flag,
    Kind,
    Request,
    pack_frame,
    pack_packet_header,
    unpack_header,
)

T = TypeVar("T", bound=Struct)
BUFFER_BYTES = 1024 * 1024  # of a socket, each way
_PACKET_START = HEADER.size + PACKET_HEAD.size


class Packet:
    """The head of a packet; its payload is in the buffer it was received into."""

    __slots__ = ("digest", "flags", "length", "offset", "sequence")

    def __init__(self, sequence: int, offset: int, digest: bytes, length: int, flags: Flag) -> None:
        self.sequence = sequence
        self.offset = offset
        self.digest = digest
        self.length = length
        self.flags = flags


class FrameSocket:
    """One connection, used by one thread at a time. Every wait is bounded by the kernel's timeouts.

    Methods raise ConnectionLost, or TimedOut when the peer moved no byte for *stall_timeout_s*.
    """

    def __init__(self, sock: socket.socket, *, stall_timeout_s: float) -> None:
        self.sock = sock
        sock.setblocking(True)
        self.set_timeout(stall_timeout_s)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            if sock.family == socket.AF_UNIX or option == socket.SO_SNDBUF:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = bytearray(_PACKET_START)
        self.received_bytes = 0  # for the metrics, as are the next two
        self.sent_bytes = 0
        self.error_code = ""  # of the last error that was sent

    def set_timeout(self, seconds: float) -> None:
        # With a timeout of Python's own, a socket is non-blocking: a poll before each call, and no MSG_WAITALL.
        value = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.sock.close()

    def abort(self) -> None:
        """Wake whoever waits on the connection; may be called from another thread."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    # --- bytes ---

    def receive_into(self, view: memoryview) -> None:
        """Fill *view*."""
        self.received_bytes += len(view)
        while view:
            try:
                count = self.sock.recv_into(view, len(view), socket.MSG_WAITALL)
            except BlockingIOError:
                raise TimedOut("the peer sent nothing for too long") from None
            except OSError as error:
                raise ConnectionLost(f"the connection broke: {error.strerror}") from None
            if count == 0:
                raise ConnectionLost("the peer closed the connection")
            view = view[count:]

    def send(self, *parts: bytes | bytearray | memoryview) -> None:
        """Send all of *parts*, without joining them."""
        views = [memoryview(part) for part in parts if len(part)]
        self.sent_bytes += sum(len(view) for view in views)
        while views:
            try:
                count = self.sock.sendmsg(views)
            except BlockingIOError:
                raise TimedOut("the peer took nothing for too long") from None
            except OSError as error:
                raise ConnectionLost(f"the connection broke: {error.strerror}") from None
            while views and count >= len(views[0]):
                count -= len(views.pop(0))
            if count:
                views[0] = views[0][count:]

    def send_file(self, descriptor: int, offset: int, length: int) -> None:
        """Send a range of an open file without bringing it into this process. OSError if the file fails."""
        self.sent_bytes += length
        while length:
            try:
                count = os.sendfile(self.sock.fileno(), descriptor, offset, length)
            except BlockingIOError:
                raise TimedOut("the peer took nothing for too long") from None
            except (ConnectionError, BrokenPipeError) as error:
                raise ConnectionLost(f"the connection broke: {error.strerror}") from None
            if count == 0:
                raise OSError("the file is shorter than it should be")
            offset += count
            length -= count

    # --- frames ---

    def send_frame(self, kind: Kind, body: Struct, flags: Flag = Flag.NONE) -> None:
        self.send(pack_frame(kind, body, flags))

    def send_request(self, request: Request) -> None:
        """*request*, and whose work it is."""
        origin = tracing.current()
        if origin is not None:
            request = msgspec.structs.replace(
                request, request_id=origin.request_id, traceparent=origin.traceparent
            )
        self.send(pack_frame(Kind.REQUEST, request))

    def send_error(self, error: DfsError) -> None:
        self.error_code = error.code
        self.send_frame(Kind.RESPONSE, Failure(code=error.code, message=error.message), Flag.ERROR)

    def send_with_descriptors(self, body: Struct, descriptors: Sequence[int]) -> None:
        """A RESPONSE that carries open files; over a Unix socket."""
        frame = pack_frame(Kind.RESPONSE, body)
        try:
            sent = socket.send_fds(self.sock, [frame], descriptors)
        except OSError as error:
            raise ConnectionLost(f"the connection broke: {error.strerror}") from None
        self.send(memoryview(frame)[sent:])

    def receive_header(self) -> tuple[int, Kind, Flag]:
        view = memoryview(self._head)[: HEADER.size]
        self.receive_into(view)
        return unpack_header(view)

    def receive_body(self, length: int) -> bytearray:
        body = bytearray(length)
        self.receive_into(memoryview(body))
        return body

    def receive_response(self, kind: type[T]) -> T:
        """The next RESPONSE; raises the error it carries, if it does."""
        length, frame_kind, flags = self.receive_header()
        return self.response_in(self.receive_body(length), frame_kind, flags, kind)

    @staticmethod
    def response_in(body: bytearray, frame_kind: Kind, flags: Flag, kind: type[T]) -> T:
        """The struct of a response's body; raises the error it carries, if it does."""
        if frame_kind != Kind.RESPONSE:
            raise InvalidRequest(f"a response was expected, not a frame of kind {frame_kind}")
        if flags & Flag.ERROR:
            raise error_of(unpack(bytes(body), Failure))
        return unpack(bytes(body), kind)

    def receive_with_descriptors(self, kind: type[T], at_most: int) -> tuple[T, list[int]]:
        """A response and the open files it carries, which are the caller's to close."""
        fds = array.array("i")
        try:
            data, ancillary, flags, _ = self.sock.recvmsg(
                HEADER.size, socket.CMSG_SPACE(fds.itemsize * at_most)
            )
        except BlockingIOError:
            raise TimedOut("the peer sent nothing for too long") from None
        except OSError as error:
            raise ConnectionLost(f"the connection broke: {error.strerror}") from None
        for level, type_, payload in ancillary:
            if level == socket.SOL_SOCKET and type_ == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        try:
            if flags & socket.MSG_CTRUNC:
                raise Unavailable("this process may not open as many files as came")
            if not data:
                raise ConnectionLost("the peer closed the connection")
            header = bytearray(data)
            if len(header) < HEADER.size:
                header += self.receive_body(HEADER.size - len(header))
            length, frame_kind, frame_flags = unpack_header(header)
            return self.response_in(
                self.receive_body(length), frame_kind, frame_flags, kind
            ), fds.tolist()
        except BaseException:
            for found in fds:
                os.close(found)
            raise

    def receive_with_descriptor(self, kind: type[T]) -> tuple[T, int | None]:
        """As `receive_with_descriptors`, of one that may be there."""
        answer, found = self.receive_with_descriptors(kind, 4)
        for extra in found[1:]:
            os.close(extra)
        return answer, found[0] if found else None

    # --- packets ---

    def send_packet(
        self,
        sequence: int,
        offset: int,
        digest: bytes,
        payload: bytes | bytearray | memoryview,
        flags: Flag,
    ) -> None:
        self.send(pack_packet_header(sequence, offset, digest, len(payload), flags), payload)

    def receive_packet(self, buffer: memoryview) -> Packet:
        """The next packet, its payload in *buffer* (at least MAX_PACKET_BYTES)."""
        view = memoryview(self._head)
        self.receive_into(view[: HEADER.size])
        length, kind, flags = unpack_header(view[: HEADER.size])
        if kind != Kind.PACKET or length < PACKET_HEAD.size:
            raise InvalidRequest("a packet was expected")
        self.receive_into(view[HEADER.size :])
        sequence, offset, digest = PACKET_HEAD.unpack(view[HEADER.size :])
        payload = length - PACKET_HEAD.size
        assert payload <= MAX_PACKET_BYTES
        self.receive_into(buffer[:payload])
        return Packet(sequence, offset, digest, payload, flags)


def decode(body: bytes | bytearray, kind: type[T]) -> T:
    """A struct from a frame's body."""
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"malformed {kind.__name__}: {error}") from None


def connect(
    address: str, *, connect_timeout_s: float, stall_timeout_s: float, proxy: Proxy | None = None
) -> FrameSocket:
    """A connection to HOST:PORT, or to a Unix socket for a path. Raises Unavailable."""
    try:
        if address.startswith("/"):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(connect_timeout_s)
            try:
                sock.connect(address)
            except BaseException:
                sock.close()
                raise
        else:
            host, _, port = address.rpartition(":")
            sock = connect_tcp(host.strip("[]"), int(port), connect_timeout_s, proxy)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer in time"
        raise Unavailable(f"can't reach the DataNode at {address}: {reason}") from None
    try:
        framed = FrameSocket(sock, stall_timeout_s=stall_timeout_s)
        framed.send(PREAMBLE)
    except BaseException:
        sock.close()
        raise
    return framed


def ask(framed: FrameSocket, request: Request, kind: type[T]) -> T:
    """One request and its response."""
    framed.send_request(request)
    return framed.receive_response(kind)

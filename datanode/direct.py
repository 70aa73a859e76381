"""Verified bytes straight to a client's socket: one thread reads and verifies, another sends, a few chunks apart.

No piece of them passes through the event loop. Each transfer has the memory of `BUFFERS` chunks, however slow its client.
"""

from __future__ import annotations

import asyncio
import queue
import select
import socket

from aiohttp import web

from ..common.checksum import CHUNK_BYTES

BUFFERS = 4  # chunks read and not sent yet, of one transfer
STEP_MS = 500  # how often a thread that waits looks whether it is to stop


class ClientGone(OSError):
    """The client broke the connection, or took nothing for too long."""


class Outlet:
    """The socket of a response whose head is sent. To be used by one thread at a time."""

    def __init__(self, connection: socket.socket, stall_timeout_s: float) -> None:
        self._connection = connection
        self._stall_ms = int(stall_timeout_s * 1000)
        self._stopped = False

    def stop(self) -> None:
        """Have the thread end soon; from any thread."""
        self._stopped = True

    def send(self, at: int, view: memoryview) -> None:
        """A `Sink`."""
        poller: select.poll | None = None
        while view:
            if self._stopped:
                raise ClientGone("the transfer was stopped")
            try:
                count = self._connection.send(view)
            except (BlockingIOError, InterruptedError):
                if poller is None:
                    poller = select.poll()
                    poller.register(self._connection, select.POLLOUT)
                waited_ms = 0
                while not poller.poll(STEP_MS) and not self._stopped:
                    waited_ms += STEP_MS
                    if waited_ms >= self._stall_ms:
                        raise ClientGone("the client takes nothing") from None
                continue
            except OSError as error:
                raise ClientGone(str(error)) from None
            view = view[count:]

    def close(self) -> None:
        self._connection.close()


class Relay:
    """Between the thread that reads and the one that sends."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[tuple[bytearray, int] | None] = queue.SimpleQueue()
        self._failed: ClientGone | None = None
        for _ in range(BUFFERS):
            self._free.put(bytearray(CHUNK_BYTES))

    def take(self, at: int, view: memoryview) -> None:
        """A `Sink`, of at most one chunk at a time. ClientGone once the sending has failed."""
        buffer = self._free.get()
        if self._failed is not None:
            raise self._failed
        buffer[: len(view)] = view
        self._full.put((buffer, len(view)))

    def finish(self) -> None:
        """Nothing more comes; may be said twice."""
        self._full.put(None)

    def run(self) -> None:
        """Send until the end. Raises ClientGone."""
        try:
            while (item := self._full.get()) is not None:
                buffer, size = item
                self._outlet.send(0, memoryview(buffer)[:size])
                self._free.put(buffer)
        except ClientGone as error:
            self._failed = error
            self._free.put(bytearray())  # whoever waits for room hears of it
            raise


async def outlet_of(request: web.Request, stall_timeout_s: float) -> Outlet | None:
    """The connection of *request* once all that was written to it has left; None where it has no plain socket."""
    transport = request.transport
    if transport is None or transport.get_extra_info("sslcontext") is not None:
        return None
    found = transport.get_extra_info("socket")
    if found is None:
        return None
    low, high = transport.get_write_buffer_limits()
    transport.set_write_buffer_limits(0)  # only an empty buffer lets the drain return
    try:
        async with asyncio.timeout(stall_timeout_s):
            await request.writer.drain()
    except (TimeoutError, ConnectionError):
        raise ClientGone("the client takes nothing") from None
    finally:
        transport.set_write_buffer_limits(high=high, low=low)
    if transport.is_closing():
        raise ClientGone("the client broke the connection")
    if transport.get_write_buffer_size():
        return None
    return Outlet(found.dup(), stall_timeout_s)

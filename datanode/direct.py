"""Verified bytes straight to a client's socket: a thread reads, verifies and sends one chunk at a time.

The chunk is hashed and sent while it is in the processor's cache, and no piece of it passes through the event loop. Each transfer has
one buffer of one chunk, however slow its client.
"""

from __future__ import annotations

import asyncio
import select
import socket

from aiohttp import web

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

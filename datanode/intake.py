"""An upload straight from its client's socket: one thread receives, another writes, a few chunks apart.

No piece of it passes through the event loop. Each upload has the memory of `BUFFERS` chunks, and of what its pipeline has not
acknowledged; whoever sends faster is held back by TCP.
"""

from __future__ import annotations

import collections
import contextlib
import queue
import select
import socket
from collections.abc import Callable, Sequence
from typing import Final

from ..common.checksum import CHUNK_BYTES
from ..common.http_body import BodyCut, BodyReader
from ..common.request_lines import TakenBody
from .direct import STEP_MS, ClientGone

BUFFERS: Final = 5  # chunks received and not written yet
SPARE: Final = 2  # of them, at least, to receive into
PROBE_IDLE_S: Final = 60
PROBE_INTERVAL_S: Final = 20
PROBES: Final = 3


class Intake:
    """A `client.file_writer.Source`. `run` receives in one thread, the other methods are for the one that writes."""

    def __init__(
        self,
        body: TakenBody,
        first: Sequence[bytes],
        chunk_room: int,
        patience_s: Callable[[], float],
    ) -> None:
        """*first*: what was received before *body*. *chunk_room*: bytes to the end of the chunk of the file that it begins in.
        *patience_s*: how long the client may send nothing."""
        self._patience_s = patience_s
        self._socket = body.socket
        self._first = [memoryview(piece) for piece in first]
        self._chunk_room = chunk_room
        self._reader = BodyReader(body.rest, self._receive)
        self._poller = select.poll()
        self._poller.register(self._socket, select.POLLIN)
        self._stopped = False
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[memoryview | Exception | None] = queue.SimpleQueue()
        self._now: memoryview | None = None  # what is left of the buffer that is being taken
        self._held: collections.deque[memoryview] = collections.deque()  # taken, and not let go
        self._held_bytes = 0
        self._buffers = 0  # that there are
        self._over = False
        for _ in range(BUFFERS):
            self._add_buffer()
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_IDLE_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_INTERVAL_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)

    # --- receiving ---

    def run(self) -> None:
        """Receive until the end. What goes wrong is told to the thread that writes."""
        room = self._chunk_room
        try:
            while True:
                view = memoryview(self._free.get())[:room]
                if self._stopped:
                    raise ClientGone("the transfer was stopped")
                size = self._fill(view)
                if size:
                    self._full.put(view[:size])
                if size < room:
                    break
                room = CHUNK_BYTES
            self._full.put(None)
        except BodyCut as error:
            self._full.put(ClientGone(str(error)))
        except Exception as error:
            self._full.put(error)

    def _fill(self, view: memoryview) -> int:
        done = 0
        while self._first and done < len(view):
            piece = self._first[0][: len(view) - done]
            view[done : done + len(piece)] = piece
            done += len(piece)
            self._first[0] = self._first[0][len(piece) :]
            if not self._first[0]:
                self._first.pop(0)
        return done + self._reader.read_into(view[done:])

    def _receive(self, view: memoryview) -> int:
        while not self._stopped:
            try:
                return self._socket.recv_into(view)
            except (BlockingIOError, InterruptedError):
                waited_ms = 0
                while not self._poller.poll(STEP_MS) and not self._stopped:
                    waited_ms += STEP_MS
                    if waited_ms >= self._patience_s() * 1000:
                        raise ClientGone("the client sends nothing") from None
            except OSError as error:
                raise ClientGone(str(error)) from None
        raise ClientGone("the transfer was stopped")

    def _add_buffer(self) -> None:
        self._buffers += 1
        self._free.put(bytearray(CHUNK_BYTES))

    def stop(self) -> None:
        """Have both threads end soon; from any thread."""
        self._stopped = True
        self._free.put(bytearray())

    # --- taking ---

    def more(self) -> bool:
        while not self._now:
            if self._over:
                return False
            found = self._full.get()
            if found is None:
                self._over = True
            elif isinstance(found, Exception):
                self._full.put(found)  # for whoever asks again
                raise found
            else:
                self._now = found
                self._held.append(found)
                self._held_bytes += len(found)
                if self._buffers - len(self._held) < SPARE:
                    self._add_buffer()  # the pipeline needs the others until they are acknowledged
        return True

    def take(self, limit: int) -> memoryview:
        if not self.more():
            return memoryview(b"")
        assert self._now is not None
        piece = self._now[:limit]
        self._now = self._now[limit:]
        return piece

    def settle(self, needed: int) -> None:
        needed += len(self._now or b"")
        while self._held and self._held_bytes - len(self._held[0]) >= needed:
            view = self._held.popleft()
            self._held_bytes -= len(view)
            assert isinstance(view.obj, bytearray)
            self._free.put(view.obj)

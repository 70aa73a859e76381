"""The rest of a request's body, read by ourselves from where an HTTP parser has been left (`request_lines.take_over`)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .errors import InvalidRequest

RAW_BYTES: Final = 64 * 1024  # of chunked bodies, received and not decoded yet
MAX_LINE_BYTES: Final = 8 * 1024  # of a chunk's size with its extensions, and of a trailer
LOOK_BYTES: Final = 64  # looked through for the end of a line at a time
MAX_TRAILERS: Final = 64
_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")
_END: Final = b"\r\n"


class BodyCut(OSError):
    """The peer closed the connection before the body's end."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Where in a body we are. Chunked: *left* of the present chunk, then *ends* bytes of its line end, or as much of the next
    size's line as came, *line*."""

    chunked: bool
    left: int
    ends: int = 0
    line: bytes = b""


class BodyReader:
    """Decodes a body of known length, or a chunked one. Raises BodyCut, and InvalidRequest for broken chunks."""

    def __init__(self, rest: Rest, receive: Callable[[memoryview], int]) -> None:
        """*receive* puts what comes next into a view, and says how much; 0 at the end of the connection."""
        self._receive = receive
        self._chunked = rest.chunked
        self._left = rest.left
        self._ends = rest.ends
        self._over = not rest.chunked and not rest.left
        # What was received beyond what was asked for: only of chunked bodies.
        self._buffer = bytearray(RAW_BYTES if rest.chunked else 0)
        self._raw = memoryview(self._buffer)
        self._line = bytearray(rest.line)
        self._at = self._end = 0

    def read_into(self, view: memoryview) -> int:
        """Fill *view*; fewer bytes only at the body's end."""
        done = 0
        while done < len(view) and not self._over:
            if not self._left:
                if self._at < self._end and not self._line:
                    done += self._whole_chunks(view[done:])
                    if done == len(view):
                        break
                self._next_chunk()
                continue
            wanted = min(self._left, len(view) - done)
            known = min(wanted, self._end - self._at)
            if known:
                view[done : done + known] = self._raw[self._at : self._at + known]
                self._at += known
            elif self._chunked and wanted < RAW_BYTES:
                self._refill()
                continue
            else:
                known = self._receive(view[done : done + wanted])
                if not known:
                    raise BodyCut("the body ends too early")
            done += known
            self._left -= known
            if not self._left and not self._chunked:
                self._over = True
        return done

    def _whole_chunks(self, view: memoryview) -> int:
        """The chunks that were received whole, with the size of the one after, up to the end of *view*: how many bytes. Leaves
        whatever is odd to `_next_chunk`."""
        raw, buffer, at, end, done = self._raw, self._buffer, self._at, self._end, 0
        ends = self._ends
        while True:
            if ends and buffer[at : at + ends] != _END[-ends:]:
                break
            match = _SIZE.match(buffer, at + ends, end)
            if match is None:
                break
            start, size = match.end(), int(match[1], 16)
            stop = start + size
            if not size or stop > end or done + size > len(view):
                break
            view[done : done + size] = raw[start:stop]
            done += size
            at, ends = stop, len(_END)
        self._at, self._ends = at, ends
        return done

    def _refill(self) -> None:
        self._at, self._end = 0, self._receive(self._raw)
        if not self._end:
            raise BodyCut("the body ends within a chunk")

    def _next_chunk(self) -> None:
        """Past the line end of the chunk before, to the first byte of the next one; past the trailers after the last."""
        if self._ends:
            line = self._next_line(self._ends)
            if line != _END[-self._ends :]:
                raise InvalidRequest("a chunk of the body is longer than it says")
            self._ends = 0
        match = _SIZE.fullmatch(self._next_line(MAX_LINE_BYTES))
        if match is None:
            raise InvalidRequest("a chunk of the body has no good size")
        self._left, self._ends = int(match[1], 16), len(_END)
        if not self._left:
            for _ in range(MAX_TRAILERS):
                if self._next_line(MAX_LINE_BYTES) == _END:
                    self._over = True
                    return
            raise InvalidRequest("the body has too many trailers")

    def _next_line(self, limit: int) -> bytes:
        while True:
            # Of a size, mostly: the data after it are not to be copied for each.
            near = self._raw[self._at : min(self._end, self._at + min(limit + 1, LOOK_BYTES))]
            found = near.tobytes()
            stop = found.find(b"\n") + 1
            self._line += found[:stop] if stop else found
            self._at += stop or len(found)
            if len(self._line) > limit:
                raise InvalidRequest("a line between the chunks of the body is too long")
            if stop:
                line = bytes(self._line)
                self._line.clear()
                return line
            if self._at == self._end:
                self._refill()

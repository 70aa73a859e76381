"""The standard streams of a command, and blocking calls that must not hold up its end."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ...common.errors import StorageError

T = TypeVar("T")


def guard_streams() -> None:
    """Put something in the place of closed standard streams, or the first socket would take their numbers.

    What stands there can't be read from (0) and can't be written to (1 and 2): that the stream is closed shows when
    it is used.
    """
    for number, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


def silence_output() -> None:
    """Nobody takes our output: drop what is left of it, so that Python says nothing about it at its own end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class StandardInput:
    """Standard input without a buffer."""

    def read(self, size: int) -> bytes:
        try:
            return os.read(0, size)
        except OSError as error:
            raise StorageError(f"standard input: {error.strerror}") from None


def write_out(data: bytes) -> None:
    """Write all of *data* to standard output, after what was printed before."""
    sys.stdout.flush()
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


async def detached(call: Callable[..., T], *args: object) -> T:
    """Run a call that may block for ever, such as reading from a terminal, in a thread that nobody waits for.

    When the caller is cancelled, the thread stays behind and ends with the process. So *call* must not hold a lock
    that Python wants at its end: no buffered streams.
    """
    import asyncio  # here, since every command imports this module, and most know no event loop

    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: T | None = None
        failure: BaseException | None = None
        try:
            result = call(*args)
        except Exception as error:
            failure = error
        # The loop is closed if the command has ended in the meantime.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="dfs-stream", daemon=True).start()
    return await future

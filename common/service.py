"""How a server process lives: signals, the ready file, the graceful end, errors at the start."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from . import disk, tracing
from .errors import DfsError, InvalidConfig, StoreError, exit_code

log = logging.getLogger(__name__)


Reload = Callable[[], None]


class Service(Protocol):
    """What a role's server is to its process."""

    async def start(self) -> dict[str, object]:
        """Start serving; what the ready file is to say besides the pid."""

    async def failed(self) -> None:
        """Return (or raise) when the service can't go on; else wait for ever."""

    async def stop(self) -> None:
        """Finish what is in flight, within a limit, and let go of everything."""


def write_ready_file(path: str, facts: dict[str, object]) -> None:
    """Atomically, so that a reader sees all of it or nothing."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"pid": os.getpid(), **facts}), encoding="utf-8")
    disk.rename(temporary, target, "ready.rename")


async def serve(service: Service, ready_file: str, reload: Reload) -> None:
    """Run *service* until SIGTERM or SIGINT; SIGHUP calls *reload*."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, reload)
    try:
        facts = await service.start()
        if ready_file:
            await asyncio.to_thread(write_ready_file, ready_file, facts)
        log.info("serving at %s", facts.get("http"))
        waiting = [
            asyncio.ensure_future(stopping.wait()),
            asyncio.ensure_future(service.failed()),
        ]
        done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for task in done:
            task.result()
    finally:
        log.info("stopping")
        await service.stop()


def _reload(reload: Reload) -> None:
    """Take over what may change while the process runs; a configuration that is wrong changes nothing."""
    try:
        reload()
    except DfsError as error:
        log.error("the configuration was not reloaded: %s", error.message)
    else:
        log.info("the configuration was reloaded")


def run(
    make: Callable[[], Awaitable[Service]],
    ready_file: str,
    name: str,
    reload: Reload,
    new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> int:
    """Make and run a service; its exit code. Errors at the start are one line, no traceback.

    *reload* reads the configuration again, for SIGHUP. *new_loop* makes another event loop than Python's own.
    """

    async def main() -> None:
        await serve(await make(), ready_file, reload)

    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())
    except DfsError as error:
        print(f"{name}: {error.message}", file=sys.stderr)
        return 2 if isinstance(error, InvalidConfig | StoreError) else exit_code(error)
    except OSError as error:
        print(f"{name}: {error.strerror or error}", file=sys.stderr)
        return 1
    finally:
        tracing.close()
    return 0

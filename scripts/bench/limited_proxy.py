"""Proxies before one address, each limited to 50 MB/s: limited_proxy.py HOST:PORT COUNT. Prints their URLs.

SIGUSR1 ends the first one and has the second flip a bit in all that it passes on.
"""

from __future__ import annotations

import asyncio
import signal
import sys

BYTES_S = 50_000_000
PIECE_BYTES = 128 * 1024


class Proxy:
    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._free_s = 0.0
        self.dead = self.lying = False
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=PIECE_BYTES)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def kill(self) -> None:
        self.dead = True
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream, downstream = await asyncio.open_connection(*self._target, limit=PIECE_BYTES)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, downstream}
        try:
            await asyncio.gather(
                self._pass(reader, downstream, limit=False),
                self._pass(upstream, writer, limit=True),
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for one in (writer, downstream):
                self._writers.discard(one)
                one.close()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, limit: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        while piece := await reader.read(PIECE_BYTES):
            if limit:
                # All connections of a proxy share one line.
                now_s = loop.time()
                self._free_s = max(self._free_s, now_s - 0.02) + len(piece) / BYTES_S
                if self._free_s > now_s:
                    await asyncio.sleep(self._free_s - now_s)
                if self.lying and len(piece) > 1000:
                    piece = piece[:-1] + bytes((piece[-1] ^ 1,))
            writer.write(piece)
            await writer.drain()
        writer.write_eof()


async def main() -> None:
    host, _, port = sys.argv[1].rpartition(":")
    proxies = [Proxy(host, int(port)) for _ in range(int(sys.argv[2]))]
    print(*[await proxy.start() for proxy in proxies], flush=True)
    loop, ending = asyncio.get_running_loop(), asyncio.Event()

    def go_wrong() -> None:
        proxies[0].kill()
        proxies[1].lying = True

    loop.add_signal_handler(signal.SIGUSR1, go_wrong)
    loop.add_signal_handler(signal.SIGTERM, ending.set)
    await ending.wait()


asyncio.run(main())

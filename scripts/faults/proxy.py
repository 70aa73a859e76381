"""`proxy.py`: a small TCP proxy between the processes of a cluster, whose links can be cut while it runs.

It speaks HTTP's CONNECT (and plain requests with a whole URL, as HTTP clients send them), and knows who connects by the
user name in the proxy URL they were given. Which links are broken, and how, is in a file (`links.json`, written by
link.py), looked at every POLL_S. A link has a direction; *kind* says what happens to what goes that way:

cut        nothing arrives, as if packets were dropped: bytes wait until the link is whole again
refuse     connections are reset, new ones refused
slow       latency_ms later, and no faster than kib_s
lossy      each piece is held up for RETRANSMIT_S with a probability, as by a retransmission, and, rarely, the connection is reset
half-open  connections that exist lead nowhere for ever, new ones are accepted and lead nowhere
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fnmatch
import json
import os
import random
import signal
import sys
import urllib.parse
from pathlib import Path
from typing import Literal

import click
import msgspec

POLL_S = 0.03
RETRANSMIT_S = 0.2
RESET_SHARE = 0.02  # of what a lossy link loses: resets
PIECE_BYTES = 64 * 1024
MAX_HEAD_BYTES = 16 * 1024
HEAD_LIMIT_S = 10.0
CONNECT_LIMIT_S = 5.0


class Link(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A broken link. *source* and *target* are names of processes, or patterns."""

    id: str
    source: str
    target: str
    kind: Literal["cut", "refuse", "slow", "lossy", "half-open"]
    kib_s: float = 0.0  # 0: as fast as it goes
    latency_ms: float = 0.0
    loss: float = 0.0

    def fits(self, source: str, target: str) -> bool:
        return fnmatch.fnmatchcase(source, self.source) and fnmatch.fnmatchcase(target, self.target)


class Links(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of them, and the names of addresses."""

    version: int = 0
    names: dict[str, str] = {}
    links: list[Link] = []


def read_links(path: Path) -> Links:
    return msgspec.json.decode(path.read_bytes(), type=Links)


def write_links(path: Path, links: Links) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(links)))
    temporary.replace(path)


class Broken(Exception):
    """The connection is to be reset."""


class Relay:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, source: str, target: str) -> None:
        self._proxy = proxy
        self.source = source
        self.target = target
        self.dead = False  # half-open: nothing passes ever again
        self.writers: list[asyncio.StreamWriter] = []

    def broken(self, forward: bool) -> list[Link]:
        """What is wrong with the way from source to target, or back."""
        ends = (self.source, self.target) if forward else (self.target, self.source)
        return [link for link in self._proxy.links.links if link.fits(*ends)]

    async def pass_through(self, forward: bool, size: int) -> None:
        """Wait as long as *size* bytes take in this direction."""
        while True:
            links = self.broken(forward)
            if any(link.kind == "half-open" for link in links):
                self.dead = True
            if self.dead:
                await asyncio.get_running_loop().create_future()  # until cancelled
            if any(link.kind == "refuse" for link in links):
                raise Broken
            if not any(link.kind == "cut" for link in links):
                break
            await self._proxy.changed()
        delay_s = 0.0
        for link in links:
            if link.kind == "slow":
                delay_s += link.latency_ms / 1000
                if link.kib_s:
                    delay_s += size / 1024 / link.kib_s
            elif link.kind == "lossy" and self._proxy.rng.random() < link.loss:
                if self._proxy.rng.random() < RESET_SHARE:
                    raise Broken
                delay_s += RETRANSMIT_S
        if delay_s:
            await asyncio.sleep(delay_s)

    async def pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, forward: bool
    ) -> None:
        while True:
            data = await reader.read(PIECE_BYTES)
            await self.pass_through(forward, len(data))
            if not data:
                break
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    def reset(self) -> None:
        for writer in self.writers:
            writer.transport.abort()


class Proxy:
    """All connections, and the state of the links."""

    def __init__(self, path: Path, seed: int) -> None:
        self.links = read_links(path)
        self.rng = random.Random(seed)
        self._path = path
        self._stamp = (0, 0)
        self._news = asyncio.Event()
        self._relays: set[Relay] = set()

    async def changed(self) -> None:
        """Until the links are no longer what they were."""
        await self._news.wait()

    async def watch(self) -> None:
        while True:
            facts = self._path.stat()
            stamp = (facts.st_mtime_ns, facts.st_ino)
            if stamp != self._stamp:
                self._stamp = stamp
                self.links = read_links(self._path)
                news, self._news = self._news, asyncio.Event()
                news.set()
                for relay in list(self._relays):
                    links = [*relay.broken(True), *relay.broken(False)]
                    if any(link.kind == "refuse" for link in links):
                        relay.reset()
                    if any(link.kind == "half-open" for link in links):
                        relay.dead = True
                self._say_taken()
            await asyncio.sleep(POLL_S)

    def _say_taken(self) -> None:
        Path(f"{self._path}.taken").write_text(str(self.links.version))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay: Relay | None = None
        try:
            async with asyncio.timeout(HEAD_LIMIT_S):
                head = await reader.readuntil(b"\r\n\r\n")
            host, port, source, onward = parse_head(head)
            target = self.links.names.get(f"{host}:{port}", f"{host}:{port}")
            relay = Relay(self, source, target)
            relay.writers.append(writer)
            self._relays.add(relay)
            await self._relay(relay, reader, writer, host, port, onward)
        except (Broken, OSError, ValueError, TimeoutError, asyncio.IncompleteReadError):
            writer.transport.abort()
        except asyncio.LimitOverrunError:
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()  # the proxy ends; asyncio's streams would log a traceback for each connection
        finally:
            if relay is not None:
                self._relays.discard(relay)
                for each in relay.writers:
                    each.close()

    async def _relay(
        self,
        relay: Relay,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        host: str,
        port: int,
        onward: bytes,
    ) -> None:
        if any(link.kind == "half-open" for link in [*relay.broken(True), *relay.broken(False)]):
            if not onward:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            while await reader.read(PIECE_BYTES):
                pass  # until the client gives up
            return
        await relay.pass_through(True, 0)
        async with asyncio.timeout(CONNECT_LIMIT_S):
            try:
                there_reader, there = await asyncio.open_connection(host, port)
            except OSError:
                writer.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
                await writer.drain()
                return
        relay.writers.append(there)
        await relay.pass_through(False, 0)
        if onward:
            there.write(onward)
        else:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        pumps = [
            asyncio.ensure_future(relay.pump(reader, there, True)),
            asyncio.ensure_future(relay.pump(there_reader, writer, False)),
        ]
        try:
            # One way may end before the other; a failure ends both.
            await asyncio.gather(*pumps)
        except (Broken, OSError):
            relay.reset()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)


def parse_head(head: bytes) -> tuple[str, int, str, bytes]:
    """(host, port, who connects, what to send on) of a proxy request; nothing is sent on for CONNECT. ValueError if it is none."""
    lines = head.decode("latin-1").split("\r\n")
    method, where, version = lines[0].split(" ")
    source = ""
    kept = []
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "proxy-authorization":
            source = base64.b64decode(value.split()[-1]).decode().partition(":")[0]
        elif not name.lower().startswith("proxy-"):
            kept.append(line)
    if method == "CONNECT":
        parts = urllib.parse.urlsplit(f"//{where}")
        onward = b""
    else:
        parts = urllib.parse.urlsplit(where)
        path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        onward = "\r\n".join([f"{method} {path} {version}", *kept]).encode("latin-1")
    if not parts.hostname:
        raise ValueError("no host")
    return parts.hostname, parts.port or 80, source, onward


async def run_proxy(path: Path, host: str, port: int, seed: int, ready: Path | None) -> None:
    proxy = Proxy(path, seed)
    server = await asyncio.start_server(proxy.serve, host, port, limit=MAX_HEAD_BYTES)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    address = server.sockets[0].getsockname()
    watching = asyncio.ensure_future(proxy.watch())
    text = json.dumps({"pid": os.getpid(), "proxy": f"{address[0]}:{address[1]}"})
    if ready is not None:
        temporary = ready.with_name(f".{ready.name}")
        temporary.write_text(text)
        temporary.replace(ready)
    print(f"proxy at http://{address[0]}:{address[1]}, links in {path}", flush=True)
    stop = asyncio.ensure_future(stopping.wait())
    await asyncio.wait([stop, watching], return_when=asyncio.FIRST_COMPLETED)
    if watching.done():
        watching.result()
    watching.cancel()
    server.close()


@click.command()
@click.argument("links", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="Port; 0 takes a free one.")
@click.option("--seed", default=0, help="Of the losses.")
@click.option(
    "--ready-file", type=click.Path(path_type=Path), default=None, help="Written when it serves."
)
def main(links: Path, host: str, port: int, seed: int, ready_file: Path | None) -> None:
    """Run the proxy in the foreground; LINKS is its file of broken links (made if it is not there)."""
    try:
        links.parent.mkdir(parents=True, exist_ok=True)
        if not links.exists():
            write_links(links, Links())
        asyncio.run(run_proxy(links, host, port, seed, ready_file))
    except msgspec.DecodeError as error:
        sys.exit(f"Error: {links} can't be read: {error}")
    except OSError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()

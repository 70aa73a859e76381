"""WebHDFS beside the native client: 1 GiB written and read, and many small questions."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import bounds
from cluster import Cluster, running, wait_for
from figures import Figure, Series
from settings import MIB, Settings

from twinfs.client.filesystem import FileSystem
from twinfs.common.runtime import elapsed_timer

BUFFER_BYTES = 4 * MIB
CONNECTIONS = 32
QUESTIONS = 20_000
ASKED_PER_S = 2_500.0
OF_NATIVE = 0.85
WORKER = Path(__file__).with_name("webhdfs_client.py")


def measure(settings: Settings) -> list[Figure]:
    source = settings.large_file()
    bounds.warm([source])
    with running(settings.fresh("webhdfs")) as cluster:
        return asyncio.run(_measure(settings, cluster, source))


async def _measure(settings: Settings, cluster: Cluster, source: Path) -> list[Figure]:
    size = settings.large_bytes / MIB
    rates: dict[str, list[float]] = {"put": [], "create": [], "get": [], "open": []}
    async with FileSystem.connect(cluster.url, short_circuit=False) as fs:

        async def put(number: int) -> None:
            began_s = elapsed_timer()
            await fs.put_file(source, "/native", replication=1)
            rates["put"].append(size / (elapsed_timer() - began_s))
            os.sync()  # what was left to write must not slow the next step down
            if number == 0:
                digests.add(await fs.checksum("/native"))
            await _gone(fs, cluster, "/native")

        async def create(number: int) -> None:
            rates["create"].append(size / await asyncio.to_thread(_create, cluster, source))
            os.sync()
            rates["get"].append(size / await _read(fs, "/web"))
            rates["open"].append(size / await asyncio.to_thread(_open, cluster))
            if number == 0:
                digests.add(await fs.checksum("/web"))
            await _gone(fs, cluster, "/web")

        digests: set[str] = set()
        # One file is put that is not counted, every file is gone before the next one comes, and each way to write goes first in turn.
        await fs.put_file(source, "/warm", replication=1)
        await _gone(fs, cluster, "/warm")
        for number in range(settings.runs):
            for step in (put, create) if number % 2 == 0 else (create, put):
                # Or a write takes what the host takes to hand out the memory: 350 or 850 MiB/s, by chance.
                bounds.use_memory(settings.folder, settings.large_bytes + 256 * MIB)
                await step(number)
        if len(digests) != 1:
            raise SystemExit("what came through WebHDFS is not what was sent")
    return [
        Figure(
            "WebHDFS CREATE 1 GiB, 1 copy",
            "MiB/s",
            rates["create"],
            Series("native put", tuple(rates["put"])),
            at_least=OF_NATIVE,
            of_bound=True,
        ),
        Figure(
            "WebHDFS OPEN 1 GiB",
            "MiB/s",
            rates["open"],
            Series("native get over TCP", tuple(rates["get"])),
            at_least=OF_NATIVE,
            of_bound=True,
        ),
    ]


async def _gone(fs: FileSystem, cluster: Cluster, path: str) -> None:
    """Delete a file, and wait until the DataNodes have."""
    await fs.delete(path)

    def small() -> bool:
        # The nodes of its DAG stay for a while.
        return sum(node.used_bytes for node in cluster.report().nodes) < 16 * MIB

    await asyncio.to_thread(wait_for, small, "deletion")
    os.sync()


def measure_questions(settings: Settings) -> list[Figure]:
    """GETFILESTATUS over 32 connections, each with one question at a time."""
    rates = []
    with running(settings.fresh("webhdfs"), datanodes=0) as cluster:
        for _ in range(settings.runs):
            done = subprocess.run(
                [sys.executable, str(WORKER), cluster.url, str(CONNECTIONS), str(QUESTIONS)],
                capture_output=True,
                check=True,
            )
            rates.append(json.loads(done.stdout)["per_s"])
    return [
        Figure("WebHDFS GETFILESTATUS, 32 connections", "/s", rates, at_least=ASKED_PER_S),
    ]


async def _read(fs: FileSystem, path: str) -> float:
    buffer = bytearray(16 * MIB)
    began_s = elapsed_timer()
    async with await fs.open(path) as reader:
        left = reader.length
        while left:
            left -= await reader.readinto(buffer)
    return elapsed_timer() - began_s


# --- a client that costs next to nothing -----------------------------------------------------------


def _asked(where: str, head: str) -> tuple[socket.socket, bytes]:
    """A connection on which *head* was sent."""
    host, _, port = where.partition(":")
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(head.replace("\n", "\r\n").encode())
    return connection, b""


def _head(connection: socket.socket) -> tuple[str, bytes]:
    """The head of an answer, and what came of its body with it."""
    told = b""
    while b"\r\n\r\n" not in told:
        piece = connection.recv(65_536)
        if not piece:
            raise SystemExit(f"the server closed the connection: {told!r}")
        told += piece
    head, _, rest = told.partition(b"\r\n\r\n")
    return head.decode("latin-1"), rest


def _redirected(cluster: Cluster, method: str, target: str) -> tuple[str, str]:
    """(HOST:PORT, target) that the NameNode sends us to."""
    where = urlsplit(cluster.url).netloc
    head = f"{method} {target} HTTP/1.1\nHost: {where}\nContent-Length: 0\n\n"
    connection, _ = _asked(where, head)
    with connection:
        told, _ = _head(connection)
    (location,) = (
        line.partition(": ")[2] for line in told.splitlines() if line.startswith("Location: ")
    )
    parts = urlsplit(location)
    return parts.netloc, f"{parts.path}?{parts.query}"


def _create(cluster: Cluster, source: Path) -> float:
    began_s = elapsed_timer()
    target = "/webhdfs/v1/web?op=CREATE&user.name=root&replication=1&overwrite=true"
    where, target = _redirected(cluster, "PUT", target)
    size = source.stat().st_size
    head = f"PUT {target} HTTP/1.1\nHost: {where}\nContent-Length: {size}\n\n"
    connection, _ = _asked(where, head)
    with connection, source.open("rb") as file:
        connection.sendfile(file)
        told, _ = _head(connection)
    if " 201 " not in told.splitlines()[0]:
        raise SystemExit(f"CREATE failed: {told}")
    return elapsed_timer() - began_s


def _open(cluster: Cluster) -> float:
    began_s = elapsed_timer()
    where, target = _redirected(cluster, "GET", "/webhdfs/v1/web?op=OPEN&user.name=root")
    connection, _ = _asked(where, f"GET {target} HTTP/1.1\nHost: {where}\n\n")
    buffer = memoryview(bytearray(BUFFER_BYTES))
    with connection:
        told, rest = _head(connection)
        (length,) = (
            int(line.partition(": ")[2])
            for line in told.splitlines()
            if line.startswith("Content-Length: ")
        )
        left = length - len(rest)
        while left:
            count = connection.recv_into(buffer)
            if not count:
                raise SystemExit(f"OPEN ended {left} bytes too early")
            left -= count
    return elapsed_timer() - began_s

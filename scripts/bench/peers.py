"""Peers: adding content, the gateway, one DAG from several limited peers, networks of thousands."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import bounds
from figures import Figure, Series
from settings import MIB, Settings

from twinfs.client.peer_client import PeerClient
from twinfs.client.peer_import import Importer
from twinfs.common.ipld.layout import PROFILES
from twinfs.common.peerid import Identity
from twinfs.common.runtime import ManualClock, SystemClock, elapsed_timer
from twinfs.datanode.peers.node import PeerNode, PeerSettings
from twinfs.datanode.peers.transport import HttpTransport, PeersApi

TWINFS = PROFILES["twinfs"]
HERE = Path(__file__).parent


@contextlib.contextmanager
def peer(settings: Settings) -> Iterator[str]:
    """A peer as a process; its URL."""
    folder = settings.fresh("peer")
    ready = folder / "ready"
    arguments = ["--dir", str(folder / "v"), "--bootstrap", "none", "--port", "0"]
    arguments += ["--data-port", "0", "--socket", "none", "--ready-file", str(ready)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "twinfs.datanode", *arguments], stderr=log, stdout=log
        )
    try:
        while not ready.exists():
            if process.poll() is not None:
                raise SystemExit((folder / "log").read_text())
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        yield f"http://{json.loads(ready.read_text())['http']}"
    finally:
        process.terminate()
        process.wait()


def add(settings: Settings, url: str, path: Path) -> float:
    """Seconds to add a file or folder."""
    client = PeerClient(url)
    importer = Importer(client, TWINFS)
    began_s = elapsed_timer()
    importer.add(path)
    took_s = elapsed_timer() - began_s
    importer.close()
    client.close()
    return took_s


def measure_add(settings: Settings) -> list[Figure]:
    large, folder = settings.large_file(), settings.fresh("flat")
    for number in range(settings.small_files):
        (folder / f"f{number:06d}").write_bytes(settings.rng.randbytes(settings.small_bytes))
    firsts, agains, copies, hashes, smalls = [], [], [], [], []
    for _ in range(settings.runs):
        with peer(settings) as url:
            bounds.use_memory(settings.folder, settings.large_bytes + 256 * MIB)
            copies.append(
                bounds.copy_and_sync_s(large, settings.folder) + bounds.read_and_hash_s(large)
            )
            bounds.use_memory(settings.folder, settings.large_bytes + 256 * MIB)
            firsts.append(add(settings, url, large))
            hashes.append(bounds.read_and_hash_s(large))
            agains.append(add(settings, url, large))
            smalls.append(settings.small_files / add(settings, url, folder))
    speed = settings.large_bytes / MIB
    return [
        Figure(
            "peer: add 1 GiB",
            "MiB/s",
            [speed / s for s in firsts],
            Series("copy, fsync, hash", tuple(speed / s for s in copies)),
            at_least=0.5,
            of_bound=True,
        ),
        Figure(
            "peer: add it again",
            "MiB/s",
            [speed / s for s in agains],
            Series("hash", tuple(speed / s for s in hashes)),
            at_least=0.8,
            of_bound=True,
        ),
        Figure(
            "peer: add 10,000 files of 4 KiB in one folder",
            "files/s",
            smalls,
            at_least=4_000 if settings.small_files == 10_000 else None,
        ),
    ]


def measure_gateway(settings: Settings) -> list[Figure]:
    small, large = [], []
    with peer(settings) as url:
        client = PeerClient(url)
        importer = Importer(client, TWINFS)
        names: dict[str, list[str]] = {"small": [], "large": []}
        for kind, size, count in (("small", 1024, 2_000), ("large", MIB, 100)):
            for _ in range(count):
                added = importer.add_bytes(settings.rng.randbytes(size))
                names[kind].append(str(added.root))
        importer.close()
        client.close()
        wanted = settings.folder / "wanted.json"
        wanted.write_text(json.dumps({"url": url, **names}))
        for _ in range(settings.runs):
            for kind, found in (("small", small), ("large", large)):
                done = subprocess.run(
                    [sys.executable, str(HERE / "gateway_client.py"), str(wanted), kind],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                found.append(float(done.stdout))
    return [
        Figure("gateway: raw blocks of 1 KiB", "blocks/s", small, at_least=3_000),
        Figure("gateway: raw blocks of 1 MiB", "MB/s", large, at_least=400),
    ]


def measure_exchange(settings: Settings) -> list[Figure]:
    large = settings.large_file()
    well, badly = [], []
    with peer(settings) as url:
        client = PeerClient(url)
        importer = Importer(client, TWINFS)
        root = importer.add(large).root
        importer.close()
        client.close()
        for _ in range(settings.runs):
            for faulty, found in ((False, well), (True, badly)):
                with limited(url, faulty=faulty) as (urls, process):
                    done = subprocess.run(
                        [
                            sys.executable,
                            str(HERE / "exchange_client.py"),
                            str(settings.fresh("fetch")),
                            str(root),
                            str(process.pid if faulty else 0),
                            *urls,
                        ],
                        capture_output=True,
                        text=True,
                        check=False,
                    )
                    if done.returncode:
                        raise SystemExit(done.stderr)
                    found.append(settings.large_bytes / 1e6 / float(done.stdout))
    note = "one store behind four proxies of 50 MB/s each, verified and durable on the other side"
    return [
        Figure("exchange: 1 GiB from four peers of 50 MB/s", "MB/s", well, at_least=180, note=note),
        Figure(
            "exchange: one killed, one flips bits in the middle",
            "MB/s",
            badly,
            at_least=85,
        ),
    ]


@contextlib.contextmanager
def limited(url: str, *, faulty: bool) -> Iterator[tuple[list[str], subprocess.Popen[str]]]:
    """Four proxies before a peer; with *faulty*, SIGUSR1 kills one and has another flip bits."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "limited_proxy.py"), url.removeprefix("http://"), "4"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split(), process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


# --- networks ---


def key(number: int) -> bytes:
    return b"\x1e\x20" + number.to_bytes(32, "big")


def measure_network(settings: Settings) -> list[Figure]:
    found, times_ms = asyncio.run(_half_killed(settings.seed))
    sizes = (100, 1_000, 10_000)
    medians = asyncio.run(_simulate(sizes, settings.seed))
    plot(medians, Path(os.environ.get("TWINFS_PLOT", settings.folder / "lookups.svg")))
    shown = ", ".join(f"{size:,}: {median:g}" for size, median in medians.items())
    growth = medians[sizes[-1]] / max(1.0, medians[sizes[0]])
    return [
        Figure("network: found after half of 50 peers died", "of 1", [found], at_least=1.0),
        Figure("network: such a search", "ms", times_ms, at_most=200),
        Figure(
            "network: messages of a search, 10,000 peers over 100",
            "times",
            [growth],
            at_most=math.log(sizes[-1]) / math.log(sizes[0]) + 1,
            note=f"simulated peers: messages, median of 100 searches: {shown}",
        ),
    ]


async def _half_killed(seed: int) -> tuple[float, list[float]]:
    """50 peers over HTTP in this process, half of them killed: (share found, milliseconds of each search)."""
    from aiohttp import web

    rng, clock = random.Random(seed), SystemClock()
    runners: list[web.AppRunner] = []
    nodes: list[PeerNode] = []
    transports: list[HttpTransport] = []
    for number in range(50):
        app = web.Application()
        place: list[PeerNode] = []
        app.add_routes(PeersApi(lambda place=place: place[0]).routes())
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address = f"127.0.0.1:{runner.addresses[0][1]}"
        transport = HttpTransport(timeout_s=3.0)
        node = PeerNode(Identity(rng.randbytes(32)), [address], transport, clock=clock, rng=rng)
        place.append(node)
        if nodes:
            await node.join([nodes[rng.randrange(number)].me.addresses[0]])
        runners.append(runner)
        nodes.append(node)
        transports.append(transport)
    for number, node in enumerate(nodes):
        await node.provide([key(number)])
    dead = set(rng.sample(range(50), 25))
    for number in dead:
        await nodes[number].close()
        await runners[number].cleanup()
    living = [number for number in range(50) if number not in dead]
    hits, times_ms = 0, []
    for number in living:
        asking = rng.choice([other for other in living if other != number])
        began_s = elapsed_timer()
        async for record in nodes[asking].find_providers(key(number), 1):
            hits += record.peer == nodes[number].identity.peer_id
            break
        times_ms.append(1000 * (elapsed_timer() - began_s))
    for number in living:
        await nodes[number].close()
        await runners[number].cleanup()
    for transport in transports:
        await transport.close()
    return hits / len(living), times_ms


class _Wire:
    """A network without latency: what is counted are messages."""

    def __init__(self, nodes: dict[str, PeerNode]) -> None:
        self._nodes = nodes

    async def ask(self, address: str, question: object) -> object:
        return await self._nodes[address].answer(question)  # type: ignore[arg-type]


async def _simulate(sizes: tuple[int, ...], seed: int) -> dict[int, float]:
    """Messages of a search at each size, in one network that grows."""
    rng, nodes = random.Random(seed), {}
    wire = _Wire(nodes)
    clock = ManualClock()
    medians: dict[int, float] = {}
    for size in sizes:
        while len(nodes) < size:
            address = f"10.{len(nodes) >> 16}.{len(nodes) >> 8 & 255}.{len(nodes) & 255}:1"
            node = PeerNode(
                Identity(rng.randbytes(32)),
                [address],
                wire,  # type: ignore[arg-type]
                clock=clock,
                rng=rng,
                settings=PeerSettings(),
            )
            there = rng.choice(list(nodes.values())) if nodes else None
            nodes[address] = node
            if there is not None:
                # Joining as such, without the refresh of far buckets that takes minutes for thousands of peers.
                await node.greet(there.me.addresses[0])
                for contact in await node.find_nearest((node.table.point).to_bytes(32, "big")):
                    node.consider(contact.record)
                await node.settle()
        everybody = list(nodes.values())
        counts = []
        for number in range(100):
            provider, asking = rng.sample(everybody, 2)
            await provider.provide([key(size * 1000 + number)])
            before = asking.questions
            async for _ in asking.find_providers(key(size * 1000 + number), 1):
                break
            counts.append(asking.questions - before)
        medians[size] = statistics.median(counts)
    for node in nodes.values():
        await node.close()
    return medians


def plot(medians: dict[int, float], path: Path) -> None:
    """An SVG of messages over the number of peers, logarithmic."""
    top = max(medians.values()) + 1
    last = max(math.log10(size) for size in medians)

    def at(size: float, value: float) -> tuple[float, float]:
        return 60 + 400 * math.log10(size) / last, 240 - 200 * value / top

    points = [at(size, value) for size, value in medians.items()]
    marks = "".join(
        f'<circle cx="{x:.0f}" cy="{y:.0f}" r="4"/>'
        f'<text x="{x:.0f}" y="{y - 10:.0f}" text-anchor="middle">{value:g}</text>'
        f'<text x="{x:.0f}" y="260" text-anchor="middle">{size:,}</text>'
        for (x, y), (size, value) in zip(points, medians.items(), strict=True)
    )
    line = " ".join(f"{x:.0f},{y:.0f}" for x, y in points)
    path.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 500 290" font-family="sans-serif" font-size="12" fill="#246">'
        '<rect width="500" height="290" fill="#fff"/>'
        '<path d="M60 30V240H470" fill="none" stroke="#888"/>'
        f'<polyline points="{line}" fill="none" stroke="#246" stroke-width="2"/>{marks}'
        '<text x="265" y="282" text-anchor="middle">peers (logarithmic)</text>'
        '<text x="18" y="135" transform="rotate(-90 18 135)" text-anchor="middle">messages of a search</text>'
        "</svg>\n"
    )

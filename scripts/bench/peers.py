"""Peers: adding content, the gateway, one DAG from several limited peers."""

from __future__ import annotations

import contextlib
import json
import signal
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
from twinfs.common.runtime import elapsed_timer

TWINFS = PROFILES["twinfs"]
HERE = Path(__file__).parent


@contextlib.contextmanager
def peer(settings: Settings, folder: Path | None = None) -> Iterator[str]:
    """A peer as a process, its volume "v" in *folder*; its URL."""
    folder = folder or settings.fresh("peer")
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


def disk_bytes(folder: Path) -> int:
    """What *folder* takes of the disk, by allocated blocks."""
    return sum(512 * entry.lstat().st_blocks for entry in folder.rglob("*"))


def measure_add(settings: Settings) -> list[Figure]:
    large, folder = settings.large_file(), settings.fresh("flat")
    for number in range(settings.small_files):
        (folder / f"f{number:06d}").write_bytes(settings.rng.randbytes(settings.small_bytes))
    firsts, agains, copies, hashes, smalls, growth = [], [], [], [], [], []
    for _ in range(settings.runs):
        place = settings.fresh("peer")
        with peer(settings, place) as url:
            bounds.use_memory(settings.folder, settings.large_bytes + 256 * MIB)
            copies.append(
                bounds.copy_and_sync_s(large, settings.folder) + bounds.read_and_hash_s(large)
            )
            bounds.use_memory(settings.folder, settings.large_bytes + 256 * MIB)
            firsts.append(add(settings, url, large))
            hashes.append(bounds.read_and_hash_s(large))
            before = disk_bytes(place / "v")
            agains.append(add(settings, url, large))
            growth.append((disk_bytes(place / "v") - before) / 1024)
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
        Figure("peer: add it again, growth of the disk", "KiB", growth, at_most=0),
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

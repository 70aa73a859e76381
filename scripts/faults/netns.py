"""`netns.py start`: a cluster whose processes have a network each, and real links between them that can be cut.

For root, with Linux's network namespaces. All packets go through one more namespace, the router, which forgets those
of a cut link without a word, as a broken switch does. Slow and lossy links need the kernel's netem.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from scripts.faults import kill as killing
from scripts.faults.targets import CantBreak, Cluster, at, dir_option, run
from twinfs.common.faults import Plan, write_plan

NETWORK = "10.77"
HOST = "host"  # this machine's own namespace, where clients run
DEVICE_CHARACTERS = 15


def ip(*words: str) -> str:
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CantBreak("there is no `ip` command: install iproute2") from None
    if done.returncode:
        raise CantBreak(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def supported() -> str:
    """Why namespaces can't be had here; "" if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "there is no `ip` command: install iproute2"
    name = f"twinfs-try-{os.getpid()}"
    try:
        ip("netns", "add", name)
        try:
            ip("-n", name, "link", "add", "try0", "type", "veth", "peer", "name", "try1")
            forward(name)
        finally:
            ip("netns", "del", name)
    except CantBreak as error:
        return f"this machine does not let us: {error}"
    return ""


def forward(namespace: str) -> None:
    """Let packets pass through a namespace."""
    switch = "echo 1 > /proc/sys/net/ipv4/ip_forward"
    ip("netns", "exec", namespace, "sh", "-c", switch)


class Network:
    """The namespaces of one cluster's folder."""

    def __init__(self, folder: Path) -> None:
        self._tag = hashlib.blake2s(str(folder).encode(), digest_size=3).hexdigest()
        self.router = self.namespace("router")

    def namespace(self, name: str) -> str:
        return f"twinfs-{self._tag}-{name}"

    def all(self) -> list[str]:
        listed = [line.split()[0] for line in ip("netns", "list").splitlines() if line]
        return [name for name in listed if name.startswith(f"twinfs-{self._tag}-")]

    @staticmethod
    def address(name: str) -> str:
        """Of a process, host included."""
        number = {HOST: 0, "namenode": 1}.get(name)
        if number is None:
            number = 1 + int(name.removeprefix("datanode"))
        return f"{NETWORK}.{number}.2"

    def build(self, names: list[str]) -> None:
        """A namespace for each name, all tied to the router."""
        if self.all():
            raise CantBreak(
                "there are namespaces of this cluster already; `netns.py stop` removes them"
            )
        if ip("route", "show", f"{NETWORK}.0.0/16"):
            raise CantBreak(
                f"the network {NETWORK}.0.0/16 is in use, perhaps by another such cluster"
            )
        ip("netns", "add", self.router)
        ip("-n", self.router, "link", "set", "lo", "up")
        forward(self.router)
        for name in [HOST, *names]:
            self._tie(name)

    def _tie(self, name: str) -> None:
        own = self.address(name)
        gateway = f"{own[:-1]}1"
        near = f"tw{self._tag}{name}"[:DEVICE_CHARACTERS]
        far = f"r{name}"[:DEVICE_CHARACTERS]
        inside: list[str] = []
        if name != HOST:
            ip("netns", "add", self.namespace(name))
            inside = ["-n", self.namespace(name)]
            ip(*inside, "link", "set", "lo", "up")
        ip(*inside, "link", "add", near, "type", "veth", "peer", "name", far, "netns", self.router)
        ip(*inside, "addr", "add", f"{own}/30", "dev", near)
        ip(*inside, "link", "set", near, "up")
        ip("-n", self.router, "addr", "add", f"{gateway}/30", "dev", far)
        ip("-n", self.router, "link", "set", far, "up")
        ip(*inside, "route", "add", f"{NETWORK}.0.0/16", "via", gateway)

    def remove(self) -> int:
        """All of it; how many namespaces there were."""
        found = self.all()
        for name in found:
            ip("netns", "del", name)
        with contextlib.suppress(CantBreak):
            ip("link", "del", f"tw{self._tag}{HOST}"[:DEVICE_CHARACTERS])
        return len(found)

    # --- links ---

    def cut(self, source: str, target: str) -> None:
        """Packets from *source* to *target* disappear."""
        ip("-n", self.router, *self._rule("add", source, target))

    def heal(self, source: str, target: str) -> None:
        ip("-n", self.router, *self._rule("del", source, target))

    def _rule(self, verb: str, source: str, target: str) -> list[str]:
        ends = ["from", self.address(source), "to", self.address(target)]
        return ["rule", verb, *ends, "blackhole"]


def start(folder: Path, datanodes: int = 3) -> Cluster:
    """A cluster with a namespace for each process."""
    cluster = Cluster(folder)
    if any(cluster.target(name).alive for name in cluster.names):
        raise CantBreak(f"a cluster is running in {cluster.folder} already")
    cluster.faults.mkdir(parents=True, exist_ok=True)
    network = Network(cluster.folder)
    names = ["namenode", *[f"datanode{number}" for number in range(1, datanodes + 1)]]
    entries: list[dict[str, object]] = []
    try:
        network.build(names)
        for name in names:
            plan = cluster.faults / f"{name}.json"
            write_plan(plan, Plan(track=True))
            arguments = ["--dir", str(cluster.folder / name), "--host", network.address(name)]
            arguments += ["--faults", str(plan)]
            if name == "namenode":
                arguments += ["--replication", str(min(3, datanodes))]
                arguments += ["--safe-mode-nodes", str(min(2, datanodes))]
            else:
                arguments += ["--namenode", f"http://{network.address('namenode')}:9870"]
            prefix = ("ip", "netns", "exec", network.namespace(name))
            entries.append(cluster.local.spawn(name, arguments, prefix=prefix))
            cluster.local.save({"processes": entries})
    except BaseException:
        stop(folder)
        raise
    return cluster


def stop(folder: Path) -> tuple[int, int]:
    """(processes ended, namespaces removed)."""
    cluster = Cluster(folder)
    ended = 0
    for name in reversed(cluster.names):
        target = cluster.target(name)
        if target.alive:
            killing.kill(target, term=True)
            ended += 1
    if cluster.names:
        cluster.local.save({"processes": []})
    return ended, Network(cluster.folder).remove()


@click.group()
def main() -> None:
    """A cluster in network namespaces, and its links."""


@main.command("start")
@click.option("--datanodes", type=click.IntRange(1, 64), default=3, help="How many.")
@dir_option
def start_command(datanodes: int, folder: Path | None) -> None:
    """Start a cluster, each process in a network of its own."""
    reason = supported()
    if reason:
        raise CantBreak(reason)
    cluster = start(Cluster(folder).folder, datanodes)
    print(f"NameNode at {cluster.url}, {datanodes} DataNodes, in {cluster.folder}")
    print(f"Undo: python scripts/faults/netns.py stop{at(folder, None)}")


@main.command("stop")
@dir_option
def stop_command(folder: Path | None) -> None:
    """Stop it, and remove its networks; its data stays."""
    ended, removed = stop(Cluster(folder).folder)
    print(f"{ended} processes ended, {removed} namespaces removed.")


def _link(folder: Path | None, verb: str, source: str, target: str, one_way: bool) -> None:
    cluster = Cluster(folder)
    for name in (source, target):
        if name != HOST:
            cluster.entry(name)
    network = Network(cluster.folder)
    ways = [(source, target)] if one_way else [(source, target), (target, source)]
    for a, b in ways:
        (network.cut if verb == "cut" else network.heal)(a, b)


@main.command("cut")
@click.argument("source")
@click.argument("target")
@click.option("--one-way", is_flag=True, help="Only packets from SOURCE to TARGET.")
@dir_option
def cut_command(source: str, target: str, one_way: bool, folder: Path | None) -> None:
    """Drop all packets between two processes (or a process and `host`, where clients run)."""
    _link(folder, "cut", source, target, one_way)
    print(f"Packets {source} {'->' if one_way else '<->'} {target} are dropped.")
    way = " --one-way" if one_way else ""
    print(f"Undo: python scripts/faults/netns.py heal {source} {target}{way}{at(folder, None)}")


@main.command("heal")
@click.argument("source")
@click.argument("target")
@click.option("--one-way", is_flag=True, help="As it was cut.")
@dir_option
def heal_command(source: str, target: str, one_way: bool, folder: Path | None) -> None:
    """Undo a cut."""
    _link(folder, "heal", source, target, one_way)
    print(f"Packets {source} {'->' if one_way else '<->'} {target} pass again.")


if __name__ == "__main__":
    run(main)

"""The commands that ask a peer, as a user runs them, on two peers as processes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.cluster import Server, wait_until
from .commands import Answer, Dfs


class Two:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: list[Server] = []
        for name, bootstrap in (("one", "none"), ("two", "")):
            known = bootstrap or self.servers[0].facts["http"]
            arguments = ["--dir", str(folder / name), "--bootstrap", known, "--port", "0"]
            arguments += ["--data-port", "0", "--socket", "none", "--pin-dead-after-s", "2"]
            server = Server(folder, name, "twinfs.datanode", arguments)
            self.servers.append(server)
            server.start()

    def url(self, number: int) -> str:
        return f"http://{self.servers[number].facts['http']}"

    def dfs(self, *arguments: str, peer: int = 0, code: int = 0) -> str:
        done = self.run(*arguments, peer=peer)
        assert done.code == code, done.err
        return done.out

    def run(self, *arguments: str, peer: int = 0) -> Answer:
        command = Dfs("http://127.0.0.1:1", self.folder, TWINFS_CLIENT_PEER=self.url(peer))
        return command.run(*arguments)

    def close(self) -> None:
        for server in self.servers:
            server.stop()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    found = Two(tmp_path_factory.mktemp("peers"))
    try:
        wait_until(lambda: "alive" in found.dfs("peers"), "that they know each other")
        yield found
    finally:
        found.close()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "sub").mkdir(parents=True)
    (top / "big").write_bytes(os.urandom(2_500_000))
    (top / "sub" / "small").write_bytes(b"small")
    (top / "link").symlink_to("sub/small")
    return top


@pytest.mark.parametrize("profile", ["twinfs", "unixfs-v1-2025", "unixfs-v0-2015"])
def test_added_on_one_peer_got_from_another(
    two: Two, tree: Path, tmp_path: Path, profile: str
) -> None:
    cid = two.dfs("peer", "add", "-q", "--profile", profile, str(tree)).strip()
    only = two.dfs("peer", "add", "-q", "--only-hash", "--profile", profile, str(tree)).strip()
    assert only == cid
    # Again: everything is there.
    assert two.dfs("peer", "add", "-q", "--profile", profile, str(tree)).strip() == cid
    out = tmp_path / "out"
    two.dfs("peer", "get", cid, str(out), peer=1)
    assert (out / "big").read_bytes() == (tree / "big").read_bytes()
    assert (out / "link").read_bytes() == b"small" and (out / "link").is_symlink()
    two.dfs("peer", "get", cid, str(out), peer=1, code=1)
    assert two.dfs("peer", "get", f"{cid}/sub/small", "-", peer=1) == "small"
    assert len(two.dfs("providers", "--peer", two.url(1), cid).splitlines()) == 1
    two.dfs("peer", "fetch", cid, peer=1)
    assert len(two.dfs("providers", "--peer", two.url(1), cid).splitlines()) == 2


def test_pins(two: Two, tree: Path) -> None:
    cid = two.dfs("peer", "add", "-q", "--no-pin", str(tree)).strip()
    assert len(two.dfs("peer", "pin", "add", "--replicas", "2", cid).splitlines()) == 3

    def held() -> bool:
        lists = [two.dfs("peer", "pin", "ls", "--json", peer=n).splitlines() for n in (0, 1)]
        pins = [json.loads(line) for lines in lists for line in lines]
        return sum(pin["cid"] == cid and pin.get("held_here", False) for pin in pins) == 2

    wait_until(held, "that both hold it", 60.0)
    two.dfs("peer", "pin", "rm", cid)
    two.dfs("peer", "pin", "rm", cid, code=1)


def test_names(two: Two) -> None:
    two.dfs("name", "publish", "bafkqabtimvwgy3yk")
    (line,) = two.dfs("name", "keys").splitlines()
    name = line.split()[0]
    assert two.dfs("name", "resolve", name, peer=1).strip() == "/ipfs/bafkqabtimvwgy3yk"
    record = json.loads(two.dfs("name", "resolve", "--record", f"/ipns/{name}", peer=1))
    assert record["value"] == "/ipfs/bafkqabtimvwgy3yk"


def test_errors_are_one_line(two: Two) -> None:
    for arguments in (
        ("peer", "fetch", "nonsense"),
        ("peer", "fetch", "bafkr4ifpcne3t5pzugtkaqcn5i3nzskjtpfslsnnyejlpte2spfoihzsmj"),
        ("name", "resolve", "nonsense"),
        ("name", "publish", "/etc/passwd"),
        ("peer", "add", "/no/such/file"),
        ("peers", "--peer", "ftp://x"),
    ):
        done = two.run(*arguments)
        assert done.code != 0
        assert len(done.err.splitlines()) == 1, done.err

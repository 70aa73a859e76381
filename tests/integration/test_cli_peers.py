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
    cid = two.dfs("peer", "add", "-rQ", "--profile", profile, str(tree)).strip()
    only = two.dfs("peer", "add", "-rQ", "--only-hash", "--profile", profile, str(tree)).strip()
    assert only == cid
    # Again: everything is there.
    assert two.dfs("peer", "add", "-rQ", "--profile", profile, str(tree)).strip() == cid
    out = tmp_path / "out"
    two.dfs("peer", "get", cid, str(out), peer=1)
    assert (out / "big").read_bytes() == (tree / "big").read_bytes()
    assert (out / "link").read_bytes() == b"small" and (out / "link").is_symlink()
    assert (two.dfs("peer", "get", f"{cid}/big", str(out / "big"), peer=1, code=1)) == ""
    assert two.dfs("peer", "get", f"{cid}/sub/small", "-", peer=1) == "small"
    assert len(two.dfs("providers", "--peer", two.url(1), cid).splitlines()) == 1
    two.dfs("peer", "fetch", cid, peer=1)
    assert len(two.dfs("providers", "--peer", two.url(1), cid).splitlines()) == 2


def test_pins(two: Two, tree: Path) -> None:
    cid = two.dfs("peer", "add", "-rQ", "--no-pin", str(tree)).strip()
    assert len(two.dfs("peer", "pin", "add", "--replicas", "2", cid).splitlines()) == 3

    def held() -> bool:
        lists = [two.dfs("peer", "pin", "ls", "--json", peer=n).splitlines() for n in (0, 1)]
        pins = [json.loads(line) for lines in lists for line in lines]
        return sum(pin["cid"] == cid and pin.get("held_here", False) for pin in pins) == 2

    wait_until(held, "that both hold it", 60.0)
    two.dfs("peer", "pin", "rm", cid)
    two.dfs("peer", "pin", "rm", cid, code=1)


def test_content_commands_go_to_a_peer(two: Two, tree: Path, tmp_path: Path) -> None:
    """By --peer, by a setting and no NameNode, and each with --json as in a cluster."""
    at = f"--peer={two.url(0).removeprefix('http://')}"
    plain = Dfs("none", tmp_path, TWINFS_CLIENT_PEER=two.url(0))
    added = plain.json("add", "-r", tree)
    assert [line["name"] for line in added] == ["tree/big", "tree/link", "tree/sub/small", "tree/sub", "tree"]  # fmt: skip
    root = added[-1]["cid"]
    assert added[0]["size"] == 2_500_000
    assert plain("ls", root).split() == ["big", "link", "sub"]
    assert [line["type"] for line in plain.json("ls", root)] == ["file", "symlink", "directory"]
    assert two.dfs("ls", at, root, peer=1) == two.dfs("--peer", two.url(1), "ls", root)
    assert plain("cat", f"{root}/sub/small") == "small"
    (got,) = plain.json("get", root, "there")
    assert (got["files"], got["bytes"]) == (3, 2_500_005)
    assert (tmp_path / "there" / "link").read_bytes() == b"small"
    # Standard input is a stream; the same bytes are the same file.
    data = (tree / "big").read_bytes()
    assert plain("add", "-Q", "-", stdin=data).strip() == added[0]["cid"]
    assert plain("add", "-Q", "-", stdin=b"").split() == [plain("add", "-nQ", "-").strip()]
    assert plain("add", "-wQ", tree / "big", tree / "sub" / "small").count("\n") == 1
    # Two of one name are two, and both are kept.
    (tmp_path / "small").write_bytes(b"another")
    named = plain("add", "-Q", tree / "sub" / "small", "small").split()
    assert len(named) == 2 and set(named) <= set(plain("pin", "ls", "-q").split())
    assert plain("block", "get", f"{root}/sub/small") == "small"
    (stat,) = plain.json("dag", "stat", root)
    assert stat["blocks"] == 8
    plain("dag", "export", root, "-o", "tree.car")
    assert plain.json("dag", "import", "tree.car")[-1]["blocks"] == 8
    block = plain("block", "put", "-", stdin=b"a block").strip()
    assert plain("dag", "put", "-", stdin=b'{"a": {"/": "%s"}}' % block.encode())
    assert plain.json("verify", root) == [{"blocks": 8, "bad": 0}]
    assert plain.json("verify")[0]["bad"] == 0
    assert all(not line["bad"] for line in plain.json("pin", "verify", root))
    assert "a peer has no paths" in plain.fails("cat", "/a/path", code=2)
    assert "a peer has no paths" in plain.fails("ls", "/", code=2)
    assert "a peer has no paths" in plain.fails("put", tree / "big", "/x", code=2)


def test_what_no_pin_holds_is_collected(two: Two, tree: Path, tmp_path: Path) -> None:
    plain = Dfs("none", tmp_path, TWINFS_CLIENT_PEER=two.url(1))
    (kept,) = (line["cid"] for line in plain.json("add", "-r", tree)[-1:])
    (tree / "other").write_bytes(os.urandom(1_500_000))
    (loose,) = (line["cid"] for line in plain.json("add", "-r", "--no-pin", tree)[-1:])
    plain("pin", "add", "--name", "why", f"{kept}/sub/small")
    would = plain.json("gc", "--dry-run")[0]
    done = plain.json("gc")[0]
    assert done["blocks"] == would["blocks"] >= 3
    assert done["bytes"] == would["bytes"] >= 1_500_000
    assert plain.json("gc")[0]["blocks"] == 0
    assert [line["bad"] for line in plain.json("pin", "verify", kept)] == [[]]
    assert plain.run("ls", loose).code != 0
    # One reason less, and the other one still holds.
    with_name = plain.json("pin", "ls", "--name", "why")
    assert len(with_name) == 1
    assert plain.json("pin", "rm", kept) == [{"cid": kept, "removed": 1}]
    plain("gc")
    assert plain("cat", with_name[0]["cid"]) == "small"
    assert plain.run("cat", f"{kept}/big").code != 0


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


def test_a_peer_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    """Reading looks for a block for a minute, where there is somebody to ask."""
    cid = "bafkr4ifpcne3t5pzugtkaqcn5i3nzskjtpfslsnnyejlpte2spfoihzsmi"
    nobody = Dfs("http://127.0.0.1:1", tmp_path, TWINFS_CLIENT_PEER="127.0.0.1:1")
    for command in ("ls", "cat", "verify"):
        said = nobody.fails("--peer", "127.0.0.1:1", command, cid, code=69)
        assert "can't reach the peer at http://127.0.0.1:1: Connection refused" in said

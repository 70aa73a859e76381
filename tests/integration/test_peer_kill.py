"""A peer that is killed in the middle of a fetch: what it had it gave, and what it has it keeps."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

from twinfs.common.checksum import CHUNK_BYTES
from twinfs.common.ipld.cid import RAW, Cid

from ..support.cluster import Server, wait_until
from .commands import Dfs

CHUNKS = 48
LIMIT_BYTES_S = 24 * CHUNK_BYTES


def start(folder: Path, name: str, bootstrap: str, *options: str) -> Server:
    arguments = ["--dir", str(folder / name), "--bootstrap", bootstrap, "--port", "0"]
    server = Server(
        folder,
        name,
        "twinfs.datanode",
        [*arguments, "--data-port", "0", "--socket", "none", *options],
    )
    server.start()
    return server


def raw(server: Server, cid: Cid) -> bytes:
    """A block as the peer's gateway has it, if it is here."""
    url = f"http://{server.facts['http']}/ipfs/{cid}?format=raw"
    request = urllib.request.Request(url, headers={"Cache-Control": "only-if-cached"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bytes(answer.read())


def marks(peer: Path) -> list[tuple[Path, int]]:
    """(file, number) of each leaf that the records of unfinished fetches say is there."""
    return [
        (record.with_suffix(""), number)
        for record in (peer / "fetching").glob("*.map")
        for number, mark in enumerate(record.read_bytes())
        if mark == 1
    ]


def test_a_peer_killed_in_the_middle_of_a_fetch(tmp_path: Path) -> None:
    """While it fetches, others get from it what came; after the kill, what is right on its disk is not fetched again."""
    data = os.urandom(CHUNKS * CHUNK_BYTES + 77)
    (tmp_path / "file").write_bytes(data)
    leaves = [Cid.of(RAW, data[at : at + CHUNK_BYTES]) for at in range(0, len(data), CHUNK_BYTES)]
    servers = [start(tmp_path, "one", "none", "--serve-bytes-per-s", str(LIMIT_BYTES_S))]
    try:
        first = servers[0].facts["http"]
        servers.append(start(tmp_path, "two", first))
        second = servers[1]

        def dfs(number: int) -> Dfs:
            url = f"http://{servers[number].facts['http']}"
            return Dfs("http://127.0.0.1:1", tmp_path, TWINFS_CLIENT_PEER=url)

        cid = dfs(0)("peer", "add", "-Q", "file").strip()
        wait_until(lambda: "alive" in dfs(1)("peers"), "they know each other")
        with dfs(1).running("peer", "fetch", cid) as fetching:
            wait_until(lambda: len(marks(tmp_path / "two")) >= 12, "some leaves came")
            file, number = marks(tmp_path / "two")[0]
            listed = json.loads(file.with_suffix(".json").read_text())
            leaf = Cid.parse(listed[number][0])
            got = raw(second, leaf)
            assert fetching.poll() is None, "the fetch was over too soon to tell"
            assert got == data[leaves.index(leaf) * CHUNK_BYTES :][: len(got)] and len(got) > 0
            second.kill()
        left = marks(tmp_path / "two")
        assert 12 <= len(left) < CHUNKS
        # One leaf rots while nobody looks.
        file, number = left[1]
        with file.open("r+b") as opened:
            opened.seek(number * CHUNK_BYTES + 5)
            byte = opened.read(1)
            opened.seek(number * CHUNK_BYTES + 5)
            opened.write(bytes((byte[0] ^ 1,)))
        rotten = Cid.parse(json.loads(file.with_suffix(".json").read_text())[number][0])
        second.restart()
        assert raw(second, leaf) == got  # before anybody fetches anything
        (facts,) = dfs(1).json("peer", "fetch", cid)[-1:]
        assert facts["resumed"] == len(left) - 1
        assert facts["blocks"] <= CHUNKS + 2 - facts["resumed"]
        assert raw(second, rotten) == data[leaves.index(rotten) * CHUNK_BYTES :][:CHUNK_BYTES]
        servers[0].kill()
        dfs(1)("peer", "get", cid, "back")
        assert (tmp_path / "back").read_bytes() == data
        assert not list((tmp_path / "two" / "fetching").iterdir())
        assert all("Traceback" not in server.log_text() for server in servers)
    finally:
        for server in servers:
            server.stop()

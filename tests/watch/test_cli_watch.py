"""`dfs events`, `webhook`, `audit`, `top`, `doctor`, `support-bundle` as their users run them."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import tarfile
from pathlib import Path

import pytest

from twinfs.client import sync
from twinfs.client.cli import diagnosis
from twinfs.common import merkle, notes
from twinfs.common.config import ClientConfig
from twinfs.namenode.events import chain

from ..integration.commands import PROGRAM, Dfs
from ..support.cluster import Cluster, running


@pytest.fixture
def dfs(cluster: Cluster, tmp_path: Path) -> Dfs:
    return Dfs(cluster.url, tmp_path, USER="root", LOGNAME="root")


def test_a_group_reads_each_event_once(dfs: Dfs, fs: sync.FileSystem, folder: str) -> None:
    fs.mkdirs(f"{folder}/a")
    group = ("events", "--group", "cli-test", "--path", f"{folder}/a", "--kind", "mkdir")
    assert [e["path"] for e in dfs.json(*group)] == [f"{folder}/a"]
    assert dfs(*group) == ""
    fs.mkdirs(f"{folder}/a/b")
    assert dfs(*group).split()[-1] == f"{folder}/a/b"
    listed = dfs("events", "groups")
    assert "cli-test" in listed
    [change] = dfs.json("events", "seek", "cli-test", "0")
    assert change["request"] == {"group": "cli-test", "offset": 0}
    assert [e["path"] for e in dfs.json(*group)] == [f"{folder}/a", f"{folder}/a/b"]
    dfs("events", "forget", "cli-test")
    assert "cli-test" not in dfs("events", "groups")
    assert "no consumer group" in dfs.fails("events", "forget", "cli-test", code=2)


def test_following_goes_on_until_it_is_told_to_end(
    dfs: Dfs, fs: sync.FileSystem, folder: str
) -> None:
    with dfs.running(
        "events", "--follow", "--json", "--path", folder, "--group", "follower"
    ) as process:
        assert process.stdout is not None
        for name in ("x", "y"):
            fs.mkdirs(f"{folder}/{name}")
            while json.loads(process.stdout.readline())["path"] != f"{folder}/{name}":
                pass
    dfs("events", "forget", "follower")


def test_webhooks(dfs: Dfs, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("short")
    add = ("webhook", "add", "cli-hook", "http://127.0.0.1:1/x", "--secret-file", secret)
    assert "16 characters" in dfs.fails(*add)
    secret.write_text("a secret of many letters\n")
    [made] = dfs.json(*add, "--path", "/somewhere", "--kind", "close")
    assert (made["name"], "secret" in made) == ("cli-hook", False)
    assert "a secret of many letters" not in str(made)
    [found] = [h for h in dfs.json("webhook", "ls") if h["name"] == "cli-hook"]
    assert (found["url"], found["path_prefix"], found["kinds"]) == (
        "http://127.0.0.1:1/x",
        "/somewhere",
        ["close"],
    )
    assert "secret" not in found
    [change] = dfs.json("webhook", "pause", "cli-hook")
    assert change["operation"] == "pause_webhook"
    assert "paused" in dfs("webhook", "ls")
    dfs("webhook", "resume", "cli-hook")
    assert dfs("webhook", "dead", "cli-hook") == ""
    assert dfs("webhook", "dead", "cli-hook", "--retry").startswith("0 ")
    assert dfs.json("webhook", "dead", "cli-hook", "--drop") == [{"action": "drop", "count": 0}]
    dfs("webhook", "rm", "cli-hook")
    assert "cli-hook" not in dfs("webhook", "ls")


def test_history_is_proved_and_forgery_found(tmp_path: Path) -> None:
    """A checkpoint kept elsewhere shows that history was rewritten, though its hashes were made to fit again."""
    with running(tmp_path / "c", datanodes=0, namenode_options=("--safe-mode-nodes", "0")) as small:
        dfs = Dfs(small.url, tmp_path, USER="root", LOGNAME="root")
        with sync.FileSystem(ClientConfig(namenode=small.url, user="root")) as fs:
            for number in range(300):
                fs.mkdirs(f"/d{number}")
        note, key = tmp_path / "note", dfs("audit", "key").strip()
        assert dfs.json("audit", "key") == [{"key": key}]
        note.write_text(dfs("audit", "checkpoint"))
        size, root = notes.open_checkpoint(note.read_text(), key)
        assert size == 300
        with sync.FileSystem(ClientConfig(namenode=small.url, user="root")) as fs:
            fs.mkdirs("/after")
        checked = dfs("audit", "verify", "--note", note, "--key", key)
        assert checked.splitlines()[0].startswith("events 1 to 301")
        proof = json.loads(dfs("audit", "prove", "17", "--size", "300"))
        hashes = [bytes.fromhex(entry) for entry in proof["proof"]]
        leaf = merkle.leaf_hash(bytes.fromhex(proof["event_hash"]))
        assert merkle.verify_inclusion(leaf, 16, 300, hashes, root)
        assert not merkle.verify_inclusion(leaf, 17, 300, hashes, root)
        # A checkpoint that somebody changed, and one of another key.
        forged = tmp_path / "forged"
        forged.write_text(note.read_text().replace("\n300\n", "\n299\n"))
        assert "forged" in dfs.fails("audit", "verify", "--note", forged, "--key", key, code=2)
        small.namenode.kill()
        # Whoever has the database rewrites an event, and the whole chain after it.
        with sqlite3.connect(small.folder / "nn" / _database(small.folder / "nn")) as db:
            db.execute("UPDATE events SET path = '/forged' WHERE event_offset = 200")
            before = db.execute("SELECT hash FROM events WHERE event_offset = 199").fetchone()[0]
            rows = db.execute(
                "SELECT event_offset, time_ms, kind, path, destination, user_name, inode_id, detail"
                " FROM events WHERE event_offset >= 200 ORDER BY event_offset"
            ).fetchall()
            for row in rows:
                before = chain(bytes(before), tuple(row))
                db.execute("UPDATE events SET hash = ? WHERE event_offset = ?", (before, row[0]))
            db.execute("DELETE FROM event_tree")
        small.namenode.restart()
        said = dfs.run("audit", "verify", "--note", note, "--key", key)
        assert said.code != 0
        assert "history was" in said.err


def _database(folder: Path) -> str:
    [found] = [p.name for p in folder.iterdir() if p.suffix in (".db", ".sqlite")]
    return found


def test_top(dfs: Dfs, fs: sync.FileSystem, folder: str) -> None:
    fs.write_bytes(f"{folder}/f", b"x")
    shown = dfs("top")
    assert "nodes 3/3" in shown
    assert shown.count(" live ") == 3
    [overview] = dfs.json("top")
    assert len(overview["nodes"]) == 3
    assert dfs("top", "--once").startswith("TwinFS")


def test_doctor_is_content_with_a_good_cluster(dfs: Dfs) -> None:
    checks = dfs.json("doctor")
    assert [c for c in checks if c["state"] == "bad"] == []
    assert {c["what"] for c in checks} >= {"program", "NameNode", "readiness", "SQLite"}
    assert sum("data port can be reached" in c["found"] for c in checks) == 3


def test_doctor_says_what_is_wrong(dfs: Dfs, tmp_path: Path) -> None:
    away = Dfs(
        "http://127.0.0.1:1", tmp_path, TWINFS_CLIENT_RETRY_S="0.1", TWINFS_DATANODE_PORT="x"
    )
    answer = away.run("doctor")
    assert answer.code == 1
    assert "BAD   NameNode: can't reach" in answer.out
    assert "BAD   configuration [datanode]" in answer.out
    with running(tmp_path / "c", datanodes=0, namenode_options=("--safe-mode-nodes", "3")) as alone:
        answer = Dfs(alone.url, tmp_path).run("doctor")
        assert answer.code == 1
        assert "safe mode" in answer.out
        assert "Start one: dfs datanode" in answer.out
        alone.add_datanode()
        alone.wait_live(1)
        alone.datanodes[0].kill()
        answer = Dfs(alone.url, tmp_path).run("doctor")
        assert answer.code == 1
        assert "its data port can't be reached from here (Connection refused)" in answer.out
        assert "Nothing listens there: start it again" in answer.out


def checked(dfs: Dfs, *options: str) -> dict[str, tuple[str, str, str]]:
    """What `dfs doctor` says of each thing: state, what it found, what to do."""
    lines = [json.loads(line) for line in dfs.run(*options, "doctor", "--json").out.splitlines()]
    return {one["what"]: (one["state"], one["found"], one["advice"]) for one in lines}


def test_doctor_looks_at_what_is_configured_here(cluster: Cluster, tmp_path: Path) -> None:
    """Directories and ports of servers on this machine: good ones, and each kind of bad one."""
    port = cluster.url.rpartition(":")[2]
    good = {"TWINFS_NAMENODE_DIR": str(cluster.folder / "nn"), "TWINFS_NAMENODE_PORT": port}
    found = checked(Dfs(cluster.url, tmp_path, **good))
    assert found["directory of the namenode"][0] in ("ok", "warning")  # the disk may be full
    assert found["port of the namenode"][:2] == (
        "ok",
        f"a server of TwinFS listens at 127.0.0.1:{port}",
    )
    assert "directory of the datanode" not in found  # nobody said that there is one here
    (tmp_path / "file").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bad = {
            "TWINFS_NAMENODE_DIR": str(tmp_path / "file" / "below"),
            "TWINFS_DATANODE_DIR": f"{tmp_path}/one,{tmp_path}/two",
            "TWINFS_DATANODE_PORT": str(taken.getsockname()[1]),
            "TWINFS_DATANODE_HOST": "127.0.0.1",
        }
        found = checked(Dfs(cluster.url, tmp_path, **bad))
    assert found["directory of the namenode"][0] == "bad"
    assert found["directory of the namenode"][1].endswith("file is no directory")
    assert "is on the same disk as" in found["directory of the datanode"][1]
    state, text, advice = found["port of the datanode"]
    assert (state, text[:23]) == ("bad", "another program listens")
    assert "set port of [datanode]" in advice


def test_doctor_warns_of_volumes_in_memory(cluster: Cluster, tmp_path: Path) -> None:
    if diagnosis.file_system(Path("/dev/shm").stat().st_dev) != "tmpfs":
        pytest.skip("/dev/shm is on a disk here")
    found = checked(Dfs(cluster.url, tmp_path, TWINFS_DATANODE_DIR="/dev/shm/twinfs"))
    assert found["directory of the datanode"][0] == "warning"
    assert "is in memory" in found["directory of the datanode"][1]


def test_doctor_tells_of_a_configuration_that_can_not_be_read(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "bad.toml").write_text("[client")
    dfs = Dfs(cluster.url, tmp_path)
    found = checked(dfs, "--config", "bad.toml")
    assert found["configuration [namenode]"][0] == "bad"
    assert "is not valid TOML" in found["configuration [namenode]"][1]
    assert "NameNode" not in found
    assert dfs.run("--config", "bad.toml", "doctor").code == 1
    found = checked(Dfs(cluster.url, tmp_path, TWINFS_DATANODE_PORT="99999"))
    assert "port must be between 0 and 65535" in found["configuration [datanode]"][1]


def test_doctor_knows_limits_clocks_and_versions(cluster: Cluster, tmp_path: Path) -> None:
    environment = Dfs(cluster.url, tmp_path).environment()
    command = f"ulimit -n 300; exec {PROGRAM} doctor --json"
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True)
    (files,) = [c for c in map(json.loads, done.stdout.splitlines()) if c["what"] == "open files"]
    assert (files["state"], files["found"][:11]) == ("warning", "300 allowed")
    assert "LimitNOFILE" in files["advice"]
    assert diagnosis.skew("clock", 200, 0.0).state == "ok"
    late = diagnosis.skew("clock", -90_000, 0.2)
    assert (late.state, late.found[:13]) == ("warning", "90.1 s behind")
    assert "NTP" in late.advice
    assert diagnosis.version("NameNode", "0.0.1").state == "warning"


def test_the_support_bundle_has_no_secrets(
    cluster: Cluster, fs: sync.FileSystem, folder: str, tmp_path: Path
) -> None:
    fs.write_bytes(f"{folder}/private-name", b"x")
    dfs = Dfs(cluster.url, tmp_path, TWINFS_NAMENODE_DATABASE="postgresql://me:hunter22@db/x")
    assert dfs("support-bundle", "b.tar.gz") == "b.tar.gz\n"
    assert (tmp_path / "b.tar.gz").stat().st_mode & 0o077 == 0
    with tarfile.open(tmp_path / "b.tar.gz") as bundle:
        names = [entry.name for entry in bundle]
        text = b"\n".join(bundle.extractfile(n).read() for n in names)  # type: ignore[union-attr]
    assert {
        "b/overview.json",
        "b/doctor.json",
        "b/configuration.json",
        "b/metrics/namenode.txt",
        "b/metrics/datanode1.txt",
    } <= set(names)
    [found] = dfs.json("support-bundle", "b.tar.gz")
    assert found["file"] == "b.tar.gz"
    assert {f"b/{name}" for name in found["contents"]} == set(names)
    assert b"hunter22" not in text
    assert b"private-name" not in text

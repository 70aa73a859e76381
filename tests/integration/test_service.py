"""How the servers live as services: signals, units, what may be reloaded."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from twinfs.client import sync
from twinfs.common.config import ClientConfig
from twinfs.common.runtime import elapsed_timer

from ..support.cluster import Server, running, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
UNITS = sorted((ROOT / "scripts" / "systemd").glob("*.service"))


def test_sighup_reloads_the_log_level_and_refuses_nonsense(tmp_path: Path) -> None:
    settings = tmp_path / "twinfs.toml"
    settings.write_text('[namenode]\nlog_level = "INFO"\n', encoding="utf-8")
    server = Server(
        tmp_path,
        "namenode",
        "twinfs.namenode",
        ["--config", str(settings), "--dir", str(tmp_path / "nn"), "--port", "0"],
    )
    server.start()
    try:
        settings.write_text('[namenode]\nlog_level = "LOUD"\n', encoding="utf-8")
        server.signal(signal.SIGHUP)
        wait_until(lambda: "was not reloaded: log_level must be" in server.log_text(), "a refusal")
        settings.write_text('[namenode]\nlog_level = "ERROR"\n', encoding="utf-8")
        server.signal(signal.SIGHUP)
        settings.write_text('[namenode]\nlog_level = "INFO"\n', encoding="utf-8")
        wait_until(lambda: _reloaded(server), "a reload")
    finally:
        assert server.stop() == 0
    assert "stopping" in server.log_text()


def _reloaded(server: Server) -> bool:
    # At level ERROR nothing is said of it: so again, now that the file says INFO.
    server.signal(signal.SIGHUP)
    return "was reloaded" in server.log_text()


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_finds_nothing_wrong_with_the_units(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    copy = tmp_path / unit.name
    text = unit.read_text(encoding="utf-8")
    # The program is not installed where the unit says; any program will do for the check.
    copy.write_text(text.replace("/opt/twinfs/bin/dfs", "/bin/true"), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, said) == (0, []), done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_counts_the_units_as_well_shut_in(unit: Path) -> None:
    """On systemd's scale from 0 (all is shut) to 10: network servers that have a disk to write get below 2."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=15", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd can't judge a unit that is not installed")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Overall exposure level" in done.stdout


def test_systemd_finds_nothing_wrong_with_the_timer(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    for path in (ROOT / "scripts" / "systemd").glob("twinfs-backup.*"):
        text = path.read_text(encoding="utf-8").replace("/opt/twinfs/bin/dfs", "/bin/true")
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    timer = tmp_path / "twinfs-backup.timer"
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(timer)],
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if "twinfs" in line]
    assert (done.returncode, said) == (0, []), done.stderr


def test_stopping_cuts_off_what_does_not_end(tmp_path: Path) -> None:
    """Somebody asked for a file and does not read it; a block stream is half-way: after `stop_grace_s` the node ends all the same,
    and what was acknowledged is there when it comes back."""
    grace = ("--stop-grace-s", "1")
    with running(
        tmp_path,
        datanodes=1,
        namenode_options=("--replication", "1", *grace),
        datanode_options=grace,
    ) as cluster:
        with sync.FileSystem(ClientConfig(namenode=cluster.url, user="root")) as fs:
            fs.write_bytes("/large", bytes(48 * 1024 * 1024))
            node = cluster.datanodes[0]
            host, _, port = node.facts["http"].rpartition(":")
            with socket.create_connection((host, int(port))) as reader:
                reader.sendall(
                    f"GET /webhdfs/v1/large?op=OPEN&user.name=root&namenoderpcaddress={cluster.url[7:]}"
                    f" HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
                )
                assert reader.recv(100).startswith(b"HTTP/1.1 200")
                began_s = elapsed_timer()
                assert node.stop() == 0
                assert elapsed_timer() - began_s < 20
            node.restart()
            cluster.wait_live(1)
            assert fs.read_bytes("/large") == bytes(48 * 1024 * 1024)
        # The NameNode, with a page open that follows and a request that never ends.
        host, _, port = cluster.namenode.facts["http"].rpartition(":")
        with (
            socket.create_connection((host, int(port))) as page,
            socket.create_connection((host, int(port))) as sender,
        ):
            page.sendall(b"GET /v1/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert page.recv(100).startswith(b"HTTP/1.1 200")
            sender.sendall(
                b"POST /v1/mkdirs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 1000\r\n\r\n{"
            )
            began_s = elapsed_timer()
            assert cluster.namenode.stop() == 0
            assert elapsed_timer() - began_s < 20
        assert cluster.tracebacks() == []


def test_the_units_shut_the_services_in() -> None:
    assert [path.stem for path in UNITS] == ["twinfs-backup", "twinfs-datanode", "twinfs-namenode"]
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8")
        for setting in ("NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet=\n"):
            assert setting in text, unit.name

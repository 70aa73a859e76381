"""How the servers live as services: signals, units, what may be reloaded."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from ..support.cluster import Server, wait_until

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


def test_the_units_shut_the_services_in() -> None:
    assert [path.stem for path in UNITS] == ["twinfs-datanode", "twinfs-namenode"]
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8")
        for setting in ("NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet=\n"):
            assert setting in text, unit.name

"""The script that shows what repair does, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "simulate.py"
SMALL = ("--nodes", "24", "--blocks", "400", "--block-mib", "16")


def simulate(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_scenario_is_shown_beside_the_defaults_of_hdfs(tmp_path: Path) -> None:
    picture = tmp_path / "repair.png"
    head, *rows = simulate(*SMALL, "--plot", str(picture)).splitlines()
    assert head.split()[:3] == ["scenario", "settings", "detected"]
    names = [row.split()[0] for row in rows]
    assert names == [
        name for name in ("node-loss", "rack-loss", "rolling-restart", "flapping") for _ in (1, 2)
    ]
    assert all(row.split()[-1] == "0" for row in rows), "a block was lost"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_node_loss_is_noticed_and_mended_when_the_settings_say() -> None:
    ours, theirs = map(json.loads, simulate(*SMALL, "--json", "node-loss").splitlines())
    # From the last heartbeat on, which may have been up to three seconds before.
    assert 27 <= ours["detected_s"] <= 34 and 627 <= theirs["detected_s"] <= 634
    for found in (ours, theirs):
        assert found["repaired_s"] > found["detected_s"]
        assert found["copied_bytes"] > 0 and found["lost_blocks"] == 0


def test_a_planning_step_is_timed() -> None:
    found = json.loads(simulate("--plan", "500", "--json"))
    assert found["datanodes"] == 500 and found["blocks_waiting"] == 102_400
    assert found["step_s_max"] > 0


@pytest.mark.parametrize("file", ["nowhere/repair.png", "repair.nothing", "repair"])
def test_a_picture_that_can_not_be_drawn_is_refused_before_the_run(
    tmp_path: Path, file: str
) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--plot", str(tmp_path / file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Invalid value for '--plot'" in done.stderr

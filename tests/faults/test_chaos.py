"""A short chaos run with a fixed seed; `make chaos` has the long ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from scripts.chaos import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(420)
@pytest.mark.parametrize("seed", [35])
def test_a_round_of_chaos_leaves_nothing_to_complain_of(tmp_path: Path, seed: int) -> None:
    options = ["--seed", str(seed), "--minutes", "0.3", "--nodes", "4", "--clients", "4"]
    run = [sys.executable, str(ROOT / "scripts" / "chaos.py"), *options]
    done = subprocess.run(
        [*run, "--dir", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "CLEAN" in done.stdout
    # What was recorded can be judged again.
    again = [sys.executable, str(ROOT / "scripts" / "checker"), str(tmp_path / "history.jsonl")]
    judged = subprocess.run(again, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout


@pytest.mark.parametrize("words", ["--minutes -1 --plan", "--minutes 0 --plan", "--dir {file}"])
def test_runs_that_can_not_be_are_refused(tmp_path: Path, words: str) -> None:
    (tmp_path / "file").touch()
    done = CliRunner().invoke(main, words.format(file=tmp_path / "file").split())
    assert done.exit_code == 2, done.output

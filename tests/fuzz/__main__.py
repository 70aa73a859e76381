"""Fuzz with atheris: `python -m twinfs.tests.fuzz [--seconds N] [TARGET...]`, from the folder above the package, or `make fuzz`.

An input that breaks a target is kept as `crash-TARGET-...` in the current directory. Needs the extra `fuzz`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

MAX_INPUT_BYTES = 4096
TIMEOUT_S = 20  # for one input
MEMORY_MIB = 1024


def one(target: str, seconds: int, corpus: str) -> None:
    """Fuzz in this process, which atheris ends."""
    import atheris

    with atheris.instrument_imports(include=["twinfs.common", "twinfs.client", "twinfs.datanode"]):
        from .targets import ALL, seeds

    for number, seed in enumerate(seeds()):
        Path(corpus, f"seed{number}").write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={TIMEOUT_S}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-artifact_prefix=crash-{target}-",
        "-print_final_stats=1",
        "-verbosity=1",
    ]
    atheris.Setup([sys.argv[0], *options, corpus], ALL[target])
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--inside", default="", help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*")
    given = parser.parse_args()
    if given.inside:
        one(given.targets[0], given.seconds, given.inside)
        return 0
    from .targets import ALL

    failed = []
    for target in given.targets or list(ALL):
        with tempfile.TemporaryDirectory() as corpus:
            command = [sys.executable, "-m", __spec__.name, "--seconds", str(given.seconds)]
            ended = subprocess.run(
                [*command, "--inside", corpus, target],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=os.environ,
            )
        lines = ended.stdout.splitlines()
        runs = [line.split()[-1] for line in lines if "number_of_executed_units" in line]
        print(
            f"{target}: {runs[0] if runs else 'no'} inputs, {'a find' if ended.returncode else 'nothing found'}",
            flush=True,
        )
        if ended.returncode:
            failed.append(target)
            print("\n".join(lines[-40:]), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Several client processes that begin together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def seconds_of(program: str, arguments: list[list[str]]) -> float:
    """Run *program* of this folder once for each list of arguments; from the first one's begin to the last one's end."""
    path = Path(__file__).with_name(program)
    clients = [
        subprocess.Popen(
            [sys.executable, str(path), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for words in arguments
    ]
    for client in clients:
        assert client.stdout is not None
        client.stdout.readline()  # connected
    for client in clients:
        assert client.stdin is not None
        client.stdin.write("go\n")
        client.stdin.flush()
    spans = []
    for client in clients:
        told, _ = client.communicate()
        if client.returncode:
            raise SystemExit(f"{program} {' '.join(arguments[0])} failed")
        spans.append(json.loads(told))
    return max(span["ended_s"] for span in spans) - min(span["began_s"] for span in spans)

"""Running the pages that users read: every console block in one shell, every Python block, every TOML block, in order.

A `pycon` block is a session with an interpreter: what it shows must be what it prints. One that follows another goes on in it.

A `console` block has commands after `$ `; what follows a command is what it prints (`...` stands for anything), and with
nothing there it may print what it likes. It must succeed. Ports are replaced by free ones. A block after a comment
`<!-- not run: WHY -->` is left out.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twinfs.common.config import ROLES, build, settings

FENCE = re.compile(
    r"^(?P<skip><!-- not run: [^\n]*-->\n+)?```(?P<kind>console|python|pycon|toml)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
PORT = re.compile(r"(?<![\w.])98\d\d(?![\w.])")
MARK = "@@ command"
SHELL_LIMIT_S = 150


@dataclass
class Block:
    kind: str
    body: str


@dataclass
class Command:
    text: str
    expected: list[str] = field(default_factory=list)


def blocks_of(text: str) -> list[Block]:
    """The blocks to run, in order, with free ports in place of the documented ones."""
    ports: dict[str, str] = {}

    def free(match: re.Match[str]) -> str:
        if match[0] not in ports:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                ports[match[0]] = str(probe.getsockname()[1])
        return ports[match[0]]

    blocks: list[Block] = []
    for match in FENCE.finditer(text):
        if match["skip"]:
            continue
        kind, body = match["kind"], PORT.sub(free, match["body"])
        if kind == "pycon" and blocks and blocks[-1].kind == kind:
            blocks[-1].body += "\n" + body
        else:
            blocks.append(Block(kind, body))
    return blocks


def commands_of(body: str) -> list[Command]:
    commands: list[Command] = []
    for line in body.splitlines():
        if line.startswith("$ "):
            commands.append(Command(line[2:]))
        elif line.startswith("> "):
            commands[-1].text += "\n" + line[2:]
        else:
            commands[-1].expected.append(line)
    return commands


def script_of(blocks: list[Block], folder: Path) -> tuple[str, list[Command]]:
    """A shell script that runs everything, and the commands in it."""
    commands: list[Command] = []
    for number, block in enumerate(blocks):
        if block.kind == "console":
            commands += commands_of(block.body)
        elif block.kind == "python":
            program = folder / f"block{number}.py"
            program.write_text(block.body, encoding="utf-8")
            commands.append(Command(f"{sys.executable} {program}"))
        elif block.kind == "pycon":
            session = folder / f"block{number}.txt"
            session.write_text(block.body, encoding="utf-8")
            commands.append(Command(f"{sys.executable} -m doctest -o ELLIPSIS {session}"))
        else:
            check_toml(block.body)
    lines = ["set -o pipefail", "trap 'jobs -p | xargs -r kill 2>/dev/null; wait' EXIT"]
    for number, command in enumerate(commands):
        lines.append(f"echo '{MARK} {number}'")
        lines.append(command.text)
        lines.append(f'code=$?; if [ $code != 0 ]; then echo "{MARK} failed: $code"; exit 1; fi')
    return "\n".join(lines) + "\n", commands


def check_toml(body: str) -> None:
    """A configuration that is shown must be one that is accepted."""
    for role, table in tomllib.loads(body).items():
        build(ROLES[role], settings(ROLES[role], table, environ={}))


def run_page(text: str, folder: Path, *, checkout: Path | None = None) -> None:
    """Run a page in *folder*; AssertionError says which command did not do what the page says.

    With *checkout*, as from there: its `scripts` are at hand.
    """
    (folder / "work").mkdir(parents=True)
    if checkout is not None:
        (folder / "work" / "scripts").symlink_to(checkout / "scripts")
    script, commands = script_of(blocks_of(text), folder)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ: dict[str, Any] = {
        "HOME": str(folder),
        "PATH": path,
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "COLUMNS": "100",
    }
    output = folder / "output.txt"
    with output.open("wb") as file:
        shell = subprocess.Popen(
            ["bash", "-c", script],
            cwd=folder / "work",
            env=environ,
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            code = shell.wait(timeout=SHELL_LIMIT_S)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    text = output.read_text(encoding="utf-8", errors="replace")
    printed = re.split(rf"^{MARK} (?=\d)", text, flags=re.MULTILINE)[1:]
    assert code == 0 and len(printed) == len(commands), text[-4000:]
    for command, said in zip(commands, printed, strict=True):
        lines = said.splitlines()[1:]
        if command.expected:
            assert matches(command.expected, lines), f"$ {command.text}\nprinted:\n" + "\n".join(
                lines
            )


def matches(expected: list[str], lines: list[str]) -> bool:
    pattern = "\n".join(expected)
    wanted = ".*".join(re.escape(part) for part in pattern.split("..."))
    return re.fullmatch(wanted, "\n".join(lines), re.DOTALL) is not None

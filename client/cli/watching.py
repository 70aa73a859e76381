"""Commands that look at a cluster: top, doctor, support-bundle."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import os
import platform
import select
import shutil
import sys
import tarfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ... import __version__
from ...common.config import ROLES, settings
from ...common.errors import DfsError
from ...common.follow import GetGroups
from ...common.messages import GetReport
from ...common.runtime import SystemClock, format_time
from ...common.watch import GetHistory, GetOverview, History, Overview
from .diagnosis import diagnose, get
from .support import (
    Shell,
    counted,
    human,
    json_option,
    passed,
    print_json,
    shell_command,
    shown,
    table,
    to_plain,
)

SPARKS = "▁▂▃▄▅▆▇█"
CLEAR, HOME, ENTER, LEAVE = "\x1b[J", "\x1b[H", "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
BOLD, DIM, RED, YELLOW, GREEN, PLAIN = (
    "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[0m",
)  # fmt: skip


# --- top -----------------------------------------------------------------------------------------


@shell_command(name="top")
@click.option(
    "--interval", type=click.FloatRange(min=0.5), default=2.0, help="Seconds between looks."
)
@click.option("--once", is_flag=True, help="Look once and end.")
@json_option
def top_command(shell: Shell, interval: float, once: bool, as_json: bool) -> None:
    """A live view: what is wrong, nodes, traffic, hottest directories, repair. Ends with q."""
    if as_json:
        print_json(shell.call("overview", GetOverview()))
        return
    screen = sys.stdout.isatty() and not once
    with _keys(screen) as key_within:
        while True:
            found: Overview = shell.call("overview", GetOverview())
            past: History = shell.call("history", GetHistory())
            size = shutil.get_terminal_size()
            lines = list(_frame(found, past, size.columns, colours=screen))
            if not screen:
                print("\n".join(lines))
                return
            body = "\r\n".join(line + "\x1b[K" for line in lines[: size.lines - 1])
            sys.stdout.write(HOME + body + CLEAR)
            sys.stdout.flush()
            if key_within(interval) in ("q", "Q", "\x03", "\x1b"):
                return


@contextlib.contextmanager
def _keys(screen: bool) -> Iterator[Any]:
    """A function that waits for a key; the terminal is put back as it was."""
    if not screen or not sys.stdin.isatty():

        def wait(seconds: float) -> str:
            select.select([], [], [], seconds)
            return ""

        yield wait
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        sys.stdout.write(ENTER)

        def within(seconds: float) -> str:
            ready, _, _ = select.select([sys.stdin], [], [], seconds)
            return os.read(sys.stdin.fileno(), 1).decode("latin-1") if ready else ""

        yield within
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        sys.stdout.write(LEAVE)
        sys.stdout.flush()


def _spark(values: list[float], width: int) -> str:
    recent = values[-width:]
    top = max(recent, default=0.0)
    return "".join(
        SPARKS[min(7, int(value / top * 7.99))] if top else SPARKS[0] for value in recent
    )


def _seconds(value: float) -> str:
    if value < 0:
        return "?"
    if value < 1:
        return f"{value * 1e3:.1f} ms"
    return passed(value)


def _frame(found: Overview, past: History, columns: int, *, colours: bool) -> Iterator[str]:
    def paint(text: str, colour: str) -> str:
        return f"{colour}{text}{PLAIN}" if colours else text

    def cut(text: str) -> str:
        return text if len(text) <= columns else text[: max(0, columns - 1)] + "…"

    live = sum(node.state == "live" for node in found.nodes)
    grave = any(problem.severity == "critical" for problem in found.problems)
    state = f"{len(found.problems)} problems" if found.problems else "healthy"
    yield (
        paint("TwinFS ", BOLD)
        + cut(f"{found.version}  {found.cluster_id}  {format_time(found.time_ms, '%H:%M:%S')}  ")
        + paint(state, RED if grave else YELLOW if found.problems else GREEN)
    )
    now = found.now
    share = 100 * found.used_bytes / found.capacity_bytes if found.capacity_bytes else 0.0
    amount = (
        f"{counted(found.files, 'file')}, {counted(found.blocks, 'block')}"
        if found.counted_ms
        else "counting files"
    )
    yield cut(
        f"nodes {live}/{len(found.nodes)}   space {human(found.used_bytes)} of"
        f" {human(found.capacity_bytes)} ({share:.0f} %)   {amount}"
    )
    width = max(10, min(60, columns - 50))
    for label, text, values in (
        ("calls/s", f"{now.calls_s:.1f}", [p.calls_s for p in past.points]),
        ("p99", _seconds(now.p99_s), [p.p99_s for p in past.points]),
        ("written/s", human(int(now.received_bytes_s)), [p.received_bytes_s for p in past.points]),
        ("read/s", human(int(now.sent_bytes_s)), [p.sent_bytes_s for p in past.points]),
    ):
        yield cut(f"{label:<10} {text:>10}  {_spark(values, width)}")
    yield cut(
        f"repair     {found.repair.waiting} waiting, {found.repair.copying} copying"
        + (f", {_seconds(found.repair.eta_s)} left" if found.repair.eta_s > 0 else "")
        + f"   errors/s {now.errors_s:.1f}   events {found.last_event}"
    )
    for problem in found.problems[:6]:
        text = (
            f"! {shown(problem.text)}: {problem.doing}"
            if problem.doing
            else f"! {shown(problem.text)}"
        )
        yield paint(cut(text), RED if problem.severity == "critical" else YELLOW)
    yield ""
    rows = [("DataNode", "State", "Heard", "Used", "Free", "Blocks", "Busy", "In/s", "Out/s")]
    for node in found.nodes:
        rows.append(
            (
                node.address.data,
                node.state if node.admin_state == "in-service" else node.admin_state,
                _seconds(node.last_contact_s) if node.last_contact_s >= 1 else "now",
                human(node.used_bytes),
                human(node.remaining_bytes),
                str(node.blocks),
                str(node.active_transfers),
                human(int(node.received_bytes_s)),
                human(int(node.sent_bytes_s)),
            )
        )
    for number, line in enumerate(table(rows, right=(3, 4, 5, 6, 7, 8))):
        yield paint(cut(line), DIM) if number == 0 else cut(line)
    if found.hot:
        yield ""
        yield paint("Hottest directories", DIM)
        for hot in found.hot[:5]:
            yield cut(f"{hot.calls_s:>10.1f}/s  {shown(hot.path)}")


# --- doctor ----------------------------------------------------------------------------------------


@click.command(name="doctor")
@json_option
@click.pass_context
def doctor_command(ctx: click.Context, as_json: bool) -> None:
    """Check configuration, clocks, ports, versions, disks and limits, and say what to do.

    Servers that are configured on this machine are looked at as well: their directories, their ports. Exit 1: something is bad.
    """
    worst = 0
    for check in diagnose(ctx.find_root().obj):
        worst = max(worst, {"ok": 0, "warning": 0, "bad": 1}[check.state])
        if as_json:
            entry = {"state": check.state, "what": check.what, "found": check.found}
            print_json(entry | {"advice": check.advice})
            continue
        mark = {"ok": "ok  ", "warning": "WARN", "bad": "BAD "}[check.state]
        print(f"{mark}  {check.what}: {shown(check.found)}")
        if check.advice:
            print(f"      {check.advice}")
    if worst:
        raise click.exceptions.Exit(worst)


# --- support-bundle --------------------------------------------------------------------------------

SECRET_WORDS = ("secret", "password", "token", "key")


@shell_command(name="support-bundle")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option(
    "--logs",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Log files (or a directory of *.log) to put in; their last MiB each. They may name files of yours.",
)
@json_option
def support_bundle_command(
    shell: Shell, file: Path | None, logs: tuple[Path, ...], as_json: bool
) -> None:
    """Collect what helps to find out what is wrong, without secrets and names of files, in a .tar.gz."""
    now_ms = SystemClock().wall_ms()
    target = file or Path(f"twinfs-support-{format_time(now_ms, '%Y%m%d-%H%M%S')}.tar.gz")
    base, names = target.name.removesuffix(".gz").removesuffix(".tar"), list[str]()
    with tarfile.open(target, "w:gz") as bundle:
        for name, data in _collect(shell, logs):
            names.append(name)
            entry = tarfile.TarInfo(f"{base}/{name}")
            entry.size, entry.mtime, entry.mode = len(data), now_ms // 1000, 0o600
            bundle.addfile(entry, io.BytesIO(data))
    target.chmod(0o600)
    if as_json:
        print_json({"file": str(target), "bytes": target.stat().st_size, "contents": names})
    else:
        print(target)


def _collect(shell: Shell, logs: tuple[Path, ...]) -> Iterator[tuple[str, bytes]]:
    def document(value: Any) -> bytes:
        return json.dumps(to_plain(value), indent=2, ensure_ascii=False).encode() + b"\n"

    machine = {
        "twinfs": __version__,
        "python": sys.version,
        "platform": platform.platform(),
        "packages": {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()},
    }
    yield "machine.json", document(machine)
    options: dict[str, Any] = click.get_current_context().find_root().obj
    config = {}
    for role, kind in ROLES.items():
        with contextlib.suppress(DfsError):
            found = settings(kind, file=options["config_file"])
            config[role] = {s.name: [_redacted(s.name, s.value), s.origin] for s in found}
    yield "configuration.json", document(config)
    checks = [{"state": c.state, "what": c.what, "found": c.found} for c in diagnose(options)]
    yield "doctor.json", document(checks)
    addresses = {"namenode": urllib.parse.urlsplit(shell.config.namenode.split(",")[0]).netloc}
    try:
        overview: Overview = shell.call("overview", GetOverview())
        plain = to_plain(overview)
        del plain["hot"]  # names of directories
        yield "overview.json", document(plain)
        for node in overview.nodes:
            addresses[f"datanode{node.address.node_id}"] = node.address.http
        yield "report.json", document(shell.call("report", GetReport()))
        yield "history.json", document(shell.call("history", GetHistory(span="day")))
        yield "groups.json", document(shell.call("event_groups", GetGroups()))
    except DfsError as error:
        yield "unreachable.txt", f"{error.message}\n".encode()
    for name, address in addresses.items():
        status, text = get(address, "/metrics")
        if status == 200:
            yield f"metrics/{name}.txt", text.encode()
    for place in logs:
        for path in sorted(place.glob("*.log")) if place.is_dir() else [place]:
            with path.open("rb") as stream:
                stream.seek(max(0, path.stat().st_size - 1024 * 1024))
                yield f"logs/{path.name}", stream.read()


def _redacted(name: str, value: Any) -> Any:
    """*value* without what nobody should see: secrets, and passwords in URLs."""
    if any(word in name for word in SECRET_WORDS) and value:
        return "(left out)"
    if isinstance(value, tuple | list):
        return [_redacted(name, entry) for entry in value]
    if isinstance(value, str) and "@" in value and "://" in value:
        scheme, _, rest = value.partition("://")
        return f"{scheme}://(left out)@{rest.rpartition('@')[2]}"
    return value

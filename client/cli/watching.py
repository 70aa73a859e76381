"""Commands that look at a cluster: top, doctor, support-bundle."""

from __future__ import annotations

import contextlib
import http.client
import importlib.metadata
import io
import json
import os
import platform
import resource
import select
import shutil
import socket
import sqlite3
import sys
import tarfile
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from ... import __version__
from ...common.config import ROLES, settings
from ...common.errors import DfsError
from ...common.follow import GetGroups
from ...common.messages import GetReport
from ...common.runtime import SystemClock, format_time
from ...common.watch import GetHistory, GetOverview, History, Overview
from .support import Shell, human, json_option, print_json, shell_command, shown, table, to_plain

SPARKS = "▁▂▃▄▅▆▇█"
MAX_SKEW_S = 1.0
FEW_FILES = 4_096
LITTLE_SPACE = 0.1
PROBE_S = 3.0
MAX_ANSWER = 4 * 1024 * 1024
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
    return f"{value:.0f} s" if value < 120 else f"{value / 60:.0f} min"


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
    counted = (
        f"{found.files} files, {found.blocks} blocks" if found.counted_ms else "counting files"
    )
    yield cut(
        f"nodes {live}/{len(found.nodes)}   space {human(found.used_bytes)} of"
        f" {human(found.capacity_bytes)} ({share:.0f} %)   {counted}"
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


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at. *advice*: what to do about it."""

    state: Literal["ok", "warning", "bad"]
    what: str
    found: str
    advice: str = ""


@shell_command(name="doctor")
@json_option
def doctor_command(shell: Shell, as_json: bool) -> None:
    """Check configuration, clocks, ports, versions, disks and limits, and say what to do."""
    worst = 0
    for check in diagnose(shell):
        worst = max(worst, {"ok": 0, "warning": 0, "bad": 1}[check.state])
        if as_json:
            entry = {"state": check.state, "what": check.what, "found": check.found}
            print(json.dumps(entry | {"advice": check.advice}, ensure_ascii=False))
            continue
        mark = {"ok": "ok  ", "warning": "WARN", "bad": "BAD "}[check.state]
        print(f"{mark}  {check.what}: {shown(check.found)}")
        if check.advice:
            print(f"      {check.advice}")
    shell.failed = max(shell.failed, worst)


def diagnose(shell: Shell) -> Iterator[Check]:
    """All checks, the machine's own first; those of the cluster end where it can't be reached."""
    yield from _local(shell)
    clock = SystemClock()
    began_ms = clock.wall_ms()
    url = shell.config.namenode.split(",")[0]
    try:
        found: Overview = shell.call("overview", GetOverview())
    except DfsError as error:
        yield Check(
            "bad",
            "NameNode",
            error.message,
            f"Is it running at {url}? Set --namenode or TWINFS_NAMENODE if it is elsewhere.",
        )
        return
    took_s = (clock.wall_ms() - began_ms) / 1000
    yield Check("ok", "NameNode", f"{url} answers within {took_s:.2f} s")
    yield _version("NameNode", found.version)
    yield _skew("clock of the NameNode", found.time_ms - began_ms, took_s)
    status, text = _get(urllib.parse.urlsplit(url).netloc, "/readyz")
    if status == 200:
        yield Check("ok", "readiness", "the NameNode takes reads and writes")
    else:
        yield Check("bad", "readiness", text.strip()[:300], "The problems named there come first.")
    for problem in found.problems:
        state: Literal["bad", "warning"] = "bad" if problem.severity == "critical" else "warning"
        yield Check(state, "cluster", problem.text, problem.doing)
    if not found.nodes:
        yield Check(
            "bad", "DataNodes", "none has registered", "Start one: dfs datanode --namenode URL"
        )
    for node in found.nodes:
        yield from _node(node, clock)


def _local(shell: Shell) -> Iterator[Check]:
    yield Check("ok", "program", f"TwinFS {__version__}, Python {platform.python_version()}")
    for role, kind in ROLES.items():
        try:
            kind(**{s.name: s.value for s in settings(kind, file=_config_file(shell))})
        except DfsError as error:
            yield Check("bad", f"configuration [{role}]", error.message, "See dfs config.")
        else:
            yield Check("ok", f"configuration [{role}]", "valid")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FEW_FILES:
        yield Check(
            "warning",
            "open files",
            f"{soft} allowed (hard limit {hard})",
            f"A server here may need more: ulimit -n {min(hard, 65_536)}, or LimitNOFILE in its unit.",
        )
    else:
        yield Check("ok", "open files", f"{soft} allowed")
    if sqlite3.sqlite_version_info < (3, 35):
        yield Check("bad", "SQLite", sqlite3.sqlite_version, "3.35 or newer is needed.")
    else:
        yield Check("ok", "SQLite", sqlite3.sqlite_version)


def _config_file(shell: Shell) -> str | None:
    options: dict[str, Any] = click.get_current_context().find_root().obj
    found = options.get("config_file")
    return str(found) if found else None


def _version(what: str, version: str) -> Check:
    if version == __version__:
        return Check("ok", f"version of the {what}", version)
    return Check(
        "warning",
        f"version of the {what}",
        f"{version}; this program is {__version__}",
        "They work together; still, bring all to one version.",
    )


def _skew(what: str, ahead_ms: int, took_s: float) -> Check:
    # The answer was made somewhere between sending and receiving.
    skew_s = ahead_ms / 1000 - took_s / 2
    if abs(skew_s) <= MAX_SKEW_S + took_s / 2:
        return Check("ok", what, f"within {MAX_SKEW_S:.0f} s of this machine's")
    return Check(
        "warning",
        what,
        f"{abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} this machine's",
        "Times of files will be off: run an NTP client (systemd-timesyncd, chrony) on both.",
    )


def _node(node: Any, clock: SystemClock) -> Iterator[Check]:
    name = f"DataNode {node.address.data}"
    if node.state == "dead":
        return  # the cluster's problems say so
    host, _, port = node.address.data.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PROBE_S).close()
    except (OSError, ValueError) as error:
        yield Check(
            "bad",
            name,
            f"its data port can't be reached from here ({error})",
            "Open the port in the firewall, or set --advertise to an address that all can reach.",
        )
    else:
        yield Check("ok", name, "its data port can be reached")
    began_ms = clock.wall_ms()
    status, text = _get(node.address.http, "/v1/web/node")
    if status != 200:
        yield Check("warning", name, f"its HTTP port {node.address.http} does not answer", "")
        return
    took_s = (clock.wall_ms() - began_ms) / 1000
    with contextlib.suppress(ValueError, KeyError, TypeError):
        yield _skew(f"clock of {name}", json.loads(text)["time_ms"] - began_ms, took_s)
    if node.version != __version__:
        yield _version(name, node.version)
    for volume in node.volumes:
        if not volume.failure and volume.remaining_bytes < LITTLE_SPACE * volume.capacity_bytes:
            yield Check(
                "warning",
                name,
                f"{human(volume.remaining_bytes)} of {human(volume.capacity_bytes)} are free on {volume.path}",
                "Add a volume or a node, or run the balancer.",
            )


def _get(address: str, path: str) -> tuple[int, str]:
    """(status, body) of a GET; status 0 when nobody answers."""
    connection = http.client.HTTPConnection(address, timeout=PROBE_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(MAX_ANSWER).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return 0, str(error)
    finally:
        connection.close()


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
    config = {}
    for role, kind in ROLES.items():
        with contextlib.suppress(DfsError):
            found = settings(kind, file=_config_file(shell))
            config[role] = {s.name: [_redacted(s.name, s.value), s.origin] for s in found}
    yield "configuration.json", document(config)
    checks = [{"state": c.state, "what": c.what, "found": c.found} for c in diagnose(shell)]
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
        status, text = _get(address, "/metrics")
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

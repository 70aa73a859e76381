"""What `dfs doctor` looks at: this machine, the servers that are configured on it, and the cluster."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import platform
import resource
import socket
import sqlite3
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ... import __version__
from ...common.config import ROLES, Setting, settings
from ...common.errors import DfsError, system_reason
from ...common.runtime import SystemClock
from ...common.watch import GetOverview, Overview
from .support import Shell, human

MAX_SKEW_S = 1.0
FEW_FILES = 4_096
LITTLE_SPACE = 0.1
PROBE_S = 3.0
MAX_ANSWER = 4 * 1024 * 1024
IN_MEMORY = ("tmpfs", "ramfs")


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at. *advice*: what to do about it."""

    state: Literal["ok", "warning", "bad"]
    what: str
    found: str
    advice: str = ""


def diagnose(options: dict[str, Any]) -> Iterator[Check]:
    """All checks, the machine's own first; those of the cluster end where it can't be reached. *options*: of `dfs`."""
    yield from _machine()
    yield from _configured(options)
    try:
        shell = Shell(options)
    except DfsError as error:
        yield Check("bad", "client", error.message, "Without that the cluster can't be asked.")
        return
    try:
        yield from _cluster(shell)
    finally:
        shell.close()


def _machine() -> Iterator[Check]:
    yield Check("ok", "program", f"TwinFS {__version__}, Python {platform.python_version()}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < FEW_FILES:
        more = hard == resource.RLIM_INFINITY or hard > soft
        how = (
            f"ulimit -n {min(hard, 65_536) if hard > 0 else 65_536}"
            if more
            else "the hard limit first (root; limits.conf)"
        )
        yield Check(
            "warning",
            "open files",
            f"{soft} allowed (hard limit {hard})",
            f"A server here may need more. Raise {how}, or LimitNOFILE in its unit.",
        )
    else:
        yield Check("ok", "open files", f"{soft} allowed")
    if sqlite3.sqlite_version_info < (3, 35):
        yield Check("bad", "SQLite", sqlite3.sqlite_version, "3.35 or newer is needed.")
    else:
        yield Check("ok", "SQLite", sqlite3.sqlite_version)


# --- what is configured here -----------------------------------------------------------------------


def _configured(options: dict[str, Any]) -> Iterator[Check]:
    told = set()
    for role, kind in ROLES.items():
        what = f"configuration [{role}]"
        try:
            found = settings(kind, file=options["config_file"])
            kind(**{setting.name: setting.value for setting in found})
        except DfsError as error:
            if error.message in told:  # of the whole file, not of this table
                continue
            told.add(error.message)
            yield Check(
                "bad",
                what,
                error.message,
                "Correct it where it is set; the reference of the configuration says what may be there.",
            )
            continue
        yield Check("ok", what, "valid")
        if role != "client" and _is_for_here(found):
            values = {setting.name: setting.value for setting in found}
            yield from _folders(role, values)
            yield from _ports(role, values)


def _is_for_here(found: list[Setting]) -> bool:
    """Whether somebody has said where a server of this role keeps its data, on this machine."""
    return any(s.origin != "default" for s in found if s.name in ("dir", "database"))


def _folders(role: str, values: dict[str, Any]) -> Iterator[Check]:
    """The directories of a server can be written, have room, and outlive the machine's power."""
    if values.get("database"):
        return
    given = values["dir"]
    devices: dict[int, str] = {}
    for text in [given] if isinstance(given, str) else given:
        what, path = f"directory of the {role}", Path(text).absolute()
        there = path
        with contextlib.suppress(OSError):
            while not there.exists() and there != there.parent:
                there = there.parent
        try:
            space, device = os.statvfs(there), there.stat().st_dev
        except OSError as error:
            yield Check("bad", what, f"{text}: {error.strerror}", "Is the disk mounted?")
            continue
        if not there.is_dir():
            yield Check("bad", what, f"{there} is no directory", "Name another with dir.")
            continue
        if not os.access(there, os.W_OK | os.X_OK):
            yield Check(
                "bad",
                what,
                f"{there} can't be written by this account",
                "Give it to the account that the server runs as; or run dfs doctor as that account.",
            )
            continue
        free, size = space.f_bavail * space.f_frsize, max(1, space.f_blocks * space.f_frsize)
        if file_system(device) in IN_MEMORY:
            yield Check(
                "warning",
                what,
                f"{text} is in memory: nothing there outlives a restart of the machine",
                "Put it on a disk.",
            )
        elif device in devices:
            yield Check(
                "warning",
                what,
                f"{text} is on the same disk as {devices[device]}",
                "One volume a disk: two share its speed and its failure.",
            )
        elif free < LITTLE_SPACE * size:
            yield Check(
                "warning",
                what,
                f"{text}: only {human(free)} of {human(size)} are free",
                "Make room.",
            )
        else:
            yield Check("ok", what, f"{text}: {human(free)} of {human(size)} are free")
        devices.setdefault(device, text)


def file_system(device: int) -> str:
    """The kind of the file system that is on *device*; "" where that can't be found out."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = (
            Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        )
    except OSError:
        return ""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == wanted:
            return rest.split()[0]
    return ""


def _ports(role: str, values: dict[str, Any]) -> Iterator[Check]:
    """Each port is free for the server, or it has it already."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(
        values["host"], values["host"]
    )
    runs = (
        get(
            f"[{host}]:{values['port']}" if ":" in host else f"{host}:{values['port']}", "/healthz"
        )[0]
        == 200
    )
    for name in ("port", "data_port"):
        if not values.get(name):
            continue
        what, where = f"{name} of the {role}", f"{host}:{values[name]}"
        try:
            socket.create_connection((host, values[name]), PROBE_S).close()
        except ConnectionRefusedError:
            yield Check("ok", what, f"{where} is free")
        except (OSError, OverflowError) as error:
            yield Check(
                "bad",
                what,
                f"{where}: {system_reason(error)}",
                "Is host an address of this machine, and the port below 65536?",
            )
        else:
            if runs:
                yield Check("ok", what, f"a server of TwinFS listens at {where}")
            else:
                yield Check(
                    "bad",
                    what,
                    f"another program listens at {where}",
                    f"End that one, or set {name} of [{role}].",
                )


# --- the cluster -----------------------------------------------------------------------------------


def _cluster(shell: Shell) -> Iterator[Check]:
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
    yield version("NameNode", found.version)
    yield skew("clock of the NameNode", found.time_ms - began_ms, took_s)
    status, text = get(urllib.parse.urlsplit(url).netloc, "/readyz")
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


def version(what: str, theirs: str) -> Check:
    if theirs == __version__:
        return Check("ok", f"version of the {what}", theirs)
    return Check(
        "warning",
        f"version of the {what}",
        f"{theirs}; this program is {__version__}",
        "They work together; still, bring all to one version.",
    )


def skew(what: str, ahead_ms: int, took_s: float) -> Check:
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
        gone = isinstance(error, ConnectionRefusedError)
        yield Check(
            "bad",
            name,
            f"its data port can't be reached from here ({system_reason(error)})",
            "Nothing listens there: start it again, and see its log for why it ended."
            if gone
            else "Open the port in the firewall, or set advertise to an address that all can reach.",
        )
    else:
        yield Check("ok", name, "its data port can be reached")
    began_ms = clock.wall_ms()
    status, text = get(node.address.http, "/v1/web/node")
    if status != 200:
        yield Check(
            "warning",
            name,
            f"its HTTP port {node.address.http} does not answer ({text[:100]})",
            "The dashboard, WebHDFS and the gateway need it: is it open in the firewall?",
        )
        return
    took_s = (clock.wall_ms() - began_ms) / 1000
    with contextlib.suppress(ValueError, KeyError, TypeError):
        yield skew(f"clock of {name}", json.loads(text)["time_ms"] - began_ms, took_s)
    if node.version != __version__:
        yield version(name, node.version)
    for volume in node.volumes:
        if not volume.failure and volume.remaining_bytes < LITTLE_SPACE * volume.capacity_bytes:
            yield Check(
                "warning",
                name,
                f"{human(volume.remaining_bytes)} of {human(volume.capacity_bytes)} are free on {volume.path}",
                "Add a volume or a node, or run the balancer.",
            )


def get(address: str, path: str) -> tuple[int, str]:
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

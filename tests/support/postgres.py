"""A private PostgreSQL server for the tests, from Debian's binaries, on a Unix socket and a free loopback port."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

import psycopg


def find_binaries() -> Path | None:
    """The newest PostgreSQL that is installed."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(found, key=lambda path: int(path.parent.name), default=None)


class PostgresServer:
    """Started on entering, stopped and removed on leaving."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._count = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="twinfs-pg-"))
        # The server refuses to run as root.
        self._account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def _run(self, *arguments: str) -> None:
        options = {}
        if self._account is not None:
            options = {"user": self._account.pw_uid, "group": self._account.pw_gid}
        subprocess.run(
            arguments,
            check=True,
            capture_output=True,
            cwd=self._folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            **options,  # type: ignore[call-overload]
        )

    def start(self) -> None:
        if self._account is not None:
            os.chown(self._folder, self._account.pw_uid, self._account.pw_gid)
        data = str(self._folder / "data")
        self._run(
            str(self._binaries / "initdb"), "-D", data, "-U", "twinfs", "-A", "trust", "-E", "UTF8"
        )
        options = {}
        if self._account is not None:
            options = {"user": self._account.pw_uid, "group": self._account.pw_gid}
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self._folder),
            "fsync": "off",  # the tests kill TwinFS, not the machine
            "max_connections": "100",
            "shared_buffers": "64MB",
            "max_pred_locks_per_transaction": "512",
        }
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        log = (self._folder / "log").open("wb")
        self._process = subprocess.Popen(
            [str(self._binaries / "postgres"), "-D", data, *flags],
            stdout=log,
            stderr=log,
            cwd=self._folder,
            start_new_session=True,
            **options,  # type: ignore[call-overload]
        )
        log.close()
        pause = threading.Event()
        for _ in range(600):
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url("postgres"), connect_timeout=2).close()
                return
            if self._process.poll() is not None:
                break
            pause.wait(0.05)
        text = (self._folder / "log").read_text(errors="replace")
        raise RuntimeError(f"PostgreSQL did not start:\n{text}")

    def url(self, database: str) -> str:
        return f"postgresql://twinfs@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of a fresh, empty database."""
        self._count += 1
        name = f"test{self._count}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
        return self.url(name)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # fast shutdown
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

"""`make demo`: a small cluster on this machine, real files in three copies, one DataNode killed. Leaves nothing behind."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DFS = [sys.executable, "-c", "from twinfs.client.cli import main; main()"]
BOLD, DIM, GREEN, RED, PLAIN = (
    ("\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m")
    if sys.stdout.isatty()
    else ("", "", "", "", "")
)


def say(text: str) -> None:
    print(f"\n{BOLD}{text}{PLAIN}", flush=True)


def good(text: str) -> None:
    print(f"  {GREEN}ok{PLAIN}  {text}", flush=True)


class Demo:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {**os.environ, "TWINFS_CONFIG": "", "HOME": str(folder)}
        self.environ.pop("TWINFS_CONFIG")

    def dfs(self, *arguments: str, show: bool = True, lines: int = 8) -> str:
        """Run a command as a user would, and show it with the beginning of what it prints."""
        if show:
            print(f"  {DIM}${PLAIN} dfs {' '.join(arguments)}", flush=True)
        done = subprocess.run(
            [*DFS, *arguments], capture_output=True, text=True, env=self.environ, check=False
        )
        if done.returncode:
            raise SystemExit(f"{RED}dfs {' '.join(arguments)} failed:{PLAIN}\n{done.stderr}")
        if show:
            found = done.stdout.splitlines()
            for line in found[:lines]:
                print(f"    {line}")
            if len(found) > lines:
                print(f"    {DIM}... {len(found) - lines} more lines{PLAIN}")
        return done.stdout

    def run(self) -> None:
        say("Starting a NameNode and three DataNodes on loopback")
        cluster = str(self.folder / "cluster")
        started = self.dfs("cluster", "start", "--dir", cluster, "--port", "0", show=False)
        try:
            self.environ["TWINFS_NAMENODE"] = started.split()[2].rstrip(",")
            good(started.splitlines()[0])
            self.store_and_read()
            self.kill_one(Path(cluster))
        finally:
            self.dfs("cluster", "stop", "--dir", cluster, show=False)
        say("Everything is stopped, and the demo's files are removed.")

    def store_and_read(self) -> None:
        say("Storing a file of 40 MiB, with three copies")
        self.movie = self.folder / "movie.bin"
        self.movie.write_bytes(os.urandom(40 * 1024 * 1024))
        self.dfs("put", "--replication", "3", str(self.movie), "/movie.bin")
        self.dfs("stat", "--blocks", "/movie.bin", lines=20)

        say("Storing a directory tree: TwinFS's own sources")
        self.tree = self.folder / "sources"
        ignore = shutil.ignore_patterns("__pycache__")
        for name in ("common", "namenode", "datanode", "client"):
            shutil.copytree(ROOT / name, self.tree / name, ignore=ignore)
        self.dfs("put", "-r", str(self.tree), "/sources")
        self.dfs("ls", "-l", "/sources")
        self.dfs("count", "-h", "/sources")

        say("Reading both back, and comparing byte by byte")
        self.compare("first")

    def compare(self, name: str) -> None:
        back = self.folder / name
        back.mkdir()
        self.dfs("get", "/movie.bin", str(back / "movie.bin"))
        self.dfs("get", "-r", "/sources", str(back / "sources"))
        if not filecmp.cmp(self.movie, back / "movie.bin", shallow=False):
            raise SystemExit(f"{RED}the file came back different{PLAIN}")
        files = [path for path in self.tree.rglob("*") if path.is_file()]
        for path in files:
            copy = back / "sources" / path.relative_to(self.tree)
            if not filecmp.cmp(path, copy, shallow=False):
                raise SystemExit(f"{RED}{path.name} came back different{PLAIN}")
        good(f"1 file of 40 MiB and {len(files)} small ones are the same, byte for byte")

    def kill_one(self, cluster: Path) -> None:
        say("Killing a DataNode with kill -9")
        state = json.loads((cluster / "cluster.json").read_text())
        victim = state["processes"][1]
        os.kill(victim["pid"], signal.SIGKILL)
        good(f"{victim['name']} (pid {victim['pid']}, {victim['data']}) is dead")
        threading.Event().wait(0.5)
        say("Reading again, from the copies that are left")
        self.compare("second")
        say("And writing goes on")
        self.dfs("put", str(ROOT / "LICENSE"), "/LICENSE")
        self.dfs("ls", "-l", "/")


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="twinfs-demo-"))
    try:
        Demo(folder).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

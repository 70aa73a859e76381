"""What users install works: the wheel, in an environment of its own, away from the checkout."""

from __future__ import annotations

import importlib.metadata
import os
import posixpath
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tomllib
import urllib.request
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

import twinfs

from .support.cluster import wait_until

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("common", "client", "datanode", "namenode")
TOP_FILES = ("__init__.py", "py.typed", "pyproject.toml", "README.md", "LICENSE")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")


def run(command: Sequence[str | Path], folder: Path) -> str:
    """The command's output; it has to succeed."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, f"{command} exited with {done.returncode}:\n{done.stdout}"
    return done.stdout


def can_build_here() -> bool:
    """Whether this environment has the setuptools that pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = next(r for r in project["build-system"]["requires"] if r.startswith("setuptools"))
    try:
        found = importlib.metadata.version("setuptools")
    except importlib.metadata.PackageNotFoundError:
        return False
    return int(found.split(".")[0]) >= int(needed.partition(">=")[2].split(".")[0])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for layer in LAYERS:
        shutil.copytree(
            ROOT / layer, source / layer, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
        )
    for name in TOP_FILES:
        shutil.copy(ROOT / name, source / name)
    # With an older setuptools at hand, pip fetches the one that is needed for the build alone.
    isolation = ["--no-build-isolation"] if can_build_here() else []
    wheels = tmp_path_factory.mktemp("wheels")
    run([*PIP, "wheel", "-q", "--no-deps", *isolation, "-w", wheels, source], wheels)
    [found] = wheels.glob("twinfs-*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel; its dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    scheme = {"base": str(folder), "platbase": str(folder)}
    site_packages = Path(sysconfig.get_path("purelib", "venv", scheme))
    # A folder named in a .pth file comes after the environment's own, and its .pth files (that of a
    # checkout installed as editable, above all) are not followed.
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages / "dependencies.pth").write_text("\n".join(sorted(paths)) + "\n")
    scripts = Path(sysconfig.get_path("scripts", "venv", scheme))
    install = ["install", "-q", "--no-deps", "--no-index", "--ignore-installed", wheel]
    run([*PIP[:3], "--python", scripts / "python", *PIP[3:], *install], folder)
    return scripts


def test_the_wheel_has_every_module_and_nothing_else(wheel: Path) -> None:
    wanted = {"twinfs/__init__.py", "twinfs/py.typed"}
    for layer in LAYERS:
        for path in (ROOT / layer).rglob("*"):
            if path.is_file() and (path.suffix in (".py", ".sql") or "static" in path.parts):
                wanted.add(f"twinfs/{path.relative_to(ROOT)}")
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert "twinfs/namenode/store/schema/0001_core.sql" in found
    missing, surplus = wanted - found, found - wanted
    assert not missing
    assert not surplus
    assert not [name for name in found if "test" in name or not name.startswith("twinfs/")]


def test_the_dashboard_is_in_the_wheel(installed: Path, tmp_path: Path) -> None:
    """The installed NameNode serves the page, all that it loads, and the licence of what others wrote."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ready = tmp_path / "ready"
    options = ["--dir", tmp_path / "nn", "--port", str(port), "--ready-file", ready]
    with subprocess.Popen(
        [installed / "dfs", "namenode", *options], cwd=tmp_path, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_until(ready.exists, "that the NameNode answers")
            opened = urllib.request.build_opener(urllib.request.ProxyHandler({}))

            def get(path: str) -> str:
                with opened.open(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
                    text: str = answer.read().decode()
                return text

            loaded = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', get("/")))
            assert len(loaded) > 10
            waiting = sorted(loaded)
            while waiting:
                path = waiting.pop()
                for name in re.findall(r'(?:from|import) ?\(?"(\.[^"]+)"', get(path)):
                    found = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
                    if found not in loaded:
                        loaded.add(found)
                        waiting.append(found)
            assert "/static/vendor/hyparquet/index.js" in loaded
            assert "MIT" in get("/static/vendor/hyparquet/LICENSE.txt")
        finally:
            process.terminate()


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = archive.read(info).decode()
        entry_points = archive.read(info.replace("METADATA", "entry_points.txt")).decode()
        assert any(name.endswith("/LICENSE") for name in archive.namelist())
    assert f"\nVersion: {twinfs.__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "dfs = twinfs.client.quick:main" in entry_points


def test_the_command_runs_from_any_folder(installed: Path, tmp_path: Path) -> None:
    assert run([installed / "dfs", "--version"], tmp_path).split()[-1] == twinfs.__version__
    listed = run([installed / "dfs", "--help"], tmp_path)
    assert "namenode" in listed
    assert "put" in listed


@pytest.mark.parametrize(
    ("role", "flag"), [("namenode", "block-bytes"), ("datanode", "small-block-bytes")]
)
def test_the_command_finds_its_servers(
    installed: Path, tmp_path: Path, role: str, flag: str
) -> None:
    """A wrong setting is answered in one line, with the exit code of wrong usage."""
    done = subprocess.run(
        [installed / "dfs", role, f"--{flag}", "-5"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert flag.replace("-", "_") in done.stderr
    assert len(done.stderr.splitlines()) == 1


CHECK = """
import importlib, pkgutil, sys
from pathlib import Path
import twinfs, twinfs.client
from twinfs.client import FileSystem
from twinfs.namenode.store import migrate

home = Path(twinfs.__file__).parent
assert home.is_relative_to(sys.prefix), home
assert (home / "py.typed").is_file()
assert migrate.latest_version() == int(sys.argv[1])
for module in pkgutil.walk_packages(twinfs.__path__, "twinfs."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(twinfs.__version__, FileSystem.__module__)
"""


def test_every_module_of_the_installed_package_can_be_imported(
    installed: Path, tmp_path: Path
) -> None:
    schema = list((ROOT / "namenode" / "store" / "schema").glob("*.sql"))
    python = [installed / "python", "-W", "error", "-c", CHECK, str(len(schema))]
    assert run(python, tmp_path).split() == [twinfs.__version__, "twinfs.client.filesystem"]

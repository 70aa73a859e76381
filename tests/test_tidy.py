"""Rules about the sources that no linter knows. A failure names the file, the line and the rule."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

import twinfs
from twinfs.client.cli import cli
from twinfs.common import config, errors
from twinfs.common.options import HELP
from twinfs.namenode.store import migrate

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("common", "client", "datanode", "namenode")
SOURCES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

MAX_LINES = 600
# Longer ones: the most they may have, and why they are not split.
LONG_FILES = {
    "common/messages.py": (1_000, "every message of the protocol, to be read in one place"),
}
# The one module that may read clocks and ask for randomness; everybody else is handed both.
RUNTIME = ROOT / "common" / "runtime.py"
FORBIDDEN_CALLS = {
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
    "uuid": {"uuid1", "uuid4"},
}
# Written in two parts, so that this file does not break its own rule.
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
PRIVATE_PATHS = re.compile(r"(?<![\w.$}~-])/" + r"(?:work|home|root)/")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("twinfs", *(part for part in parts if part != "__init__")))


def report(found: list[str]) -> None:
    assert not found, "\n" + "\n".join(found)


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Files under version control that are text."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


# --- time and chance ---


def clocks_and_dice(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, what) of every use of the machine's clock or randomness."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in ("time", "secrets"):
                    yield node.lineno, f"import {alias.name}"
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = {alias.name for alias in node.names}
            if node.module in ("time", "secrets"):
                yield node.lineno, f"from {node.module} import"
            elif node.module == "random" and names != {"Random"}:
                yield node.lineno, f"from random import {', '.join(sorted(names))}"
            elif node.module in FORBIDDEN_CALLS and names & FORBIDDEN_CALLS[node.module]:
                yield node.lineno, f"from {node.module} import {', '.join(sorted(names))}"
        elif isinstance(node, ast.Attribute):
            base = node.value
            owner = (
                base.id
                if isinstance(base, ast.Name)
                else base.attr
                if isinstance(base, ast.Attribute)
                else ""
            )
            if (owner == "random" and isinstance(base, ast.Name) and node.attr != "Random") or (
                node.attr in FORBIDDEN_CALLS.get(owner, ())
            ):
                yield node.lineno, f"{owner}.{node.attr}"


def test_only_the_runtime_reads_clocks_and_throws_dice() -> None:
    found = [
        f"{name_of(path)}:{line}: {what} (take a Clock or a random.Random from the caller)"
        for path in [*SOURCES, *TESTS]
        if path != RUNTIME
        for line, what in clocks_and_dice(parse(path))
    ]
    report(found)


@pytest.mark.parametrize(
    "line",
    [
        "import time",
        "from time import monotonic",
        "import secrets",
        "random.random()",
        "random.seed(1)",
        "x = random.choice",
        "from random import choice",
        "datetime.now()",
        "datetime.datetime.now(datetime.UTC)",
        "datetime.date.today()",
        "uuid.uuid4()",
        "from uuid import uuid4",
    ],
)
def test_the_rule_about_clocks_sees(line: str) -> None:
    assert list(clocks_and_dice(ast.parse(line)))


@pytest.mark.parametrize(
    "line", ["random.Random(1)", "self.random.choice()", "import random", "import datetime"]
)
def test_the_rule_about_clocks_lets_pass(line: str) -> None:
    assert not list(clocks_and_dice(ast.parse(line)))


def test_no_test_sleeps() -> None:
    """A test waits for a fact (`tests/support`), not for seconds. To let others run, sleep 0."""
    found = []
    for path in TESTS:
        for node in ast.walk(parse(path)):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            zero = [ast.unparse(argument) for argument in node.args] == ["0"]
            if called.rpartition(".")[2] == "sleep" and not zero:
                found.append(f"{name_of(path)}:{node.lineno}: {ast.unparse(node)}")
    report(found)


# --- files and folders ---


def test_no_module_grows_beyond_a_sitting() -> None:
    found = []
    for path in SOURCES:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        most, _ = LONG_FILES.get(name_of(path), (MAX_LINES, ""))
        if lines > most:
            found.append(f"{name_of(path)}: {lines} lines, {most} at most: split it")
        elif name_of(path) in LONG_FILES and lines <= MAX_LINES:
            found.append(f"{name_of(path)}: {lines} lines: no longer an exception, take it off")
    found += [f"{name}: is gone" for name in LONG_FILES if not (ROOT / name).is_file()]
    report(found)


def test_every_package_is_shipped() -> None:
    """A folder that is not listed in pyproject.toml would be missing from the wheel."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {path.parent for path in SOURCES}
    assert all((folder / "__init__.py").is_file() for folder in folders)
    packages = {"twinfs", *(module_name(folder / "__init__.py") for folder in folders)}
    assert set(project["tool"]["setuptools"]["packages"]) == packages
    assert project["project"]["version"] == twinfs.__version__


def test_every_folder_of_tests_is_a_package() -> None:
    folders = {path.parent for path in TESTS}
    report([f"{name_of(f)}: no __init__.py" for f in folders if not (f / "__init__.py").is_file()])


def test_no_module_bears_the_name_of_one_in_the_standard_library() -> None:
    found = [
        name_of(path)
        for path in SOURCES
        if not path.stem.startswith("__") and path.stem in sys.stdlib_module_names
    ]
    report(found)


def test_every_module_says_what_it_is_for() -> None:
    report([name_of(path) for path in [*SOURCES, *TESTS] if not documented(parse(path))])


def documented(tree: ast.Module) -> bool:
    return not tree.body or ast.get_docstring(tree) is not None


def test_nothing_is_left_unfinished(tracked: list[Path]) -> None:
    # What others wrote is shipped as they published it.
    own = [path for path in tracked if "vendor" not in path.parts]
    report(lines_with(own, UNFINISHED))


def test_no_path_of_somebodys_machine(tracked: list[Path]) -> None:
    report(lines_with(tracked, PRIVATE_PATHS))


def lines_with(paths: list[Path], pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.search(line):
                found.append(f"{name_of(path)}:{number}: {line.strip()[:100]}")
    return found


# --- modules ---


def public_names(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


PUBLIC = {
    module_name(path): names
    for path in [*SOURCES, ROOT / "__init__.py"]
    if (names := public_names(parse(path))) is not None
}


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_names_are_there(name: str) -> None:
    module = importlib.import_module(name)
    assert len(set(PUBLIC[name])) == len(PUBLIC[name])
    assert all(hasattr(module, public) for public in PUBLIC[name])


def test_every_package_of_the_first_level_can_be_imported() -> None:
    for layer in LAYERS:
        importlib.import_module(f"twinfs.{layer}")


def test_what_a_module_does_not_offer_is_not_taken_from_it() -> None:
    found = []
    for path in SOURCES:
        package = module_name(path.parent / "__init__.py").split(".")
        for node in ast.walk(parse(path)):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            base = package[: len(package) - node.level + 1]
            target = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                if target not in PUBLIC or alias.name in PUBLIC[target]:
                    continue
                if importlib.util.find_spec(f"{target}.{alias.name}") is None:
                    found.append(f"{name_of(path)}:{node.lineno}: {target}.{alias.name}")
    report(found)


def test_imports_inside_are_relative() -> None:
    found = []
    for path in SOURCES:
        for node in ast.walk(parse(path)):
            modules = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom) and not node.level
                else []
            )
            if any(module.split(".")[0] in ("twinfs", "tests") for module in modules):
                found.append(f"{name_of(path)}:{node.lineno}: {ast.unparse(node)}")
    report(found)


# --- layers ---


@pytest.fixture
def layers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("layers", ROOT / "scripts" / "layers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_imports_point_down_only(layers: ModuleType) -> None:
    report(layers.violations())


@pytest.mark.parametrize(
    ("path", "line", "allowed"),
    [
        ("common/x.py", "from ..client.filesystem import FileSystem", False),
        ("common/x.py", "from .. import client", False),
        ("common/x.py", "from ..client import globs", False),
        ("common/x.py", "import twinfs.namenode.events", False),
        ("common/x.py", "from twinfs.client import FileSystem", False),
        ("common/x.py", "from twinfs import client", False),
        ("client/cli/x.py", "from ...datanode import index", False),
        ("namenode/x.py", "from ..client import globs", False),
        ("namenode/store/x.py", "from ...datanode import index", False),
        ("datanode/x.py", "from ..namenode import events", False),
        ("datanode/x.py", "from ..client import globs", True),
        ("datanode/x.py", "from .. import __version__", True),
        ("namenode/store/x.py", "from ...common import errors", True),
        ("client/cli/x.py", "from ..datanode_api import ConnectionPool", True),
    ],
)
def test_the_rule_about_layers_sees(
    layers: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    line: str,
    allowed: bool,
) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(line + "\n", encoding="utf-8")
    monkeypatch.setattr(layers, "ROOT", tmp_path)
    assert bool(layers.violations()) != allowed


# --- errors ---


@pytest.mark.parametrize("cls", errors.all_errors())
def test_every_error_means_something_in_every_view(cls: type[errors.DfsError]) -> None:
    error = cls("why")
    assert 400 <= errors.http_status(error) <= 599
    assert errors.errno_of(error) > 0
    assert 1 <= errors.exit_code(error) <= 125
    assert error.message == str(error) == "why"


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [cls.__dict__.get("code", "") for cls in errors.all_errors()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes), codes


def test_the_drawn_tree_has_every_error() -> None:
    drawn = set(re.findall(r"\b[A-Z]\w+", errors.__doc__ or ""))
    report([cls.__name__ for cls in errors.all_errors() if cls.__name__ not in drawn])


def test_what_may_be_tried_again_says_so_over_http() -> None:
    """A client that knows nothing but HTTP tells by the status what is worth another try."""
    found = []
    for cls in errors.all_errors():
        if cls.retryable != (errors.http_status(cls("")) in (503, 504)):
            found.append(f"{cls.__name__}: HTTP {errors.http_status(cls(''))}, {cls.retryable=}")
    report(found)


# --- what users read ---


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command of `dfs`, with the words that call it."""
    waiting: list[tuple[str, click.Command, click.Context]] = [("dfs", cli, click.Context(cli))]
    while waiting:
        words, command, context = waiting.pop()
        yield words, command
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None, f"{words} {name} is listed but not there"
                below = click.Context(found, parent=context, info_name=name)
                waiting.append((f"{words} {name}", found, below))


def test_every_command_and_option_has_help() -> None:
    found = []
    for words, command in commands():
        if not (command.help or "").strip():
            found.append(f"{words}: no help")
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden and not option.help:
                found.append(f"{words} {option.opts[0]}: no help")
    report(found)


def fields() -> Iterator[tuple[str, str, str]]:
    """(role, field, its lines in the source) of the configuration."""
    source = ROOT / "common" / "config.py"
    lines = source.read_text(encoding="utf-8").splitlines()
    classes = {node.name: node for node in parse(source).body if isinstance(node, ast.ClassDef)}
    for role, kind in config.ROLES.items():
        for node in classes[kind.__name__].body:
            if isinstance(node, ast.AnnAssign):
                text = "\n".join(lines[node.lineno - 1 : node.end_lineno])
                yield role, ast.unparse(node.target), text


def test_every_setting_is_explained() -> None:
    """By a comment beside it, or in the help of its flag."""
    listed = {
        (role, f.name) for role, kind in config.ROLES.items() for f in dataclasses.fields(kind)
    }
    assert listed == {(role, name) for role, name, _ in fields()}
    report([f"{r}: {n}" for r, n, text in fields() if "#" not in text and n not in HELP])


def test_every_setting_has_an_effect() -> None:
    """Somebody reads it: a flag that does nothing would be a lie."""
    used: dict[str, str] = {}
    for role, kind in config.ROLES.items():
        readers = [path for path in SOURCES if path.is_relative_to(ROOT / role)]
        readers.append(ROOT / "common" / "service.py")
        used[role] = "\n".join(path.read_text(encoding="utf-8") for path in readers)
        for value in vars(kind).values():
            if isinstance(value, property):  # reads fields for others
                used[role] += inspect.getsource(value.fget).replace("self.", "config.")  # type: ignore[arg-type]
    found = [(r, n) for r, n, _ in fields() if not re.search(rf"config\.{n}\b", used[r])]
    report([f"{role}: {name}" for role, name in found])


# --- the schema ---


def test_schema_files_have_numbers_of_their_own() -> None:
    """Numbers are given out to areas before their files are written, so one may be missing for a while."""
    folder = ROOT / "namenode" / "store" / "schema"
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    assert all(re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", name) for name in names), names
    numbers = [int(name[:4]) for name in names]
    assert numbers[0] == 1
    assert len(set(numbers)) == len(numbers)
    assert [number for number, _ in migrate.scripts()] == numbers
    assert migrate.latest_version() == numbers[-1]

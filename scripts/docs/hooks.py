"""Pages of the documentation that are made from the code, when MkDocs builds it: commands, configuration, errors, design."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import json
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from twinfs.client.cli import cli
from twinfs.common import config as settings
from twinfs.common import errors
from twinfs.datanode.__main__ import command as datanode_command
from twinfs.namenode.__main__ import command as namenode_command

sys.path.insert(0, str(Path(__file__).parent))
from error_texts import TEXTS  # MkDocs loads this file alone, without a package

ROOT = Path(__file__).resolve().parent.parent.parent
REAL = {"namenode": namenode_command, "datanode": datanode_command}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Called by MkDocs."""
    pages = {
        "reference/commands.md": commands_page(),
        "reference/configuration.md": configuration_page(),
        "reference/errors.md": errors_page(),
        "reference/design.md": (ROOT / "DESIGN.md").read_text(encoding="utf-8"),
        "reference/changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
    }
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


# --- commands ---


def commands_page() -> str:
    lines = [
        "# Commands",
        "",
        "Paths without a leading slash are below `/user/NAME`. Exit codes: 0 done, 1 the file system said no, 2 wrong usage, 69 try again"
        " later, 70 a mistake of TwinFS, 74 bytes or disks.",
        "",
        *options_table(cli),
    ]
    context = click.Context(cli, info_name="dfs")
    for name in cli.list_commands(context):
        command = REAL.get(name) or cli.get_command(context, name)
        assert command is not None
        lines += command_section(command, f"dfs {name}", 2)
    return "\n".join(lines)


def command_section(command: click.Command, name: str, level: int) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    yield f"{'#' * level} `{name}`"
    yield ""
    yield f"    {usage}"
    yield ""
    yield inspect.cleandoc(command.help or command.short_help or "")
    yield ""
    yield from options_table(command)
    if isinstance(command, click.Group) and command is not cli:
        for sub in command.list_commands(context):
            found = command.get_command(context, sub)
            assert found is not None
            yield from command_section(found, f"{name} {sub}", level + 1)


def options_table(command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name="dfs")
    rows = [
        record
        for parameter in command.params
        if isinstance(parameter, click.Option)
        and (record := parameter.get_help_record(context)) is not None
    ]
    if rows:
        yield "| option | what it does |"
        yield "| --- | --- |"
        for names, text in rows:
            yield f"| `{cell(names)}` | {cell(text)} |"
        yield ""


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


# --- configuration ---


def comments_of(kind: type) -> dict[str, str]:
    """field -> the comment beside its default, in the source of a configuration class."""
    source = inspect.getsource(kind)
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    (body,) = ast.parse(source).body
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            found[node.target.id] = " ".join(comments[n] for n in lines if n in comments)
    return found


def configuration_page() -> str:
    lines = [
        "# Configuration",
        "",
        "Flags, then the environment, then the TOML file, then the defaults below. `dfs config` shows what is in effect, and where it came from.",
        "",
        "The file is `TWINFS_CONFIG`, `~/.config/twinfs/twinfs.toml` or `/etc/twinfs/twinfs.toml`. An unknown key is an error.",
        "",
        "Defaults are shown as they would stand in the file; as a flag, `stop_grace_s` is `--stop-grace-s`. `dfs doctor` tries what is set.",
        "",
    ]
    for role, kind in settings.ROLES.items():
        comments = comments_of(kind)
        lines += [
            f"## `[{role}]`",
            "",
            f"Environment: `TWINFS_{role.upper()}_NAME`. " + (inspect.getdoc(kind) or ""),
            "",
            "| setting | default | what it is |",
            "| --- | --- | --- |",
        ]
        for field in dataclasses.fields(kind):
            default = f"`{cell(toml_of(default_of(field)))}`"
            lines.append(f"| `{field.name}` | {default} | {cell(comments.get(field.name, ''))} |")
        lines.append("")
    return "\n".join(lines)


def toml_of(value: Any) -> str:
    """A default as it would stand in the file."""
    if isinstance(value, tuple):
        return f"[{', '.join(toml_of(entry) for entry in value)}]"
    return json.dumps(value)


def default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    assert field.default_factory is not dataclasses.MISSING
    return field.default_factory()


# --- errors ---


def errors_page() -> str:
    lines = [
        "# Errors",
        "",
        "Every error has a *code* that stays the same, and a message that may change. *Again*: the same request may succeed later. *Exit*: of `dfs`. The"
        " class in `twinfs.errors` is named like the code: `path-not-found` is `PathNotFound`; those that end in `-error` are the bases of others.",
        "",
        "| code | HTTP | exit | again | what it says |",
        "| --- | --- | --- | --- | --- |",
    ]
    for cls in errors.all_errors():
        error = cls("")
        lines.append(
            f"| `{cls.code}` | {errors.http_status(error)} | {errors.exit_code(error)} "
            f"| {'yes' if cls.retryable else ''} | {cell(TEXTS[cls.code])} |"
        )
    return "\n".join(lines) + "\n"

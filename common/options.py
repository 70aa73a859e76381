"""Command-line options made from a configuration class: one flag for each field."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from typing import Any

import click

HELP = {
    "dir": "Directory of the data; for a DataNode repeatable, one volume each.",
    "ready_file": "File to write, as JSON, once the server answers.",
    "namenode": "URL of the NameNode (repeatable for a DataNode).",
    "bootstrap": "HOST:PORT of a peer to join (repeatable); without --namenode a plain peer. none: the first one.",
    "mdns": "Find peers on the local network, and be found.",
    "port": "HTTP port; 0 takes a free one.",
    "data_port": "Port of the block streams; 0 takes a free one.",
    "database": "postgresql:// URL instead of SQLite in --dir.",
}


def config_options(kind: Any, *, skip: frozenset[str] = frozenset()) -> Callable[[Any], Any]:
    """A decorator that adds `--field-name` for every field of *kind*, none of them with a default.

    What is not given stays None (or (), for repeatable ones), so that `config.load` can fill it in.
    """
    hints = typing.get_type_hints(kind)

    def decorate(function: Any) -> Any:
        for field in reversed(dataclasses.fields(kind)):
            if field.name in skip:
                continue
            hint = hints[field.name]
            flag = "--" + field.name.replace("_", "-")
            shown = HELP.get(field.name, "")
            default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
            text = f"{shown} [default: {default!r}]".strip()
            if hint is bool:
                option = click.option(
                    f"{flag}/--no-{flag[2:]}", field.name, default=None, help=text
                )
            elif hint in (int, float):
                option = click.option(flag, field.name, type=hint, default=None, help=text)
            elif typing.get_origin(hint) is tuple:
                option = click.option(flag, field.name, multiple=True, help=text)
            else:
                option = click.option(flag, field.name, default=None, help=text)
            function = option(function)
        return function

    return decorate

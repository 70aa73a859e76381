"""Scripts get JSON from every command that has something to say."""

from __future__ import annotations

from collections.abc import Iterator

import click

from twinfs.client.cli import cli
from twinfs.namenode.__main__ import command as namenode

# What they print is the data that was asked for, or nothing but the exit code.
WITHOUT = {
    "block get",
    "cat",
    "completion",
    "dag get",
    "datanode",
    "getmerge",
    "head",
    "namenode",
    "tail",
    "test",
}


def commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    """Every command below *command*, with its options."""
    if isinstance(command, click.Group) and (words != ("namenode",)):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, (*words, name))
    if not isinstance(command, click.Group) or command.invoke_without_command:
        options = {option for param in command.params for option in param.opts}
        if words:
            yield " ".join(words), options


def test_every_command_has_json() -> None:
    found = dict(commands(cli))
    assert len(found) > 70
    without = {name for name, options in found.items() if "--json" not in options}
    # `dfs peer cat` is `dfs cat` that asks a peer.
    assert {name.removeprefix("peer ") for name in without} <= WITHOUT
    assert set(found) >= WITHOUT


def test_so_have_those_of_the_namenode() -> None:
    found = {name: command.params for name, command in namenode.commands.items()}
    assert set(found) == {"backup", "backups", "restore", "release"}
    for params in found.values():
        assert "--json" in {option for param in params for option in param.opts}

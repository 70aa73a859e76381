"""Bringing a database to the format this version knows: the numbered files of schema/, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources
from string import Template

from ...common.errors import StoreTooNew
from ...common.model import ROOT_ID
from ...common.runtime import new_uuid

Execute = Callable[[str], object]

KIND_DIRECTORY, KIND_FILE = 1, 2
UNLINKED_PARENT = 2  # below it wait unlinked trees; no directory has this id
FIRST_IDS = {"inode": 1_000, "block": 1_000, "generation": 1_000, "node": 1, "event": 1}


def scripts() -> list[tuple[int, str]]:
    """(version, text) of every schema file, ascending."""
    found = []
    for entry in resources.files(__package__).joinpath("schema").iterdir():
        number = entry.name.split("_", 1)[0]
        if entry.name.endswith(".sql") and number.isdigit():
            found.append((int(number), entry.read_text(encoding="utf-8")))
    return sorted(found)


def latest_version() -> int:
    return scripts()[-1][0]


def statements(text: str, words: Mapping[str, str]) -> list[str]:
    """The statements of a schema file with the dialect's *words* filled in, comments left out."""
    lines = [line.split("--", 1)[0].rstrip() for line in text.splitlines()]
    whole = Template("\n".join(line for line in lines if line)).substitute(words)
    return [part.strip() for part in whole.split(";") if part.strip()]


def check_version(version: int, where: str) -> None:
    """StoreTooNew if the database *where* was written by a newer TwinFS."""
    if version > latest_version():
        raise StoreTooNew(
            f"the database {where} has format version {version}; this TwinFS knows versions up to "
            f"{latest_version()}. Install the newer version again, or restore a backup"
        )


def migrate(
    execute: Execute, version: int, words: Mapping[str, str], *, owner: str, group: str, now_ms: int
) -> None:
    """Apply what is missing after *version* (0: a new database). The caller holds the transaction."""
    for number, text in scripts():
        if number > version:
            for statement in statements(text, words):
                execute(statement)
    if version == 0:
        for kind, first in FIRST_IDS.items():
            execute(f"INSERT INTO counters (name, next) VALUES ('{kind}', {first})")
        execute(
            "INSERT INTO inodes (parent_id, name, inode_id, kind, mode, flags, replication, owner, grp,"
            f" mtime_ms, atime_ms, length, block_size) VALUES (0, '', {ROOT_ID}, {KIND_DIRECTORY},"
            f" {0o755}, 0, 0, '{_quoted(owner)}', '{_quoted(group)}', {now_ms}, {now_ms}, 0, 0)"
        )
        execute(f"INSERT INTO meta (name, value) VALUES ('cluster_id', '{new_uuid()}')")
        execute(f"INSERT INTO meta (name, value) VALUES ('created_ms', '{now_ms}')")
        execute("INSERT INTO meta (name, value) VALUES ('format_version', '0')")
    execute(f"UPDATE meta SET value = '{latest_version()}' WHERE name = 'format_version'")


def _quoted(text: str) -> str:
    return text.replace("'", "''")

"""`dfs namenode backup|backups|restore|release`: the commands around `namenode/backup.py`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from ..common.config import NameNodeConfig, load
from ..common.errors import DfsError, InvalidConfig, exit_code
from ..common.runtime import SystemClock

F = TypeVar("F", bound=Callable[..., Any])
HELP = {"help_option_names": ["--help"]}
STEP = 20  # a progress line has so many steps

dir_option = click.option(
    "--dir", "folder", type=click.Path(path_type=Path), help="The NameNode's directory."
)
repository_argument = click.argument("repository", type=click.Path(path_type=Path))
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, one document a line."
)


def told(function: F) -> F:
    """Errors are one line and an exit code."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except DfsError as error:
            print(f"dfs namenode: {error.message}", file=sys.stderr)
            sys.exit(exit_code(error))

    return run  # type: ignore[return-value]


def _folder(ctx: click.Context, folder: Path | None) -> Path:
    """--dir, where the command or `dfs namenode` before it was given one; else as configured."""
    given = ctx.parent.params if ctx.parent is not None else {}
    flags = {"dir": str(folder) if folder is not None else given.get("dir")}
    config = load(NameNodeConfig, flags, file=given.get("config_file"))
    if config.database:
        raise InvalidConfig(
            "the namespace lies in PostgreSQL: back it up with pg_dump or pg_basebackup"
        )
    return Path(config.dir)


def _progress() -> Callable[[int, int], None] | None:
    if not sys.stderr.isatty():
        return None
    shown = -1

    def show(done: int, total: int) -> None:
        nonlocal shown
        step = min(STEP, done * STEP // max(1, total))
        if step != shown:
            shown = step
            end = "\n" if step == STEP else ""
            print(f"\r{step * 100 // STEP:3d} %", end=end, file=sys.stderr, flush=True)

    return show


def _as_json(manifest: Any) -> str:
    return json.dumps(
        {
            name: getattr(manifest, name)
            for name in ("number", "made_ms", "cluster_id", "version", "last_event")
        }
        | {"size_bytes": manifest.size_bytes, "new_bytes": manifest.new_bytes}
    )


@click.command("backup", context_settings=HELP)
@repository_argument
@dir_option
@click.option(
    "--keep", type=click.IntRange(min=1), help="Afterwards, forget all but the newest so many."
)
@json_option
@click.pass_context
@told
def backup_command(
    ctx: click.Context, repository: Path, folder: Path | None, keep: int | None, as_json: bool
) -> None:
    """Back up the namespace into the directory REPOSITORY, while the NameNode runs.

    After the first, a backup writes only what has changed. Bytes of files are not in it: they have their copies.
    """
    from . import backup

    manifest = backup.backup(
        _folder(ctx, folder), repository, now_ms=SystemClock().wall_ms(), progress=_progress()
    )
    print(_as_json(manifest) if as_json else backup.described(manifest))
    if keep is not None:
        backup.prune(repository, keep)


@click.command("backups", context_settings=HELP)
@repository_argument
@click.option("--verify", is_flag=True, help="Read all of them, too.")
@json_option
@told
def backups_command(repository: Path, verify: bool, as_json: bool) -> None:
    """List the backups in REPOSITORY."""
    from . import backup

    for manifest in backup.manifests(repository):
        if verify:
            backup.verify(repository, manifest)
        print(_as_json(manifest) if as_json else backup.described(manifest))


@click.command("restore", context_settings=HELP)
@repository_argument
@dir_option
@click.option("--number", type=int, help="Which backup; the newest without.")
@json_option
@click.pass_context
@told
def restore_command(
    ctx: click.Context, repository: Path, folder: Path | None, number: int | None, as_json: bool
) -> None:
    """Make the namespace of a backup in REPOSITORY, in a directory that has none.

    What was changed after the backup is gone from the namespace. Blocks written after it stay on the DataNodes until
    `dfs namenode release`.
    """
    from . import backup

    where = _folder(ctx, folder)
    manifest = backup.choose(repository, number)
    backup.restore(repository, manifest, where, progress=_progress())
    text = f"restored to {where}: {backup.described(manifest)}"
    print(_as_json(manifest) if as_json else text)


@click.command("release", context_settings=HELP)
@dir_option
@json_option
@click.pass_context
@told
def release_command(ctx: click.Context, folder: Path | None, as_json: bool) -> None:
    """After a restore: let DataNodes delete blocks that no file knows any more. The NameNode must be stopped."""
    from . import backup

    where = _folder(ctx, folder)
    released = backup.spare_no_more(where)
    if as_json:
        print(json.dumps({"released": released}))
    elif released:
        print("blocks from after the backup go with the DataNodes' next full report")
    else:
        print("nothing was being spared")

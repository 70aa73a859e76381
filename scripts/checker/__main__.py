"""`python scripts/checker HISTORY...`: the verdict of recorded histories; exit 1 if one is not clean."""

from __future__ import annotations

import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from scripts.checker import history, linear, verdict


@click.command()
@click.argument("histories", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--limit",
    default=linear.MAX_CONFIGURATIONS,
    help="Configurations searched for each group of paths before the checker gives up.",
)
def main(histories: tuple[Path, ...], limit: int) -> None:
    """Decide whether recorded HISTORIES keep the promises of the file system."""
    clean = True
    for path in histories:
        try:
            found = history.load(path)
        except (OSError, ValueError) as error:
            raise click.ClickException(str(error)) from None
        result = verdict.judge(found, limit=limit)
        click.echo(f"{path}: {result}")
        clean = clean and result.clean
    sys.exit(0 if clean else 1)


if __name__ == "__main__":
    main()

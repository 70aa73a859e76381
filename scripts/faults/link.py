"""`link.py KIND A B`: break the link between two processes that talk through the proxy; `link.py heal` makes it whole.

A and B are names (namenode, datanode1, ..., client) or patterns ("*", "datanode*").
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import click
import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from scripts.faults.proxy import Link, Links, read_links, write_links
from scripts.faults.targets import (
    CantBreak,
    Cluster,
    Target,
    at,
    counted,
    dir_option,
    run,
    wait_until,
)

LIMIT_S = 5.0
KINDS = ("cut", "refuse", "slow", "lossy", "half-open")


def links_file(cluster: Cluster) -> Path:
    file = cluster.faults / "links.json"
    if not file.exists():
        raise CantBreak(
            f"there is no {file}: start the proxy, `python scripts/faults/proxy.py {file}`, and the cluster with "
            "--proxy http://HOST:PORT"
        )
    return file


def change(cluster: Cluster, edit: Callable[[Links], Links]) -> None:
    """Back when the proxy has taken it."""
    file = links_file(cluster)
    names = {address: name for name in cluster.names for address in cluster.addresses(name)}
    before = read_links(file)
    after = msgspec.structs.replace(edit(before), version=before.version + 1, names=names)
    write_links(file, after)
    taken = Path(f"{file}.taken")
    wait_until(
        lambda: taken.exists() and taken.read_text() == str(after.version),
        "the proxy took the new links (is it running?)",
        LIMIT_S,
    )


def break_link(
    cluster: Cluster,
    source: str,
    target: str,
    kind: str = "cut",
    *,
    one_way: bool = False,
    kib_s: float = 0.0,
    latency_ms: float = 0.0,
    loss: float = 0.0,
) -> str:
    """Break the way from *source* to *target*, and unless *one_way* the one back; the id for `heal`."""
    name = f"{kind}:{source}:{target}"
    ways = (
        [(source, target)] if one_way or source == target else [(source, target), (target, source)]
    )
    new = [
        Link(
            id=name,
            source=a,
            target=b,
            kind=kind,  # type: ignore[arg-type]
            kib_s=kib_s,
            latency_ms=latency_ms,
            loss=loss,
        )
        for a, b in ways
    ]

    def edit(links: Links) -> Links:
        others = [link for link in links.links if link.id != name]
        return msgspec.structs.replace(links, links=[*others, *new])

    change(cluster, edit)
    return name


def heal(cluster: Cluster, id: str | None = None) -> int:
    """Make one broken link whole, or all; how many there were."""
    count = 0

    def edit(links: Links) -> Links:
        nonlocal count
        kept = [link for link in links.links if id is not None and link.id != id]
        count = len({link.id for link in links.links}) - len({link.id for link in kept})
        return msgspec.structs.replace(links, links=kept)

    change(cluster, edit)
    return count


def name_addresses(cluster: Cluster) -> None:
    """Tell the proxy where everybody is; after a start."""
    change(cluster, lambda links: links)


def _uses_proxy(target: Target) -> bool:
    """Whether its connections go through a proxy; a NameNode makes none."""
    return target.role == "namenode" or bool(target.setting("proxy"))


@click.command()
@click.argument("kind", type=click.Choice([*KINDS, "heal", "show"]))
@click.argument("ends", nargs=-1)
@click.option("--one-way", is_flag=True, help="Only what goes from the first to the second.")
@click.option("--kib-s", type=click.FloatRange(0), default=0.0, help="slow: KiB a second.")
@click.option("--latency-ms", type=click.FloatRange(0), default=0.0, help="slow: later by this.")
@click.option("--loss", type=click.FloatRange(0, 1), default=0.1, help="lossy: how often.")
@dir_option
def main(
    kind: str,
    ends: tuple[str, ...],
    one_way: bool,
    kib_s: float,
    latency_ms: float,
    loss: float,
    folder: Path | None,
) -> None:
    """Break the link between two processes (KIND A B), make it whole (heal [ID]), or show what is broken."""
    cluster = Cluster(folder)
    if kind == "show":
        if ends:
            raise CantBreak("show takes no names")
        for link in read_links(links_file(cluster)).links:
            print(f"{link.id}: {link.source} -> {link.target} {link.kind}")
    elif kind == "heal":
        if len(ends) > 1:
            raise CantBreak("heal takes one ID at most (see show)")
        count = heal(cluster, ends[0] if ends else None)
        if ends and not count:
            raise CantBreak(f"no broken link has the id {ends[0]!r}; `link.py show` lists them")
        print(f"{counted(count, 'broken link')} healed.")
    else:
        if len(ends) != 2:
            raise CantBreak(f"{kind} takes two names, not {len(ends)}")
        if kind == "slow" and not (kib_s or latency_ms):
            raise CantBreak("slow takes --kib-s or --latency-ms")
        id = break_link(
            cluster, *ends, kind, one_way=one_way, kib_s=kib_s, latency_ms=latency_ms, loss=loss
        )
        print(f"The link {ends[0]} {'->' if one_way else '<->'} {ends[1]} is broken: {kind}.")
        for end in ends:
            # Not refused: a client calls itself what it likes.
            if end != "client" and not any(fnmatchcase(name, end) for name in cluster.names):
                print(
                    f"No server of this cluster is called {end}; it holds for a client whose proxy address says so."
                )
            elif end in cluster.names and not _uses_proxy(cluster.target(end)):
                print(f"{end} was not started with --proxy: connections that it makes go past it.")
        print(f"Undo: python scripts/faults/link.py heal {id}{at(folder, None)}")


if __name__ == "__main__":
    run(main)

"""`add` to a peer: local files through the importer that sends only what the peer lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ...common.ipld.layout import Node, Profile
from ..peer_import import Importer
from .progress import ProgressLine
from .streams import StandardInput
from .support import Shell

PIECE_BYTES = 1024 * 1024


def add(
    shell: Shell,
    paths: tuple[str, ...],
    *,
    local: Callable[[str], tuple[Path, str]],
    profile: Profile,
    pin_name: str | None,
    wrap: bool,
    hidden: bool,
    told: Callable[[str, Node], None],
    told_root: Callable[[Node], None] | None,
) -> None:
    """Add *paths*, and pin each under *pin_name* unless that is None. *local* says what a path means; *told*: of each file and folder; *told_root*: of each of *paths*, once it is pinned."""
    client = shell.peer()
    progress = ProgressLine("adding")
    importer: Importer | None = None
    roots: list[tuple[str, Node]] = []  # names may be the same: x/file, y/file
    try:
        client.begin_add()  # before the importer makes connections of its own
        importer = Importer(client, profile, told=progress, named=told, hidden=hidden)
        for text in paths:
            with shell.reporting("add", text):
                if text == "-":
                    added = importer.add_stream(_standard_input())
                    roots.append((str(added.root), added.node))
                else:
                    place, name = local(text)
                    roots.append((name, importer.add(place, name).node))
        if wrap and not shell.failed:
            roots = [("", importer.wrap(dict(roots)).node)]
        for _, node in roots:
            if pin_name is not None:
                body = {"cid": str(node.cid), "name": pin_name, "here": True}
                client.call("POST", "/v1/peer/pins", body)
            else:
                client.call("POST", "/v1/peer/provide", {"cids": [str(node.cid)]})
            if told_root is not None:
                told_root(node)
        client.end_add()
    finally:
        progress.close()
        if importer is not None:
            importer.close()
        client.close()


def _standard_input() -> Iterator[bytes]:
    return iter(partial(StandardInput().read, PIECE_BYTES), b"")

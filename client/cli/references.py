"""What names content on the command line: CID[/path], /ipfs/CID[/path], ipfs://CID[/path]."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...common.errors import InvalidCid, Unsupported

if TYPE_CHECKING:  # imported only where a CID is met: `dfs ls` is to start quickly
    from ...common.ipld.cid import Cid

MIN_BARE = 7  # letters of the shortest CID that is taken for one without /ipfs/ before it


class Reference(NamedTuple):
    """A CID and the names below it."""

    root: Cid
    names: list[str]
    text: str

    @property
    def name(self) -> str:
        """What to call it locally."""
        return self.names[-1] if self.names else str(self.root)


def reference(text: str) -> Reference:
    """InvalidCid if *text* names no content."""
    from ...common.ipld.cid import Cid

    rest = text
    for prefix in ("ipfs://", "/ipfs/"):
        if text.startswith(prefix):
            rest = text[len(prefix) :]
            break
    first, _, path = rest.partition("/")
    return Reference(Cid.parse(first), [name for name in path.split("/") if name], text)


def is_reference(text: str) -> bool:
    """Whether *text* means content, not a path: told by its form alone."""
    if text.startswith("ipfs://"):
        return True
    bare = text[len("/ipfs/") :] if text.startswith("/ipfs/") else text
    first = bare.partition("/")[0]
    if not first.startswith(("baf", "Qm", "bai", "z", "k")) or len(first) < MIN_BARE:
        return False
    if first[0] in "zk" and len(first) < 40:
        return False
    from ...common.ipld.cid import Cid

    try:
        Cid.parse(first)
    except (InvalidCid, Unsupported):
        return False
    return True

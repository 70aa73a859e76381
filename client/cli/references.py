"""What names content on the command line: CID[/path], /ipfs/CID[/path], ipfs://CID[/path]."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...common.errors import InvalidCid, Unsupported
from .support import print_json

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
    if not first:
        raise InvalidCid("a CID is wanted here; `dfs cid PATH` tells that of a path")
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


def are_references(texts: Sequence[str]) -> bool:
    """Whether all of *texts* mean content (and there are some)."""
    return bool(texts) and all(is_reference(text) for text in texts)


def fetching() -> Any:
    """The module that reads content, which most commands do without."""
    return importlib.import_module(".fetch", __package__)


async def put_known(
    fs: Any, local: Path, goal: str, force: bool, replication: int | None, as_json: bool
) -> bool:
    """Whether *goal* was made of blocks that are there (`dedup.put_known`); told as `put` tells it."""
    known = importlib.import_module(".dedup", __package__).put_known
    status = await known(fs, local, goal, overwrite=force, replication=replication)
    if status is not None and as_json:
        print_json(status)
    return status is not None

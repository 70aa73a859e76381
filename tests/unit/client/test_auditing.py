"""What `dfs audit prove` takes for the event that was proved."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from twinfs.client.cli import auditing
from twinfs.client.cli.support import Shell
from twinfs.common.chain import GENESIS
from twinfs.common.model import Event, INodeId


def event(offset: int, hashed: bytes = b"hash") -> Event:
    return Event(
        offset=offset,
        time_ms=1,
        kind="rename",
        path="/a",
        user="ada",
        inode_id=INodeId(1),
        destination="/b" if hashed else "",
        hash=hashed,
    )


@pytest.mark.parametrize(
    ("offset", "seen", "previous"),
    [
        (1, [event(1), event(2)], GENESIS),
        (2, [event(1), event(2)], b"hash"),
        (2, [event(2), event(3)], None),
        (2, [event(1), event(2, b"")], None),
        (2, [event(1, b""), event(2)], None),
        (1, [event(1, b"")], None),
        (2, [], None),
    ],
)
def test_what_is_not_all_there_to_be_seen_is_left_out(
    offset: int, seen: list[Event], previous: bytes | None
) -> None:
    """Of a rename from where one may not look, one end is seen: that must not look like one that was changed."""
    shell = SimpleNamespace(call=lambda operation, request: SimpleNamespace(events=seen))
    found, before = auditing._with_previous(cast(Shell, shell), offset)
    if previous is None:
        assert (found, before) == (None, b"")
    else:
        assert found is not None and (found.offset, before) == (offset, previous)

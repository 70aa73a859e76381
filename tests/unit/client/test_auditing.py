"""What `dfs audit prove` takes for the event that was proved."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from twinfs.client.cli import auditing
from twinfs.client.cli.support import Shell
from twinfs.common import notes
from twinfs.common.chain import GENESIS
from twinfs.common.errors import DfsError, InvalidRequest
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


def test_a_kept_checkpoint_that_cannot_be_proved_is_no_good_end() -> None:
    """Of those that the cluster lists, some are too old; whoever brings one wants to know about that one."""

    def gone(operation: str, request: object) -> None:
        raise InvalidRequest("these events are no longer kept")

    key, shell = Ed25519PrivateKey.generate(), cast(Shell, SimpleNamespace(call=gone))
    note, verifier = notes.checkpoint("c", 300, bytes(32), key), notes.verifier_key("c", key)
    assert not auditing._is_beginning(shell, note, verifier, 1_000)
    with pytest.raises(DfsError, match="can't be proved any more"):
        auditing._require_beginning(shell, note, verifier, 1_000)

"""Messages about following the change stream: consumer groups, webhooks, proofs."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from .messages import PathText
from .model import Event, NonNegative, Struct

MAX_GROUPS = 1_000
MAX_WEBHOOKS = 100
GroupName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
Kind = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Kinds = Annotated[list[Kind], msgspec.Meta(max_length=32)]

# --- groups --------------------------------------------------------------------------------------


class CommitOffset(Struct, frozen=True, kw_only=True):
    """*group* has dealt with all events up to *offset*; going back is allowed.

    A group is made by its first commit, and belongs to who made it: others can't move or delete it, except superusers.
    """

    group: GroupName
    offset: NonNegative


class GetGroups(Struct, frozen=True, kw_only=True):
    pass


class Group(Struct, frozen=True, kw_only=True):
    """*lag*: events sealed after its offset, filters not considered. Webhooks and sinks have groups, too."""

    name: str
    offset: int
    committed_ms: int
    lag: int
    owner: str = (
        ""  # "" of webhooks, sinks, and groups that nobody has moved since there are owners
    )


class Groups(Struct, frozen=True, kw_only=True):
    """*first_offset*: of the oldest event that is kept."""

    groups: list[Group]
    first_offset: int
    last_offset: int


class DeleteGroup(Struct, frozen=True, kw_only=True):
    group: GroupName


# --- webhooks ------------------------------------------------------------------------------------


class AddWebhook(Struct, frozen=True, kw_only=True):
    """POST events to *url*, from now on (or after offset *after*). One of that name is replaced.

    *secret*: the key of the signature; at least 16 characters. *path_prefix* and *kinds* choose events. Superusers only.
    """

    name: GroupName
    url: Annotated[str, msgspec.Meta(min_length=8, max_length=2_048)]
    secret: Annotated[str, msgspec.Meta(min_length=16, max_length=256)]
    path_prefix: PathText = ""
    kinds: Kinds = []
    after: NonNegative | None = None


class WebhookName(Struct, frozen=True, kw_only=True):
    name: GroupName


class PauseWebhook(Struct, frozen=True, kw_only=True):
    name: GroupName
    paused: bool


class GetWebhooks(Struct, frozen=True, kw_only=True):
    pass


class Webhook(Struct, frozen=True, kw_only=True):
    """Without its secret, which nobody gets to see again. *failures*: attempts that failed since the last that worked."""

    name: str
    url: str
    path_prefix: str
    kinds: list[str]
    paused: bool
    offset: int
    lag: int
    dead: int  # events in its dead-letter list
    failures: int
    last_error: str
    created_ms: int


class Webhooks(Struct, frozen=True, kw_only=True):
    webhooks: list[Webhook]


class GetDeadLetters(Struct, frozen=True, kw_only=True):
    """Events that a webhook would not take, oldest first."""

    name: GroupName
    after: NonNegative = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 100


class DeadLetter(Struct, frozen=True, kw_only=True):
    event: Event
    attempts: int
    failed_ms: int
    error: str


class DeadLetters(Struct, frozen=True, kw_only=True):
    letters: list[DeadLetter]


class SettleDeadLetters(Struct, frozen=True, kw_only=True):
    """Send them once more ("retry"; those that fail again come back), or forget them ("drop")."""

    name: GroupName
    action: Literal["retry", "drop"]


class Settled(Struct, frozen=True, kw_only=True):
    count: int


# --- audit -----------------------------------------------------------------------------------------


class MakeCheckpoint(Struct, frozen=True, kw_only=True):
    """Sign the state of the stream as it is now."""


class GetCheckpoints(Struct, frozen=True, kw_only=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 100


class Checkpoint(Struct, frozen=True, kw_only=True):
    """*note*: the signed text (C2SP tlog-checkpoint). *root*: of the Merkle tree over the first *size* events' hashes."""

    size: int
    root: bytes
    made_ms: int
    note: str


class Checkpoints(Struct, frozen=True, kw_only=True):
    """*key*: the verifier key, as C2SP signed-note writes it."""

    checkpoints: list[Checkpoint]
    key: str


class GetProof(Struct, frozen=True, kw_only=True):
    """Inclusion of event *offset* in the tree of *size*, or, with *offset* 0, consistency of *from_size* with *size*. RFC 6962."""

    size: NonNegative
    offset: NonNegative = 0
    from_size: NonNegative = 0


class Proof(Struct, frozen=True, kw_only=True):
    """*leaf*: the hash of the event that is proved (empty for consistency). *hashes*: the proof's nodes, in RFC 6962's order."""

    size: int
    root: bytes
    hashes: list[bytes]
    leaf: bytes = b""
    from_root: bytes = b""


class VerifyEvents(Struct, frozen=True, kw_only=True):
    """Recompute the hash chain of a page of events after *after*."""

    after: NonNegative = 0


class Verified(Struct, frozen=True, kw_only=True):
    """*checked*: the last offset whose hash follows from the one before. *done*: it is the last there is."""

    first: int
    checked: int
    last_hash: bytes
    done: bool

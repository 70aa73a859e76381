"""`dfs audit`: proofs that the change stream was not rewritten, made by the cluster and checked without trust in it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from ...common import chain, merkle
from ...common.codec import from_json, to_json
from ...common.errors import DfsError, InvalidRequest
from ...common.follow import GetCheckpoints, GetProof, MakeCheckpoint, Proof, VerifyEvents
from ...common.messages import ReadEvents
from ...common.model import Event, Struct
from .following import sub_command
from .support import Refused, Shell, json_option, print_json, shown

MAX_PROOF_BYTES = 1 << 20


@click.group(name="audit")
def audit_command() -> None:
    """Prove that the change stream was not rewritten."""


_sub = partial(sub_command, audit_command)


@_sub("verify")
@click.option(
    "--note",
    "note_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A checkpoint kept elsewhere: prove that what it saw is still the beginning of the stream.",
)
@click.option(
    "--key", metavar="KEY", help="The verifier key that the checkpoint must be signed by."
)
@json_option
def verify_command(shell: Shell, note_file: Path | None, key: str | None, as_json: bool) -> None:
    """Recompute the hash chain of all events that are kept, and check it against the signed checkpoints."""
    after, first, checked = 0, 0, None
    while True:
        found = shell.call("verify_events", VerifyEvents(after=after))
        first = first or found.first
        checked = found
        if found.done:
            break
        after = found.checked
    assert checked is not None
    facts: dict[str, Any] = {"first": first, "last": checked.checked, "checkpoints": 0}
    known = shell.call("checkpoints", GetCheckpoints(limit=100))
    verifier = key or known.key
    texts = [entry.note for entry in known.checkpoints if entry.size]
    if note_file is not None:
        if not key:
            raise Refused(
                "a checkpoint kept elsewhere is checked by a key kept elsewhere: --key KEY"
            )
        _require_beginning(shell, _note(note_file), key, checked.checked)
        facts["checkpoints"] += 1
    for text in texts:
        if _is_beginning(shell, text, verifier, checked.checked):
            facts["checkpoints"] += 1
    if as_json:
        print_json(facts)
        return
    print(f"events {first} to {checked.checked}: every hash follows from the one before")
    print(f"{facts['checkpoints']} signed checkpoints: each is the beginning of the stream")


def _require_beginning(shell: Shell, note: str, verifier: str, last: int) -> None:
    """As `_is_beginning`, of the checkpoint that somebody asks for: DfsError also if it can't be proved."""
    if not _is_beginning(shell, note, verifier, last):
        raise DfsError(
            "the checkpoint can't be proved any more: it takes events that are no longer kept"
        )


def _is_beginning(shell: Shell, note: str, verifier: str, last: int) -> bool:
    """Prove that the tree of a checkpoint begins the tree as it is; DfsError if it does not. False: too old to be proved."""
    from ...common import notes

    size, root = notes.open_checkpoint(note, verifier)
    if size > last:
        raise DfsError(
            f"the checkpoint has seen {size} events and the stream has only {last}: history was cut off"
        )
    if not size:
        return True
    try:
        proof: Proof = shell.call("event_proof", GetProof(size=last, from_size=size))
    except InvalidRequest:
        if size % 256:
            return False  # it needs events that retention has dropped
        raise
    if not merkle.verify_consistency(size, proof.size, root, proof.root, proof.hashes):
        raise DfsError(
            f"the stream does not begin with what the checkpoint of {size} events saw: history was rewritten"
        )
    return True


@_sub("checkpoint")
@json_option
def checkpoint_command(shell: Shell, as_json: bool) -> None:
    """Sign the stream as it is now, and print the checkpoint: keep it elsewhere."""
    found = shell.call("make_checkpoint", MakeCheckpoint())
    if as_json:
        print_json(found)
    else:
        print(found.note, end="")


@_sub("key")
@json_option
def key_command(shell: Shell, as_json: bool) -> None:
    """Print the key that verifies checkpoints: keep it elsewhere."""
    key = shell.call("checkpoints", GetCheckpoints(limit=1)).key
    if not key:
        raise Refused("the cluster has no audit key: set audit_key on every NameNode")
    if as_json:
        print_json({"key": key})
    else:
        print(key)


@_sub("prove")
@click.argument("offset", type=click.IntRange(min=1))
@click.option(
    "--size", type=click.IntRange(min=1), help="Of a tree that has a checkpoint; else as it is."
)
@json_option
def prove_command(shell: Shell, offset: int, size: int | None, as_json: bool) -> None:
    """Prove that event OFFSET is in the stream: checked here, and printed as JSON (always) for `dfs audit check`."""
    proof: Proof = shell.call("event_proof", GetProof(size=size or 0, offset=offset))
    leaf = merkle.leaf_hash(proof.leaf)
    if not merkle.verify_inclusion(leaf, offset - 1, proof.size, proof.hashes, proof.root):
        raise DfsError("the proof that the NameNode gave is wrong")
    event, previous = _with_previous(shell, offset)
    if event is not None and chain.hash_of(previous, event) != proof.leaf:
        raise DfsError(f"event {offset} does not have the hash that was proved")
    _print(
        InclusionProof(
            offset=offset,
            size=proof.size,
            event_hash=proof.leaf.hex(),
            root=proof.root.hex(),
            proof=[entry.hex() for entry in proof.hashes],
            event=event,
            previous_hash=previous.hex() if event is not None else "",
        )
    )


@_sub("consistency")
@click.argument("from_size", type=click.IntRange(min=1))
@click.option("--size", type=click.IntRange(min=1), help="Of the later tree; else as it is.")
@json_option
def consistency_command(shell: Shell, from_size: int, size: int | None, as_json: bool) -> None:
    """Prove that the stream still begins with its first FROM_SIZE events, as a checkpoint saw them: JSON for `dfs audit check`."""
    proof: Proof = shell.call("event_proof", GetProof(size=size or 0, from_size=from_size))
    _print(
        ConsistencyProof(
            from_size=from_size,
            size=proof.size,
            from_root=proof.from_root.hex(),
            root=proof.root.hex(),
            proof=[entry.hex() for entry in proof.hashes],
        )
    )


@_sub("check")
@click.argument("proof", type=click.File("rb"))
@click.option(
    "--note",
    "note_files",
    multiple=True,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The checkpoint that the proof is of; for consistency both (repeatable).",
)
@click.option(
    "--key", metavar="KEY", required=True, help="The key that the checkpoints must be signed by."
)
@json_option
def check_command(
    shell: Shell, proof: Any, note_files: tuple[Path, ...], key: str, as_json: bool
) -> None:
    """Check a PROOF (of `prove` or `consistency`) against signed checkpoints. Asks nobody: needs no cluster.

    The key and the older checkpoint should come from where the cluster's operators can't write.
    """
    given = proof.read(MAX_PROOF_BYTES)
    roots = _roots(note_files, key)
    try:
        kind: Any = ConsistencyProof if b'"from_size"' in given else InclusionProof
        found = from_json(given, kind)
        hashes = [bytes.fromhex(entry) for entry in found.proof]
        check: Any = _consistency if kind is ConsistencyProof else _inclusion
        said = check(found, hashes, roots)
    except ValueError:
        raise InvalidRequest("the proof is malformed") from None
    if as_json:
        print_json({"proved": said})
    else:
        print(said)


class InclusionProof(Struct, frozen=True, kw_only=True):
    """Event *offset* is in the tree of *size*. *event* and *previous_hash* are what its hash is made of, where they are known."""

    offset: int
    size: int
    event_hash: str
    root: str
    proof: list[str]
    event: Event | None = None
    previous_hash: str = ""


class ConsistencyProof(Struct, frozen=True, kw_only=True):
    """The tree of *size* begins with the tree of *from_size*."""

    from_size: int
    size: int
    from_root: str
    root: str
    proof: list[str]


def _roots(note_files: Sequence[Path], key: str) -> dict[int, bytes]:
    """The root of each tree, by its size, that a checkpoint is signed of. DfsError if two of one size say different things."""
    from ...common import notes

    roots: dict[int, bytes] = {}
    for path in note_files:
        size, root = notes.open_checkpoint(_note(path), key)
        if roots.setdefault(size, root) != root:
            raise DfsError(
                f"there are two different checkpoints of {size} events: history was rewritten"
            )
    return roots


def _note(path: Path) -> str:
    # What is no text was not signed either.
    return path.read_text(encoding="utf-8", errors="replace")


def _root(roots: dict[int, bytes], size: int) -> bytes:
    if size not in roots:
        raise Refused(f"the proof needs the checkpoint of {size} events: --note FILE")
    return roots[size]


def _inclusion(found: InclusionProof, hashes: list[bytes], roots: dict[int, bytes]) -> str:
    hashed = bytes.fromhex(found.event_hash)
    root, leaf = _root(roots, found.size), merkle.leaf_hash(hashed)
    if found.offset < 1 or not merkle.verify_inclusion(
        leaf, found.offset - 1, found.size, hashes, root
    ):
        raise DfsError(f"this does not prove that the checkpoint has seen event {found.offset}")
    event = found.event
    if event is None:
        return (
            f"the event with the hash {found.event_hash} was number {found.offset} of {found.size}"
        )
    previous = bytes.fromhex(found.previous_hash)
    if event.offset != found.offset or chain.hash_of(previous, event) != hashed:
        raise DfsError(
            f"event {found.offset} was changed: it does not have the hash that was proved"
        )
    return (
        f"event {found.offset} of {found.size} was: {event.user} {event.kind} {shown(event.path)}"
    )


def _consistency(found: ConsistencyProof, hashes: list[bytes], roots: dict[int, bytes]) -> str:
    older, newer = _root(roots, found.from_size), _root(roots, found.size)
    if not merkle.verify_consistency(found.from_size, found.size, older, newer, hashes):
        raise DfsError(
            f"this does not prove that the stream of {found.size} events begins with the {found.from_size} of the"
            " older checkpoint: history was rewritten, or the proof is wrong"
        )
    return f"the first {found.from_size} of {found.size} events are those of the older checkpoint"


def _with_previous(shell: Shell, offset: int) -> tuple[Event | None, bytes]:
    """Event *offset* and the hash before it; None if one of them is no longer kept, or not to be seen by this user."""
    after = max(0, offset - 2)
    try:
        page = shell.call("events", ReadEvents(after=after, limit=2))
    except DfsError:
        return None, b""
    found = {event.offset: event for event in page.events}
    event, before = found.get(offset), found.get(offset - 1)
    previous = before.hash if before is not None else chain.GENESIS if offset == 1 else b""
    if event is None or not event.hash or not previous:  # without a hash: one end of two is shown
        return None, b""
    return event, previous


def _print(found: Struct) -> None:
    print(to_json(found).decode())

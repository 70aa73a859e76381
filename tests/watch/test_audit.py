"""An outsider proves what happened with two checkpoints, a key and proofs: by `dfs audit check`, and by a program of his own.

The program shares nothing with TwinFS: it is written from RFC 6962 (section 2.1), C2SP's signed-note and docs/events.md.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from twinfs.client import sync
from twinfs.common import notes
from twinfs.common.config import ClientConfig

from ..integration.commands import Dfs
from ..support.cluster import running

FIRST, SECOND = 300, 777


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def root_of_note(note: str, key: str) -> tuple[int, bytes]:
    name, key_id, packed = key.split("+", 2)
    public = base64.b64decode(packed)[1:]
    text, signatures = note.split("\n\n")
    dash, signer, signature = signatures.strip().split(" ")
    raw = base64.b64decode(signature)
    assert (dash, signer, raw[:4].hex()) == ("\N{EM DASH}", name, key_id)
    Ed25519PublicKey.from_public_bytes(public).verify(raw[4:], (text + "\n").encode())
    _, size, root = text.split("\n")
    return int(size), base64.b64decode(root)


def root_from_inclusion(leaf: bytes, index: int, size: int, proof: list[bytes]) -> bytes:
    """RFC 9162's iterative form of the same proof."""
    fn, sn, found = index, size - 1, leaf
    for sibling in proof:
        assert sn
        if fn & 1 or fn == sn:
            found = sha(b"\x01" + sibling + found)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            found = sha(b"\x01" + found + sibling)
        fn, sn = fn >> 1, sn >> 1
    assert sn == 0
    return found


def roots_from_consistency(
    first: int, second: int, old: bytes, proof: list[bytes]
) -> tuple[bytes, bytes]:
    path = [old, *proof] if first & (first - 1) == 0 else list(proof)
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        assert sn
        if fn & 1 or fn == sn:
            fr, sr = sha(b"\x01" + c + fr), sha(b"\x01" + c + sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = sha(b"\x01" + sr + c)
        fn, sn = fn >> 1, sn >> 1
    assert sn == 0
    return fr, sr


@dataclass
class Kept:
    """What the outsider has."""

    folder: Path
    key: str
    inclusion: dict[str, Any]
    consistency: dict[str, Any]

    def note(self, size: int) -> Path:
        return self.folder / f"note-{size}"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """Everything is fetched while the cluster runs; the tests run without it."""
    folder = tmp_path_factory.mktemp("audit")
    with running(folder / "c", datanodes=0, namenode_options=("--safe-mode-nodes", "0")) as small:
        dfs = Dfs(small.url, folder, USER="root", LOGNAME="root")
        with sync.FileSystem(ClientConfig(namenode=small.url, user="root")) as fs:
            for number in range(FIRST):
                fs.mkdirs(f"/d{number}")
            (folder / f"note-{FIRST}").write_text(dfs("audit", "checkpoint"))
            for number in range(FIRST, SECOND):
                fs.mkdirs(f"/d{number}")
            (folder / f"note-{SECOND}").write_text(dfs("audit", "checkpoint"))
            fs.mkdirs("/later")
        inclusion = dfs("audit", "prove", "17", "--size", str(SECOND))
        consistency = dfs("audit", "consistency", str(FIRST), "--size", str(SECOND))
        found = Kept(
            folder, dfs("audit", "key").strip(), json.loads(inclusion), json.loads(consistency)
        )
    yield found


def test_an_event_is_proved_by_a_program_of_ones_own(kept: Kept) -> None:
    proof = kept.inclusion
    event = proof["event"]
    fields = [event["offset"], event["time_ms"], event["kind"], event["path"]]
    fields += [event["destination"], event["user"], event["inode_id"], event["detail"]]
    hashed = blake3(bytes.fromhex(proof["previous_hash"]) + msgspec.msgpack.encode(fields)).digest()
    assert (event["path"], hashed.hex()) == ("/d16", proof["event_hash"])
    size, root = root_of_note(kept.note(SECOND).read_text(), kept.key)
    hashes = [bytes.fromhex(entry) for entry in proof["proof"]]
    assert root_from_inclusion(sha(b"\x00" + hashed), 16, size, hashes) == root
    assert root_from_inclusion(sha(b"\x00" + bytes(32)), 16, size, hashes) != root


def test_the_history_is_proved_by_a_program_of_ones_own(kept: Kept) -> None:
    first, old = root_of_note(kept.note(FIRST).read_text(), kept.key)
    second, new = root_of_note(kept.note(SECOND).read_text(), kept.key)
    hashes = [bytes.fromhex(entry) for entry in kept.consistency["proof"]]
    assert roots_from_consistency(first, second, old, hashes) == (old, new)
    assert roots_from_consistency(first, second, old, hashes[::-1]) != (old, new)
    with pytest.raises(InvalidSignature):
        root_of_note(kept.note(FIRST).read_text().replace("\n300\n", "\n301\n"), kept.key)


def check(kept: Kept, proof: dict[str, Any], *sizes: int) -> Any:
    """`dfs audit check`, with no cluster to ask."""
    dfs = Dfs("http://127.0.0.1:1", kept.folder, TWINFS_CLIENT_RETRY_S="0.1")
    (kept.folder / "proof").write_text(json.dumps(proof))
    notes = [word for size in sizes for word in ("--note", str(kept.note(size)))]
    return dfs.run("audit", "check", "proof", *notes, "--key", kept.key)


def test_the_command_checks_without_a_cluster(kept: Kept) -> None:
    good = check(kept, kept.inclusion, SECOND)
    assert (good.code, good.out) == (0, f"event 17 of {SECOND} was: root mkdir /d16\n")
    good = check(kept, kept.consistency, FIRST, SECOND)
    assert good.code == 0
    assert good.out.startswith(f"the first {FIRST} of {SECOND} events are those")
    # Without the event there is still the proof of its hash.
    bare = {k: v for k, v in kept.inclusion.items() if k not in ("event", "previous_hash")}
    assert "the event with the hash" in check(kept, bare, SECOND).out


def changed(known: dict[str, Any], /, **more: Any) -> dict[str, Any]:
    return json.loads(json.dumps(known)) | more  # type: ignore[no-any-return]


def test_what_was_changed_is_not_proved(kept: Kept) -> None:
    inclusion, consistency = kept.inclusion, kept.consistency
    event = inclusion["event"]
    other = "0" * 64
    cases = [
        (changed(inclusion, event=event | {"path": "/forged"}), (SECOND,), "was changed"),
        (changed(inclusion, event=event | {"user": "eve"}), (SECOND,), "was changed"),
        (changed(inclusion, event_hash=other), (SECOND,), "does not prove"),
        (changed(inclusion, offset=18), (SECOND,), "does not prove"),
        (changed(inclusion, proof=inclusion["proof"][:-1]), (SECOND,), "does not prove"),
        (inclusion, (FIRST,), "needs the checkpoint of 777"),
        (
            changed(consistency, proof=[other, *consistency["proof"][1:]]),
            (FIRST, SECOND),
            "rewritten",
        ),
        (changed(consistency, size=778), (FIRST, SECOND), "needs the checkpoint of 778"),
        (changed(consistency, proof=["x"]), (FIRST, SECOND), "malformed"),
        (changed(inclusion, proof=7), (SECOND,), "malformed"),
    ]
    for proof, sizes, said in cases:
        answer = check(kept, proof, *sizes)
        assert (answer.code != 0, answer.out) == (True, ""), said
        assert said in answer.err


def test_two_checkpoints_of_one_size_must_say_the_same(tmp_path: Path) -> None:
    """Else the kept one would give way to the other, and any stream would begin with what it saw."""
    key = Ed25519PrivateKey.generate()
    roots = {"kept": bytes(32), "other": bytes([1] * 32)}
    for name, root in roots.items():
        (tmp_path / name).write_text(notes.checkpoint("cluster", 300, root, key))
    proof = {"from_size": 300, "size": 300, "from_root": "", "root": "", "proof": []}
    (tmp_path / "proof").write_text(json.dumps(proof))
    (tmp_path / "binary").write_bytes(b"\xff" + (tmp_path / "kept").read_bytes())
    dfs = Dfs("http://127.0.0.1:1", tmp_path, TWINFS_CLIENT_RETRY_S="0.1")

    def said(*names: str) -> Any:
        given = [word for name in names for word in ("--note", name)]
        return dfs.run(
            "audit", "check", "proof", *given, "--key", notes.verifier_key("cluster", key)
        )

    assert said("kept", "kept").code == 0
    answer = said("kept", "other")
    assert answer.code != 0 and "two different checkpoints of 300 events" in answer.err
    assert "no checkpoint" in said("binary").err

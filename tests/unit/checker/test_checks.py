"""The other checks: whose bytes they are, streams, what lies on the disks, and the verdict over all of them."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from scripts.checker import audit, history, pieces, streams, verdict
from scripts.checker.__main__ import main
from scripts.checker.history import Recorder

# --- bytes ---


def test_bytes_say_who_wrote_them() -> None:
    first, second = pieces.piece(1, 10, 100), pieces.piece(1, 11, 5_000)
    assert pieces.identify(1, b"") == ()
    assert pieces.identify(1, first + second) == ((10, 100), (11, 5_000))
    assert pieces.identify(1, first + second[:40]) == ((10, 100), (11, 40))
    assert pieces.identify(1, first + second[:7]) == ((10, 100), (0, 7))


def test_any_flipped_bit_is_noticed() -> None:
    data = pieces.piece(1, 10, 64) + pieces.piece(1, 11, 64)
    whole = pieces.identify(1, data)
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert pieces.identify(1, bytes(changed)) != whole
    assert isinstance(pieces.identify(2, data), str)


# --- streams ---


def stream(*reads: tuple[int, Any]) -> list[str]:
    """A stream of two synced pieces and one more; *reads* are (after which step, result)."""
    recorder = Recorder()

    def done(kind: str, **args: Any) -> None:
        recorder.ok(recorder.invoke("w", kind, path="/s", **args))
        for when, result in reads:
            if when == steps[0]:
                id = recorder.invoke("r", "read", path="/s")
                if isinstance(result, str):
                    recorder.fail(id, result)
                else:
                    recorder.ok(id, result)
        steps[0] += 1

    steps = [0]
    done("stream-open")
    done("stream-write", write=1, length=100)
    done("stream-write", write=2, length=50)
    done("stream-sync")
    done("stream-write", write=3, length=70)
    done("stream-close")
    return streams.check(recorder.history().operations)


@pytest.mark.parametrize(
    "read",
    [
        (0, []),
        (2, [[1, 30]]),
        (2, []),
        (2, [[1, 100], [2, 50]]),
        (3, [[1, 100], [2, 50]]),
        (4, [[1, 100], [2, 50], [3, 10]]),
        (4, [[1, 100], [2, 50], [0, 5]]),
        (5, [[1, 100], [2, 50], [3, 70]]),
    ],
)
def test_a_stream_may_be_seen_so_far_as_it_is_written(read: tuple[int, Any]) -> None:
    assert stream(read) == []


@pytest.mark.parametrize(
    "read",
    [
        (0, "path-not-found"),
        (0, [[1, 10]]),
        (2, [[2, 50]]),
        (3, [[1, 100], [2, 49]]),
        (3, []),
        (4, [[1, 100], [3, 70]]),
        (4, "block-unavailable"),
        (5, [[1, 100], [2, 50]]),
        (5, [[1, 100], [2, 50], [3, 70], [1, 1]]),
    ],
)
def test_a_stream_may_not_be_seen_otherwise(read: tuple[int, Any]) -> None:
    assert len(stream(read)) == 1


# --- disks ---

BLOCK = audit.Block(3, 10, "d", 2, (1, 2))
REPLICA = audit.Replica(3, 10, "d", True)
FACTS = audit.Facts(blocks={7: BLOCK}, replicas={1: {7: REPLICA}, 2: {7: REPLICA}, 3: {}}, nodes=3)


def test_a_healed_cluster_has_nothing_to_complain_of() -> None:
    assert audit.check(FACTS) == []
    assert audit.check(audit.from_json(audit.to_json(FACTS))) == []


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        (replace(FACTS, replicas={1: {7: REPLICA}, 2: {}, 3: {}}), "1 good copies, not 2"),
        (replace(FACTS, replicas={n: {7: REPLICA} for n in (1, 2, 3)}), "3 copies, 2 are"),
        (replace(FACTS, blocks={}), "orphan"),
        (replace(FACTS, remains=["block 7 on node 1"]), "left from a copy"),
        (replace(FACTS, unreadable=["datanode1/v1 can't be read"]), "index of datanode1/v1"),
        (
            replace(FACTS, replicas={1: {7: replace(REPLICA, generation=2)}, 2: {7: REPLICA}}),
            "of generation 2, not 3",
        ),
        (
            replace(FACTS, replicas={1: {7: replace(REPLICA, digest="x")}, 2: {7: REPLICA}}),
            "other bytes",
        ),
        (
            replace(FACTS, replicas={1: {7: replace(REPLICA, length=9)}, 2: {7: REPLICA}}),
            "9 bytes, not 10",
        ),
        (
            replace(FACTS, replicas={1: {7: replace(REPLICA, finalized=False)}, 2: {7: REPLICA}}),
            "left from a write",
        ),
        (replace(FACTS, blocks={7: replace(BLOCK, holders=(1, 3))}), "NameNode says"),
        (replace(FACTS, open_files=["/f"]), "still open"),
    ],
)
def test_what_is_not_healed_is_said(facts: audit.Facts, word: str) -> None:
    assert any(word in line for line in audit.check(facts))


# --- all of it ---


def small(result: Any, path: Path | None = None) -> Recorder:
    recorder = Recorder(path, seed=1)
    recorder.ok(recorder.invoke("a", "put", 1.5, path="/x/f", write=1, length=100))
    recorder.ok(recorder.invoke("a", "read", path="/x/f"), result)
    recorder.fault("kill datanode1")
    recorder.facts(audit.to_json(FACTS))
    recorder.close()
    return recorder


def test_a_verdict_counts_what_it_saw() -> None:
    result = verdict.judge(small([[1, 100]]).history())
    assert result.clean
    assert (result.operations, result.groups, result.blocks) == (2, 1, 1)
    assert str(result).endswith("CLEAN")


def test_bytes_nobody_wrote_spoil_a_verdict() -> None:
    result = verdict.judge(small("nobody wrote the bytes at 0").history())
    assert [line[:12] for line in result.complaints] == ["wrong bytes:"]


def test_the_command_reads_a_file_and_says_it_in_its_exit_code(tmp_path: Path) -> None:
    good, bad, broken = (tmp_path / name for name in ("good", "bad", "broken"))
    small([[1, 100]], good)
    small([[2, 100]], bad)
    broken.write_text("{}\n")
    run = CliRunner().invoke
    assert run(main, [str(good)]).exit_code == 0
    found = run(main, [str(good), str(bad)])
    assert found.exit_code == 1
    assert "no order explains" in found.output
    refused = run(main, [str(broken)])
    assert refused.exit_code == 1
    assert "unknown type" in refused.output
    assert history.load(good).meta == {"seed": 1}


@pytest.mark.parametrize(
    "lines",
    [
        [{"type": "ok", "id": 1}],
        [{"type": "surprise"}],
        [{"type": "invoke", "id": 1, "client": "a", "kind": "put", "args": {}}] * 2,
    ],
)
def test_what_is_no_history_is_refused(lines: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="line"):
        history.parse(lines)


def test_a_random_stream_of_reads_at_synced_lengths_is_fine() -> None:
    rng = random.Random(5)
    for _ in range(50):
        cut = rng.randrange(150, 220)
        result = [[1, 100], [2, 50]] + ([[3, cut - 150]] if cut > 150 else [])
        assert stream((4, result)) == []

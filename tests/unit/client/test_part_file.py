"""A local file while it is fetched: what is recorded is there, and what is wrong does not count."""

from __future__ import annotations

import fcntl
import random
from pathlib import Path

import pytest

from twinfs.client.part_file import PartFile
from twinfs.common.checksum import CHUNK_BYTES, block_digest, digest_of
from twinfs.common.errors import InvalidRequest
from twinfs.common.model import Block, BlockId, GenerationStamp, LocatedBlock

LENGTHS = (3 * CHUNK_BYTES + 5, 2 * CHUNK_BYTES)
DATA = random.Random(1).randbytes(sum(LENGTHS))


def blocks(generation: int = 1) -> list[LocatedBlock]:
    found, offset = [], 0
    for number, length in enumerate(LENGTHS):
        block = Block(
            block_id=BlockId(number + 1),
            generation=GenerationStamp(generation),
            length=length,
            digest=block_digest(digests(number)),
        )
        found.append(LocatedBlock(block=block, offset=offset, nodes=[]))
        offset += length
    return found


def chunk(block: int, start: int) -> bytes:
    at = sum(LENGTHS[:block]) + start
    return DATA[at : at + min(CHUNK_BYTES, LENGTHS[block] - start)]


def digests(block: int) -> bytes:
    starts = range(0, LENGTHS[block], CHUNK_BYTES)
    return b"".join(digest_of(chunk(block, start)) for start in starts)


def put(part: PartFile, block: int, start: int) -> bool:
    return part.put(block, start, memoryview(chunk(block, start)))


def test_chunks_in_any_order_make_the_file(tmp_path: Path) -> None:
    part = PartFile(tmp_path / "file", blocks())
    assert part.missing(0, 2) == [
        (0, 2 * CHUNK_BYTES),
        (2 * CHUNK_BYTES, CHUNK_BYTES + 5),
    ]
    for block, start in ((1, CHUNK_BYTES), (0, 0), (0, 3 * CHUNK_BYTES), (1, 0), (0, CHUNK_BYTES)):
        assert put(part, block, start) and not put(part, block, start)
    assert part.missing(0, 8) == [(2 * CHUNK_BYTES, CHUNK_BYTES)] and not part.missing(1, 8)
    assert put(part, 0, 2 * CHUNK_BYTES) and not part.missing(0, 8)
    part.close()
    assert part.path.read_bytes() == DATA


def test_a_second_try_goes_on_from_what_is_right(tmp_path: Path) -> None:
    part = PartFile(tmp_path / "file", blocks())
    for start in (0, CHUNK_BYTES, 3 * CHUNK_BYTES):
        put(part, 0, start)
    part.close()
    damaged = bytearray(part.path.read_bytes())
    damaged[CHUNK_BYTES + 7] ^= 1
    part.path.write_bytes(damaged)
    again = PartFile(tmp_path / "file", blocks())
    assert again.claimed(0) and not again.claimed(1)
    assert again.check(0, digests(0)) == CHUNK_BYTES + 5
    assert again.missing(0, 8) == [(CHUNK_BYTES, 2 * CHUNK_BYTES)]
    again.close()
    again = PartFile(tmp_path / "file", blocks())
    assert again.missing(0, 8) == [(CHUNK_BYTES, 2 * CHUNK_BYTES)]
    again.forget(0)
    assert again.missing(0, 8) == [(0, LENGTHS[0])]
    again.close()


@pytest.mark.parametrize("change", ["generation", "cut", "record"])
def test_what_is_left_of_another_file_does_not_count(tmp_path: Path, change: str) -> None:
    part = PartFile(tmp_path / "file", blocks())
    put(part, 0, 0)
    part.close()
    if change == "cut":
        part.path.write_bytes(DATA[:100])
    if change == "record":
        record = part.path.with_name(part.path.name + ".map")
        record.write_bytes(b"x" + record.read_bytes()[1:])
    again = PartFile(tmp_path / "file", blocks(2 if change == "generation" else 1))
    assert not again.claimed(0) and again.missing(1, 8) == [(0, LENGTHS[1])]
    assert again.path.stat().st_size == len(DATA)
    again.close()


def test_two_at_once_do_not_share_it_and_no_link_is_followed(tmp_path: Path) -> None:
    part = PartFile(tmp_path / "file", blocks())
    with pytest.raises(BlockingIOError):
        PartFile(tmp_path / "file", blocks())
    part.close()
    with pytest.raises(InvalidRequest):
        put(part, 0, 0)
    part.remove()
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    part.path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"):
        PartFile(tmp_path / "file", blocks())
    assert victim.read_bytes() == b"precious"


def test_a_thread_that_still_looks_at_a_closed_one_touches_nobody_elses_file(
    tmp_path: Path,
) -> None:
    part = PartFile(tmp_path / "file", blocks())
    put(part, 0, 0)
    put(part, 1, 0)
    part.close()
    others = [(tmp_path / f"other{number}").open("w+b") for number in range(8)]
    with pytest.raises(InvalidRequest):
        part.check(0, digests(0))
    with pytest.raises(InvalidRequest):
        part.forget(1)
    for other in others:
        other.close()
    assert [(tmp_path / f"other{number}").stat().st_size for number in range(8)] == [0] * 8


def test_only_whole_chunks_are_taken(tmp_path: Path) -> None:
    part = PartFile(tmp_path / "file", blocks())
    for start, data in ((1, chunk(0, 0)), (0, b"short"), (3 * CHUNK_BYTES, b"")):
        with pytest.raises(InvalidRequest):
            part.put(0, start, memoryview(data))
    part.close()


def test_a_file_that_another_process_has_just_finished_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was opened under its old name and locked when the other had let go of it: then it was emptied, under its new name."""
    goal = tmp_path / "file"
    first = PartFile(goal, blocks())
    real = fcntl.flock

    def finish_and_lock(descriptor: int, how: int) -> None:
        if not goal.exists():
            for block, length in enumerate(LENGTHS):
                for start in range(0, length, CHUNK_BYTES):
                    put(first, block, start)
            first.path.replace(goal)
            first.remove_record()
            first.close()
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", finish_and_lock)
    second = PartFile(goal, blocks())
    assert goal.read_bytes() == DATA
    assert not second.path.samefile(goal) and second.missing(1, 8) == [(0, LENGTHS[1])]
    second.close()

"""Pieces of a file among its sources: all brought once, by those who are fast, past those who fail."""

from __future__ import annotations

import random

import pytest

from twinfs.client.shares import BAD_IN_A_ROW, Piece, Shares


def simulate(
    pieces: list[Piece], holders: list[list[int]], speeds: dict[int, float]
) -> tuple[float, dict[int, int]]:
    """One piece at a time of each source, *speeds* in bytes a second: (seconds, bytes each brought first)."""
    shares, now_s = Shares(pieces, holders), 0.0
    busy: dict[int, tuple[float, Piece]] = {}
    brought = dict.fromkeys(speeds, 0)
    while not shares.finished:
        for source, speed in speeds.items():
            if source not in busy and (piece := shares.take(source, now_s)) is not None:
                busy[source] = (now_s + piece.size / speed, piece)
        assert busy, "pieces are left and nobody is at them"
        source = min(busy, key=lambda number: busy[number][0])
        now_s, piece = busy.pop(source)
        if shares.brought(piece, source):
            brought[source] += piece.size
            for other in [n for n, (_, one) in busy.items() if one == piece]:
                del busy[other]  # cut, as somebody was faster
    return now_s, brought


def pieces_of(blocks: int, each: int) -> list[Piece]:
    return [Piece(block, start, 1) for block in range(blocks) for start in range(each)]


def test_each_source_moves_what_its_speed_allows() -> None:
    took_s, brought = simulate(pieces_of(1, 600), [[0, 1, 2]], {0: 1.0, 1: 2.0, 2: 3.0})
    assert took_s == pytest.approx(100, rel=0.03)
    assert brought[0] == pytest.approx(100, abs=3) and brought[2] == pytest.approx(300, abs=3)


def test_a_source_that_hangs_at_the_end_is_helped() -> None:
    took_s, brought = simulate(pieces_of(1, 100), [[0, 1]], {0: 1.0, 1: 1e-9})
    assert took_s == pytest.approx(100) and brought == {0: 100, 1: 0}


def test_nobody_is_asked_for_what_it_does_not_hold() -> None:
    holders = [[0], [1], [0, 1]]
    shares = Shares(pieces_of(3, 4), holders)
    taken: dict[int, list[int]] = {0: [], 1: []}
    while not shares.finished:
        for source in (0, 1):
            if (piece := shares.take(source, 0.0)) is not None:
                taken[source].append(piece.block)
                shares.brought(piece, source)
    assert set(taken[0]) <= {0, 2} and set(taken[1]) <= {1, 2}
    assert len(taken[0]) + len(taken[1]) == 12


def test_a_piece_that_one_can_not_give_comes_from_another() -> None:
    shares = Shares([Piece(0, 0, 1)], [[0, 1]])
    piece = shares.take(0, 0.0)
    assert piece is not None
    shares.failed(piece, 0)
    assert shares.take(0, 0.0) is None and shares.lost() is None
    assert shares.take(1, 0.0) == piece
    shares.failed(piece, 1)
    assert shares.lost() == piece and not shares.finished
    shares.found(0, [0])
    assert shares.lost() is None and shares.take(0, 0.0) == piece
    assert shares.brought(piece, 0) and shares.finished


def test_who_fails_again_and_again_is_left_alone() -> None:
    shares = Shares(pieces_of(10, 1), [[0, 1]] * 10)
    for _ in range(BAD_IN_A_ROW):
        piece = shares.take(0, 0.0)
        assert piece is not None
        shares.failed(piece, 0)
    assert shares.take(0, 0.0) is None and not shares.useful(0)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_fails_all_is_brought_once_or_said_to_be_lost(seed: int) -> None:
    rng = random.Random(seed)
    pieces = pieces_of(rng.randint(1, 4), rng.randint(1, 10))
    holders = [rng.sample(range(4), rng.randint(1, 4)) for _ in range(4)]
    shares = Shares(pieces, holders)
    flying: list[tuple[Piece, int]] = []
    brought: list[Piece] = []
    while not shares.finished:
        for source in range(4):
            if (piece := shares.take(source, 0.0)) is not None:
                assert (piece, source) not in flying
                flying.append((piece, source))
        if not flying:
            assert shares.lost() is not None
            return
        piece, source = flying.pop(rng.randrange(len(flying)))
        if rng.random() < 0.2:
            shares.failed(piece, source)
        elif shares.brought(piece, source):
            brought.append(piece)
    assert sorted(brought) == pieces

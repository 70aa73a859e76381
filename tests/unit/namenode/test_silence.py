"""Silence counts only while somebody listens."""

from __future__ import annotations

import random

import pytest

from twinfs.namenode.silence import LOOK_S, Silence

LIMIT_S = 60.0
RENEW_S = LIMIT_S / 4


class World:
    """A NameNode that looks, and a writer that renews while both live; no writer that lives may be called silent."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.offset_ms = 7_000_000
        self.heard_ms = self.wall_ms
        self.start()

    @property
    def wall_ms(self) -> int:
        return int(self.now_s * 1000) + self.offset_ms

    def start(self) -> None:
        self.silence = Silence(LIMIT_S, now_ms=self.wall_ms, now_s=self.now_s)

    def silent(self) -> bool:
        before_ms = self.silence.before_ms(LIMIT_S, self.wall_ms, self.now_s)
        return before_ms is not None and self.heard_ms < before_ms

    def listen(self, seconds: float, *, renewing: bool) -> bool:
        """Whether the writer was ever called silent meanwhile."""
        found = False
        end_s, next_s = self.now_s + seconds, self.now_s + RENEW_S
        while self.now_s < end_s:
            self.now_s += LOOK_S
            if renewing and self.now_s >= next_s:
                self.heard_ms, next_s = self.wall_ms, self.now_s + RENEW_S
            found = self.silent() or found
        return found


@pytest.fixture
def world() -> World:
    return World()


def test_who_says_nothing_is_silent_after_the_limit_and_not_before(world: World) -> None:
    assert not world.listen(LIMIT_S, renewing=False)
    assert world.listen(2 * LOOK_S, renewing=False)


def test_what_could_not_be_heard_during_a_restart_does_not_count(world: World) -> None:
    world.listen(300.0, renewing=True)
    world.now_s += 3_600.0
    world.start()
    assert not world.silent()
    assert not world.listen(300.0, renewing=True)
    assert world.listen(LIMIT_S + 2 * LOOK_S, renewing=False)


def test_nor_while_the_process_did_not_run(world: World) -> None:
    world.listen(300.0, renewing=True)
    world.now_s += LIMIT_S + 1.0
    assert not world.silent()
    assert not world.listen(300.0, renewing=True)


@pytest.mark.parametrize("set_s", [3_600.0, LIMIT_S + 1.0, -3_600.0])
def test_nor_when_the_clock_was_set(world: World, set_s: float) -> None:
    world.listen(300.0, renewing=True)
    world.offset_ms += int(set_s * 1000)
    assert not world.silent()
    assert not world.listen(300.0, renewing=True)
    assert world.listen(LIMIT_S + 2 * LOOK_S, renewing=False)


@pytest.mark.parametrize("seed", range(50))
def test_no_writer_that_lives_is_called_silent_whatever_happens_to_the_namenode(seed: int) -> None:
    world, rng = World(), random.Random(seed)
    for _ in range(100):
        assert not world.listen(rng.uniform(RENEW_S + LOOK_S, 200.0), renewing=True)
        what = rng.randrange(3)
        if what == 0:
            world.now_s += rng.uniform(0.0, 200.0)
            world.start()
        elif what == 1:
            world.now_s += rng.uniform(0.0, 200.0)
        else:
            world.offset_ms += rng.randrange(-200_000, 200_000)

"""Memory and files that threads bring bytes to, until nobody wants them any more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from twinfs.client.landing import Abandoned, Landing, OpenTarget
from twinfs.common.errors import StorageError

CONTENT = bytes(range(200))


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "replica"
    path.write_bytes(CONTENT)
    opened = os.open(path, os.O_RDONLY)
    yield opened
    os.close(opened)


def test_taking_what_was_read(descriptor: int) -> None:
    memory = bytearray(100)
    landing = Landing(memoryview(memory), 50)
    landing(60, memoryview(b"abc"))
    assert memory[10:13] == b"abc"


def test_taking_from_a_file(descriptor: int) -> None:
    """None where the system can't give it at once, as on a tmpfs: then nothing of the memory counts."""
    memory = bytearray(100)
    landing = Landing(memoryview(memory), 50)
    view = landing.take_from(descriptor, 60, 30)
    if view is not None:
        assert bytes(view) == CONTENT[60:90]
        assert memory == bytes(10) + CONTENT[60:90] + bytes(60)


@pytest.mark.parametrize(("at", "size"), [(49, 10), (0, 10), (60, 91), (150, 1)])
def test_what_does_not_lie_within_is_not_taken(descriptor: int, at: int, size: int) -> None:
    memory = bytearray(100)
    assert Landing(memoryview(memory), 50).take_from(descriptor, at, size) is None
    assert memory == bytes(100)


def test_less_than_asked_for_is_not_taken(descriptor: int) -> None:
    memory = bytearray(100)
    assert Landing(memoryview(memory), 150).take_from(descriptor, 150, 60) is None


def test_what_cannot_be_read_is_not_taken(tmp_path: Path) -> None:
    opened = os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT)
    try:
        assert Landing(memoryview(bytearray(10)), 0).take_from(opened, 0, 10) is None
    finally:
        os.close(opened)


def test_nothing_lands_where_nobody_waits(descriptor: int) -> None:
    memory = bytearray(100)
    landing = Landing(memoryview(memory), 50)
    landing.require_open()
    landing.close()
    with pytest.raises(Abandoned):
        landing(60, memoryview(b"abc"))
    with pytest.raises(Abandoned):
        landing.take_from(descriptor, 60, 30)
    with pytest.raises(Abandoned):
        landing.require_open()
    assert memory == bytes(100)


def test_a_late_thread_writes_to_no_file_that_came_after(tmp_path: Path) -> None:
    target = OpenTarget(os.open(tmp_path / "got", os.O_WRONLY | os.O_CREAT), "got")
    target.write(b"first")
    target.write(b"ly", 5)
    number = target.descriptor
    target.close()
    other = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
    try:
        assert other == number
        with pytest.raises(StorageError, match="got is not fetched any more"):
            target.write(b"late")
    finally:
        os.close(other)
    assert (tmp_path / "got").read_bytes() == b"firstly"
    assert (tmp_path / "other").read_bytes() == b""


def test_what_a_disk_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "got").touch()
    target = OpenTarget(os.open(tmp_path / "got", os.O_RDONLY), "got")
    with pytest.raises(StorageError, match="got: Bad file descriptor"):
        target.write(b"x")
    target.close()

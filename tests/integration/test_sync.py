"""The blocking library as a program uses it that makes the usual mistakes."""

from __future__ import annotations

import subprocess
import sys

import pytest

import twinfs
from twinfs.client import sync
from twinfs.common.errors import InvalidConfig

from ..support.cluster import Cluster


def program(*lines: str) -> subprocess.CompletedProcess[str]:
    """A Python program of its own, which has to come to its end."""
    return subprocess.run(
        [sys.executable, "-c", "\n".join(["import twinfs", *lines])],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    "left_open",
    [
        "file = fs.open('/left'); file.read(3)",
        "names = fs.list('/'); next(names)",
        "import os; file = fs.open('/left'); child = os.fork(); child and os.waitpid(child, 0)",
    ],
)
def test_a_program_ends_though_it_closed_nothing(cluster: Cluster, left_open: str) -> None:
    """It hung: the thread that would have answered does not run any more at that moment."""
    done = program(
        f"fs = twinfs.connect({cluster.url!r})",
        "fs.write_bytes('/left', b'bytes', overwrite=True)",
        left_open,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_left_open_for_writing_is_told_of(cluster: Cluster) -> None:
    done = program(
        f"fs = twinfs.connect({cluster.url!r})",
        "file = fs.open('/unfinished', 'wb')",
        "file.write(b'bytes')",
    )
    assert done.returncode == 0
    assert "/unfinished was not closed" in done.stderr


@pytest.mark.parametrize(
    "written",
    [
        "file = fs.open('/forgotten', 'wb'); file.write(b'bytes')",
        "file = fs.open('/forgotten', 'wb'); file.write(bytes(6_000_000))",
        "file = fs.open('/forgotten', 'wt'); file.write('text')",
        "file = fs.open('/forgotten', 'ab'); file.write(b'bytes')",
    ],
)
def test_a_file_of_fsspec_left_open_is_told_of_and_not_there(
    cluster: Cluster, fs: sync.FileSystem, written: str
) -> None:
    done = program(
        "import fsspec", f"fs = fsspec.filesystem('dfs', namenode={cluster.url!r})", written
    )
    assert done.returncode == 0
    assert "/forgotten was not closed: what was written to it is not stored" in done.stderr
    assert not [s.name for s in fs.list("/") if s.name == "forgotten" or "part-" in s.name]


def test_closing_a_file_system_under_a_file_that_is_written_is_told_of(cluster: Cluster) -> None:
    fs = sync.FileSystem.connect(cluster.url)
    file = fs.open("/cut-off", "wb")
    file.write(b"bytes")
    with pytest.warns(RuntimeWarning, match="/cut-off was not closed"):
        fs.close()
    with pytest.raises(ValueError, match="the file system is closed"):
        file.close()


def test_an_unreachable_namenode_is_one_traceback_and_no_more() -> None:
    done = program("fs = twinfs.connect('http://127.0.0.1:1', retry_s=0.1)", "fs.stat('/')")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("twinfs.common.errors.Unavailable")


def test_what_is_closed_says_so(cluster: Cluster) -> None:
    fs = sync.FileSystem.connect(cluster.url)
    fs.write_bytes("/closed", b"bytes", overwrite=True)
    file = fs.open("/closed")
    names = fs.list("/")
    next(names)
    fs.close()
    fs.close()
    file.close()
    names.close()
    with pytest.raises(ValueError, match="the file system is closed"):
        fs.stat("/closed")
    with pytest.raises(ValueError, match="the file system is closed"):
        fs.open("/closed")


def test_a_setting_that_there_is_not_is_refused() -> None:
    for connect in (twinfs.connect, twinfs.connect_async):
        with pytest.raises(InvalidConfig, match="no setting 'replicaton'"):
            connect("http://127.0.0.1:9870", replicaton=2)


def test_text_is_no_bytes(fs: sync.FileSystem) -> None:
    with pytest.raises(TypeError, match="a bytes-like object is required, not 'str'"):
        fs.write_bytes("/text", "text")  # type: ignore[arg-type]
    assert not fs.exists("/text")

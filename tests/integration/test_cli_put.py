"""`dfs put`, and what is left when a command that moves bytes is interrupted."""

from __future__ import annotations

import getpass
import io
import os
import signal
import sys
from pathlib import Path

import pytest

from twinfs.client import sync
from twinfs.client.cli import progress

from ..support.cluster import Cluster, wait_until
from .commands import LARGE, MIB, Dfs, ended, interrupted, make_tree, names

# --- put ---


def test_put_a_file(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    file = dfs.folder / "file"
    file.write_bytes(LARGE)
    file.chmod(0o751)
    os.utime(file, (1_234_567_890.5, 1_234_567_890.5))
    assert dfs("put", "file", f"{at}/new") == ""
    status = fs.stat(f"{at}/new")
    assert (status.mode, status.mtime_ms) == (0o751, 1_234_567_890_500)
    assert fs.read_bytes(f"{at}/new") == LARGE
    dfs("put", "file", at)
    dfs("put", "file")
    assert fs.read_bytes(f"{at}/file") == LARGE
    assert fs.stat(f"/user/{getpass.getuser()}/file").length == len(LARGE)
    options = ("--replication", "1", "--block-size", str(MIB), "--json")
    (document,) = [*dfs.json("put", *options[:-1], file, f"{at}/options")]
    assert (document["path"], document["replication"]) == (f"{at}/options", 1)
    assert [block.block.length for block in fs.locate(f"{at}/options").blocks] == [
        *(MIB, MIB, MIB),
        11,
    ]


def test_put_never_replaces_unasked(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    file = dfs.folder / "file"
    file.write_bytes(b"first")
    dfs("put", "file", f"{at}/file")
    file.write_bytes(b"second")
    exists = "cannot put 'file': File exists; give -f to replace it"
    assert dfs.fails("put", "file", f"{at}/file") == exists
    assert dfs.fails("put", "file", at) == exists
    assert fs.read_bytes(f"{at}/file") == b"first"
    dfs("put", "-f", "file", at)
    assert fs.read_bytes(f"{at}/file") == b"second"


def test_standard_input_may_get_the_longest_name(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    name = "海" * 85
    dfs("put", "-", f"{at}/{name}", stdin=b"there")
    assert fs.read_bytes(f"{at}/{name}") == b"there"


def test_put_refuses(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    (dfs.folder / "a").write_bytes(b"a")
    (dfs.folder / "b").write_bytes(b"b")
    (dfs.folder / "tree").mkdir()
    fs.write_bytes(f"{at}/file", b"")
    long = "n" * 300
    for arguments, said in (
        (["none", f"{at}/x"], "cannot put 'none': No such file or directory"),
        (["none*", at], "cannot put 'none*': No such file or directory"),
        ([long, at], f"cannot put '{long}': File name too long"),
        (["a", f"{at}/no/x"], "cannot put 'a': No such file or directory"),
        (["a", f"{at}/file/x"], f"target '{at}/file/x': Not a directory"),
        (["a", f"{at}/no/"], f"target '{at}/no/': Not a directory"),
        (["-f", "a", f"{at}/file/"], f"target '{at}/file/': Not a directory"),
        (["a", "b", f"{at}/file"], f"target '{at}/file': Not a directory"),
        (["tree", at], "cannot put 'tree': Is a directory; give -r to store it"),
        (["-", at], "cannot put '-': Is a directory; standard input needs a file name"),
    ):
        assert dfs.fails("put", *arguments) == said
    assert names(fs, at) == ["file"]


def test_put_goes_on_after_what_fails(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    for name in ("a1", "a2", "b1", "[x]"):
        (dfs.folder / name).write_bytes(name.encode())
    answer = dfs.run("put", "a?", "none", "[x]", at)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "dfs: cannot put 'none': No such file or directory\n"
    assert names(fs, at) == ["[x]", "a1", "a2"]


def test_put_of_a_tree_keeps_modes_and_times(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    facts = make_tree(dfs.folder / "tree")
    (document,) = dfs.json("put", "-r", "tree", f"{at}/copy")
    assert document == {
        "files": 2,
        "directories": 3,
        "bytes": 5 + len(LARGE),
        "skipped": 0,
        "errors": [],
    }
    for name, (mode, mtime) in facts.items():
        status = fs.stat(f"{at}/copy/{name}" if name != "." else f"{at}/copy")
        assert (status.mode, status.mtime_ms // 1000) == (mode, mtime), name
    assert fs.read_bytes(f"{at}/copy/sub/large") == LARGE


def test_put_of_a_tree_into_a_directory(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    make_tree(dfs.folder / "tree")
    whole = ["tree", "tree/small", "tree/sub", "tree/sub/empty", "tree/sub/large"]
    dfs("put", "-r", "tree/", at)
    assert names(fs, at) == whole
    assert dfs.fails("put", "-r", "tree", at) == (
        "cannot put 'tree': File exists; -f merges into it, --resume adds what is missing"
    )
    (dfs.folder / "tree" / "small").write_bytes(b"changed")
    (document,) = dfs.json("put", "-r", "--resume", "tree", at)
    assert (document["files"], document["skipped"]) == (1, 1)
    assert fs.read_bytes(f"{at}/tree/small") == b"changed"
    fs.write_bytes(f"{at}/tree/other", b"")
    (document,) = dfs.json("put", "-r", "-f", "tree", at)
    assert (document["files"], document["skipped"]) == (2, 0)
    assert names(fs, at) == sorted([*whole, "tree/other"])
    fs.write_bytes(f"{at}/file", b"")
    assert dfs.fails("put", "-r", "tree", f"{at}/file").startswith("cannot put 'tree': File exists")


def test_put_resume_leaves_files_alone_that_are_there(
    dfs: Dfs, fs: sync.FileSystem, at: str
) -> None:
    (dfs.folder / "file").write_bytes(b"one")
    dfs("put", "--resume", "file", at)
    inode = fs.stat(f"{at}/file").inode_id
    dfs("put", "--resume", "file", at)
    assert fs.stat(f"{at}/file").inode_id == inode
    (dfs.folder / "file").write_bytes(b"longer")
    dfs("put", "--resume", "file", at)
    assert fs.read_bytes(f"{at}/file") == b"longer"


def test_resume_goes_on_where_the_same_command_began(dfs: Dfs, at: str, tmp_path: Path) -> None:
    """`put -r tree /x/tree` makes /x/tree; the same again with --resume means that one, not /x/tree/tree."""
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "a").write_text("a")
    dfs("put", "-r", tree, f"{at}/tree")
    (tree / "sub" / "b").write_text("b")
    dfs("put", "-r", "--resume", tree, f"{at}/tree")
    names = dfs("find", f"{at}/tree").split()
    assert names == [f"{at}/tree", f"{at}/tree/a", f"{at}/tree/sub", f"{at}/tree/sub/b"]
    # Where the name is there below the destination, it is that one.
    dfs("mkdir", f"{at}/more")
    dfs("put", "-r", tree, f"{at}/more")
    (tree / "c").write_text("c")
    dfs("put", "-r", "--resume", tree, f"{at}/more/")
    assert dfs("cat", f"{at}/more/tree/c") == "c"
    dfs("put", "-r", "-T", "--resume", tree, f"{at}/tree")
    assert dfs("cat", f"{at}/tree/c") == "c"
    (tmp_path / "back").mkdir()
    for _ in range(2):
        dfs("get", "-r", "--resume", f"{at}/tree", tmp_path / "back" / "tree")
    assert sorted(p.name for p in (tmp_path / "back" / "tree").rglob("*")) == ["a", "b", "c", "sub"]
    assert "-T goes with one source" in dfs.misused("put", "-T", tree, tree, f"{at}/tree")


def test_put_names_what_it_leaves_out(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    """Links, pipes and names that are no text: said, and the rest is stored."""
    tree = dfs.folder / "tree"
    tree.mkdir()
    (tree / "good").write_bytes(b"good")
    (tree / "new\nline").write_bytes(b"line")
    (tree / "link").symlink_to("good")
    os.mkfifo(tree / "pipe")
    bad = os.fsencode(tree) + b"/bad\xff"
    with open(bad, "wb") as file:  # noqa: PTH123
        file.write(b"bad")
    answer = dfs.run("put", "-r", "tree", at)
    assert (answer.code, answer.out) == (1, "")
    said = sorted(answer.err.splitlines())
    assert [line.partition(": name ")[0].partition(": 'tree")[0] for line in said] == [
        r"dfs: cannot put 'tree/bad\udcff'",
        "dfs: cannot put 'tree/link'",
        "dfs: cannot put 'tree/pipe'",
    ]
    assert names(fs, at) == ["tree", "tree/good", "tree/new\nline"]
    assert dfs.fails("put", bad, at).endswith(r"bad\udcff': the name is not valid Unicode text")
    dfs("put", bad, f"{at}/named")
    assert fs.read_bytes(f"{at}/named") == b"bad"


def test_put_standard_input(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    dfs("put", "-", f"{at}/in", stdin=LARGE)
    assert fs.read_bytes(f"{at}/in") == LARGE
    exists = "cannot put '-': File exists; give -f to replace it"
    assert dfs.fails("put", "-", f"{at}/in", stdin=b"x") == exists
    dfs("put", "-f", "-", f"{at}/in", stdin=b"")
    assert fs.read_bytes(f"{at}/in") == b""
    assert dfs.fails("put", "-", f"{at}/no/x") == "cannot put '-': No such file or directory"
    assert names(fs, at) == ["in"]


# --- interruption ---


def test_an_interrupted_put_leaves_nothing(
    dfs: Dfs, cluster: Cluster, fs: sync.FileSystem, at: str
) -> None:
    with (dfs.folder / "huge").open("wb") as file:
        file.truncate(4 << 30)
    with dfs.running("put", "huge", f"{at}/huge") as process:
        writing = [cluster.folder / node.name / "writing" for node in cluster.datanodes]
        wait_until(lambda: any(any(path.iterdir()) for path in writing), "bytes are on their way")
        interrupted(process)
    assert names(fs, at) == []


def test_an_interrupted_put_of_standard_input_leaves_nothing(
    dfs: Dfs, fs: sync.FileSystem, at: str
) -> None:
    """Even while it waits for a terminal that says nothing."""
    with dfs.running("put", "-", f"{at}/in") as process:
        assert process.stdin is not None
        process.stdin.write(LARGE)
        process.stdin.flush()
        wait_until(lambda: len(names(fs, at)) == 1, "the put has begun")
        assert names(fs, at) != ["in"]
        assert dfs("ls", at) == ""
        interrupted(process)
    assert names(fs, at) == []


def test_an_interrupted_append_keeps_what_has_arrived(
    dfs: Dfs, fs: sync.FileSystem, at: str
) -> None:
    with dfs.running("append", "-", f"{at}/log") as process:
        assert process.stdin is not None
        process.stdin.write(b"x" * (2 * MIB))
        process.stdin.flush()
        wait_until(lambda: fs.exists(f"{at}/log"), "the append has begun")
        interrupted(process)
    dfs("lease", "recover", f"{at}/log")
    length = fs.stat(f"{at}/log").length
    assert fs.read_bytes(f"{at}/log") == b"x" * length
    dfs("append", "-", f"{at}/log", stdin=b"y")
    assert fs.read_bytes(f"{at}/log") == b"x" * length + b"y"


def test_an_interrupted_get_leaves_nothing(
    dfs: Dfs, cluster: Cluster, fs: sync.FileSystem, at: str
) -> None:
    fs.write_bytes(f"{at}/file", LARGE)
    try:
        # A get that can't go on is interrupted in the middle for certain.
        for node in cluster.datanodes:
            node.signal(signal.SIGSTOP)
        with dfs.running("get", f"{at}/file", ".") as process:
            wait_until(lambda: any(dfs.folder.iterdir()), "the get has begun")
            process.send_signal(signal.SIGINT)
            for node in cluster.datanodes:
                node.signal(signal.SIGCONT)
            assert ended(process) == 130
    finally:
        for node in cluster.datanodes:
            node.signal(signal.SIGCONT)
    assert list(dfs.folder.iterdir()) == []


def test_cat_can_be_interrupted_while_nobody_reads(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    fs.write_bytes(f"{at}/file", LARGE)
    with dfs.running("cat", f"{at}/file") as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == LARGE[:1]
        interrupted(process)


# --- progress ---


class Stream(io.StringIO):
    """A stream that says whether it is a terminal."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_is_for_terminals_only(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    stream = Stream(terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "SHOW_AFTER_S", 0.0)
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    line = progress.ProgressLine("file", 2 * MIB)
    line(MIB)
    line.close()
    if terminal:
        assert "1.0M of   2.0M [##########          ]  50%" in stream.getvalue()
        assert stream.getvalue().endswith("\r\x1b[K")
    else:
        assert stream.getvalue() == ""

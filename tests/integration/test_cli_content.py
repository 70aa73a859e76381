"""`dfs`: the commands that fetch, read and change bytes."""

from __future__ import annotations

from twinfs.client import sync
from twinfs.common.checksum import digest_of

from .commands import LARGE, MIB, Dfs, ended, interrupted, make_tree, names

# --- get ---


def test_get(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    fs.write_bytes(f"{at}/large", LARGE, permissions=0o640, mtime_ms=1_234_567_890_000)
    fs.write_bytes(f"{at}/small", b"small")
    assert dfs("get", f"{at}/large") == ""
    found = dfs.folder / "large"
    assert found.read_bytes() == LARGE
    assert (found.stat().st_mode & 0o777, found.stat().st_mtime) == (0o640, 1_234_567_890)
    (dfs.folder / "sub").mkdir()
    dfs("get", f"{at}/*", "sub")
    assert sorted(path.name for path in (dfs.folder / "sub").iterdir()) == ["large", "small"]
    (document,) = dfs.json("get", f"{at}/small", "named")
    assert document["path"] == f"{at}/small"
    assert (dfs.folder / "named").read_bytes() == b"small"
    assert dfs.run("get", f"{at}/large", f"{at}/small", "-").raw == LARGE + b"small"


def test_get_never_replaces_unasked(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    fs.write_bytes(f"{at}/file", b"new")
    file = dfs.folder / "file"
    file.write_bytes(b"old")
    exists = f"cannot get '{at}/file': File exists; give -f to replace it"
    assert dfs.fails("get", f"{at}/file") == exists
    assert dfs.fails("get", f"{at}/file", "file") == exists
    assert file.read_bytes() == b"old"
    dfs("get", "-f", f"{at}/file")
    assert file.read_bytes() == b"new"
    inode = file.stat().st_ino
    dfs("get", "--resume", f"{at}/file")
    assert file.stat().st_ino == inode


def test_get_of_a_tree_and_again(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    facts = make_tree(dfs.folder / "tree")
    dfs("put", "-r", "tree", at)
    (document,) = dfs.json("get", "-r", f"{at}/tree", "back")
    assert (document["files"], document["directories"], document["errors"]) == (2, 3, [])
    for name, (mode, mtime) in facts.items():
        found = (dfs.folder / "back" / name).stat()
        assert (found.st_mode & 0o7777, int(found.st_mtime)) == (mode, mtime), name
    assert (dfs.folder / "back" / "sub" / "large").read_bytes() == LARGE
    assert dfs.fails("get", "-r", f"{at}/tree", ".") == (
        f"cannot get '{at}/tree': File exists; -f merges into it, --resume adds what is missing"
    )
    (dfs.folder / "tree" / "small").unlink()
    (document,) = dfs.json("get", "-r", "--resume", f"{at}/tree", ".")
    assert (document["files"], document["skipped"]) == (1, 1)
    (document,) = dfs.json("get", "-r", "-f", f"{at}/tree", ".")
    assert (document["files"], document["skipped"]) == (2, 0)


def test_get_refuses(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    fs.write_bytes(f"{at}/a", b"a")
    fs.write_bytes(f"{at}/b", b"b")
    fs.mkdirs(f"{at}/sub")
    (dfs.folder / "file").write_bytes(b"")
    (dfs.folder / "a").mkdir()
    for arguments, said in (
        ([f"{at}/none"], f"cannot get '{at}/none': No such file or directory"),
        ([f"{at}/z*", "."], f"cannot get '{at}/z*': No such file or directory"),
        ([f"{at}/sub"], f"cannot get '{at}/sub': Is a directory; give -r to fetch it"),
        ([f"{at}/a", f"{at}/b", "none"], "target 'none': Not a directory"),
        ([f"{at}/a", f"{at}/b", "file"], "target 'file': Not a directory"),
        ([f"{at}/b", "none/"], "target 'none/': Not a directory"),
        (["-f", f"{at}/a", "."], f"cannot get '{at}/a': a is a directory"),
        ([f"{at}/b", "n" * 300], f"cannot get '{at}/b': File name too long"),
    ):
        assert dfs.fails("get", *arguments) == said
    assert sorted(path.name for path in dfs.folder.iterdir()) == ["a", "file"]
    said = dfs.fails("get", f"{at}/b", "none/b", code=74)
    assert said.startswith(f"cannot get '{at}/b': ")
    assert said.endswith(": No such file or directory")
    answer = dfs.run("get", f"{at}/sub", "-")
    assert (answer.code, answer.err) == (1, f"dfs: cannot read '{at}/sub': Is a directory\n")


# --- cat, head, tail ---


def test_cat(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    fs.write_bytes(f"{at}/a", b"a\xff\n")
    fs.write_bytes(f"{at}/large", LARGE)
    fs.write_bytes(f"{at}/empty", b"")
    answer = dfs.run("cat", f"{at}/a", f"{at}/large", f"{at}/empty", f"{at}/a")
    assert (answer.code, answer.raw) == (0, b"a\xff\n" + LARGE + b"a\xff\n")
    answer = dfs.run("cat", f"{at}/none", f"{at}/a", at)
    assert (answer.code, answer.raw) == (1, b"a\xff\n")
    assert answer.err.splitlines() == [
        f"dfs: cannot read '{at}/none': No such file or directory",
        f"dfs: cannot read '{at}': Is a directory",
    ]


def test_head_and_tail(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    lines = "".join(f"{number}\n" for number in range(1, 31))
    file, open_end = f"{at}/lines", f"{at}/open-end"
    fs.write_bytes(file, lines.encode())
    fs.write_bytes(open_end, b"one\ntwo")
    fs.write_bytes(f"{at}/large", LARGE)
    assert dfs("head", file) == lines[: lines.index("11")]
    assert dfs("tail", file) == lines[lines.index("21") :]
    assert dfs("head", "-n", "2", file) == "1\n2\n"
    assert dfs("tail", "-n", "2", file) == "29\n30\n"
    assert dfs("head", "-n", "99", file) == dfs("tail", "-n", "99", file) == lines
    assert dfs("head", "-n", "0", file) == dfs("tail", "-n", "0", file) == ""
    assert dfs("head", "-c", "3", file) == "1\n2"
    assert dfs("tail", "-c", "4", file) == "\n30\n"
    assert dfs("tail", "-n", "1", open_end) == "two"
    assert dfs("head", "-n", "1", file, open_end) == (
        f"==> {file} <==\n1\n==> {open_end} <==\none\n"
    )
    count = str(2 * MIB)
    assert dfs.run("head", "-c", count, f"{at}/large").raw == LARGE[: 2 * MIB]
    assert dfs.run("tail", "-c", count, f"{at}/large").raw == LARGE[-2 * MIB :]
    ending = LARGE.rsplit(b"\n", 2001)[1:]
    assert dfs.run("tail", "-n", "2001", f"{at}/large").raw == b"\n".join(ending)
    for command in ("head", "tail"):
        assert dfs.fails(command, f"{at}/none") == (
            f"cannot read '{at}/none': No such file or directory"
        )
        assert dfs.fails(command, at) == f"cannot read '{at}': Is a directory"


def test_tail_follows(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    file = f"{at}/log"
    fs.write_bytes(file, b"1\n2\n")
    with dfs.running("tail", "-n", "1", "-f", file) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"2\n"
        dfs("append", "-", file, stdin=b"3\n")
        assert process.stdout.readline() == b"3\n"
        # What is flushed is there to be read, even while the file is being written.
        with fs.open(file, "ab") as writer:
            writer.write(b"4\n5\n")
            writer.flush()
            writer.raw.hflush()
            assert process.stdout.readline() == b"4\n"
            assert process.stdout.readline() == b"5\n"
        interrupted(process)


def test_tail_ends_with_the_file(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    file = f"{at}/log"
    fs.write_bytes(file, b"1\n")
    with dfs.running("tail", "-f", file) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"1\n"
        fs.delete(file)
        assert ended(process) == 1
        assert process.stderr.read().decode() == (
            f"dfs: cannot read '{file}': No such file or directory\n"
        )


# --- append, truncate, getmerge, checksum ---


def test_append(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    file = f"{at}/file"
    (dfs.folder / "local").write_bytes(LARGE)
    dfs("append", "-", file, stdin=b"begin")
    dfs("append", "local", "-", file, stdin=b"end")
    assert fs.read_bytes(file) == b"begin" + LARGE + b"end"
    for goal, why in (
        (at, "Is a directory"),
        (f"{at}/no/file", "No such file or directory"),
        (f"{file}/below", "Not a directory"),
    ):
        assert dfs.fails("append", "local", goal) == f"cannot append to '{goal}': {why}"
    assert dfs.fails("append", "none", f"{at}/new", code=74) == (
        f"cannot append to '{at}/new': none: No such file or directory"
    )
    assert names(fs, at) == ["file"]


def test_append_waits_for_no_other_writer(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    with fs.open(f"{at}/file", "xb") as writer:
        writer.write(b"mine")
        said = dfs.fails("append", "-", f"{at}/file", stdin=b"theirs")
        assert said.startswith(f"cannot append to '{at}/file': ")
    assert fs.read_bytes(f"{at}/file") == b"mine"


def test_truncate(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    for name in ("a", "b"):
        fs.write_bytes(f"{at}/{name}", LARGE)
    dfs("truncate", "-s", str(MIB + 5), f"{at}/a", f"{at}/b")
    assert fs.read_bytes(f"{at}/a") == fs.read_bytes(f"{at}/b") == LARGE[: MIB + 5]
    dfs("truncate", "--size", "0", f"{at}/a")
    assert fs.stat(f"{at}/a").length == 0
    assert dfs.fails("truncate", "-s", "1", f"{at}/a", code=2).startswith(
        f"cannot truncate '{at}/a': "
    )
    said = dfs.fails("truncate", "-s", "0", f"{at}/none", at)
    assert said.splitlines() == [
        f"cannot truncate '{at}/none': No such file or directory",
        f"cannot truncate '{at}': Is a directory",
    ]


def test_getmerge(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    for name in ("a", "b", "deep/c"):
        fs.write_bytes(f"{at}/{name}", name.encode())
    fs.write_bytes(f"{at}/large", LARGE)
    goal = dfs.folder / "merged"
    dfs("getmerge", f"{at}/large", at, "merged")
    assert goal.read_bytes() == LARGE + b"ab" + LARGE
    assert dfs.fails("getmerge", at, "merged") == "cannot create 'merged': File exists"
    dfs("getmerge", "-f", "--nl", f"{at}/[ab]", "merged")
    assert goal.read_text() == "a\nb\n"
    assert dfs("getmerge", f"{at}/b", f"{at}/deep", "-") == "bdeep/c"
    assert dfs.fails("getmerge", f"{at}/a", f"{at}/none", "other") == (
        f"cannot get '{at}/none': No such file or directory"
    )
    assert dfs.fails("getmerge", f"{at}/a", "no/other", code=74) == (
        "cannot merge into 'no/other': no/other: No such file or directory"
    )
    assert [path.name for path in dfs.folder.iterdir()] == ["merged"]


def test_checksum(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    fs.write_bytes(f"{at}/small", b"small")
    fs.write_bytes(f"{at}/large", LARGE)
    small = digest_of(b"small").hex()
    large = fs.checksum(f"{at}/large")
    assert dfs("checksum", f"{at}/*") == f"{large}  {at}/large\n{small}  {at}/small\n"
    assert dfs.json("checksum", f"{at}/small") == [{"path": f"{at}/small", "checksum": small}]
    said = dfs.fails("checksum", f"{at}/none", at)
    assert said.splitlines() == [
        f"cannot read '{at}/none': No such file or directory",
        f"cannot read '{at}': Is a directory",
    ]

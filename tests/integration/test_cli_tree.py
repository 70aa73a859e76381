"""`dfs`: the commands that change the tree, and what files are."""

from __future__ import annotations

import getpass
import re
from pathlib import Path

import pytest

from twinfs.client import sync

from ..support.cluster import Cluster, wait_until
from .commands import Dfs, interrupted, names


@pytest.fixture
def dfs(cluster: Cluster, tmp_path: Path) -> Dfs:
    return Dfs(cluster.url, tmp_path)


@pytest.fixture
def at(fs: sync.FileSystem, request: pytest.FixtureRequest) -> str:
    """A directory of the test's own: with files `a` and `b`, and `sub/c`."""
    path = "/" + re.sub(r"\W+", "-", request.node.name)
    for name in ("a", "b", "sub/c"):
        fs.write_bytes(f"{path}/{name}", name.encode())
    return path


# --- mkdir, touch ---


def test_mkdir(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    dfs("mkdir", f"{at}/x", f"{at}/y")
    dfs("mkdir", "-p", f"{at}/x/1/2", f"{at}/x/1/2")
    dfs("mkdir", "-m", "1770", f"{at}/z")
    assert fs.stat(f"{at}/x/1/2").mode == 0o755
    assert fs.stat(f"{at}/z").mode == 0o1770
    begin = "cannot create directory"
    assert dfs.fails("mkdir", f"{at}/x", f"{at}/no/dir", f"{at}/a/dir").splitlines() == [
        f"{begin} '{at}/x': File exists",
        f"{begin} '{at}/no/dir': No such file or directory",
        f"{begin} '{at}/a/dir': Not a directory",
    ]
    assert dfs.fails("mkdir", "-p", f"{at}/a") == f"{begin} '{at}/a': File exists"


def test_touch(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    dfs("touch", f"{at}/new")
    assert fs.stat(f"{at}/new").length == 0
    dfs("touch", "-d", "1000.5", f"{at}/a")
    assert (fs.stat(f"{at}/a").mtime_ms, fs.stat(f"{at}/a").atime_ms) == (1_000_500, 1_000_500)
    dfs("touch", "-m", "-d", "2000", f"{at}/a")
    dfs("touch", "-a", "-d", "3000", f"{at}/a")
    assert (fs.stat(f"{at}/a").mtime_ms, fs.stat(f"{at}/a").atime_ms) == (2_000_000, 3_000_000)
    dfs("touch", f"{at}/a", at)
    assert fs.stat(f"{at}/a").mtime_ms > 1_500_000_000_000
    assert fs.read_bytes(f"{at}/a") == b"a"
    dfs("touch", "-c", f"{at}/none")
    assert not fs.exists(f"{at}/none")
    said = dfs.fails("touch", f"{at}/no/file", f"{at}/a/file")
    assert said.splitlines() == [
        f"cannot touch '{at}/no/file': No such file or directory",
        f"cannot touch '{at}/a/file': Not a directory",
    ]


# --- mv, cp ---


def test_mv(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    dfs("mv", f"{at}/a", f"{at}/a2")
    dfs("mv", f"{at}/a2", f"{at}/b", f"{at}/sub")
    assert names(fs, at) == ["sub", "sub/a2", "sub/b", "sub/c"]
    dfs("mv", f"{at}/sub/[ab]*", at)
    assert names(fs, at) == ["a2", "b", "sub", "sub/c"]
    dfs("mv", f"{at}/sub", f"{at}/moved")
    assert dfs.fails("mv", f"{at}/a2", f"{at}/b") == f"cannot move '{at}/a2': File exists"
    dfs("mv", "-f", f"{at}/a2", f"{at}/b")
    assert fs.read_bytes(f"{at}/b") == b"a"
    dfs("mv", "-f", f"{at}/b", f"{at}/b")
    assert fs.read_bytes(f"{at}/b") == b"a"
    for arguments, said in (
        (["none", "x"], "cannot move '{}/none': No such file or directory"),
        (["b", "none/x"], "cannot move '{}/b': No such file or directory"),
        (["b", "moved", "none"], "target '{}/none': Not a directory"),
        (["b", "none/"], "target '{}/none/': Not a directory"),
        (["moved", "b/"], "target '{}/b/': Not a directory"),
    ):
        assert dfs.fails("mv", *(f"{at}/{name}" for name in arguments)) == said.format(at)
    said = dfs.fails("mv", f"{at}/moved", f"{at}/moved/below")
    assert said.startswith(f"cannot move '{at}/moved': ")
    assert dfs.fails("mv", "/", at).startswith("cannot move '/': ")
    assert names(fs, at) == ["b", "moved", "moved/c"]


def test_cp(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    dfs("cp", f"{at}/a", f"{at}/copy")
    dfs("cp", f"{at}/?", f"{at}/sub")
    dfs("cp", "-r", f"{at}/sub", f"{at}/tree")
    dfs("cp", "-r", f"{at}/sub", f"{at}/tree")
    below = ["a", "b", "c"]
    assert names(fs, f"{at}/tree") == [*below, "sub", *(f"sub/{name}" for name in below)]
    assert fs.read_bytes(f"{at}/copy") == b"a"
    assert dfs.fails("cp", f"{at}/b", f"{at}/copy") == f"cannot copy '{at}/b': File exists"
    dfs("cp", "-f", f"{at}/b", f"{at}/copy")
    assert fs.read_bytes(f"{at}/copy") == b"b"
    for arguments, said in (
        (["sub", "sub2"], "cannot copy '{}/sub': Is a directory; give -r to copy it"),
        (["none", "x"], "cannot copy '{}/none': No such file or directory"),
        (["a", "none/x"], "cannot copy '{}/a': No such file or directory"),
        (["a", "b", "copy"], "target '{}/copy': Not a directory"),
        (["a", "copy/"], "target '{}/copy/': Not a directory"),
    ):
        assert dfs.fails("cp", *(f"{at}/{name}" for name in arguments)) == said.format(at)
    for goal in (f"{at}/sub", f"{at}/sub/below"):
        assert dfs.fails("cp", "-r", f"{at}/sub", goal) == (
            f"cannot copy '{at}/sub': a directory can't be copied into itself"
        )
    assert names(fs, f"{at}/sub") == below


# --- rm, trash ---


def test_rm_moves_to_the_trash_and_back(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    trash = f"/user/{getpass.getuser()}/.Trash"
    fs.mkdirs(f"{at}/empty")
    assert dfs("rm", f"{at}/a") == f"Moved to trash: {trash}/Current{at}/a\n"
    assert dfs("rm", "-r", f"{at}/sub", f"{at}/empty").count("Moved to trash: ") == 2
    assert names(fs, at) == ["b"]
    rows = [line.split("\t") for line in dfs("trash", "list").splitlines()]
    assert [row for row in rows if row[0].startswith(at)] == [
        [f"{at}/{name}", f"{trash}/Current{at}/{name}"] for name in ("a", "empty", "sub/c")
    ]
    documents = {document["original"]: document for document in dfs.json("trash", "list")}
    assert documents[f"{at}/sub"]["type"] == "directory"
    assert documents[f"{at}/a"]["path"] == f"{trash}/Current{at}/a"

    assert dfs("trash", "restore", f"{at}/sub") == f"Restored: {at}/sub\n"
    assert dfs("trash", "restore", f"{trash}/Current{at}/a") == f"Restored: {at}/a\n"
    assert fs.read_bytes(f"{at}/sub/c") == b"sub/c"
    said = dfs.fails("trash", "restore", f"{at}/a", f"{at}/never")
    assert said.splitlines() == [
        f"cannot restore '{at}/a': No such file or directory",
        f"cannot restore '{at}/never': No such file or directory",
    ]
    dfs("rm", f"{at}/a")
    fs.write_bytes(f"{at}/a", b"another")
    assert dfs.fails("trash", "restore", f"{at}/a") == f"cannot restore '{at}/a': File exists"
    assert fs.read_bytes(f"{at}/a") == b"another"
    assert dfs("trash", "empty") == dfs("trash", "empty") == dfs("trash", "list") == ""
    assert not fs.exists(trash)


def test_rm_for_good(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    assert dfs("rm", "--skip-trash", f"{at}/a") == ""
    assert dfs.json("rm", "--skip-trash", "-r", f"{at}/s*") == [
        {"path": f"{at}/sub", "trash": None}
    ]
    (document,) = dfs.json("rm", f"{at}/b")
    assert (document["path"], fs.exists(document["trash"])) == (f"{at}/b", True)
    assert names(fs, at) == []


def test_rm_refuses(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    answer = dfs.run("rm", "--skip-trash", f"{at}/sub", f"{at}/none", f"{at}/a", f"{at}/z*")
    assert answer.code == 1
    assert answer.err.splitlines() == [
        f"dfs: cannot remove '{at}/none': No such file or directory",
        f"dfs: cannot remove '{at}/z*': No such file or directory",
        f"dfs: cannot remove '{at}/sub': Is a directory; give -r to remove it",
    ]
    assert names(fs, at) == ["b", "sub", "sub/c"]
    assert dfs.fails("rm", "-rf", "/") == "cannot remove '/': the root can't be removed"
    assert dfs("rm", "-f", f"{at}/none", f"{at}/b/below", f"{at}/z*") == ""
    assert fs.exists(f"{at}/b")


def test_what_changes_things_tells_in_json_what_it_changed(dfs: Dfs, at: str) -> None:
    """A document for each change; what fails is said on standard error as always."""
    for command, operation in (
        (("mkdir", f"{at}/d"), "mkdirs"),
        (("touch", f"{at}/e"), "put_files"),
        (("cp", f"{at}/e", f"{at}/f"), "copy"),
        (("mv", f"{at}/f", f"{at}/g"), "rename"),
        (("chmod", "600", f"{at}/g"), "set_mode"),
        (("chown", "root", f"{at}/g"), "set_owner"),
        (("setrep", "2", f"{at}/g"), "set_replication"),
        (("setfacl", "-m", "user:eve:r--", f"{at}/g"), "modify_acl"),
        (("xattr", "set", f"{at}/g", "user.a", "b"), "set_xattr"),
        (("xattr", "rm", f"{at}/g", "user.a"), "remove_xattr"),
        (("quota", "set", "--names", "10", f"{at}/d"), "set_quota"),
        (("quota", "clear", f"{at}/d"), "set_quota"),
    ):
        *_, found = dfs.json(*command)
        assert (found["operation"], bool(found["request"])) == (operation, True)
    (moved,) = dfs.json("mv", f"{at}/g", f"{at}/h")
    assert moved["request"]["source"] == f"{at}/g" and moved["answer"]["path"] == f"{at}/h"
    (cut,) = dfs.json("truncate", "-s", "0", f"{at}/h")
    assert (cut["path"], cut["length"]) == (f"{at}/h", 0)
    (dfs.folder / "more").write_text("more")
    (added,) = dfs.json("append", "more", f"{at}/h")
    assert (added["path"], added["length"]) == (f"{at}/h", 4)
    answer = dfs.run("mkdir", "--json", f"{at}/d", f"{at}/new")
    assert answer.code == 1 and "File exists" in answer.err
    assert answer.out.count("\n") == 1 and f"{at}/new" in answer.out


# --- chmod, chown, setrep ---


def test_chmod(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    file = f"{at}/a"
    for mode, wanted in (
        ("600", 0o600),
        ("u+x,g=r,o=u", 0o747),
        ("-x", 0o646),
        ("a=rX", 0o444),
        ("+w", 0o666),
        ("g-w,o=", 0o640),
        ("1755", 0o1755),
        ("-t", 0o755),
    ):
        dfs("chmod", mode, file)
        assert fs.stat(file).mode == wanted, mode
    dfs("chmod", "-R", "go-rwx,u=rwX", at)
    assert [oct(fs.stat(f"{at}{name}").mode) for name in ("", "/b", "/sub", "/sub/c")] == [
        "0o700",
        "0o600",
        "0o700",
        "0o600",
    ]
    assert dfs.fails("chmod", "600", f"{at}/none") == (
        f"cannot access '{at}/none': No such file or directory"
    )
    for mode in ("zzz", "99", "u+q"):
        assert dfs.fails("chmod", mode, file, code=2) == (
            f"cannot change the mode of '{file}': '{mode}' is no mode:"
            " give it in octal, or like u+rwx,go-w"
        )


def test_chown(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    def owner(name: str) -> str:
        status = fs.stat(f"{at}/{name}")
        return f"{status.owner}:{status.group}"

    group = fs.stat(f"{at}/a").group
    dfs("chown", "ann", f"{at}/a")
    assert owner("a") == f"ann:{group}"
    dfs("chown", ":staff", f"{at}/a")
    assert owner("a") == "ann:staff"
    dfs("chown", "-R", "bob:crew", at)
    assert [owner(name) for name in ("a", "sub", "sub/c")] == ["bob:crew"] * 3
    assert dfs.fails("chown", "ann", f"{at}/none") == (
        f"cannot access '{at}/none': No such file or directory"
    )
    said = dfs.fails("--user", "mallory", "chown", "mallory", f"{at}/a")
    assert said.startswith(f"cannot change the owner of '{at}/a': ")
    assert owner("a") == "bob:crew"


def test_setrep(dfs: Dfs, fs: sync.FileSystem, at: str) -> None:
    assert dfs("setrep", "2", f"{at}/a") == f"Replication 2 set: {at}/a\n"
    assert fs.stat(f"{at}/a").replication == 2
    assert dfs("setrep", "-R", "-w", "1", at) == "".join(
        f"Replication 1 set: {at}/{name}\n" for name in ("a", "b", "sub/c")
    )
    for name in ("a", "b", "sub/c"):
        (located,) = fs.locate(f"{at}/{name}").blocks
        assert len(located.nodes) == 1
    dfs("setrep", "-w", "3", f"{at}/a")
    (located,) = fs.locate(f"{at}/a").blocks
    assert len(located.nodes) == 3
    assert dfs.fails("setrep", "2", f"{at}/none") == (
        f"cannot access '{at}/none': No such file or directory"
    )
    answer = dfs.run("setrep", "-w", "--timeout", "0.1", "5", f"{at}/a")
    assert answer.code == 69
    assert answer.err == f"dfs: cannot wait for '{at}/a': a block has 3 of 5 copies\n"


def test_setrep_of_a_copy_waits_for_no_more_than_can_come(dfs: Dfs, at: str) -> None:
    """Both files are the same block: it keeps what the other one asks for."""
    dfs("setrep", "-w", "3", f"{at}/a")
    dfs("cp", f"{at}/a", f"{at}/copy")
    assert dfs("setrep", "-w", "1", f"{at}/copy") == (
        f"Replication 1 set: {at}/copy\n  blocks that other files share keep 3 copies: 1\n"
    )


def test_setrep_can_be_interrupted_while_it_waits(dfs: Dfs, at: str) -> None:
    with dfs.running("setrep", "-w", "5", f"{at}/a") as process:
        wait_until(lambda: dfs.json("stat", f"{at}/a")[0]["replication"] == 5, "setrep waits")
        interrupted(process)


# --- xattr, quota, lease ---


def test_xattr(dfs: Dfs, at: str) -> None:
    file = f"{at}/a"
    assert dfs("xattr", "list", file) == dfs("xattr", "get", file) == ""
    dfs("xattr", "set", file, "user.text", "née")
    dfs("xattr", "set", file, "user.hex", "0xff00")
    dfs("xattr", "set", file, "user.raw", b"b\xff")
    assert dfs("xattr", "list", file) == "user.hex\nuser.raw\nuser.text\n"
    assert sorted(dfs("xattr", "get", file).splitlines()) == [
        "user.hex=0xff00",
        "user.raw=0x62ff",
        'user.text="née"',
    ]
    assert dfs.run("xattr", "get", file, "user.hex").raw == b"\xff\x00"
    assert dfs.json("xattr", "get", file, "user.hex") == [{"user.hex": "ff00"}]
    assert dfs.json("xattr", "list", file) == [["user.hex", "user.raw", "user.text"]]
    dfs("xattr", "rm", file, "user.hex")
    read, none = f"cannot read the attributes of '{file}'", f"{at}/none"
    assert dfs.fails("xattr", "get", file, "user.hex") == f"{read}: No such attribute: user.hex"
    assert dfs.fails("xattr", "rm", file, "user.hex") == (
        f"cannot remove an attribute of '{file}': '{file}' has no attribute 'user.hex'"
    )
    said = dfs.fails("xattr", "set", file, "nameless", "x", code=2)
    assert said.startswith(f"cannot set an attribute of '{file}': the attribute name 'nameless' ")
    for arguments, begin in (
        (["get", none], "cannot read the attributes of"),
        (["list", none], "cannot read the attributes of"),
        (["set", none, "user.a", "x"], "cannot set an attribute of"),
        (["rm", none, "user.a"], "cannot remove an attribute of"),
    ):
        said = dfs.fails("xattr", *arguments)
        assert said == f"{begin} '{none}': No such file or directory"


def test_quota(dfs: Dfs, fs: sync.FileSystem, at: str, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"x" * 100)
    assert dfs("quota", "show", at) == "no quota\n"
    dfs("quota", "set", "--names", "6", at)
    dfs("quota", "set", "--space", "1000", at)
    assert dfs("quota", "show", at) == "names: 5 of 6\nbytes: 21 of 1000\n"
    assert dfs.json("quota", "show", at) == [
        {"name_quota": 6, "names_used": 5, "space_quota": 1000, "space_used": 21}
    ]
    assert dfs("count", "-q", at).split()[:4] == ["6", "1", "1000", "979"]
    dfs("put", "local", f"{at}/last")
    said = dfs.fails("put", "local", f"{at}/too-many")
    assert said.startswith("cannot put 'local': ")
    assert "names" in said
    (tmp_path / "local").write_bytes(b"x" * 1000)
    said = dfs.fails("put", "-f", "local", f"{at}/last")
    assert said.startswith("cannot put 'local': ")
    assert "bytes" in said
    assert fs.stat(f"{at}/last").length == 100
    dfs("quota", "clear", at)
    assert dfs("quota", "show", at) == "no quota\n"
    dfs("put", "-f", "local", f"{at}/last")
    for arguments, begin in (
        (["show", f"{at}/none"], "cannot read the quota of"),
        (["set", "--names", "1", f"{at}/none"], "cannot set the quota of"),
        (["clear", f"{at}/none"], "cannot clear the quota of"),
    ):
        said = dfs.fails("quota", *arguments)
        assert said == f"{begin} '{at}/none': No such file or directory"
    assert dfs.fails("quota", "set", "--names", "9", f"{at}/a") == (
        f"cannot set the quota of '{at}/a': Not a directory"
    )


def test_lease_recover(dfs: Dfs, cluster: Cluster, at: str) -> None:
    with sync.FileSystem.connect(cluster.url) as lost:
        file = lost.open(f"{at}/open", "xb")
        file.write(b"synced")
        file.flush()
        assert dfs("ls", "-l", f"{at}/open").rstrip().endswith(" (being written)")
        assert dfs("lease", "recover", f"{at}/open", f"{at}/a") == (
            f"Closed: {at}/open\nClosed: {at}/a\n"
        )
        assert not dfs.json("stat", f"{at}/open")[0]["under_construction"]
        with pytest.raises(Exception, match=r"lease|closed|taken"):
            file.close()
    begin = "cannot recover the lease of"
    said = dfs.fails("lease", "recover", f"{at}/none", at)
    assert said.splitlines() == [
        f"{begin} '{at}/none': No such file or directory",
        f"{begin} '{at}': Is a directory",
    ]

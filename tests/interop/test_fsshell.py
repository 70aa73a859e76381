"""Hadoop's own FsShell over webhdfs://: every command people use."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .conftest import Shell

pytestmark = pytest.mark.filterwarnings("default")
SIZES = (0, 0, 1, 0, 0, 3, 0, 5)  # of the tree, in the order of its listing
TEXT = b"".join(b"line %d\n" % number for number in range(40_000))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local")
    (folder / "text").write_bytes(TEXT)
    (folder / "more").write_bytes(b"the end\n")
    tree = folder / "tree"
    for name in ("a", "b/c", "b/d e"):
        (tree / name).mkdir(parents=True)
        (tree / name / "file ä").write_bytes(name.encode())
    return folder


@pytest.fixture
def place(shell: Shell, request: pytest.FixtureRequest) -> str:
    """A directory of the test's own."""
    path = "/shell/" + re.sub(r"\W", "-", request.node.name)
    shell.ok("-mkdir", "-p", path)
    return path


def test_put_get_cat(shell: Shell, place: str, local: Path, tmp_path: Path) -> None:
    shell.ok("-put", str(local / "text"), f"{place}/f")
    assert "File exists" in shell.refused("-put", str(local / "more"), f"{place}/f")
    shell.ok("-get", f"{place}/f", str(tmp_path / "got"))
    assert (tmp_path / "got").read_bytes() == TEXT
    shell.ok("-put", "-f", str(local / "more"), f"{place}/f")
    assert shell.ok("-cat", f"{place}/f") == "the end\n"
    assert "No such file or directory" in shell.refused("-cat", f"{place}/none")
    shell.ok("-put", "-", f"{place}/typed", stdin=b"typed in\n")
    assert shell.ok("-cat", f"{place}/typed", f"{place}/f") == "typed in\nthe end\n"
    assert shell.ok("-text", f"{place}/f") == "the end\n"
    assert shell.ok("-head", f"{place}/f") == "the end\n"
    shell.ok("-put", str(local / "text"), str(local / "more"), place)
    shell.ok("-get", f"{place}/text", f"{place}/more", str(tmp_path))
    assert (tmp_path / "text").read_bytes() == TEXT
    assert (tmp_path / "more").read_bytes() == b"the end\n"
    assert "File exists" in shell.refused("-get", f"{place}/text", str(tmp_path))
    (tmp_path / "moving").write_bytes(b"moved in\n")
    shell.ok("-moveFromLocal", str(tmp_path / "moving"), place)
    assert not (tmp_path / "moving").exists()
    assert shell.ok("-cat", f"{place}/moving") == "moved in\n"


def test_mkdir(shell: Shell, place: str) -> None:
    assert "No such file or directory" in shell.refused("-mkdir", f"{place}/a/b/c")
    shell.ok("-mkdir", "-p", f"{place}/a/b/c")
    shell.ok("-mkdir", "-p", f"{place}/a/b/c")
    assert "File exists" in shell.refused("-mkdir", f"{place}/a/b/c")
    assert shell.ok("-ls", "-R", "-C", place).split() == [
        f"{place}/a",
        f"{place}/a/b",
        f"{place}/a/b/c",
    ]
    shell.ok("-touchz", f"{place}/f")
    assert "is not a directory" in shell.refused("-mkdir", "-p", f"{place}/f/g")
    shell.ok("-rmdir", f"{place}/a/b/c")
    assert shell.run("-test", "-e", f"{place}/a/b/c")[0] == 1


def test_trees(shell: Shell, place: str, local: Path, tmp_path: Path) -> None:
    shell.ok("-put", str(local / "tree"), place)
    listed = [line.split(None, 7)[-1] for line in shell.ok("-ls", "-R", place).splitlines()]
    assert listed == [
        f"{place}/tree" + end
        for end in (
            *("", "/a", "/a/file ä", "/b", "/b/c", "/b/c/file ä"),
            *("/b/d e", "/b/d e/file ä"),
        )
    ]
    shell.ok("-get", f"{place}/tree", str(tmp_path))
    for found in (local / "tree").rglob("file*"):
        copy = tmp_path / "tree" / found.relative_to(local / "tree")
        assert copy.read_bytes() == found.read_bytes()
    for line, size in zip(shell.ok("-ls", "-R", place).splitlines(), SIZES, strict=True):
        kind, _, owner, group, shown = line.split()[:5]
        assert (kind[0], owner, group, shown) == ("d-"[size > 0], "root", "supergroup", str(size))
    found = shell.ok("-find", place, "-name", "file*").splitlines()
    assert found == [f"{place}/tree/{name}/file ä" for name in ("a", "b/c", "b/d e")]
    assert shell.ok("-find", place, "-name", "D*").splitlines() == []
    assert shell.ok("-find", place, "-iname", "D*").splitlines() == [f"{place}/tree/b/d e"]
    shell.ok("-cp", f"{place}/tree", f"{place}/copy")
    assert shell.ok("-cat", f"{place}/copy/b/c/file*") == "b/c"
    assert shell.ok("-cat", f"{place}/tree/b/c/file*") == "b/c"
    assert "File exists" in shell.refused("-cp", f"{place}/tree/a/file ä", f"{place}/copy/a/file ä")
    shell.ok("-mv", f"{place}/copy", f"{place}/tree/moved")
    assert shell.ok("-cat", f"{place}/tree/moved/a/*") == "a"
    assert shell.run("-test", "-e", f"{place}/copy")[0] == 1
    directories, files, length, _ = shell.ok("-count", place).split(None, 3)
    assert (directories, files, length) == ("11", "6", "18")
    assert shell.ok("-du", "-s", place).split()[:2] == ["18", "54"]
    assert [line.split()[0] for line in shell.ok("-du", place).splitlines()] == ["18"]
    shell.ok("-rm", "-r", "-skipTrash", f"{place}/tree/moved")
    assert "No such file or directory" in shell.refused("-ls", f"{place}/tree/moved")
    assert shell.ok("-cat", f"{place}/tree/b/d e/*") == "b/d e"
    assert "Is a directory" in shell.refused("-rm", "-skipTrash", f"{place}/tree")
    assert "is not empty" in shell.refused("-rmdir", f"{place}/tree")
    assert "File exists" in shell.refused("-mkdir", f"{place}/tree")
    assert "No such file" in shell.refused("-mv", f"{place}/none", f"{place}/x")


def test_trash(shell: Shell, place: str, local: Path) -> None:
    shell.ok("-put", str(local / "more"), f"{place}/f")
    shell.ok("-rm", f"{place}/f")
    assert shell.ok("-cat", f"/user/root/.Trash/Current{place}/f") == "the end\n"
    shell.ok("-mkdir", f"{place}/d")
    assert "Is a directory" in shell.refused("-rm", f"{place}/d")
    shell.ok("-rm", "-r", f"{place}/d")
    shell.ok("-expunge", "-immediate")
    shell.refused("-cat", f"/user/root/.Trash/Current{place}/f")


def test_attributes(shell: Shell, place: str, local: Path) -> None:
    shell.ok("-put", str(local / "more"), f"{place}/f")
    shell.ok("-chmod", "640", f"{place}/f")
    shell.ok("-chown", "ann:staff", f"{place}/f")
    shown = shell.ok("-stat", "%a %u:%g %b %o %r %F %n", f"{place}/f")
    assert shown == "640 ann:staff 8 134217728 3 regular file f\n"  # 3: the client asks for it
    shell.ok("-chmod", "-R", "u+x,o-rwx", place)
    assert shell.ok("-ls", place).splitlines()[-1].startswith("-rwxr-----   3 ann staff")
    shell.ok("-chmod", "1777", place)
    assert shell.ok("-ls", "-d", place).startswith("drwxrwxrwt")
    shell.ok("-chgrp", "dev", f"{place}/f")
    assert shell.ok("-stat", "%g", f"{place}/f") == "dev\n"
    shell.ok("-touch", "-m", "-t", "20200102:030405", f"{place}/f")
    assert shell.ok("-stat", "%y", f"{place}/f").startswith("2020-01-0")
    shell.ok("-setrep", "-w", "2", f"{place}/f")
    assert shell.ok("-stat", "%r", f"{place}/f") == "2\n"
    shell.ok("-setrep", "-R", "-w", "1", place)
    assert shell.ok("-du", f"{place}/f").split()[:2] == ["8", "8"]
    assert "No such file" in shell.refused("-chmod", "600", f"{place}/none")
    code, _, _ = shell.run("-test", "-e", f"{place}/none")
    assert code == 1
    for flag, path in (
        ("-e", f"{place}/f"),
        ("-d", place),
        ("-f", f"{place}/f"),
        ("-s", f"{place}/f"),
    ):
        shell.ok("-test", flag, path)
    shell.ok("-touchz", f"{place}/empty")
    shell.ok("-test", "-z", f"{place}/empty")
    assert shell.run("-test", "-z", f"{place}/f")[0] == 1
    shell.ok("-put", "-p", "-f", str(local / "more"), f"{place}/kept")
    wanted = (local / "more").stat()
    assert shell.ok("-stat", "%a", f"{place}/kept") == f"{wanted.st_mode & 0o777:o}\n"
    shell.ok("-cp", "-p", f"{place}/f", f"{place}/copy")
    assert shell.ok("-stat", "%a %u:%g", f"{place}/copy") == shell.ok(
        "-stat", "%a %u:%g", f"{place}/f"
    )
    assert shell.ok("-df", "/").splitlines()[-1].startswith("webhdfs://")
    assert "none" in shell.ok("-count", "-q", place)


def test_access_lists(shell: Shell, place: str) -> None:
    shell.ok("-chmod", "750", place)
    shell.ok("-setfacl", "-m", "user:bob:rwx,group:dev:r-x,mask::r-x,default:user:eve:rw-", place)
    assert shell.ok("-getfacl", place).splitlines() == [
        f"# file: {place}",
        *("# owner: root", "# group: supergroup", "user::rwx", "user:bob:rwx\t#effective:r-x"),
        *("group::r-x", "group:dev:r-x", "mask::r-x", "other::---", "default:user::rwx"),
        *("default:user:eve:rw-", "default:group::r-x", "default:mask::rwx", "default:other::---"),
        "",
    ]
    assert shell.ok("-ls", "-d", place).split()[0] == "drwxr-x---+"
    shell.ok("-touchz", f"{place}/f")
    assert "group::r-x\t#effective:r--" in shell.ok("-getfacl", f"{place}/f")
    shell.ok("-setfacl", "-x", "user:bob", place)
    shell.ok("-setfacl", "-k", place)
    assert "bob" not in shell.ok("-getfacl", place)
    shell.ok("-setfacl", "--set", "user::rwx,group::---,other::---,user:ann:r--", place)
    assert "user:ann:r--" in shell.ok("-getfacl", place)
    shell.ok("-setfacl", "-b", place)
    assert "ann" not in shell.ok("-getfacl", place)
    assert "Invalid ACL" in shell.refused("-setfacl", "-m", "default:user:bob:r--", f"{place}/f")


def test_extended_attributes(shell: Shell, place: str) -> None:
    shell.ok("-setfattr", "-n", "user.color", "-v", "red", place)
    shell.ok("-setfattr", "-n", "user.raw", "-v", "0x00ff", place)
    assert 'user.color="red"' in shell.ok("-getfattr", "-n", "user.color", place)
    assert "user.raw=0x00ff" in shell.ok("-getfattr", "-n", "user.raw", "-e", "hex", place)
    assert "user.color=0scmVk" in shell.ok("-getfattr", "-d", "-e", "base64", place)
    shell.ok("-setfattr", "-x", "user.raw", place)
    assert "user.raw" not in shell.ok("-getfattr", "-d", place)
    assert "was not found" in shell.refused("-getfattr", "-n", "user.raw", place)
    shell.ok("-setfattr", "-n", "user.color", "-v", '"blue ä"', place)
    assert 'user.color="blue ä"' in shell.ok("-getfattr", "-d", "-e", "text", place)


def test_content(shell: Shell, place: str, local: Path, tmp_path: Path) -> None:
    shell.ok("-put", str(local / "text"), f"{place}/f")
    assert shell.ok("-tail", f"{place}/f").encode() == TEXT[-1024:]
    shell.ok("-appendToFile", str(local / "more"), f"{place}/f")
    assert shell.ok("-tail", f"{place}/f").endswith("line 39999\nthe end\n")
    assert shell.ok("-stat", "%b", f"{place}/f") == f"{len(TEXT) + 8}\n"
    shell.ok("-appendToFile", "-", f"{place}/f", stdin=b"more\n")
    assert shell.ok("-cat", f"{place}/f").encode() == TEXT + b"the end\nmore\n"
    shell.ok("-truncate", "-w", "12", f"{place}/f")
    assert shell.ok("-cat", f"{place}/f").encode() == TEXT[:12]
    shell.ok("-put", str(local / "more"), f"{place}/g")
    shell.ok("-getmerge", place, str(tmp_path / "merged"))
    assert (tmp_path / "merged").read_bytes() == TEXT[:12] + b"the end\n"
    assert "larger file size" in shell.refused("-truncate", "99", f"{place}/f")
    _, algorithm, checksum = shell.ok("-checksum", f"{place}/g").split()
    assert algorithm == "MD5-of-0MD5-of-512CRC32C"
    assert len(checksum) == 56
    shell.ok("-cp", f"{place}/g", f"{place}/same")
    sums = [line.split()[2] for line in shell.ok("-checksum", f"{place}/*").splitlines()]
    assert sums[1:] == [checksum, checksum]
    assert sums[0] != checksum
    shell.ok("-concat", f"{place}/f", f"{place}/g", f"{place}/same")
    assert shell.ok("-cat", f"{place}/f").encode() == TEXT[:12] + b"the end\n" * 2
    assert "No such file or directory" in shell.refused("-checksum", f"{place}/g")


def test_snapshots_are_refused_rightly(shell: Shell, place: str) -> None:
    assert "not a snapshottable directory" in shell.refused("-createSnapshot", place, "s1")

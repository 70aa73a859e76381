"""`dfs`: the commands that look, and what all commands have in common."""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from twinfs.client import sync
from twinfs.client.cli import COMMANDS

from ..support.cluster import Cluster, running, wait_until
from .commands import MIB, PROGRAM, Dfs, ended, interrupted


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("cluster")) as found:
        with sync.FileSystem.connect(found.url) as fs:
            fs.write_bytes("/look/one", b"1")
            fs.write_bytes("/look/three", b"333")
            fs.write_bytes("/look/.hidden", b"")
            fs.write_bytes("/look/sub/two", b"22")
            fs.write_bytes("/look/sub/deep/big", b"x" * (MIB + 1))
            fs.set_times("/look/one", mtime_ms=1_000_000_000_000, atime_ms=1_100_000_000_000)
            fs.set_mode("/look/sub", 0o1750)
        yield found
        assert found.tracebacks() == []


@pytest.fixture
def dfs(cluster: Cluster, tmp_path: Path) -> Dfs:
    return Dfs(cluster.url, tmp_path)


# --- ls, stat, find, du, count, df, test ---


def test_ls_prints_one_name_a_line(dfs: Dfs) -> None:
    assert dfs("ls", "/look") == "one\nsub\nthree\n"
    assert dfs("ls", "-a", "/look") == ".hidden\none\nsub\nthree\n"
    assert dfs("ls", "-d", "/look") == "/look\n"
    assert dfs("ls", "-S", "/look") == "three\none\nsub\n"
    assert dfs("ls", "-Sr", "/look") == "sub\none\nthree\n"
    assert dfs("ls", "-t", "/look").splitlines()[-1] == "one"
    assert dfs("ls", "/look/*e", "/look/sub") == "/look/one\n/look/three\n\n/look/sub:\ndeep\ntwo\n"
    assert dfs("ls", "-R", "/look/sub") == "/look/sub:\ndeep\ntwo\n\n/look/sub/deep:\nbig\n"


def test_ls_tells_more_when_asked(dfs: Dfs, fs: sync.FileSystem) -> None:
    owner, group = fs.stat("/look/one").owner, fs.stat("/look/one").group
    first, second, third = dfs("ls", "-l", "/look").splitlines()
    assert first.split() == ["-rw-r--r--", "3", owner, group, "1", "2001-09-09", "01:46", "one"]
    assert second.split()[:5] == ["drwxr-x--T", "-", owner, group, "0"]
    assert third.split()[4:] == ["3", *third.split()[5:7], "three"]
    assert len({line.index(group) for line in (first, second, third)}) == 1
    assert dfs("ls", "-lh", "/look/sub/deep/big").split()[4] == "1.0M"
    found = {entry["path"]: entry for entry in dfs.json("ls", "/look")}
    assert list(found) == ["/look/.hidden", "/look/one", "/look/sub", "/look/three"]
    assert found["/look/one"]["mtime_ms"] == 1_000_000_000_000
    assert found["/look/three"]["length"] == 3
    assert found["/look/sub"]["type"] == "directory"


def test_ls_goes_on_after_what_is_not_there(dfs: Dfs) -> None:
    answer = dfs.run("ls", "/nope", "/look/one", "/look/one/below", "/look/zz*")
    assert answer.code == 1
    assert answer.out == "/look/one\n"
    assert answer.err.splitlines() == [
        "dfs: cannot access '/nope': No such file or directory",
        "dfs: cannot access '/look/one/below': Not a directory",
        "dfs: cannot access '/look/zz*': No such file or directory",
    ]


def test_paths_are_resolved_as_in_a_shell(dfs: Dfs, fs: sync.FileSystem) -> None:
    user = getpass.getuser()
    fs.write_bytes(f"/user/{user}/mine", b"m")
    assert dfs("ls") == "mine\n"
    assert dfs("cat", "mine", "./mine", f"../{user}//./mine", "nope/../mine") == "mmmm"
    assert dfs("ls", "/look//sub/../sub/./deep/") == "big\n"
    assert dfs("ls", "/../../look/sub/deep") == "big\n"
    assert dfs("ls", "dfs://anywhere/look/sub/deep") == "big\n"
    assert dfs.fails("ls", "") == "cannot access '': an empty path names nothing"
    fs.write_bytes("/stars/a*b", b"")
    fs.write_bytes("/stars/acb", b"")
    assert dfs("ls", "/stars/a*b") == "/stars/a*b\n"
    assert dfs("ls", "/stars/{acb,zz}", "/stars/[a]?b") == "/stars/acb\n/stars/a*b\n/stars/acb\n"


def test_a_terminal_gets_columns_and_no_control_characters(dfs: Dfs, fs: sync.FileSystem) -> None:
    for name in ("a", "b\x1b[31m\nc", "d"):
        fs.write_bytes(f"/tty/{name}", b"")
    assert dfs("ls", "/tty") == "a\nb\x1b[31m\nc\nd\n"
    master, slave = os.openpty()
    try:
        with dfs.running("ls", "/tty", stdout=slave) as process:
            assert ended(process) == 0
        assert os.read(master, 4096).split() == [b"a", rb"b\x1b[31m\nc", b"d"]
    finally:
        os.close(slave)
        os.close(master)


def test_stat(dfs: Dfs, fs: sync.FileSystem) -> None:
    status = fs.stat("/look/one")
    assert dfs("stat", "/look/one").splitlines() == [
        "  Path: /look/one",
        "  Type: file",
        "  Size: 1",
        "Copies: 3, in blocks of 128M",
        "  Mode: 0644 (-rw-r--r--)",
        f" Owner: {status.owner}:{status.group}",
        "Modify: 2001-09-09 01:46:40 +0000",
        "Access: 2004-11-09 11:33:20 +0000",
        f" Inode: {status.inode_id}",
        f"   CID: {dfs('cid', '/look/one').strip()}",
    ]
    assert "Copies" not in dfs("stat", "/look/sub")
    assert " Block: " in dfs("stat", "--blocks", "/look/sub/deep/big")
    (document,) = dfs.json("stat", "/look/sub")
    assert (document["path"], document["mode"]) == ("/look/sub", 0o1750)
    (located,) = dfs.json("stat", "--blocks", "/look/sub/deep/big")
    (block,) = located["blocks"]
    assert (block["offset"], block["block"]["length"], len(block["nodes"])) == (0, MIB + 1, 3)
    assert dfs.fails("stat", "/nope") == "cannot stat '/nope': No such file or directory"


def test_find(dfs: Dfs) -> None:
    everything = ["", "/.hidden", "/one", "/sub", "/three", "/sub/deep", "/sub/two"]
    everything.append("/sub/deep/big")
    assert dfs("find", "/look").splitlines() == [f"/look{path}" for path in everything]
    assert dfs("find", "/look", "-name", "t*", "-type", "f") == "/look/three\n/look/sub/two\n"
    assert dfs("find", "/look", "--type", "d") == "/look\n/look/sub\n/look/sub/deep\n"
    assert dfs("find", "/look", "-size", "+1M") == "/look/sub/deep/big\n"
    assert dfs("find", "/look", "-size", "3") == "/look/three\n"
    assert dfs("find", "/look", "-size", "-2", "-type", "f") == "/look/.hidden\n/look/one\n"
    assert dfs("find", "/look", "-mtime", "+1000") == "/look/one\n"
    assert "/look/one\n" not in dfs("find", "/look", "-mtime", "-2")
    assert dfs("find", "/look", "-maxdepth", "0") == "/look\n"
    assert dfs("find", "/look/sub", "-maxdepth", "1", "-print0") == (
        "/look/sub\0/look/sub/deep\0/look/sub/two\0"
    )
    (document,) = dfs.json("find", "/look", "-name", "three")
    assert document["path"] == "/look/three"
    assert dfs.fails("find", "/nope") == "cannot search '/nope': No such file or directory"
    assert dfs.misused("find", "/look", "-size", "5X") == (
        "Error: Invalid value: '5X' is not [+-]NUMBER"
    )
    assert "-type" in dfs.misused("find", "/look", "-type", "q")


def test_du_count_and_df(dfs: Dfs) -> None:
    assert [line.split() for line in dfs("du", "/look").splitlines()] == [
        ["0", "0", "/look/.hidden"],
        ["1", "3", "/look/one"],
        [str(MIB + 3), str(3 * (MIB + 3)), "/look/sub"],
        ["3", "9", "/look/three"],
    ]
    assert dfs("du", "-s", "/look").split() == [str(MIB + 7), str(3 * (MIB + 7)), "/look"]
    assert dfs("du", "-h", "/look/sub/deep/big").split()[:2] == ["1.0M", "3.0M"]
    assert dfs.json("du", "/look/one") == [{"path": "/look/one", "length": 1, "space_consumed": 3}]
    assert dfs.fails("du", "/nope") == "cannot access '/nope': No such file or directory"

    assert dfs("count", "/look").split() == ["3", "5", str(MIB + 7), "/look"]
    quotas = ["none", "inf", "none", "inf"]
    assert dfs("count", "-q", "-h", "/look").split() == [*quotas, "3", "5", "1.0M", "/look"]
    (document,) = dfs.json("count", "/look")
    assert (document["files"], document["directories"], document["name_quota"]) == (5, 3, -1)
    assert dfs.fails("count", "/nope") == "cannot access '/nope': No such file or directory"

    head, row = dfs("df").splitlines()
    assert head.split() == ["Filesystem", "Size", "Used", "Available", "Use%"]
    assert re.fullmatch(r"http://\S+ +\d+ +\d+ +\d+ +\d+%", row)
    assert re.fullmatch(r"http://\S+( +[\d.]+[KMGTP]?){3} +\d+%", dfs("df", "-h").splitlines()[1])
    (document,) = dfs.json("df")
    assert document["capacity_bytes"] >= document["remaining_bytes"] > 0


def test_test_answers_by_its_exit_code(dfs: Dfs) -> None:
    for flag, path, code in (
        ("-e", "/look", 0),
        ("-e", "/nope", 1),
        ("-e", "/look/one/below", 1),
        ("-f", "/look/one", 0),
        ("-f", "/look", 1),
        ("-d", "/look", 0),
        ("-d", "/look/one", 1),
        ("-s", "/look/one", 0),
        ("-s", "/look/.hidden", 1),
        ("-s", "/look", 1),
        ("-z", "/look/.hidden", 0),
        ("-z", "/look/one", 1),
    ):
        answer = dfs.run("test", flag, path)
        assert (answer.code, answer.raw, answer.err) == (code, b"", ""), (flag, path)
    wrong = "Error: exactly one of -e -f -d -s -z must be given"
    assert dfs.misused("test", "/look") == wrong
    assert dfs.misused("test", "-e", "-f", "/look") == wrong


# --- events, report, config, completion, namenode, datanode ---


def test_events(dfs: Dfs, fs: sync.FileSystem) -> None:
    fs.mkdirs("/events")
    fs.write_bytes("/events/a", b"")
    fs.rename("/events/a", "/events/b")
    kinds = [line.split()[4] for line in dfs("events", "--path", "/events").splitlines()]
    assert kinds == ["mkdir", "put", "rename"]
    lines = dfs("events", "--path", "/events").splitlines()
    assert lines[-1].endswith(" /events/a -> /events/b")
    documents = dfs.json("events", "--path", "/events")
    assert [document["kind"] for document in documents] == kinds
    assert documents[-1]["destination"] == "/events/b"
    after = str(documents[0]["offset"])
    assert dfs.json("events", "--path", "/events", "--after", after) == documents[1:]
    assert len(dfs.json("events", "--limit", "2")) == 2
    assert dfs("events", "--after", str(10**12)) == ""


def test_events_can_be_followed(dfs: Dfs, fs: sync.FileSystem) -> None:
    with dfs.running("events", "--follow", "--path", "/followed") as process:
        assert process.stdout is not None
        fs.mkdirs("/followed")
        assert process.stdout.readline().rstrip().endswith(b" /followed")
        fs.mkdirs("/followed/later")
        assert process.stdout.readline().rstrip().endswith(b" /followed/later")
        interrupted(process)


def test_report(dfs: Dfs) -> None:
    text = dfs("report")
    assert "safe mode: off" in text
    nodes = [line for line in text.splitlines() if " live " in line]
    assert len(nodes) == 3
    (document,) = dfs.json("report")
    assert document["safe_mode"] == ""
    assert [node["state"] for node in document["nodes"]] == ["live"] * 3


def test_config_says_where_every_value_comes_from(dfs: Dfs, tmp_path: Path) -> None:
    file = tmp_path / "twinfs.toml"
    file.write_text("[client]\nparallel_blocks = 5\n", encoding="utf-8")
    text = dfs("--config", file, "--user", "ann", "config")
    assert [line for line in text.splitlines() if line.startswith("[")] == [
        "[namenode]",
        "[datanode]",
        "[client]",
    ]
    found = {}
    for document in dfs.json("--config", file, "--user", "ann", "config", "client"):
        assert document.pop("role") == "client"
        found[document.pop("name")] = (document["value"], document["origin"])
    assert found["namenode"][1] == "environment TWINFS_NAMENODE"
    assert found["user"] == ("ann", "flag")
    assert found["parallel_blocks"] == (5, f"file {file}")
    assert found["trash"] == (True, "default")
    assert "'ann'" in dfs("--user", "ann", "config", "client")
    assert "nobody" in dfs.misused("config", "nobody")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (
            "TWINFS_CLIENT_RETRY_S",
            "soon",
            "retry_s (environment TWINFS_CLIENT_RETRY_S) must be of type float, not 'soon'",
        ),
        ("TWINFS_CLIENT_RETRY_S", "0", "retry_s must be greater than 0"),
        ("TWINFS_CONFIG", "nope", "can't read the configuration nope: No such file or directory"),
        ("TWINFS_NAMENODE", "ftp://x", "namenode must be an http:// URL, not 'ftp://x'"),
        (
            "TWINFS_NAMENODE",
            "http://127.0.0.1:port",
            "the NameNode's URL must be http://HOST:PORT, not 'http://127.0.0.1:port'",
        ),
        (
            "TWINFS_NAMENODE",
            "http://",
            "the NameNode's URL must be http://HOST:PORT, not 'http://'",
        ),
    ],
)
def test_a_wrong_setting_is_named(
    cluster: Cluster, tmp_path: Path, variable: str, value: str, said: str
) -> None:
    dfs = Dfs(cluster.url, tmp_path, **{variable: value})
    assert dfs.fails("ls", "/", code=2) == said


def test_completion_scripts(dfs: Dfs) -> None:
    assert "_dfs_completion" in dfs("completion", "bash")
    assert dfs("completion", "zsh").startswith("#compdef dfs")
    assert "complete " in dfs("completion", "fish")
    assert "'ksh' is not one of" in dfs.misused("completion", "ksh")


def test_the_bash_completion_completes(cluster: Cluster, tmp_path: Path) -> None:
    words = {"COMP_WORDS": "dfs check", "COMP_CWORD": "1", "_DFS_COMPLETE": "bash_complete"}
    assert Dfs(cluster.url, tmp_path, **words).run().out == "plain,checksum\n"


def test_help(dfs: Dfs) -> None:
    text = dfs("--help")
    assert text.startswith("Usage: dfs [OPTIONS] COMMAND [ARGS]...\n")
    for name in COMMANDS:
        assert f"\n  {name} " in text
    assert dfs("-h") == text
    assert re.fullmatch(r"dfs \(TwinFS\) \d+\.\d+\.\d+\n", dfs("--version"))
    assert dfs("namenode", "--help").startswith(
        "Usage: dfs namenode [OPTIONS] [COMMAND] [ARGS]...\n"
    )
    assert dfs("datanode", "--help").startswith("Usage: dfs datanode [OPTIONS]\n")
    assert dfs("ls", "--help").startswith("Usage: dfs ls [OPTIONS] [PATHS]...\n")


# --- what goes wrong with any command ---


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "Error: No such command 'nosuch'."),
        (["ls", "--nope"], "Error: No such option '--nope'."),
        (["cat"], "Error: Missing argument 'PATHS...'."),
        (["namenode", "--nope"], "Error: No such option '--nope'."),
        (["datanode", "--nope"], "Error: No such option '--nope'."),
        (["head", "-n", "-1", "/x"], "Error: Invalid value for '-n': -1 is not in the range x>=0."),
        (["truncate", "/x"], "Error: Missing option '-s' / '--size'."),
        (["setrep", "0", "/x"], "Error: Invalid value for 'REPLICATION': 0 is not in the range"),
        (["tail", "-f", "/x", "/y"], "Error: -f follows one file"),
        (["mv", "/x"], "Error: at least one SOURCE and a DESTINATION must be given"),
        (["cp", "/x"], "Error: at least one SOURCE and a DESTINATION must be given"),
        (["append", "x"], "Error: at least one local SOURCE and a DESTINATION must be given"),
        (["getmerge", "x"], "Error: at least one SOURCE and a local DESTINATION must be given"),
        (["mkdir", "-m", "9", "/x"], "Error: Invalid value: '9' is no octal mode"),
        (["mkdir", "-m", "-1", "/x"], "Error: Invalid value: '-1' is no octal mode"),
        (["mkdir", "-m", "77777", "/x"], "Error: Invalid value: '77777' is no octal mode"),
        (["touch", "-d", "nan", "/x"], "Error: Invalid value: nan is no time"),
        (["touch", "-d", "inf", "/x"], "Error: Invalid value: inf is no time"),
        (["chown", ":", "/x"], "Error: an owner or a group must be given"),
        (["quota", "set", "/x"], "Error: --names or --space must be given"),
        (
            ["xattr", "set", "/x", "user.a", "0xyz"],
            "Error: Invalid value: '0xyz' is not hexadecimal",
        ),
        (["xattr", "nosuch"], "Error: No such command 'nosuch'."),
    ],
)
def test_a_wrong_command_line_is_explained(tmp_path: Path, arguments: list[str], said: str) -> None:
    dfs = Dfs("http://127.0.0.1:1", tmp_path)
    assert dfs.misused(*arguments).startswith(said)


@pytest.mark.parametrize("group", ["xattr", "quota", "lease", "trash", "cluster"])
def test_a_group_alone_lists_its_commands(tmp_path: Path, group: str) -> None:
    answer = Dfs("http://127.0.0.1:1", tmp_path).run(group)
    assert answer.code == 2
    assert f"Usage: dfs {group} [OPTIONS] COMMAND [ARGS]..." in answer.err


@pytest.mark.parametrize(
    ("arguments", "begin"),
    [
        (["ls", "/"], "cannot access '/': "),
        (["put", "local", "/x"], "target '/x': "),
        (["truncate", "-s", "0", "/x"], "cannot truncate '/x': "),
        (["df"], ""),
    ],
)
def test_no_namenode_is_one_clear_line(tmp_path: Path, arguments: list[str], begin: str) -> None:
    (tmp_path / "local").write_bytes(b"x")
    with socket.socket() as taken:
        # Bound, but nobody listens: no other program can take the port in the meantime.
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        said = Dfs(url, tmp_path, TWINFS_CLIENT_RETRY_S="0.1").fails(*arguments, code=69)
    assert said.startswith(f"{begin}can't reach the NameNode at {url}: ")
    assert "\n" not in said


def test_a_server_that_is_no_namenode_is_recognised(cluster: Cluster, tmp_path: Path) -> None:
    url = f"http://{cluster.datanodes[0].facts['http']}"
    said = Dfs(url, tmp_path, TWINFS_CLIENT_RETRY_S="0.1").fails("df")
    assert said.startswith(url)
    assert said.endswith(": is it a NameNode?")


def test_names_that_are_no_text_are_refused(dfs: Dfs) -> None:
    assert dfs.fails("ls", b"/bad\xff") == (
        r"cannot access '/bad\udcff': the name is not valid Unicode text"
    )
    assert dfs.fails("mkdir", b"/bad\xff") == (
        r"cannot create directory '/bad\udcff': the name is not valid Unicode text"
    )
    assert dfs.fails("chown", b"b\xff", "/look", code=2) == (
        r"cannot change the owner of '/look': 'b\udcff' can't be sent as text"
    )


def test_names_beyond_the_limits_are_refused(dfs: Dfs, tmp_path: Path) -> None:
    name = "n" * 256
    said = dfs.fails("mkdir", f"/{name}")
    assert said.startswith(f"cannot create directory '/{name}': name ")
    assert said.endswith(" is 256 bytes long in UTF-8; the limit is 255")
    file = tmp_path / "nul.toml"
    file.write_text('[client]\nworking_directory = "/a\\u0000b"\n', encoding="utf-8")
    said = dfs.fails("--config", file, "mkdir", "x")
    assert said.startswith("cannot create directory 'x': ")
    assert said.endswith(" contains '/' or a NUL character")


@pytest.mark.parametrize(
    "arguments", [["cat", "/pipe"], ["get", "/pipe", "-"], ["tail", "-c", "9999999", "/pipe"]]
)
def test_a_reader_that_leaves_early_is_no_error(
    dfs: Dfs, fs: sync.FileSystem, arguments: list[str]
) -> None:
    if not fs.exists("/pipe"):
        fs.write_bytes("/pipe", b"x" * (8 * MIB))
    with dfs.running(*arguments) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1) == b"x"
        process.stdout.close()
        assert ended(process) == 141
        assert process.stderr.read() == b""


def test_a_reader_that_leaves_a_listing_is_no_error(dfs: Dfs) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with dfs.running("find", "/look", stdout=writing) as process:
            assert ended(process) == 141
            assert process.stderr is not None
            assert process.stderr.read() == b""
    finally:
        os.close(writing)


@pytest.mark.parametrize("arguments", [["ls", "/look"], ["cat", "/look/one"], ["df", "--json"]])
def test_a_full_disk_under_the_output_is_an_error(dfs: Dfs, arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full, dfs.running(*arguments, stdout=full) as process:
        assert ended(process) == 1
        assert process.stderr is not None
        assert process.stderr.read() == b"dfs: write error: No space left on device\n"


def test_closed_standard_streams_do_no_harm(dfs: Dfs) -> None:
    """Without care, the first socket gets the number of a closed stream, and the output goes there."""

    def close(number: int) -> subprocess.CompletedProcess[bytes]:
        words = ["sh", "-c", f'exec {number}>&-; exec "$@"', "sh", PROGRAM, "cat", "/look/one"]
        return subprocess.run(words, env=dfs.environment(), capture_output=True, timeout=60)

    assert close(0).stdout == b"1"
    answer = close(1)
    assert (answer.returncode, answer.stdout) == (1, b"")
    assert answer.stderr == b"dfs: write error: Bad file descriptor\n"
    assert close(2).stdout == b"1"


def test_two_commands_print_whole_lines_of_json(dfs: Dfs) -> None:
    """What is not ASCII stays readable; what would break a line is escaped."""
    dfs("mkdir", "/lines")
    dfs("touch", "/lines/é\nü")
    text = dfs("ls", "--json", "/lines")
    assert text.count("\n") == 1
    assert "é\\nü" in text
    assert json.loads(text)["path"] == "/lines/é\nü"


def test_another_user_is_told_what_is_forbidden(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"x")
    dfs = Dfs(cluster.url, tmp_path, TWINFS_CLIENT_USER="mallory")
    assert dfs("cat", "/look/one") == "1"
    for arguments, begin in (
        (["mkdir", "/new"], "cannot create directory '/new': mallory may not write "),
        (["put", "local", "/new"], "cannot put 'local': mallory may not write "),
        (["rm", "/look/one"], "cannot remove '/look/one': mallory may not write "),
        (["chmod", "777", "/look"], "cannot change the mode of '/look': only "),
        (["ls", "/look/sub"], "cannot open directory '/look/sub': mallory may not use "),
    ):
        assert dfs.fails(*arguments).startswith(begin)


def test_the_namenode_command_serves(tmp_path: Path) -> None:
    """`dfs namenode` and `dfs datanode` are the servers themselves."""
    ready = tmp_path / "ready"
    arguments = ["--dir", tmp_path / "nn", "--port", "0", "--ready-file", ready]
    with Dfs("http://127.0.0.1:1", tmp_path).running("namenode", *arguments) as process:
        wait_until(ready.exists, "the NameNode answers")
        url = f"http://{json.loads(ready.read_text())['http']}"
        assert Dfs(url, tmp_path)("ls", "/") == ""
        process.terminate()
        assert ended(process) == 0

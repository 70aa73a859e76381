"""What `dfs` answers before its command line is loaded, and what it leaves to that."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from twinfs.client import quick
from twinfs.common import config

CID = "bafkr4ifpcne3t5pzugtkaqcn5i3nzskjtpfslsnnyejlpte2spfoihzsmi"
Asked = list[tuple[str, str, Sequence[str]]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """(URL, user, paths) of each question, in place of asking."""
    found: Asked = []

    def ask(url: str, user: str, paths: Sequence[str]) -> list[str]:
        found.append((url, user, paths))
        return [CID] * len(paths)

    monkeypatch.setattr(quick, "_ask", ask)
    return found


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(folder), "TWINFS_CLIENT_USER": "ada", **more}


def test_plain_questions_are_asked_as_the_command_line_would(asked: Asked, tmp_path: Path) -> None:
    environ = environment(tmp_path, TWINFS_NAMENODE="http://n:1")
    assert quick.answer(["cid", "/a//b/"], environ) == f"{CID}\n"
    assert quick.answer(["cid", "c", "/d"], environ) == f"{CID}  /user/ada/c\n{CID}  /d\n"
    assert quick.answer(["--namenode", "http://m:2", "cid", "/é"], environ) == f"{CID}\n"
    environ |= {"TWINFS_CLIENT_NAMENODE": "http://o:3", "TWINFS_CLIENT_WORKING_DIRECTORY": "/w"}
    assert quick.answer(["cid", "x"], environ) == f"{CID}\n"
    assert asked == [
        ("http://n:1", "ada", ["/a/b"]),
        ("http://n:1", "ada", ["/user/ada/c", "/d"]),
        ("http://m:2", "ada", ["/é"]),
        ("http://o:3", "ada", ["/w/x"]),
    ]


def test_the_short_names_of_variables_are_known(asked: Asked, tmp_path: Path) -> None:
    assert quick.SHORT_NAMES == config.SHORT_NAMES
    environ = {
        "XDG_CONFIG_HOME": str(tmp_path),
        "TWINFS_USER": "eve",
        "TWINFS_NAMENODE": "http://n:1",
    }
    assert quick.answer(["cid", "x"], environ) == f"{CID}\n"
    assert quick.answer(["cid", "x"], environment(tmp_path, **environ)) == f"{CID}\n"
    assert asked == [("http://n:1", "eve", ["/user/eve/x"]), ("http://n:1", "ada", ["/user/ada/x"])]


def test_the_configuration_file_is_read(asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "twinfs").mkdir()
    file = tmp_path / "twinfs" / "twinfs.toml"
    file.write_text('[namenode]\nport = 1\n[client]\nnamenode = "http://f:4"\nuser = "bob"\n')
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert quick.answer(["cid", "x"], environ) == f"{CID}\n"
    assert quick.answer(["cid", "x"], {"TWINFS_CONFIG": str(file)}) == f"{CID}\n"
    assert asked == [("http://f:4", "bob", ["/user/bob/x"])] * 2
    for bad in ('[client]\nproxy = "http://p:1"\n', "[client]\nuser = 3\n", "[other]\n", "no TOML"):
        file.write_text(bad)
        assert quick.answer(["cid", "x"], environ) is None
    assert quick.answer(["cid", "x"], {"TWINFS_CONFIG": str(tmp_path / "none")}) is None


@pytest.mark.parametrize(
    "argv",
    [
        [], ["cid"], ["ls", "/"], ["ls", "cid"], ["cid", "--json", "/a"], ["cid", "/a", "--base", "base36"],
        ["--user", "x", "cid", "/a"], ["--namenode", "cid"], ["--namenode", "cid", "/a"], ["-v", "cid", "/a"],
        ["cid", "-h"], ["cid", "--", "/a"], ["cid", ""], ["cid", "../a"], ["cid", "/a/./b"], ["cid", "dfs://n/a"],
        ["cid", "/a\n"], ["cid", "/\udcff"], ["cid", *["/a"] * 101],
    ],
)  # fmt: skip
def test_all_else_is_left_to_the_command_line(
    argv: list[str], asked: Asked, tmp_path: Path
) -> None:
    assert quick.answer(argv, environment(tmp_path)) is None
    assert asked == []


@pytest.mark.parametrize("name", ["PEER", "PROXY", "OTLP_ENDPOINT", "RETRY_S", "NONSENSE"])
def test_settings_that_mean_more_are_left_to_it(name: str, asked: Asked, tmp_path: Path) -> None:
    environ = environment(tmp_path, **{f"TWINFS_CLIENT_{name}": "1"})
    assert quick.answer(["cid", "/a"], environ) is None
    assert asked == []


@pytest.mark.parametrize(
    "url", ["none", "https://n:1", "http://", "http://n:1,http://m:1", "http://n:x", "é"]
)
def test_addresses_that_are_no_plain_ones_are_left_to_it(url: str, tmp_path: Path) -> None:
    assert quick.answer(["cid", "/a"], environment(tmp_path, TWINFS_NAMENODE=url)) is None


def test_it_loads_next_to_nothing() -> None:
    """What takes long to import is not imported: the answer is to come within 50 ms."""
    code = (
        "import sys; from twinfs.client import http_call, quick; quick.answer(['cid', '/a'],"
        " {'TWINFS_NAMENODE': 'http://127.0.0.1:1', 'TWINFS_CLIENT_USER': 'u', 'XDG_CONFIG_HOME': '/nowhere'});"
        "print(*sorted(sys.modules))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    heavy = {
        "click",
        "msgspec",
        "http.client",
        "email",
        "ssl",
        "asyncio",
        "aiohttp",
        "blake3",
        "inspect",
        "dataclasses",
    }
    assert "twinfs.client.http_call" in out.split()
    assert heavy.isdisjoint(out.split())

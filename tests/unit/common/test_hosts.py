"""Names that may mean this machine, and names that somebody outside may own."""

import socket

import pytest

from twinfs.common.hosts import OwnNames, is_loopback, named


@pytest.mark.parametrize(
    "host",
    [
        *("", "localhost", "localhost:9870", "LocalHost.", "a.localhost:1", "127.0.0.1", "10.0.0.7:9870"),
        *("[::1]", "[::1]:9870", "namenode", "namenode:9870", socket.gethostname()),
        *("dfs.example.org", "DFS.example.org.:443", "a.b.example.net"),
    ],
)  # fmt: skip
def test_own_names(host: str) -> None:
    assert OwnNames(["dfs.example.org", ".example.net"]).has(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "dfs.example.org.evil.example",
        "localhost.evil.example",
        "example.net.evil",
        "xexample.net",
        "[evil.example]",
        "1.2.3",
    ],
)
def test_names_of_others(host: str) -> None:
    assert not OwnNames(["dfs.example.org", ".example.net"]).has(host)


def test_where_names_are_looked_at() -> None:
    assert named("127.0.0.1", ())
    assert named("localhost", ())
    assert not named("0.0.0.0", ())
    assert named("0.0.0.0", ("dfs.example.org",))
    assert is_loopback("::1")
    assert not is_loopback("nn.example.org")

"""The door for browsers at a DataNode: tokens, origins, uploads that stop."""

from __future__ import annotations

import json
import socket
import urllib.parse

import pytest

from twinfs.client import sync
from twinfs.common import page_tokens

from ..support.cluster import Cluster, wait_until
from .conftest import Reply, ask


@pytest.fixture
def token(cluster: Cluster) -> str:
    answer = ask(f"{cluster.url}/v1/page_token", body={}, headers={"X-TwinFS-User": "root"})
    return str(answer.json()["token"])


def door(cluster: Cluster, token: str, path: str, **more: str) -> str:
    query = urllib.parse.urlencode({"path": path, "token": token, **more})
    return f"http://{cluster.datanodes[1].facts['http']}/v1/web/file?{query}"


def code(answer: Reply) -> str:
    return str(answer.json()["code"])


def test_without_a_good_token_nothing_opens(cluster: Cluster, token: str) -> None:
    name, expires, mac = token.split(".")
    other = page_tokens.make(bytes(32), "root", int(expires))
    old = page_tokens.make(bytes(32), "root", 1)
    for bad in (
        "",
        "x",
        "a.b.c",
        other,
        old,
        f"{name}.{int(expires) + 1}.{mac}",
        f"{name}.{expires}.{mac[:-1]}é",
        "x" * 5_000,
    ):
        for method in ("GET", "PUT", "OPTIONS"):
            answer = ask(
                door(cluster, bad, "/x"),
                method=method,
                body=b"" if method == "PUT" else None,
                headers={"Origin": "http://evil.example"},
            )
            assert (answer.status, code(answer)) == (403, "permission-denied"), bad
            assert "access-control-allow-origin" not in answer.headers


def test_a_page_with_a_token_may_ask(
    cluster: Cluster, fs: sync.FileSystem, folder: str, token: str
) -> None:
    fs.write_bytes(f"{folder}/ä b.txt", b"0123456789")
    origin = {"Origin": cluster.url}
    url = door(cluster, token, f"{folder}/ä b.txt")
    flight = ask(url, method="OPTIONS", headers=origin | {"Access-Control-Request-Method": "PUT"})
    assert flight.status == 204
    assert flight.headers["access-control-allow-origin"] == cluster.url
    whole = ask(url, headers=origin)
    assert whole.body == b"0123456789"
    assert whole.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in whole.headers["content-security-policy"]
    part = ask(url, headers=origin | {"Range": "bytes=2-4"})
    assert (part.status, part.body, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    assert ask(url, headers={"Range": "bytes=-3"}).body == b"789"
    assert ask(url, headers={"Range": "bytes=99-"}).status == 416
    assert code(ask(url, headers={"Range": "nonsense"})) == "invalid-request"
    assert code(ask(door(cluster, token, folder))) == "is-a-directory"
    assert code(ask(door(cluster, token, f"{folder}/absent"))) == "path-not-found"


def test_uploads_are_whole_or_not_at_all(
    cluster: Cluster, fs: sync.FileSystem, folder: str, token: str
) -> None:
    url = door(cluster, token, f"{folder}/up.bin", mtime="1500000000000")
    assert ask(url, method="PUT", body=b"first").status == 201
    assert fs.stat(f"{folder}/up.bin").mtime_ms == 1_500_000_000_000
    assert code(ask(url, method="PUT", body=b"second")) == "path-exists"
    big = bytes(3 * 1024 * 1024)
    assert code(ask(url, method="PUT", body=big)) == "path-exists"
    again = door(cluster, token, f"{folder}/up.bin", overwrite="true")
    assert ask(again, method="PUT", body=big).status == 201
    assert fs.read_bytes(f"{folder}/up.bin") == big
    for path in ("", "relative", f"{folder}/", "/a/\x00", f"{folder}/../x"):
        assert ask(door(cluster, token, path), method="PUT", body=b"x").status >= 400
    # One that stops half-way.
    where = urllib.parse.urlsplit(door(cluster, token, f"{folder}/broken.bin"))
    with socket.create_connection((where.hostname or "", where.port or 0)) as line:
        head = (
            f"PUT {where.path}?{where.query} HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n"
        )
        line.sendall(head.encode() + bytes(4_000_000))
    wait_until(lambda: [s.name for s in fs.list(folder)] == ["up.bin"], "nothing of it is left")


def test_the_namenode_refuses_pages_of_other_sites(cluster: Cluster) -> None:
    body = json.dumps({"path": "/from-elsewhere"}).encode()
    answer = ask(
        f"{cluster.url}/v1/mkdirs",
        body=body,
        headers={"Origin": "http://evil.example", "Content-Type": "text/plain"},
    )
    assert (answer.status, code(answer)) == (403, "permission-denied")
    same = ask(f"{cluster.url}/v1/stat", body={"path": "/"}, headers={"Origin": cluster.url})
    assert same.status == 200


def test_a_name_that_has_come_to_mean_this_machine_is_refused(cluster: Cluster) -> None:
    """DNS rebinding: to the browser such a page and the server are one site, so that Origin is missing or right."""
    node = f"http://{cluster.datanodes[0].facts['http']}"
    rebound = {"Host": "evil.example", "Origin": "http://evil.example"}
    for url in (
        f"{cluster.url}/",
        f"{cluster.url}/v1/live",
        f"{cluster.url}/v1/events",
        f"{cluster.url}/webhdfs/v1/?op=LISTSTATUS&user.name=root",
        f"{node}/webhdfs/v1/x?op=OPEN&user.name=root",
        f"{node}/v1/web/node",
    ):
        answer = ask(url, headers=rebound)
        assert (answer.status, code(answer)) == (403, "permission-denied"), url
    stat = ask(f"{cluster.url}/v1/stat", body={"path": "/"}, headers=rebound)
    assert (stat.status, code(stat)) == (403, "permission-denied")
    # Content is for everybody, whatever a site calls its gateway.
    assert ask(f"{node}/ipfs/bafkqaaa?format=raw", headers=rebound).status == 200
    assert ask(f"{cluster.url}/healthz", headers={"Host": "localhost:1"}).status == 200

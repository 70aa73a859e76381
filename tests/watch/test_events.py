"""Following the change stream from outside: long poll, WebSocket, groups, retention."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from twinfs.client import sync
from twinfs.common.config import ClientConfig
from twinfs.common.messages import Mkdirs, MkdirsMany
from twinfs.common.runtime import elapsed_timer

from ..integration.commands import Dfs
from ..support.cluster import Cluster, running, wait_until
from .conftest import ask


def get(cluster: Cluster, query: str) -> Any:
    answer = ask(f"{cluster.url}/v1/events?{query}")
    assert answer.status == 200, answer.body
    return answer.json()


def paths(page: Any) -> list[str]:
    return [event["path"] for event in page["events"]]


def last_offset(cluster: Cluster) -> int:
    return int(get(cluster, "after=latest")["last_offset"])


def test_pages_join_and_filters_choose(cluster: Cluster, fs: sync.FileSystem, folder: str) -> None:
    start = last_offset(cluster)
    for number in range(7):
        fs.mkdirs(f"{folder}/a/d{number}")
    fs.rename(f"{folder}/a/d0", f"{folder}/moved")
    wait_until(lambda: last_offset(cluster) >= start + 8, "the events are sealed")
    found: list[str] = []
    after = start
    while True:
        page = get(cluster, f"after={after}&limit=3&path={folder}/a&kind=mkdir")
        found += paths(page)
        if page["next_after"] == after:
            break
        after = page["next_after"]
    assert found == [f"{folder}/a", *(f"{folder}/a/d{n}" for n in range(7))] or found == [
        f"{folder}/a/d{n}" for n in range(7)
    ]
    moved = get(cluster, f"after={start}&path={folder}/moved")
    assert [(e["kind"], e["destination"]) for e in moved["events"]] == [
        ("rename", f"{folder}/moved")
    ]


def test_a_long_poll_answers_when_something_happens(
    cluster: Cluster, fs: sync.FileSystem, folder: str
) -> None:
    start = last_offset(cluster)
    answers: list[Any] = []
    waiting = threading.Thread(
        target=lambda: answers.append(get(cluster, f"after={start}&path={folder}/x&wait_s=30"))
    )
    waiting.start()
    fs.mkdirs(f"{folder}/unrelated")
    fs.mkdirs(f"{folder}/x")
    waiting.join(30)
    assert paths(answers[0]) == [f"{folder}/x"]


def test_a_long_poll_ends_by_itself(cluster: Cluster) -> None:
    start = last_offset(cluster)
    began_s = elapsed_timer()
    page = get(cluster, f"after={start}&path=/nothing-happens-here&wait_s=0.3")
    assert page["events"] == []
    assert 0.2 < elapsed_timer() - began_s < 10


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("after=-1", 400),
        ("after=x", 400),
        ("after=latest-x", 400),
        ("limit=0", 400),
        ("limit=100000", 400),
        ("wait_s=abc", 400),
        ("unknown=1", 400),
        ("path=" + "a" * 20_000, 400),
    ],
)
def test_bad_queries_are_told_so(cluster: Cluster, query: str, status: int) -> None:
    answer = ask(f"{cluster.url}/v1/events?{query}")
    assert answer.status == status
    if answer.headers["content-type"].startswith("application/json"):
        assert answer.json()["code"] == "invalid-request"


async def collect(
    url: str, query: str, wanted: int, *, commit: bool = False, limit_s: float = 30.0
) -> list[Any]:
    """Events of a WebSocket until there are *wanted* of them."""
    found: list[Any] = []
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/v1/events/stream?{query}") as stream,
    ):
        async with asyncio.timeout(limit_s):
            async for message in stream:
                page = json.loads(message.data)
                assert "code" not in page, page
                found += page["events"]
                if commit and page["events"]:
                    await stream.send_str(json.dumps({"commit": page["events"][-1]["offset"]}))
                if len(found) >= wanted:
                    return found
    return found


async def test_three_consumers_follow_without_a_gap(cluster: Cluster, folder: str) -> None:
    start = await asyncio.to_thread(last_offset, cluster)

    def write() -> None:
        with sync.FileSystem(ClientConfig(namenode=cluster.url, user="root")) as fs:
            for number in range(120):
                fs.mkdirs(f"{folder}/d{number:03}")

    writing = asyncio.to_thread(write)
    query = f"after={start}&path={folder}"
    three = [collect(cluster.url, query, 120) for _ in range(3)]
    results = await asyncio.gather(writing, *three)
    wanted = [f"{folder}/d{n:03}" for n in range(120)]
    for found in results[1:]:
        assert [event["path"] for event in found] == wanted
        offsets = [event["offset"] for event in found]
        assert offsets == sorted(set(offsets))


async def test_a_group_goes_on_where_it_was(cluster: Cluster, folder: str) -> None:
    start = await asyncio.to_thread(last_offset, cluster)
    base = f"group=readers&path={folder}"

    def write(first: int, last: int) -> None:
        with sync.FileSystem(ClientConfig(namenode=cluster.url, user="root")) as fs:
            for number in range(first, last):
                fs.mkdirs(f"{folder}/d{number:03}")

    await asyncio.to_thread(write, 0, 10)
    found = await collect(cluster.url, f"{base}&after={start}", 10, commit=True)

    def committed() -> int:
        groups = ask(f"{cluster.url}/v1/event_groups", body={}).json()["groups"]
        return next((g["offset"] for g in groups if g["name"] == "readers"), 0)

    await asyncio.to_thread(
        wait_until, lambda: committed() == found[-1]["offset"], "the offset is kept"
    )
    await asyncio.to_thread(write, 10, 15)
    rest = await collect(cluster.url, base, 5)
    assert [event["path"] for event in rest] == [f"{folder}/d{n:03}" for n in range(10, 15)]
    answer = await asyncio.to_thread(
        ask, f"{cluster.url}/v1/commit_offset", body={"group": "readers", "offset": 10**12}
    )
    assert answer.json()["code"] == "invalid-request"
    gone = await asyncio.to_thread(ask, f"{cluster.url}/v1/delete_group", body={"group": "readers"})
    assert gone.status == 200
    assert await asyncio.to_thread(committed) == 0


def test_a_group_is_moved_and_deleted_by_its_owner_alone(cluster: Cluster) -> None:
    def say(operation: str, user: str, **body: Any) -> str:
        answer = ask(f"{cluster.url}/v1/{operation}", body=body, headers={"X-TwinFS-User": user})
        return "" if answer.status == 200 else str(answer.json()["code"])

    assert say("commit_offset", "ann", group="hers", offset=2) == ""
    assert say("commit_offset", "bob", group="hers", offset=0) == "permission-denied"
    assert say("delete_group", "bob", group="hers") == "permission-denied"
    assert say("commit_offset", "ann", group="hers", offset=1) == ""
    # A superuser may help, and the group stays hers.
    assert say("commit_offset", "root", group="hers", offset=0) == ""
    groups = ask(f"{cluster.url}/v1/event_groups", body={}).json()["groups"]
    found = next(group for group in groups if group["name"] == "hers")
    assert (found["owner"], found["offset"]) == ("ann", 0)

    async def commit_over_websocket() -> None:
        async with aiohttp.ClientSession() as session:
            address = f"{cluster.url}/v1/events/stream?group=hers&user=bob"
            async with session.ws_connect(address) as socket:
                await socket.send_json({"commit": 1})
                while (await socket.receive(timeout=30)).type == aiohttp.WSMsgType.TEXT:
                    pass  # events that came before the refusal

    asyncio.run(commit_over_websocket())
    groups = ask(f"{cluster.url}/v1/event_groups", body={}).json()["groups"]
    assert next(group for group in groups if group["name"] == "hers")["offset"] == 0
    assert say("delete_group", "ann", group="hers") == ""
    # Whose name is free may be taken by anybody.
    assert say("commit_offset", "bob", group="hers", offset=1) == ""
    assert say("delete_group", "root", group="hers") == ""


async def test_a_consumer_that_sends_nonsense_is_told_and_let_go(cluster: Cluster) -> None:
    for text in ("nonsense", '{"commit": "x"}', '{"other": 1}', '{"commit": 1}'):
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{cluster.url}/v1/events/stream?after=latest") as stream,
        ):
            await stream.send_str(text)
            async with asyncio.timeout(20):
                answers = [json.loads(message.data) async for message in stream]
            assert answers[-1]["code"] == "invalid-request", text


async def test_a_page_of_another_site_can_not_listen(cluster: Cluster) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(
                f"{cluster.url}/v1/events/stream", headers={"Origin": "http://evil.example"}
            )
        assert refused.value.status == 403


def test_what_is_no_longer_kept_is_a_typed_error(tmp_path: Path) -> None:
    """Retention by number: the consumer is told where to go on."""
    options = ("--event-retention", "256", "--prune-interval-s", "0.2")
    with running(tmp_path, datanodes=1, namenode_options=options) as small:
        with sync.FileSystem(ClientConfig(namenode=small.url, user="root")) as fs:
            for number in range(700):
                fs.mkdirs(f"/d{number}")
        wait_until(
            lambda: ask(f"{small.url}/v1/events?after=5").status == 410,
            "old events are dropped",
            60,
        )
        answer = ask(f"{small.url}/v1/events?after=5")
        assert answer.json()["code"] == "events-gone"
        first = int(answer.json()["message"].partition("go on after ")[2].split(",")[0])
        assert (first % 256, first > 0) == (0, True)
        assert get(small, f"after={first}")["events"][0]["offset"] == first + 1
        assert get(small, "after=0")["events"][0]["offset"] == first + 1
        # The same over the other ways: what is gone is said, and nothing is skipped silently.
        told = asyncio.run(first_message(f"{small.url}/v1/events/stream?after=5"))
        assert (told["code"], told["message"]) == ("events-gone", answer.json()["message"])
        assert (
            ask(f"{small.url}/v1/commit_offset", body={"group": "late", "offset": 3}).status == 200
        )
        behind = ask(f"{small.url}/v1/events?group=late")
        assert (behind.status, behind.json()["code"]) == (410, "events-gone")
        told = asyncio.run(first_message(f"{small.url}/v1/events/stream?group=late"))
        assert told["code"] == "events-gone"
        dfs = Dfs(small.url, tmp_path, USER="root", LOGNAME="root")
        for words in (("--after", "5"), ("--group", "late"), ("--follow", "--after", "5")):
            assert f"go on after {first}" in dfs.fails("events", *words, code=1)
        dfs("events", "seek", "late", str(first))
        assert dfs.json("events", "--group", "late")[0]["offset"] == first + 1


async def first_message(url: str, **headers: str) -> Any:
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.ws_connect(url) as stream,
    ):
        async with asyncio.timeout(30):
            return json.loads((await stream.receive()).data)


async def test_one_who_reads_nothing_holds_up_nobody(cluster: Cluster, folder: str) -> None:
    """A connection that takes no bytes fills up and waits by itself: others get everything, writers are answered."""
    start = await asyncio.to_thread(last_offset, cluster)
    host, _, port = cluster.namenode.facts["http"].rpartition(":")
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        stuck.connect((host, int(port)))
        stuck.sendall(
            f"GET /v1/events/stream?after={start} HTTP/1.1\r\nHost: {host}:{port}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        assert stuck.recv(12) == b"HTTP/1.1 101"
        name = "x" * 200
        paths = [f"{folder}/{name}-{n:05}" for n in range(12_000)]  # megabytes of events

        def write() -> None:
            with sync.FileSystem(ClientConfig(namenode=cluster.url, user="root")) as fs:
                for first in range(0, len(paths), 500):
                    fs.call(
                        "mkdirs_many",
                        MkdirsMany(
                            directories=[Mkdirs(path=p) for p in paths[first : first + 500]]
                        ),
                    )

        reading = collect(cluster.url, f"after={start}&path={folder}", len(paths), limit_s=90.0)
        _, found = await asyncio.gather(asyncio.to_thread(write), reading)
        assert [event["path"] for event in found] == paths


# --- who may read ---


async def all_ways(cluster: Cluster, user: str, folder: str, start: int) -> list[list[str]]:
    """What *user* sees below *folder*: by polling, on a WebSocket (by header and by query), by the operation."""
    query = f"after={start}&path={folder}"
    headers = {"X-TwinFS-User": user}
    answer = await asyncio.to_thread(ask, f"{cluster.url}/v1/events?{query}", headers=headers)
    assert answer.status == 200, answer.body
    stream = f"{cluster.url}/v1/events/stream?{query}"
    body = {"after": start, "path_prefix": folder}
    operation = await asyncio.to_thread(ask, f"{cluster.url}/v1/events", body=body, headers=headers)
    pages = [
        answer.json(),
        await first_message(stream, **headers),
        await first_message(f"{stream}&user={user}"),
        operation.json(),
    ]
    return [paths(page) for page in pages]


async def test_events_follow_the_permissions_of_their_directories(
    cluster: Cluster, fs: sync.FileSystem, folder: str
) -> None:
    start = await asyncio.to_thread(last_offset, cluster)

    def write() -> None:
        fs.mkdirs(f"{folder}/open", mode=0o755)
        fs.mkdirs(f"{folder}/closed", mode=0o700)
        fs.mkdirs(f"{folder}/open/a")
        fs.mkdirs(f"{folder}/closed/secret")
        fs.rename(f"{folder}/closed/secret", f"{folder}/open/b")

    await asyncio.to_thread(write)
    for seen in await all_ways(cluster, "root", folder, start):
        assert seen[1:] == [
            *(f"{folder}/{name}" for name in ("closed", "open/a", "closed/secret")),
            f"{folder}/closed/secret",
        ]
    for seen in await all_ways(cluster, "bob", folder, start):
        assert seen[1:] == [f"{folder}/closed", f"{folder}/open/a", ""]
    # Nobody learns by asking for it that something happened where he may not look.
    for seen in await all_ways(cluster, "bob", f"{folder}/closed/secret", start):
        assert seen == []


def test_the_stream_can_be_for_superusers_alone(tmp_path: Path) -> None:
    options = ("--event-readers", "superusers", "--safe-mode-nodes", "0")
    with running(tmp_path, datanodes=0, namenode_options=options) as strict:
        for query in ("", "?group=x"):
            answer = ask(f"{strict.url}/v1/events{query}")
            assert (answer.status, answer.json()["code"]) == (403, "permission-denied")
        group = {"group": "theirs", "offset": 0}
        for operation, body in (
            ("events", {}),
            ("event_groups", {}),
            ("commit_offset", group),
            ("delete_group", group),
        ):
            bob = {"X-TwinFS-User": "bob"}
            answer = ask(f"{strict.url}/v1/{operation}", body=dict(body), headers=bob)
            assert (answer.status, answer.json()["code"]) == (403, "permission-denied")
        assert ask(f"{strict.url}/v1/events", headers={"X-TwinFS-User": "root"}).status == 200
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            asyncio.run(first_message(f"{strict.url}/v1/events/stream"))
        assert refused.value.status == 403


def test_an_unknown_rule_ends_the_start_with_one_line(tmp_path: Path) -> None:
    options = ("--event-readers", "friends")
    with pytest.raises(AssertionError, match="event_readers must be one of"):
        Cluster(tmp_path, datanodes=0, namenode_options=options).start()

"""Following the change stream from outside: long poll, WebSocket, groups, retention."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from twinfs.client import sync
from twinfs.common.config import ClientConfig
from twinfs.common.runtime import elapsed_timer

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
        session.ws_connect(f"{url}/v1/events/stream?{query}") as socket,
    ):
        async with asyncio.timeout(limit_s):
            async for message in socket:
                page = json.loads(message.data)
                assert "code" not in page, page
                found += page["events"]
                if commit and page["events"]:
                    await socket.send_str(json.dumps({"commit": page["events"][-1]["offset"]}))
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


async def test_a_consumer_that_sends_nonsense_is_told_and_let_go(cluster: Cluster) -> None:
    for text in ("nonsense", '{"commit": "x"}', '{"other": 1}', '{"commit": 1}'):
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{cluster.url}/v1/events/stream?after=latest") as socket,
        ):
            await socket.send_str(text)
            async with asyncio.timeout(20):
                answers = [json.loads(message.data) async for message in socket]
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

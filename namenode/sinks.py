"""Sinks: the change stream published to NATS JetStream or Apache Kafka, each with a client that is an optional extra.

`nats://HOST:PORT/STREAM?subject=twinfs.events`: a message an event, on SUBJECT.KIND, with the header Nats-Msg-Id, so that JetStream drops
what is sent twice (within its window). `kafka://HOST:PORT/TOPIC`: a record an event, keyed by its path, so that events of one path stay
in order in one partition; `?idempotence=no` is for brokers that speak Kafka's protocol without idempotent producers: then a batch whose
answer is lost may come twice. (The client has one batch of a partition on its way at a time, so their order stays.)
"""

from __future__ import annotations

import hashlib
import importlib
import re
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..common.errors import InvalidConfig
from .push import Refused, Target
from .tail import Entry

TIMEOUT_S: Final = 10.0
NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")


@dataclass(frozen=True, slots=True)
class Place:
    """A sink's URL, taken apart."""

    kind: str
    servers: str  # HOST:PORT, or several with commas
    name: str  # of the stream or topic
    subject: str
    group: str
    idempotent: bool = True  # of Kafka's producer


def parse(url: str) -> Place:
    """InvalidConfig if *url* names no sink."""
    parts = urllib.parse.urlsplit(url)
    name = parts.path.strip("/")
    query = urllib.parse.parse_qs(parts.query)
    subject = query.get("subject", ["twinfs.events"])[0]
    if parts.scheme not in ("nats", "kafka") or not parts.netloc or not NAME.fullmatch(name):
        raise InvalidConfig(
            f"event_sinks: {url!r} is neither nats://HOST:PORT/STREAM nor kafka://HOST:PORT/TOPIC"
        )
    known = {"subject"} if parts.scheme == "nats" else {"idempotence"}
    idempotence = query.get("idempotence", ["yes"])[0]
    if not NAME.fullmatch(subject) or set(query) - known or idempotence not in ("yes", "no"):
        raise InvalidConfig(f"event_sinks: {url!r} has a parameter that is unknown or bad")
    # The same place is the same group, however often the NameNode restarts; without a password that may be in the URL.
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/{name}"
    group = f"sink:{parts.scheme}:{name}:{hashlib.sha256(place.encode()).hexdigest()[:8]}"
    return Place(parts.scheme, parts.netloc, name, subject, group, idempotence == "yes")


def make(place: Place, cluster_id: str) -> Target:
    """InvalidConfig if the client library is not installed."""
    library, extra = {"nats": ("nats", "nats"), "kafka": ("aiokafka", "kafka")}[place.kind]
    try:
        importlib.import_module(library)
    except ImportError:
        raise InvalidConfig(
            f"event_sinks: {place.kind} needs its client: pip install 'twinfs[{extra}]'"
        ) from None
    return NatsSink(place, cluster_id) if place.kind == "nats" else KafkaSink(place)


class NatsSink:
    """JetStream. The stream is made if it is not there."""

    def __init__(self, place: Place, cluster_id: str) -> None:
        self._place = place
        self._cluster_id = cluster_id
        self._client: Any = None
        self._stream: Any = None
        self._cause = ""  # of what went wrong last

    async def _note(self, error: Exception) -> None:
        """What the client says beside; whoever sends hears of it."""
        self._cause = f" ({type(error).__name__}: {str(error)[:200]})"

    async def _connect(self) -> None:
        nats = importlib.import_module("nats")
        self._client = await nats.connect(
            servers=[f"nats://{server}" for server in self._place.servers.split(",")],
            allow_reconnect=False,
            # A server that is away is told of and tried again by whoever sends, and not for minutes in here.
            max_reconnect_attempts=1,
            reconnect_time_wait=0.1,
            connect_timeout=TIMEOUT_S,
            error_cb=self._note,
        )
        self._stream = self._client.jetstream(timeout=TIMEOUT_S)
        errors = importlib.import_module("nats.js.errors")
        try:
            await self._stream.stream_info(self._place.name)
        except errors.NotFoundError:
            await self._stream.add_stream(
                name=self._place.name, subjects=[f"{self._place.subject}.>"]
            )

    async def send(self, entries: Sequence[Entry]) -> None:
        try:
            if self._client is None or not self._client.is_connected:
                await self.close()
                await self._connect()
            # One after the other: an event that is acknowledged has those before it in the stream already.
            for event, encoded in entries:
                await self._stream.publish(
                    f"{self._place.subject}.{event.kind}",
                    encoded,
                    headers={"Nats-Msg-Id": f"{self._cluster_id}-{event.offset}"},
                )
        except Exception as error:
            await self.close()
            cause, self._cause = self._cause, ""
            raise Refused(f"{type(error).__name__}: {str(error)[:200]}{cause}") from None

    async def close(self) -> None:
        client, self._client, self._stream = self._client, None, None
        if client is not None:
            await client.close()


def waves(entries: Sequence[Entry]) -> list[list[Entry]]:
    """*entries* in parts that name each path once at most, each path's in order.

    A producer goes on with later records when an earlier one has failed in the end. So nothing about a path may be on its way while
    something older about it is.
    """
    parts: list[list[Entry]] = []
    seen: dict[str, int] = {}
    for entry in entries:
        number = seen.get(entry.event.path, 0)
        seen[entry.event.path] = number + 1
        if number == len(parts):
            parts.append([])
        parts[number].append(entry)
    return parts


class KafkaSink:
    """A Kafka topic, through aiokafka's idempotent producer."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._producer: Any = None

    async def send(self, entries: Sequence[Entry]) -> None:
        try:
            if self._producer is None:
                kafka = importlib.import_module("aiokafka")
                producer = kafka.AIOKafkaProducer(
                    bootstrap_servers=self._place.servers,
                    acks="all",
                    enable_idempotence=self._place.idempotent,
                    request_timeout_ms=int(TIMEOUT_S * 1000),
                )
                self._producer = producer
                await producer.start()
            for wave in waves(entries):
                waiting = [
                    await self._producer.send(
                        self._place.name,
                        encoded,
                        key=event.path.encode(),
                        timestamp_ms=event.time_ms,
                        headers=[("offset", str(event.offset).encode())],
                    )
                    for event, encoded in wave
                ]
                for record in waiting:
                    await record
        except Exception as error:
            await self.close()
            raise Refused(f"{type(error).__name__}: {str(error)[:200]}") from None

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

"""One put is one trace in an OpenTelemetry collector, and one request id in the logs of every process it went through."""

from __future__ import annotations

import gzip
import http.server
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from twinfs.client.filesystem import FileSystem
from twinfs.common.config import ClientConfig

from ..integration.commands import LARGE, Dfs
from ..support.cluster import Cluster, running, wait_until
from .conftest import ask

SERVER, CLIENT = 2, 3  # SpanKind on the wire
REQUEST = re.compile(r"\[([0-9a-f]{32}-\d+)\]")


@dataclass(frozen=True, slots=True)
class Seen:
    """A span as the collector got it."""

    name: str
    trace: str
    span: str
    parent: str
    kind: int
    service: str
    instance: str
    facts: dict[str, Any]


class Collector:
    """An OTLP/HTTP endpoint."""

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path == "/v1/traces":
                    collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def take(self, request: ExportTraceServiceRequest) -> None:
        for group in request.resource_spans:
            resource = {a.key: a.value.string_value for a in group.resource.attributes}
            for scope in group.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        Seen(
                            span.name,
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            int(span.kind),
                            resource["service.name"],
                            resource["service.instance.id"],
                            {a.key: a.value.string_value for a in span.attributes},
                        )
                    )

    def of(self, trace: str) -> list[Seen]:
        return [span for span in list(self.spans) if span.trace == trace]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.close()


@pytest.fixture(scope="module")
def traced(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Servers that trace, and say everything in their logs."""
    options = ("--otlp-endpoint", collector.url, "--log-level", "DEBUG", "--log-format", "json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")  # ms between what is sent
        with running(
            tmp_path_factory.mktemp("traced"),
            datanodes=3,
            namenode_options=options,
            datanode_options=options,
        ) as cluster:
            yield cluster
            assert cluster.tracebacks() == []


def entries(cluster: Cluster, number: int) -> list[dict[str, Any]]:
    """Log lines of a server; 0 is the NameNode."""
    server = [cluster.namenode, *cluster.datanodes][number]
    lines = server.log_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def pipeline(spans: list[Seen], name: str, first: Seen) -> list[Seen]:
    """Spans of the DataNodes, each the child of the one before, the first of *first*."""
    chain = []
    above = first
    while found := [
        s for s in spans if s.name == name and s.kind == SERVER and s.parent == above.span
    ]:
        assert len(found) == 1, "a node forwards to one other"
        above = found[0]
        chain.append(above)
    return chain


@pytest.mark.parametrize(
    ("size", "client_span", "server_span"),
    [
        pytest.param(len(LARGE), "write_block", "write_block", id="a block of its own"),
        pytest.param(1000, "write_small_blocks", "write_many", id="a small file"),
    ],
)
def test_one_put_is_one_trace(
    traced: Cluster,
    collector: Collector,
    tmp_path: Path,
    size: int,
    client_span: str,
    server_span: str,
) -> None:
    local = tmp_path / "local"
    local.write_bytes(LARGE[:size])
    dfs = Dfs(traced.url, tmp_path, TWINFS_CLIENT_OTLP_ENDPOINT=collector.url)
    before = len(collector.spans)
    assert dfs.run("put", local, f"/traced-{size}").code == 0

    def roots() -> list[Seen]:
        return [s for s in collector.spans[before:] if s.name == "dfs_put"]

    def whole() -> bool:
        """Each process sends its spans when it likes, so a parent may come after its children."""
        spans = [s for root in roots() for s in collector.of(root.trace)]
        known = {s.span for s in spans}
        return (
            sum(s.name == server_span and s.kind == SERVER for s in spans) >= 3
            and any(s.name == "put_files" and s.kind == SERVER for s in spans)
            and all(s.parent in known or not s.parent for s in spans)
        )

    wait_until(whole, "the spans of the put")
    [root] = roots()
    assert root.parent == ""
    spans = collector.of(root.trace)
    by_id = {span.span: span for span in spans}
    assert all(span is root or span.parent in by_id for span in spans), "an orphan"
    # The NameNode's spans hang below the client's calls of the same name.
    calls = [s for s in spans if s.service == "twinfs-namenode"]
    assert {"allocate", "put_files"} <= {s.name for s in calls}
    for call in calls:
        above = by_id[call.parent]
        assert (call.kind, above.kind, above.service) == (SERVER, CLIENT, "twinfs-client")
        assert above.name == call.name
    # The pipeline: client, first node, second, third.
    [sending] = [s for s in spans if s.name == client_span and s.kind == CLIENT]
    chain = pipeline(spans, server_span, sending)
    assert [s.service for s in chain] == ["twinfs-datanode"] * 3
    assert len({s.instance for s in chain}) == 3
    assert len({s.facts["twinfs.request_id"] for s in spans}) == 1
    assert "traced-" not in json.dumps([s.facts for s in spans]), "a path is nobody's business"


def test_one_request_id_in_all_logs(traced: Cluster, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(LARGE)
    done = Dfs(traced.url, tmp_path).run("-v", "put", local, "/secret-name")
    assert done.code == 0
    ids = set(REQUEST.findall(done.err))
    assert len(ids) == 1, done.err
    (request_id,) = ids

    def told(number: int) -> set[str]:
        found = [e for e in entries(traced, number) if e.get("request_id") == request_id]
        return {e.get("operation") or e.get("request") or "" for e in found}

    wait_until(lambda: all("write_block" in told(n) for n in (1, 2, 3)), "the nodes' lines")
    wait_until(lambda: {"allocate", "put_files"} <= told(0), "the NameNode's lines")
    for number in range(4):
        assert "secret-name" not in json.dumps(entries(traced, number))


async def test_writes_at_once_travel_together_and_say_so(
    traced: Cluster, collector: Collector
) -> None:
    """A batch belongs to the first of its callers; the others' traces are linked to."""
    config = ClientConfig(namenode=traced.url, user="root")
    async with FileSystem(config) as fs:
        await fs.write_bytes("/together", b"x")
        writer = await fs.open("/streamed", "wb")
        await writer.write(LARGE[:2_000_000])
        await writer.close()
    found = [e for e in entries(traced, 0) if e.get("operation") in ("create", "complete")]
    assert len({e["request_id"] for e in found[-2:]}) == 1, "a file that is streamed is one request"


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"traceparent": "00-zz-1-01"}, id="malformed"),
        pytest.param({"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"}, id="all zeros"),
        pytest.param({"X-TwinFS-Origin": "evil id"}, id="no request id"),
        pytest.param({"traceparent": "01-" + "a" * 5000}, id="long"),
    ],
)
def test_what_is_malformed_is_ignored(traced: Cluster, headers: dict[str, str]) -> None:
    """As W3C asks of `traceparent`: it never fails a request."""
    answer = ask(f"{traced.url}/v1/stat", body={"path": "/"}, headers=headers)
    assert answer.status == 200
    assert not [e for e in entries(traced, 0) if "evil" in e.get("request_id", "")]


def test_an_application_may_send_its_own_trace(traced: Cluster, collector: Collector) -> None:
    trace, above = "c0ffee" + "0" * 25 + "1", "00000000000000aa"
    headers = {"traceparent": f"00-{trace}-{above}-01"}
    assert ask(f"{traced.url}/v1/stat", body={"path": "/"}, headers=headers).status == 200
    wait_until(lambda: bool(collector.of(trace)), "the span of the call")
    [span] = collector.of(trace)
    assert (span.name, span.parent, span.kind) == ("stat", above, SERVER)


def test_one_that_is_not_sampled_is_not_recorded(traced: Cluster, collector: Collector) -> None:
    quiet, loud = "d" * 31 + "1", "d" * 31 + "2"
    for trace, flags in ((quiet, "00"), (loud, "01")):
        headers = {"traceparent": f"00-{trace}-00000000000000aa-{flags}"}
        assert ask(f"{traced.url}/v1/stat", body={"path": "/"}, headers=headers).status == 200
    wait_until(lambda: bool(collector.of(loud)), "the one that came after it")
    assert collector.of(quiet) == []


def test_a_collector_that_is_away_holds_up_nothing(traced: Cluster, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(b"x")
    dfs = Dfs(traced.url, tmp_path, TWINFS_CLIENT_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert dfs.run("put", local, "/untraced").code == 0

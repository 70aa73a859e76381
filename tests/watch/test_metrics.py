"""`/metrics`, `/healthz`, `/readyz` of real processes, read by the real Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from twinfs.client import sync
from twinfs.common.config import ClientConfig
from twinfs.common.errors import PathNotFound
from twinfs.common.runtime import elapsed_timer

from ..support.cluster import Cluster, Server, running, wait_until
from ..support.programs import free_port, program
from .conftest import ask

MONITORING = Path(__file__).resolve().parents[2] / "scripts" / "monitoring"
MAX_SERIES = 2_000
MAX_SCRAPE_S = 0.02


def urls(cluster: Cluster) -> list[str]:
    return [f"http://{server.facts['http']}" for server in (cluster.namenode, *cluster.datanodes)]


def samples(url: str) -> dict[str, float]:
    """Series with their labels, as Prometheus writes them."""
    text = ask(f"{url}/metrics").body.decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


# What an operator wants to know -> what says so, on the processes it concerns.
EVERYWHERE = {
    "latency": "twinfs_http_request_duration_seconds",
    "bytes": "twinfs_http_bytes_total",
    "errors": "twinfs_http_answers_total",
    "cache hits": "twinfs_cache_lookups_total",
    "event loop delay": "twinfs_event_loop_delay_seconds",
}
NAMENODE = EVERYWHERE | {
    "latency of operations": "twinfs_namenode_operation_duration_seconds",
    "bytes of calls": "twinfs_namenode_rpc_bytes_total",
    "errors of operations": "twinfs_namenode_operation_errors_total",
    "queue of commits": "twinfs_namenode_commit_queue_length",
    "queue of reads": "twinfs_namenode_read_queue_length",
    "queue of repair": "twinfs_repair_blocks",
    "group commit": "twinfs_namenode_commit_group_size",
    "blocks by state": "twinfs_blocks",
    "nodes": "twinfs_datanodes",
    "deliveries": "twinfs_event_deliveries_total",
}
DATANODE = EVERYWHERE | {
    "latency of streams": "twinfs_datanode_request_duration_seconds",
    "bytes of streams": "twinfs_datanode_stream_bytes_total",
    "errors of streams": "twinfs_datanode_request_errors_total",
    "queue of commits": "twinfs_datanode_commit_queue_length",
    "queue of work": "twinfs_datanode_work_queue_length",
    "group commit": "twinfs_datanode_commit_group_size",
    "blocks by state": "twinfs_datanode_replicas",
    "scrubber": "twinfs_datanode_scrub_checked_bytes",
    "fetched": "twinfs_peer_fetched_bytes_total",
}
PEER = DATANODE | {"peers": "twinfs_peer_known_peers", "pins": "twinfs_peer_pins"}


def families(url: str) -> set[str]:
    """Names of the families, with the `_total` of counters."""
    lines = ask(f"{url}/metrics").body.decode().splitlines()
    return {line.split()[2] for line in lines if line.startswith("# TYPE")}


def test_every_process_shows_what_it_should(cluster: Cluster) -> None:
    namenode, *nodes = urls(cluster)
    wait_until(lambda: set(NAMENODE.values()) <= families(namenode), "all of the NameNode's", 60)
    for url in nodes:
        wait_until(lambda url=url: set(DATANODE.values()) <= families(url), "all of it", 60)  # type: ignore[misc]
    for url in (namenode, *nodes):
        ask(f"{url}/no/such/thing")
    wait_until(
        lambda: all(
            samples(url).get("twinfs_http_answers_total{status=4xx}", 0) >= 1
            for url in (namenode, *nodes)
        ),
        "what failed is counted",
    )
    assert samples(namenode)["twinfs_http_request_duration_seconds_count{route=none}"] >= 1


def test_caches_and_bytes_are_counted(cluster: Cluster, fs: sync.FileSystem, folder: str) -> None:
    namenode = urls(cluster)[0]
    before = samples(namenode)
    fs.mkdirs(f"{folder}/a/b/c")
    for number in range(40):
        fs.exists(f"{folder}/a/b/c/{number}")
    after = samples(namenode)
    hits = "twinfs_cache_lookups_total{cache=directories,result=hit}"
    assert after[hits] - before[hits] >= 20
    for direction in ("received", "sent"):
        key = f"twinfs_namenode_rpc_bytes_total{{direction={direction}}}"
        assert after[key] - before[key] > 40 * 20
    posted = ask(f"{namenode}/v1/stat", body={"path": folder})
    assert posted.status == 200
    sent = "twinfs_http_bytes_total{direction=sent}"
    wait_until(lambda: samples(namenode)[sent] > after[sent] + len(posted.body), "bytes sent")


def test_uploads_over_webhdfs_are_counted(cluster: Cluster, folder: str) -> None:
    """Though they go into the store without a block stream."""
    key = "twinfs_datanode_stream_bytes_total{direction=received}"
    before = [samples(url)[key] for url in urls(cluster)[1:]]
    data = bytes(3 << 20)
    asked = ask(
        f"{cluster.url}/webhdfs/v1{folder}/f?op=CREATE&user.name=root&replication=1&noredirect=true",
        method="PUT",
    )
    assert ask(asked.json()["Location"], method="PUT", body=data).status == 201
    after = [samples(url)[key] for url in urls(cluster)[1:]]
    assert sum(after) - sum(before) >= len(data)


def test_what_clients_did_is_counted(cluster: Cluster, fs: sync.FileSystem, folder: str) -> None:
    namenode, data = urls(cluster)[0], bytes(300_000)
    before = samples(namenode)
    sent = [
        samples(url)["twinfs_datanode_stream_bytes_total{direction=received}"]
        for url in urls(cluster)[1:]
    ]
    fs.write_bytes(f"{folder}/f", data)
    for _ in range(5):
        fs.stat(f"{folder}/f")
    with pytest.raises(PathNotFound):
        fs.stat(f"{folder}/absent")
    after = samples(namenode)
    count = "twinfs_namenode_operation_duration_seconds_count{operation=stat}"
    assert after[count] - before.get(count, 0) >= 5
    missing = "twinfs_namenode_operation_errors_total{code=path-not-found}"
    assert after[missing] - before.get(missing, 0) >= 1
    groups = "twinfs_namenode_commit_group_size_count{}"
    assert after[groups] > before[groups]
    assert after["twinfs_datanodes{state=live}"] == 3
    now = [
        samples(url)["twinfs_datanode_stream_bytes_total{direction=received}"]
        for url in urls(cluster)[1:]
    ]
    assert sum(now) - sum(sent) >= 3 * len(data)


def scrape_s(url: str) -> float:
    began_s = elapsed_timer()
    assert ask(f"{url}/metrics").status == 200
    return elapsed_timer() - began_s


def test_they_are_few_quick_and_well_formed(cluster: Cluster) -> None:
    for url in urls(cluster):
        assert len(samples(url)) < MAX_SERIES
        # The quickest of some: the others waited for a busy machine.
        wait_until(lambda url=url: scrape_s(url) < MAX_SCRAPE_S, "a quick scrape", 60)  # type: ignore[misc]
        answer = ask(f"{url}/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=")
        if shutil.which("promtool"):
            checked = subprocess.run(
                ["promtool", "check", "metrics"], input=answer.body, capture_output=True, timeout=60
            )
            assert checked.returncode == 0, checked.stderr.decode()


@pytest.fixture
def prometheus(cluster: Cluster, tmp_path: Path) -> Iterator[str]:
    """Debian's Prometheus, scraping the cluster twice a second."""
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus is not installed")
    port = free_port()
    targets = json.dumps([url.removeprefix("http://") for url in urls(cluster)])
    (tmp_path / "prometheus.yml").write_text(
        f"global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}\n"
        f"rule_files: [{MONITORING / 'alerts.yml'}]\n"
        f"scrape_configs: [{{job_name: twinfs, static_configs: [{{targets: {targets}}}]}}]\n"
    )
    command = [
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with program(command, tmp_path / "log"):
        yield f"http://127.0.0.1:{port}"
    print((tmp_path / "log").read_text()[-2_000:])


def test_prometheus_scrapes_them(cluster: Cluster, prometheus: str) -> None:
    def query(text: str) -> list[Any]:
        try:
            found = ask(f"{prometheus}/api/v1/query?query={urllib.parse.quote(text)}")
        except OSError:
            return []  # it is still starting
        return list(found.json()["data"]["result"]) if found.status == 200 else []

    wait_until(
        lambda: query("sum(up)")[:1] != [] and query("sum(up)")[0]["value"][1] == "4",
        "4 targets",
        60,
    )
    roles = {
        row["metric"]["role"]: row["value"][1]
        for row in query("count by (role) (twinfs_build_info)")
    }
    assert roles == {"namenode": "1", "datanode": "3"}
    rules = ask(f"{prometheus}/api/v1/rules").json()["data"]["groups"][0]["rules"]
    assert {rule["name"] for rule in rules} >= {"TwinFSProcessDown", "TwinFSBlocksMissing"}
    # Each rule can be evaluated against what the processes really show.
    wait_until(
        lambda: all(
            rule["health"] == "ok"
            for rule in ask(f"{prometheus}/api/v1/rules").json()["data"]["groups"][0]["rules"]
        ),
        "all rules evaluated",
    )


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
        ("check", "config", "--syntax-only", "prometheus.yml"),
    ],
)
def test_promtool_accepts_the_files(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\btwinfs_[a-z_]+", text))


def shown(cluster: Cluster) -> set[str]:
    found: set[str] = set()
    for url in urls(cluster):
        found |= {name.partition("{")[0] for name in samples(url)}
        text = ask(f"{url}/metrics").body.decode()
        found |= {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    return found


@pytest.mark.parametrize("file", ["alerts.yml", "grafana.json"])
def test_the_files_ask_for_metrics_that_exist(
    cluster: Cluster, fs: sync.FileSystem, folder: str, file: str
) -> None:
    fs.write_bytes(f"{folder}/f", bytes(100_000))
    wanted = names_in((MONITORING / file).read_text())
    # Histograms appear with their first value. What only peers have is looked for at one below.
    assert wanted - shown(cluster) - {PEER["peers"], PEER["pins"]} == set()


def test_the_grafana_dashboard_is_whole() -> None:
    board = json.loads((MONITORING / "grafana.json").read_text())
    assert board["title"] == "TwinFS"
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert all(target["expr"] for panel in panels for target in panel["targets"])


# --- health ---


def test_the_scrubber_and_a_peer_show_where_they_are(cluster: Cluster, tmp_path: Path) -> None:
    [node, *_] = cluster.datanodes
    url = f"http://{node.facts['http']}"
    wait_until(
        lambda: "twinfs_datanode_scrub_checked_bytes{volume=0}" in samples(url),
        "the scrubber has looked at the volume",
    )
    assert samples(url)["twinfs_datanode_scrub_damaged_blocks{volume=0}"] == 0
    options = ("--bootstrap", "none", "--dir", str(tmp_path / "peer"))
    peer = Server(
        tmp_path, "peer", "twinfs.datanode", [*options, "--port", "0", "--data-port", "0"]
    )
    peer.start()
    try:
        found = samples(f"http://{peer.facts['http']}")
        assert found["twinfs_peer_known_peers{}"] == 0
        assert found["twinfs_peer_pins{kind=own}"] == 0
        url = f"http://{peer.facts['http']}"
        wait_until(lambda: set(PEER.values()) <= families(url), "all that a peer shows", 60)
        assert "twinfs_datanode_namenode_contact_age_seconds" not in families(url)
        assert ask(f"{url}/ipfs/bafkqaaa").status == 200
        route = "twinfs_http_request_duration_seconds_count{route=ipfs}"
        wait_until(lambda: samples(url).get(route, 0) >= 1, "the gateway's answers are counted")
        wait_until(lambda: scrape_s(url) < MAX_SCRAPE_S, "a quick scrape", 60)
        assert len(samples(url)) < MAX_SERIES
    finally:
        peer.stop()


def test_health_and_readiness(cluster: Cluster) -> None:
    for url in urls(cluster):
        assert ask(f"{url}/healthz").status == 200
        wait_until(lambda url=url: ask(f"{url}/readyz").status == 200, "ready")  # type: ignore[misc]
        assert ask(f"{url}/readyz").json()["problems"] == []


def test_a_namenode_without_datanodes_is_healthy_and_not_ready(tmp_path: Path) -> None:
    with running(tmp_path, datanodes=0, namenode_options=("--safe-mode-nodes", "2")) as alone:
        assert ask(f"{alone.url}/healthz").status == 200
        answer = ask(f"{alone.url}/readyz")
        assert answer.status == 503
        [problem] = answer.json()["problems"]
        assert problem.startswith("safe mode: ")


def test_a_slow_call_is_logged_with_its_request_and_cause(tmp_path: Path) -> None:
    options = ("--slow-operation-s", "0.000001", "--log-format", "json")
    with running(tmp_path, datanodes=1, namenode_options=options) as watched:
        request_id = "ab" * 16 + "-7"
        answer = ask(
            f"{watched.url}/v1/mkdirs",
            body={"path": "/secret-name"},
            headers={"X-TwinFS-Request": request_id, "X-TwinFS-User": "root"},
        )
        assert answer.status == 200
        entries = [json.loads(line) for line in watched.namenode.log_text().splitlines()]
        [entry] = [e for e in entries if e.get("operation") == "mkdirs"]
        assert entry["request_id"] == request_id
        assert entry["user"] == "root"
        assert entry["level"] == "WARNING"
        assert "wait for the store" in entry["cause"]
        assert entry["duration_ms"] >= 0
        assert "secret-name" not in json.dumps(entries)


def test_a_slow_disk_is_logged_with_what_it_held_up(tmp_path: Path) -> None:
    """Each sync takes over a second: the NameNode, the volume's index and the write itself say so, under one request's id."""
    plans = [tmp_path / "namenode-plan", tmp_path / "datanode-plan"]
    rules = [
        {"id": point, "point": point, "do": "delay", "delay_s": 1.2}
        for point in ("database.sync", "replica.sync")
    ]
    for plan in plans:
        plan.write_text('{"version": 1, "rules": []}')
    options = ("--log-format", "json", "--slow-operation-s", "1.0", "--faults")
    with running(
        tmp_path / "c",
        datanodes=1,
        namenode_options=(*options, str(plans[0])),
        datanode_options=(*options, str(plans[1])),
    ) as slow:
        for plan in plans:
            plan.write_text(json.dumps({"version": 2, "rules": rules}))
            taken = Path(f"{plan}.taken")
            wait_until(lambda taken=taken: taken.read_text().strip() == "2", "the plan is taken")  # type: ignore[misc]
        config = ClientConfig(namenode=slow.url, user="root", replication=1)
        with sync.FileSystem(config) as fs:
            fs.write_bytes("/secret-name", bytes(2 << 20))

        def lines(server: Server) -> list[dict[str, Any]]:
            return [json.loads(line) for line in server.log_text().splitlines()]

        def told(server: Server, slow: str) -> list[dict[str, Any]]:
            return [line for line in lines(server) if line.get("slow") == slow]

        node = slow.datanodes[0]
        wait_until(lambda: told(node, "stream") != [], "the slow write is logged")
        wait_until(lambda: told(slow.namenode, "operation") != [], "the slow call is logged")
        for server in (slow.namenode, node):
            wait_until(lambda server=server: told(server, "disk") != [], "the disk is named")  # type: ignore[misc]
            assert all(line["duration_ms"] >= 1000 for line in told(server, "disk"))
            assert all(line["level"] == "WARNING" for line in told(server, "disk"))
            assert "secret-name" not in server.log_text()
        write = told(node, "stream")[0]
        assert "disk" in write["cause"]
        calls = {line["operation"]: line for line in told(slow.namenode, "operation")}
        assert calls["put_files"]["request_id"] == write["request_id"]
        assert re.search(r"the disk took 1\.[2-9]\d s", calls["put_files"]["cause"])

"""What servers write about themselves, at their most talkative, has neither secrets nor names or contents of files in it."""

from __future__ import annotations

import base64
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from twinfs.client import sync
from twinfs.common.config import ClientConfig

from ..integration.commands import Dfs
from ..support.cluster import Cluster, running, wait_until
from .conftest import ask

HOOK_SECRET = "hook-secret-of-many-letters"
HOOK_QUERY = "query-secret-of-a-url"
SINK_PASSWORD = "sink-password-hunter22"
NAME = "private-name-of-a-file"
CONTENT = b"private-content-of-a-file"
ATTRIBUTE = b"private-value-of-an-attribute"


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Everything is slow by definition, and every line is written."""
    pytest.importorskip("nats")
    options = ("--log-level", "DEBUG", "--log-format", "json", "--slow-operation-s", "0.000001")
    sink = f"nats://somebody:{SINK_PASSWORD}@127.0.0.1:1/STREAM"
    with running(
        tmp_path_factory.mktemp("talkative"),
        datanodes=2,
        namenode_options=(*options, "--event-sinks", sink, "--webhook-backoff-s", "0.02"),
        datanode_options=options,
    ) as found:
        yield found


def secrets_used(cluster: Cluster, tmp_path: Path) -> list[str]:
    """Use each kind of secret, in good requests and in bad ones; all of them."""
    namenode, node = cluster.url, f"http://{cluster.datanodes[0].facts['http']}"
    root = {"X-TwinFS-User": "root"}
    with sync.FileSystem(ClientConfig(namenode=namenode, user="root")) as fs:
        fs.write_bytes(f"/{NAME}", CONTENT, replication=2)
        assert fs.read_bytes(f"/{NAME}") == CONTENT
        fs.set_xattr(f"/{NAME}", "user.x", ATTRIBUTE)
        with fs.open(f"/{NAME}-2", "wb") as file:
            file.write(CONTENT * 50_000)
    # A webhook with a key, and something secret in its URL; nobody answers there.
    url = f"http://127.0.0.1:1/x?token={HOOK_QUERY}"
    hook = {"name": "hook", "url": url, "secret": HOOK_SECRET, "after": 0}
    assert ask(f"{namenode}/v1/add_webhook", body=hook, headers=root).status == 200
    assert ask(f"{namenode}/v1/add_webhook", body={**hook, "url": 7}, headers=root).status == 400
    # The page's token and a delegation token: good, cut short, and where nobody expects them.
    page = ask(f"{namenode}/v1/page_token", body={}, headers=root).json()["token"]
    base = f"{namenode}/webhdfs/v1"
    answer = ask(f"{base}/?op=GETDELEGATIONTOKEN&renewer=root&user.name=root")
    delegation = answer.json()["Token"]["urlString"]
    assert ask(f"{base}/?op=GETFILESTATUS&delegation={delegation}").status == 200
    assert ask(f"{base}/{NAME}?op=OPEN&delegation={delegation}").status == 200
    for token in (delegation[:-8], "x" + delegation):
        assert ask(f"{base}/?op=GETFILESTATUS&delegation={token}").status >= 400
    assert ask(f"{base}/?op=NONSENSE&delegation={delegation}").status >= 400
    for token in (page, page[:-4]):
        ask(f"{node}/v1/web/file?path=/{NAME}&token={token}")
        ask(f"{node}/v1/web/nothing?token={token}")
    # What can't be understood is not repeated either.
    for path in ("/v1/mkdirs", "/v1/nonsense"):
        broken = ("{" + HOOK_SECRET).encode()
        headers = {**root, "Content-Type": "application/json"}
        assert ask(f"{namenode}{path}", body=broken, headers=headers).status >= 400
    key = (cluster.folder / "nn" / "audit.key").read_text().splitlines()[1]
    found = [HOOK_SECRET, HOOK_QUERY, SINK_PASSWORD, NAME, key, page, page[:-4], delegation]
    for raw in (CONTENT, ATTRIBUTE):
        found += [raw.decode(), base64.b64encode(raw).decode()[:-4], raw.hex()]
    return [*found, delegation[:-8]]


def test_logs_and_the_bundle_have_no_secrets(talkative: Cluster, tmp_path: Path) -> None:
    secrets = secrets_used(talkative, tmp_path)
    servers = [talkative.namenode, *talkative.datanodes]

    def log() -> str:
        return talkative.namenode.log_text()

    wait_until(lambda: "sink:nats" in log() and "webhook:hook" in log(), "refusals are logged", 60)
    dfs = Dfs(
        talkative.url,
        tmp_path,
        USER="root",
        LOGNAME="root",
        TWINFS_NAMENODE_EVENT_SINKS=f"nats://somebody:{SINK_PASSWORD}@h:1/S",
    )
    dfs("support-bundle", "b.tar.gz", "--logs", talkative.folder)
    with tarfile.open(tmp_path / "b.tar.gz") as bundle:
        files = {e.name: bundle.extractfile(e).read().decode() for e in bundle}  # type: ignore[union-attr]
    assert {f"b/logs/{server.name}.log" for server in servers} <= set(files)
    for server in servers:
        files[server.name] = server.log_text()
    for name, text in files.items():
        for secret in secrets:
            assert secret not in text, f"{secret} is in {name}"
    # They did say something: each process about its slow requests, in JSON, with the request's id.
    for server in servers:
        lines = [json.loads(line) for line in server.log_text().splitlines()]
        assert any(line.get("slow") and line.get("request_id") for line in lines), server.name

"""The REST face of the NameNode: its OpenAPI document, and a fuzzer that takes the document at its word."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import openapi_spec_validator
import pytest
import schemathesis
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from twinfs.common.errors import HTTP_STATUS
from twinfs.common.operations import OPERATIONS
from twinfs.namenode.api import openapi

from ..support.cluster import Cluster, running

DOCUMENT = json.loads(openapi.document())
# In CI few and always the same; to look for more: FUZZ_EXAMPLES=1000.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "8"))
# Each entry of these has an answer of its own, so that one bad path does not refuse the others.
# `wait_s` of the last two is cut short below.
BATCHES = {
    "events",
    "heartbeat",
    "stat_many",
    "locate_many",
    "mkdirs_many",
    "put_files",
    "delete_many",
    "path_cids",
}


def no_fault_of_the_servers(
    context: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """503 and its kin are answers ("too few DataNodes"); 500 never is."""
    assert response.status_code not in (500, 502), response.text
    if response.status_code >= 400:
        assert response.json()["code"] not in ("internal-error", "store-error"), response.text


def bad_data_is_refused(
    context: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> bool | None:
    if case.operation.path.rpartition("/")[2] in BATCHES:
        return None
    return negative_data_rejection(context, response, case)


def other_methods_are_refused(
    context: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> bool | None:
    if case.operation.path == "/v1/events":
        return None  # to be followed with GET, too
    return unsupported_method(context, response, case)


CHECKS = [
    no_fault_of_the_servers,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    bad_data_is_refused,
    other_methods_are_refused,
]


def without_headers() -> dict[str, Any]:
    """The document for a fuzzer of bodies: any text is a header, so what it makes of them is never wrong."""
    copied: dict[str, Any] = json.loads(openapi.document())
    for schema in copied["components"]["schemas"].values():
        if "wait_s" in schema.get("properties", {}):
            schema["properties"]["wait_s"]["maximum"] = 0.01  # the fuzzer need not wait
    for path in copied["paths"].values():
        del path["post"]["parameters"]
    return copied


bodies = schemathesis.openapi.from_dict(without_headers())
headers = schemathesis.openapi.from_dict(DOCUMENT)
SETTINGS = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not os.environ.get("FUZZ_EXAMPLES"),
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of its own: the fuzzer also plays DataNode."""
    with running(tmp_path_factory.mktemp("fuzzed"), datanodes=1) as found:
        yield found
        # What it makes a DataNode do is not its subject.
        assert "namenode" not in found.tracebacks()


def test_the_document_is_valid() -> None:
    openapi_spec_validator.validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1")
    assert "Base of every message" not in json.dumps(DOCUMENT)


def test_the_document_has_every_operation_and_answer() -> None:
    assert set(DOCUMENT["paths"]) == {f"/v1/{name}" for name in OPERATIONS}
    for path in DOCUMENT["paths"].values():
        assert set(path["post"]["responses"]) == {"200", *map(str, HTTP_STATUS.values())}


# Run beside the generated package "made", with the NameNode's URL and a user.
GENERATED = """
import sys
from made import Client
from made.api.read import list_, stat
from made.api.write import mkdirs
from made.models import DirectoryPage, Failure, FileStatus, ListDirectory, Mkdirs, Stat

url, user = sys.argv[1:]
with Client(base_url=url, raise_on_unexpected_status=True) as client:
    made = mkdirs.sync(client=client, body=Mkdirs(path="/generated/ä b"), x_twin_fs_user=user)
    assert isinstance(made, FileStatus), made
    found = stat.sync(client=client, body=Stat(path="/generated/ä b"), x_twin_fs_user=user)
    assert isinstance(found, FileStatus) and found.inode_id == made.inode_id, found
    page = list_.sync(client=client, body=ListDirectory(path="/generated"), x_twin_fs_user=user)
    assert isinstance(page, DirectoryPage) and [e.path for e in page.entries] == [found.path], page
    missing = stat.sync(client=client, body=Stat(path="/nothing"), x_twin_fs_user=user)
    assert isinstance(missing, Failure) and missing.code == "path-not-found", missing
"""


def test_a_client_that_a_generator_made_of_it_works(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "document.json").write_bytes(openapi.document())
    generator = Path(sys.executable).with_name("openapi-python-client")
    command = [generator, "generate", "--path", "document.json", "--meta", "none"]
    made = subprocess.run(
        [*command, "--output-path", "made"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    # It leaves out what it does not understand, and says so.
    assert "Unable to" not in made.stdout + made.stderr, made.stdout
    assert "WARNING" not in made.stdout + made.stderr, made.stdout
    modules = (tmp_path / "made" / "api").glob("*/*.py")
    assert len([m for m in modules if m.name != "__init__.py"]) == len(OPERATIONS)
    (tmp_path / "use.py").write_text(GENERATED, encoding="utf-8")
    command = [sys.executable, "use.py", cluster.url, getpass.getuser()]
    used = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert used.returncode == 0, used.stderr


def test_the_namenode_serves_the_document(cluster: Cluster) -> None:
    with urllib.request.urlopen(f"{cluster.url}/v1/openapi.json") as answer:
        assert answer.headers["Content-Type"] == "application/json"
        assert json.load(answer) == DOCUMENT


@pytest.mark.parametrize(
    ("operation", "body", "status"),
    [
        ("events", {"after": 2**63 - 2}, 200),
        ("events", {"after": 2**63 - 1}, 200),
        ("events", {"after": 2**63}, 400),
        ("collect", {"grace_s": 2.8e16, "dry_run": True}, 400),
        ("collect", {"grace_s": 1e9, "dry_run": True}, 200),
    ],
)
def test_numbers_at_the_ends_of_what_is_allowed(
    cluster: Cluster, operation: str, body: dict[str, Any], status: int
) -> None:
    """What the fuzzer found once."""
    request = urllib.request.Request(
        f"{cluster.url}/v1/{operation}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "X-TwinFS-User": getpass.getuser()},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            found = answer.status
    except urllib.error.HTTPError as refused:
        found = refused.code
        refused.close()
    assert found == status


@pytest.mark.timeout(600)
@bodies.parametrize()
@SETTINGS
def test_no_body_breaks_the_namenode(case: schemathesis.Case, fuzzed: Cluster) -> None:
    """Whatever is sent, the answer is one that the document announces, and never a fault of the server's."""
    user = {"X-TwinFS-User": getpass.getuser()}  # the superuser: nobody is in his way
    case.call_and_validate(base_url=fuzzed.url, headers=user, checks=CHECKS)


@pytest.mark.timeout(600)
@headers.include(operation_id=["stat", "mkdirs", "put_files", "register"]).parametrize()
@SETTINGS
def test_no_header_breaks_the_namenode(case: schemathesis.Case, fuzzed: Cluster) -> None:
    checks = [check for check in CHECKS if check is not bad_data_is_refused]
    case.call_and_validate(base_url=fuzzed.url, checks=checks)

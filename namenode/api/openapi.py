"""The OpenAPI 3.1 document of `POST /v1/<operation>`, made from the message types that decode the requests."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import msgspec

from ... import __version__
from ...common.codec import JSON
from ...common.errors import HTTP_STATUS, DfsError, all_errors, http_status
from ...common.messages import Failure
from ...common.operations import OPERATIONS, Operation

SCHEMAS = "#/components/schemas/{name}"
TAGS = {
    "read": "Reading: on one snapshot, changes nothing.",
    "write": "Changing: one atomic step, durable when it is answered.",
    "datanodes": "What DataNodes tell the NameNode.",
}
DESCRIPTION = """\
The operations of a TwinFS NameNode, one request each. The same operations, pipelined, go over the WebSocket `/v1/rpc`;
the bytes of files go to and from DataNodes by the block stream protocol (see the client library).

Requests and answers are JSON (bytes in base64), or msgpack where `Content-Type` and `Accept` say `application/msgpack`.
Every error is answered by a `Failure`: `code` is stable, `message` is for people. 503 and 504 may be tried again.
"""
PARAMETERS: dict[str, dict[str, Any]] = {
    "User": {
        "name": "X-TwinFS-User",
        "in": "header",
        "description": "Who asks. Without it, dr.who.",
        "schema": {"type": "string", "maxLength": 255, "pattern": "^[A-Za-z0-9._@-]*$"},
    },
    "Request": {
        "name": "X-TwinFS-Request",
        "in": "header",
        "description": "Names the request: 32 hex digits of the client, a hyphen, and a number that the client uses for no"
        " other. A change sent again under the same name is answered as before, not repeated.",
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}-[0-9]{1,18}$"},
    },
}


@cache
def document() -> bytes:
    """The document, encoded."""
    return msgspec.json.format(msgspec.json.encode(build()), indent=1)


def build() -> dict[str, Any]:
    """The document as a tree of plain values."""
    kinds: list[Any] = [Failure]
    for operation in OPERATIONS.values():
        kinds += [operation.request, operation.response]
    references, schemas = msgspec.json.schema_components(kinds, ref_template=SCHEMAS)
    by_kind = dict(zip(kinds, references, strict=True))
    schemas = _without_tuples(schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "TwinFS NameNode",
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "this NameNode"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": {
            f"/v1/{name}": {"post": _operation(operation, by_kind)}
            for name, operation in OPERATIONS.items()
        },
        "components": {
            "schemas": schemas,
            "parameters": PARAMETERS,
            "responses": _failures(by_kind[Failure]),
        },
    }


def _operation(operation: Operation, by_kind: dict[Any, Any]) -> dict[str, Any]:
    # Not what it inherits: that is of messages as such.
    text = inspect.cleandoc(vars(operation.request).get("__doc__") or "")
    tag = "datanodes" if operation.for_nodes else "write" if operation.writes else "read"
    return {
        "operationId": operation.name,
        "summary": operation.name.replace("_", " "),
        **({"description": text} if text else {}),
        "tags": [tag],
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in PARAMETERS],
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": by_kind[operation.request]}},
        },
        "responses": {
            "200": {
                "description": "Done.",
                "content": {JSON: {"schema": by_kind[operation.response]}},
            },
            **{
                str(status): {"$ref": f"#/components/responses/Failure{status}"}
                for status in sorted(set(HTTP_STATUS.values()))
            },
        },
    }


def _without_tuples(schema: Any) -> Any:
    """*schema* with arrays of one kind of item in place of tuples: `prefixItems` is beyond many readers."""
    if isinstance(schema, list):
        return [_without_tuples(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _without_tuples(value) for key, value in schema.items()}
    parts = plain.pop("prefixItems", None)
    if parts is not None:
        kinds = [part for number, part in enumerate(parts) if part not in parts[:number]]
        plain["items"] = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    return plain


def _failures(schema: Any) -> dict[str, Any]:
    """One kind of answer for each HTTP status that an error can have."""
    codes: dict[int, list[str]] = {}
    for kind in all_errors():
        if kind is not DfsError:
            codes.setdefault(http_status(kind("")), []).append(kind.code)
    return {
        f"Failure{status}": {
            "description": "One of: " + ", ".join(found) + ".",
            "content": {JSON: {"schema": schema}},
        }
        for status, found in sorted(codes.items())
    }

"""Random requests to everything but WebHDFS that NameNodes, DataNodes and peers serve over HTTP. Sent by `webhdfs_fuzz.fire`."""

from __future__ import annotations

import random
from urllib.parse import quote

from twinfs.common.operations import OPERATIONS

from .webhdfs_fuzz import GARBAGE, NAMES, ODD_METHODS, RAW_ESCAPES, Shot

# "%s": a name, a CID, garbage. The page's stream of figures has no end, and `rpc` is no request and answer; both have tests of their own.
ROUTES = [
    *("/", "/metrics", "/healthz", "/v1/openapi.json", "/v1/web/node", "/v1/status", "/bytes.js"),
    *("/v1/web/files/%s", "/static/%s", "/favicon.ico", "/ipfs/%s", "/ipfs/%s/a/b", "/ipns/%s"),
    *("/routing/v1/providers/%s", "/routing/v1/peers/%s", "/routing/v1/ipns/%s", "/v1/blocks/%s"),
    *(
        "/v1/cids/find",
        "/v1/peers/%s",
        "/v1/peer/%s",
        "/v1/peer/pins/%s",
        "/v1/peer/pins",
        "/v1/%s",
    ),
    *(f"/v1/{name}" for name in OPERATIONS),
]
CIDS = [
    *("bafkqaaa", "bafkr4ieojr6bxgo37viopkkrqx7k2xxbish2sbfc7xlxr2xv6ln72yu2te", "bafyb", "AAAA"),
    *("QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n", "x"),
    "12D3KooWEZXjE41uU4EL2gpkAQeDXYok6wghN7wwNVPF5bwkaNfS",
    "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8",
]
QUERIES = [
    *("format=raw", "format=car", "format=tar", "format=x", "car-version=9", "car-order=dfs"),
    *("car-dups=y", "dag-scope=entity", "dag-scope=x", "entity-bytes=0:5", "entity-bytes=x"),
    *("entity-bytes=-5:*", "entity-bytes=99999999999999999999:1", "filename=%00", "download=true"),
    *("filename=%22%0d%0aX-Split:1", "after=-1", "after=9999999999999999999999", "limit=0", "n=-1"),
    *("wait_s=nan", "wait_s=0.1", "types=x", "path=%ff", "filter-addrs=x", "filter-protocols="),
    *("digests=1", "generation=-1", "offset=x", "length=-1", "page=x", "token=x", "follow=1", "&%"),
]
HEADERS = [
    *("Range: bytes=0-5", "Range: bytes=-0", "Range: bytes=5-1,9-", "Range: bytes=99999999999999-"),
    *("Accept: application/vnd.ipld.car; version=7", "Accept: application/vnd.ipld.raw"),
    *("Accept: application/json; q=x", "Accept: */*;q=0", 'If-None-Match: "x"', "If-Range: x"),
    *("Cache-Control: only-if-cached", "X-TwinFS-User: root", "X-TwinFS-User: \x01"),
    *("X-TwinFS-Request: zz", "Authorization: Bearer x", "Content-Type: application/json"),
    *("Content-Type: application/msgpack", "Cookie: x", "traceparent: 00-zz", "Last-Event-ID: x"),
]
BODIES = [
    *(
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"path":"/"}',
        b'{"path":5}',
        b"\xff\xfe",
        b"{" * 5_000,
        b"[1,2",
    ),
    *(b'{"a":' * 3_000, b"\x81\xa4path\xa1/", b'{"cid":"x"}', b'{"cids":["x"]}', b"0" * 100_000),
    b'{"path":"/\\ud800"}',
]
METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", *ODD_METHODS]
WEIGHTS = [10.0, 10.0, 3.0, 3.0, 3.0, 1.0, *[0.2] * len(ODD_METHODS)]


def shot(seed: int, number: int, halves: int) -> Shot:
    """The request of a number."""
    rng = random.Random(f"{seed} {number}")
    target = rng.choice(ROUTES)
    if "%s" in target:
        garbage = [quote(text.encode("utf-8", "surrogatepass")) for text in GARBAGE]
        target = target.replace(
            "%s", rng.choice([*CIDS, *map(quote, NAMES), *RAW_ESCAPES, *garbage])
        )
    if rng.random() < 0.6:
        target += "?" + "&".join(rng.sample(QUERIES, rng.randrange(1, 4)))
    (method,) = rng.choices(METHODS, WEIGHTS)
    body = rng.choice(BODIES) if method in ("POST", "PUT", "DELETE") else b""
    lines = [f"{method} {target} HTTP/1.1", "Host: x", *rng.sample(HEADERS, rng.randrange(4))]
    lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return Shot(number, rng.randrange(halves), head, body, whole=True, tame=False)

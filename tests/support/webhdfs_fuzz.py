"""Random requests to both halves of WebHDFS: good ones, nearly good ones, and what is no HTTP at all.

The request of a number and seed is always the same, so whatever is found can be sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

from twinfs.common.webhdfs import PREFIX
from twinfs.datanode.api.webhdfs import KNOWN as DATANODE_OPS
from twinfs.namenode.api.webhdfs import ANSWERED
from twinfs.namenode.api.webhdfs import KNOWN as NAMENODE_OPS
from twinfs.namenode.api.webhdfs_ops import unsupported

ANSWER_LIMIT_S = 60.0
CONNECTIONS = 8
OPS = [
    (method, op)
    for method, ops in [*NAMENODE_OPS.items(), *DATANODE_OPS.items()]
    for op in sorted(ops)
]
REFUSED = {op for method, op in OPS if ANSWERED[method].get(op) is unsupported}
SERVED = [each for each in OPS if each[1] not in REFUSED]
BYTES = [("PUT", "CREATE"), ("POST", "APPEND"), ("GET", "OPEN"), ("PUT", "MKDIRS")]
DATANODE = {(method, op) for method, ops in DATANODE_OPS.items() for op in ops}
METHODS = ["GET", "PUT", "POST", "DELETE"]
ODD_METHODS = ["HEAD", "OPTIONS", "PATCH", "TRACE", "get", "PROPFIND", "CONNECT", "P\tT", "G" * 300]
NAMES = [
    *("a", "b", "dir", "dir/sub", "file", "file/below", "ä", "😀", "e\u0301", "a b", "a+b", "100%"),
    *("%41", "#", "?", ";x=1", "a&b=c", ":", "\u202e", "\ufeff", "x" * 255, "x" * 256, "ä" * 200),
    *("/".join("d" * 200), "", "//", ".", "..", "a/../b", "\n", "\t", "\x7f", "\\", "'", '"', "*"),
    *(".snapshot", ".reserved/raw", ".Trash", "user", "tmp/../../etc/passwd"),
]
RAW_ESCAPES = ["%00", "%ff", "%c0%af", "%ed%a0%80", "%", "%z", "%2", "%2e%2e", "%2F", "%25%32%65"]
VALUES: dict[str, list[str]] = {
    "offset": ["0", "1", "5", "100", "1048577"],
    "length": ["0", "1", "100", "2000000", "null"],
    "buffersize": ["4096", "1"],
    "permission": ["644", "755", "0", "1777", "07"],
    "unmaskedpermission": ["777", "0"],
    "overwrite": ["true", "false", "TRUE"],
    "createparent": ["true", "false"],
    "createflag": ["create,overwrite", "CREATE", "append", "sync_block"],
    "blocksize": ["1048576", "1", "134217728", "9223372036854775807"],
    "replication": ["1", "2", "3"],
    "destination": ["/f/a", "/f/b", "/f/dir", "/", "/f/dir/sub/deep", "/none/x"],
    "renameoptions": ["NONE", "OVERWRITE", "TO_TRASH", "overwrite,none"],
    "recursive": ["true", "false"],
    "owner": ["ann", "root"],
    "group": ["staff", "supergroup"],
    "modificationtime": ["-1", "0", "1700000000000"],
    "accesstime": ["-1", "5"],
    "aclspec": [
        "user:bob:rwx",
        "default:user:eve:r-x,mask::rwx",
        "user::rwx,group::r--,other::---",
    ],
    "fsaction": ["r--", "rwx", "---"],
    "xattr.name": ["user.a", "trusted.b", "USER.c", "raw.d"],
    "xattr.value": ["0x41", "0sQQ==", '"t"', "t", ""],
    "flag": ["CREATE", "REPLACE", "CREATE,REPLACE"],
    "encoding": ["text", "hex", "BASE64"],
    "newlength": ["0", "1", "100"],
    "sources": ["/f/a", "/f/a,/f/b", "/f/file,/f/file"],
    "namespacequota": ["5", "-1", "9223372036854775807"],
    "storagespacequota": ["1048576", "-1", "0"],
    "storagetype": ["DISK", "SSD"],
    "storagepolicy": ["HOT", "COLD"],
    "startAfter": ["a", "zzz", "\U0010ffff"],
    "snapshotname": ["s1"],
    "oldsnapshotname": ["s0"],
    "ecpolicy": ["RS-6-3-1024k"],
    "allusers": ["true", "false"],
    "token": ["AAAAAA", "x"],
    "delegation": ["AAAAAA", "JQAIaG9y"],
    "renewer": ["bob"],
    "service": ["127.0.0.1:9870"],
    "kind": ["HDFS_DELEGATION_TOKEN"],
    "user.name": ["root", "ann", "bob"],
    "doas": ["ann"],
    "noredirect": ["true"],
    "excludedatanodes": ["127.0.0.1:1", "x,,y"],
    "namenoderpcaddress": ["x:1", "\r\nX-Split: 1"],
    "op": ["OPEN"],
    "unheard-of": ["1"],
}
GARBAGE = [
    *(
        "",
        "0",
        "-1",
        "-0",
        "+1",
        "1e5",
        "0x10",
        "9" * 19,
        "9" * 30,
        "1" * 5000,
        "null",
        "NaN",
        "true",
    ),
    *(
        "\x00",
        "\ud800",
        "ä",
        "٣",
        "²",
        "/",
        "/..",
        "..",
        ",",
        ",,,",
        "&",
        "=",
        "a" * 300,
        "user:",
        "::",
    ),
    *(
        "user:bob:rwx,user:bob:---",
        "default:",
        "0x",
        "0xz",
        "0s",
        "0s!",
        '"',
        "'",
        "<x>",
        "\r\n",
        "%s",
    ),
    *("/" * 100, "/" + "x" * 9000, "a,b,c," * 400, "CREATE", "777", "888", "{}", "[]", "\u202e"),
]
HEADERS = [
    *("Accept-Encoding: gzip", "Accept-Encoding: gzip;q=0, br", "Accept: application/xml"),
    *("Origin: http://page.example", "Origin: null", "Origin: ä", "X-XSRF-HEADER: x"),
    *("User-Agent: Mozilla/5.0", "User-Agent:", "Cookie: " + "a=b; " * 500, "Range: bytes=0-1"),
    *("Range: bytes=x", "If-None-Match: *", "Expect: 100-continue", "Expect: nonsense"),
    *("Connection: close", "Connection: keep-alive, Upgrade", "Upgrade: websocket", "TE: trailers"),
    *("Content-Type: application/json", "Content-Type: ;;;", "Content-Encoding: gzip"),
    *("X-Hadoop-Accept-EZ: true", "Authorization: Negotiate abc", "Authorization: \x01"),
    *(
        "X-Long: " + "y" * 7000,
        "X-Ä: ö",
        "no colon at all",
        ": no name",
        " folded: yes",
        "Host: other",
    ),
    *("X-HTTP-Method-Override: DELETE", "Forwarded: for=x", "Content-Length: 5", "traceparent: zz"),
    *("Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: x"),
]
SIZES = [0, 1, 5, 100, 70_000, 1_048_576, 1_200_000]
WEIGHTS = [20, 20, 20, 20, 4, 1, 1]


@dataclass(frozen=True, slots=True)
class Shot:
    """One request as it goes over the wire."""

    number: int
    half: int  # 0: the NameNode, else a DataNode
    head: bytes
    body: bytes
    whole: bool  # all that it announces is sent
    tame: bool  # nearly good: another may follow on its connection


def shot(seed: int, number: int, halves: int) -> Shot:
    """The request of a number."""
    rng = random.Random(f"{seed} {number}")
    tame = rng.random() < 0.6  # most are nearly good: wild ones end at the first check
    method, op = rng.choice(rng.choices([OPS, SERVED, BYTES], [1, 5, 3])[0])
    at_datanode = ((method, op) in DATANODE and rng.random() < 0.8) or rng.random() < 0.05
    half = rng.randrange(1, halves) if at_datanode else 0
    target = _target(rng, op, tame)
    if not tame and rng.random() < 0.3:
        method = rng.choice(METHODS + ODD_METHODS)
    lines = [f"{method} ".encode() + target + rng.choice([b" HTTP/1.1"] * 20 + ODD_VERSIONS)]
    if tame or rng.random() < 0.95:
        lines.append(b"Host: x")
    count = rng.choice([0, 0, 1]) if tame else rng.randrange(4)
    chosen = [
        h for h in rng.sample(HEADERS, count) if not tame or not h.startswith(("Content-L", "Tr"))
    ]
    lines += [header.encode("utf-8", "surrogatepass") for header in chosen]
    body, whole = b"", True
    if method in ("PUT", "POST") or (not tame and rng.random() < 0.1):
        framing, body, whole = _body(rng, tame)
        lines += framing
    if any(header.startswith(("Content-Length", "Transfer")) for header in chosen):
        whole = False
    return Shot(number, half, b"\r\n".join(lines) + b"\r\n\r\n", body, whole, tame)


ODD_VERSIONS = [b" HTTP/1.0", b" HTTP/2.0", b" HTTP/9", b"", b" HTTP/1.1 ", b" http/1.1"]


def _target(rng: random.Random, op: str, tame: bool) -> bytes:
    name = rng.choice(NAMES[:12] if tame else NAMES)
    text = quote("/f/" + name) if rng.random() < 0.8 else "/f/" + name
    if not tame and rng.random() < 0.3:
        text += rng.choice(RAW_ESCAPES)
    prefix = PREFIX
    if not tame and rng.random() < 0.1:
        prefix = rng.choice(
            ["/webhdfs/v1x", "/webhdfs", "http://x" + PREFIX, "*", "", "/WEBHDFS/v1"]
        )
    pairs = [("op", op if rng.random() < 0.9 else op.lower())]
    for key in rng.sample(sorted(VALUES), rng.randrange(4 if tame else 7)):
        if tame and key in ("op", "user.name", "delegation", "doas", *NEEDED.get(op, ())):
            continue
        pairs.append((key, rng.choice(VALUES[key] if tame or rng.random() < 0.5 else GARBAGE)))
    pairs += [(key, rng.choice(VALUES[key])) for key in NEEDED.get(op, ()) if rng.random() < 0.8]
    if not tame and rng.random() < 0.1:
        pairs.append(rng.choice(pairs))
    if rng.random() < 0.7:
        pairs.append(("user.name", "root"))
    rng.shuffle(pairs)
    query = "&".join(
        f"{key}={quote(value.encode('utf-8', 'surrogatepass'), safe='/,:')}" for key, value in pairs
    )
    if not tame and rng.random() < 0.2:
        query += rng.choice(
            ["&", "&&&", "=", "&=&", "&x", "&%", "&%ff=%ff", "?", "#x", "&\xe4=\xf6"]
        )
    found = f"{prefix}{text}?{query}".encode("utf-8", "surrogatepass")
    # What would end the line is for other tests: here it would only be another request.
    return found.replace(b"\n", b"%0A").replace(b"\r", b"%0D").replace(b" ", b"%20")


NEEDED = {
    "RENAME": ("destination",),
    "CONCAT": ("sources",),
    "TRUNCATE": ("newlength",),
    "SETACL": ("aclspec",),
    "MODIFYACLENTRIES": ("aclspec",),
    "REMOVEACLENTRIES": ("aclspec",),
    "CHECKACCESS": ("fsaction",),
    "SETXATTR": ("xattr.name", "xattr.value", "flag"),
    "REMOVEXATTR": ("xattr.name",),
    "SETOWNER": ("owner",),
    "CREATE": ("overwrite",),
}


def _body(rng: random.Random, tame: bool) -> tuple[list[bytes], bytes, bool]:
    """(framing headers, bytes, whether they are all)"""
    data = rng.randbytes(rng.choices(SIZES, WEIGHTS)[0])
    kind = rng.random()
    if kind < 0.5:
        if not tame and rng.random() < 0.3:
            length = rng.choice([b"-1", b"x", b"1e3", b"+5", b"", b"9" * 25, b"5, 5", b"0x5"])
            return [b"Content-Length: " + length], data, False
        if rng.random() < 0.1:
            return [b"Content-Length: %d" % (len(data) + 1 + rng.randrange(2_000_000))], data, False
        return [b"Content-Length: %d" % len(data)], data, True
    if kind < 0.6:
        return [], b"", True
    parts, at, whole = [], 0, True
    while at < len(data):
        size = min(len(data) - at, rng.choice([1, 7, 1000, 65_536]) if len(data) < 1000 else 65_536)
        parts.append(b"%x%s\r\n" % (size, rng.choice([b"", b"", b";ext=1"])))
        parts += [data[at : at + size], b"\r\n"]
        at += size
    parts.append(rng.choice([b"0\r\n\r\n", b"0\r\nTrailer: 1\r\n\r\n"]))
    if rng.random() < (0.05 if tame else 0.4):
        whole = False
        broken = [
            b"zz\r\n",
            b"-5\r\nxxxxx\r\n",
            b"5\r\nxx",
            b"\r\n",
            b"5",
            b"f" * 20 + b"\r\n",
            b"",
        ]
        parts[-1] = rng.choice(broken)
    return [b"Transfer-Encoding: chunked"], b"".join(parts), whole


@dataclass
class Outcome:
    """What came back."""

    statuses: Counter[int] = field(default_factory=Counter)
    unanswered: int = 0  # closed without a word, where that is due
    wrong: list[str] = field(default_factory=list)


class _Wrong(Exception):
    pass


async def fire(
    addresses: list[str],
    seed: int,
    numbers: range,
    make: Callable[[int, int, int], Shot] = shot,
) -> Outcome:
    """Send the requests of *numbers*: to the NameNode (first of *addresses*) and DataNodes."""
    outcome, left = Outcome(), iter(numbers)

    async def worker() -> None:
        pool: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
        try:
            for number in left:
                each = make(seed, number, len(addresses))
                try:
                    await _one(each, addresses[each.half], pool, outcome)
                except (_Wrong, TimeoutError) as error:
                    shown = f"{each.head[:3000]!r} + {len(each.body)} bytes {each.body[:60]!r}"
                    outcome.wrong.append(f"request {number} to {each.half}: {error}\n{shown}")
                    if each.half in pool:
                        pool.pop(each.half)[1].close()
        finally:
            for _, writer in pool.values():
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CONNECTIONS):
            tasks.create_task(worker())
    return outcome


async def _one(
    each: Shot,
    address: str,
    pool: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]],
    outcome: Outcome,
) -> None:
    fresh = each.half not in pool
    if fresh:
        host, _, port = address.rpartition(":")
        pool[each.half] = await asyncio.open_connection(host, int(port), limit=1 << 20)
    reader, writer = pool[each.half]
    try:
        async with asyncio.timeout(ANSWER_LIMIT_S):
            with contextlib.suppress(OSError):
                writer.write(each.head + each.body)
                await writer.drain()
                if not each.whole:
                    writer.write_eof()
            try:
                head = await _head(reader, outcome)
            except (asyncio.IncompleteReadError, OSError):
                pool.pop(each.half)[1].close()
                if not fresh:
                    # The server may close an idle connection at any time: once more, on a new one.
                    await _one(each, address, pool, outcome)
                elif each.whole and _is_http(each):
                    raise _Wrong("no answer") from None
                else:
                    outcome.unanswered += 1
                return
            reusable = await _judge(each, head, reader, outcome)
    except TimeoutError:
        raise TimeoutError(f"no answer within {ANSWER_LIMIT_S} s") from None
    if not (reusable and each.whole and each.tame):
        pool.pop(each.half)[1].close()


def _is_http(each: Shot) -> bool:
    return b" HTTP/1.1\r\n" in each.head


async def _head(reader: asyncio.StreamReader, outcome: Outcome) -> list[bytes]:
    while True:
        lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        if not lines[0].startswith(
            b"HTTP/"
        ):  # of the version that was asked for, even if there is none
            raise _Wrong(f"an answer begins with {lines[0][:80]!r}")
        if b" 100 " not in lines[0]:
            return lines


async def _judge(
    each: Shot, head: list[bytes], reader: asyncio.StreamReader, outcome: Outcome
) -> bool:
    """Raise _Wrong for an answer that must not be; whether the connection can be used again."""
    status = int(head[0].split()[1])
    outcome.statuses[status] += 1
    headers = {}
    for line in head[1:]:
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip().decode("latin-1")
    if b"x-split" in headers:
        raise _Wrong("a parameter became a header")
    if each.head.startswith(b"HEAD ") or status in (204, 304):
        body = b""
    elif "chunked" in headers.get(b"transfer-encoding", ""):
        parts = []
        while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
            parts.append((await reader.readexactly(size + 2))[:-2])
        await reader.readexactly(2)
        body = b"".join(parts)
    else:
        body = await reader.readexactly(int(headers.get(b"content-length", "0")))
    if status >= 500:
        raise _Wrong(f"answered by {status}: {body[:500]!r}")
    kind = headers.get(b"content-type", "")
    if kind.startswith("application/json") and body and b"content-encoding" not in headers:
        found = json.loads(body)
        if status >= 400:
            told = found.get("RemoteException")
            if told is not None and set(told) != {"exception", "javaClassName", "message"}:
                raise _Wrong(f"an odd exception: {body[:300]!r}")
    if status == 307 and (body or not headers.get(b"location", "").startswith("http://")):
        raise _Wrong("a redirect must have an absolute location and no body")
    return "close" not in headers.get(b"connection", "").lower()

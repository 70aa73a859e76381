"""Calls to one peer, blocking: what its own user may ask of it. See `datanode/peers/local_api.py`."""

from __future__ import annotations

import contextlib
import http.client
import json
import struct
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..common.checksum import DIGEST_BYTES
from ..common.codec import error_of, from_json
from ..common.errors import (
    ConnectionLost,
    DfsError,
    InvalidConfig,
    InvalidRequest,
    Unavailable,
    system_reason,
)
from ..common.framing import FrameSocket
from ..common.ipld.cid import Cid
from ..common.messages import Failure
from ..common.peering import ANSWER_HEAD, LEAVES_PROTOCOL

MAX_ANSWER_BYTES = 64 * 1024 * 1024


class PeerClient:
    """One connection to a peer, kept open. For one thread at a time."""

    def __init__(self, url: str, *, token: str = "", timeout_s: float = 60.0) -> None:
        """*token*: the peer's own, needed from another machine. InvalidConfig for a URL that is none."""
        parts = urllib.parse.urlsplit(url if "//" in url else f"http://{url}")
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host = None
        if parts.scheme != "http" or not host:
            raise InvalidConfig(f"a peer is HOST:PORT or http://HOST:PORT, not {url!r}")
        self.url = f"http://{parts.netloc}"
        self._token = token
        self._timeout_s = timeout_s
        self._add = ""  # the add that these calls are part of
        self._connection = http.client.HTTPConnection(host, port or 80, timeout=timeout_s)

    def another(self) -> PeerClient:
        """A further connection to the same peer."""
        other = PeerClient(self.url, token=self._token, timeout_s=self._timeout_s)
        other._add = self._add
        return other

    def _headers(self) -> dict[str, str]:
        found = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        return found | ({"X-TwinFS-Add": self._add} if self._add else {})

    def _failed(self, error: Exception) -> Unavailable:
        self._connection.close()
        reason = system_reason(error)
        return Unavailable(f"can't reach the peer at {self.url}: {reason}; --peer names another")

    def _answer(self) -> http.client.HTTPResponse:
        """The response; the error that it carries is raised."""
        response = self._connection.getresponse()
        if response.status >= 400:
            body = response.read(MAX_ANSWER_BYTES)
            try:
                failure = from_json(body, Failure)
            except InvalidRequest:
                raise Unavailable(
                    f"{self.url} answers with status {response.status}: is it a peer?"
                ) from None
            raise error_of(failure)
        return response

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One request, JSON both ways."""
        data = None if body is None else json.dumps(body).encode()
        try:
            self._connection.request(method, path, body=data, headers=self._headers())
            return json.loads(self._answer().read(MAX_ANSWER_BYTES))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._failed(error) from None

    def get(self, path: str) -> bytes:
        """The body of a GET."""
        try:
            self._connection.request("GET", path, headers=self._headers())
            return self._answer().read(MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(error) from None

    def lines(self, method: str, path: str, body: Any = None) -> Iterator[Any]:
        """A request that answers with lines of JSON, as they come."""
        data = None if body is None else json.dumps(body).encode()
        try:
            self._connection.request(method, path, body=data, headers=self._headers())
            response = self._answer()
            while line := response.readline(1024 * 1024):
                if not line.strip():
                    continue  # a sign of life
                found = json.loads(line)
                if "error" in found:
                    response.read()
                    raise error_of(from_json(json.dumps(found["error"]).encode(), Failure))
                yield found
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._failed(error) from None

    # --- content ---

    def begin_add(self) -> None:
        """From now on, and on connections made by `another`, the peer keeps from collection what it says that it has."""
        if not self._add:
            self._add = self.call("POST", "/v1/peer/adds")["add"]

    def end_add(self) -> None:
        """What was added is pinned, or may go."""
        name, self._add = self._add, ""
        if name:
            self.call("DELETE", f"/v1/peer/adds/{name}")

    def unpin(self, cid: Cid, *, kind: str | None = None, name: str | None = None) -> int:
        """How many pins were removed. PinNotFound."""
        given = {"kind": kind, "name": name}
        query = urllib.parse.urlencode({k: v for k, v in given.items() if v is not None})
        return int(self.call("DELETE", f"/v1/peer/pins/{cid}?{query}")["count"])

    def have(self, cids: Sequence[Cid]) -> list[bool]:
        found: list[bool] = []
        for start in range(0, len(cids), 4096):
            part = [str(cid) for cid in cids[start : start + 4096]]
            found += self.call("POST", "/v1/peer/have", {"cids": part})["have"]
        return found

    def import_car(self, pieces: Iterable[bytes]) -> Any:
        """Send a CAR; its blocks are durable when this returns."""
        headers = {**self._headers(), "Content-Type": "application/vnd.ipld.car"}
        try:
            self._connection.request(
                "POST", "/v1/peer/import", body=pieces, headers=headers, encode_chunked=True
            )
            return json.loads(self._answer().read(MAX_ANSWER_BYTES))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._failed(error) from None
        except DfsError:
            self._connection.close()  # *pieces* failed in the middle, or the peer did not want them all
            raise

    def send_leaves(
        self, descriptor: int, runs: Sequence[tuple[int, int]], hash_name: str
    ) -> list[bytes]:
        """Chunks of a file, by the kernel: *runs* of (offset, length), whole chunks but for the last. Their digests.

        Durable when this returns.
        """
        total = sum(length for _, length in runs)
        connection = self._connection
        headers = {**self._headers(), "Connection": "Upgrade", "Upgrade": LEAVES_PROTOCOL}
        try:
            connection.request(
                "POST", f"/v1/peer/leaves?hash={hash_name}&length={total}", headers=headers
            )
            self._answer().close()
            sock, connection.sock = connection.sock, None  # it speaks no HTTP any more
            connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(error) from None
        with contextlib.closing(FrameSocket(sock, stall_timeout_s=self._timeout_s)) as line:
            try:
                for offset, length in runs:
                    line.send_file(descriptor, offset, length)
            except ConnectionLost:
                pass  # the peer ended it early: it says why
            except OSError:
                raise ConnectionLost("the file became shorter while it was read") from None
            head = bytearray(struct.calcsize(ANSWER_HEAD))
            line.receive_into(memoryview(head))
            failed, size = struct.unpack(ANSWER_HEAD, head)
            body = line.receive_body(min(size, MAX_ANSWER_BYTES))
        if failed:
            raise error_of(from_json(bytes(body), Failure))
        return [bytes(body[at : at + DIGEST_BYTES]) for at in range(0, len(body), DIGEST_BYTES)]

    def close(self) -> None:
        self._connection.close()

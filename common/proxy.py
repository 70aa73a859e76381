"""Connections through an HTTP proxy: for networks that demand one, and for breaking the network on purpose.

A proxy is named by a URL, `http://NAME@HOST:PORT`. NAME says to the proxy who connects (`scripts/faults/proxy.py`
decides by it which links are cut); it is no secret, and there is no password.
"""

from __future__ import annotations

import base64
import socket
import urllib.parse
from typing import NamedTuple

from .errors import InvalidConfig

MAX_ANSWER_BYTES = 4096


class Proxy(NamedTuple):
    """A proxy's address, and the name this process goes by there."""

    host: str
    port: int
    name: str

    @property
    def headers(self) -> dict[str, str]:
        if not self.name:
            return {}
        credentials = base64.b64encode(f"{self.name}:".encode()).decode()
        return {"Proxy-Authorization": f"Basic {credentials}"}


def parse_proxy(url: str) -> Proxy | None:
    """None for ""; InvalidConfig for what is no proxy URL."""
    if not url:
        return None
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidConfig(f"proxy must be http://NAME@HOST:PORT, not {url!r}") from None
    if parts.scheme != "http" or not parts.hostname or port is None or parts.password:
        raise InvalidConfig(f"proxy must be http://NAME@HOST:PORT, not {url!r}")
    return Proxy(parts.hostname, port, urllib.parse.unquote(parts.username or ""))


def connect_tcp(host: str, port: int, timeout_s: float, proxy: Proxy | None) -> socket.socket:
    """A connection to HOST:PORT, by way of *proxy* if there is one. Raises OSError."""
    if proxy is None:
        return socket.create_connection((host, port), timeout_s)
    sock = socket.create_connection((proxy.host, proxy.port), timeout_s)
    try:
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        lines += [f"{name}: {value}" for name, value in proxy.headers.items()]
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            # Byte by byte: what follows the answer is not the proxy's.
            byte = sock.recv(1)
            if not byte or len(answer) >= MAX_ANSWER_BYTES:
                raise ConnectionError("the proxy closed the connection")
            answer += byte
        status = answer.split(b" ", 2)[1:2]
        if status != [b"200"]:
            raise ConnectionError(
                f"the proxy answered {answer.splitlines()[0].decode(errors='replace')}"
            )
    except BaseException:
        sock.close()
        raise
    return sock

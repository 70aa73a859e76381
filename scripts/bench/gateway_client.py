"""Fetches raw blocks as fast as it can, in threads: gateway_client.py WANTED.json small|large. Prints blocks or MB a second."""

from __future__ import annotations

import json
import socket
import sys
import threading
from pathlib import Path

from twinfs.common.runtime import elapsed_timer


def work(host: str, port: int, names: list[str], got: list[int]) -> None:
    buffer = bytearray(2 << 20)
    view = memoryview(buffer)
    with socket.create_connection((host, port)) as connection:
        for name in names:
            request = f"GET /ipfs/{name}?format=raw HTTP/1.1\r\nHost: x\r\n\r\n"
            connection.sendall(request.encode())
            have = 0
            while (end := buffer.find(b"\r\n\r\n", 0, have)) < 0:
                have += connection.recv_into(view[have:])
            assert buffer[9:12] == b"200", bytes(buffer[:end])
            at = buffer.find(b"Content-Length: ", 0, end) + 16
            length = int(buffer[at : buffer.find(b"\r", at)])
            left = length - (have - end - 4)
            while left:
                left -= connection.recv_into(view[:left])
            got.append(length)


def main() -> None:
    wanted = json.loads(Path(sys.argv[1]).read_text())
    kind = sys.argv[2]
    host, _, port = wanted["url"].removeprefix("http://").rpartition(":")
    names = wanted[kind] * (4 if kind == "small" else 8)
    threads = 16 if kind == "small" else 4
    got: list[int] = []
    began_s = elapsed_timer()
    running = [
        threading.Thread(target=work, args=(host, int(port), names[k::threads], got))
        for k in range(threads)
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    took_s = elapsed_timer() - began_s
    assert len(got) == len(names)
    print(len(got) / took_s if kind == "small" else sum(got) / 1e6 / took_s)


main()

"""Which rack a DataNode is on: by a mapping file, a script, or the node's own word."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from ..common.errors import InvalidConfig, InvalidRequest
from ..common.model import NodeAddress
from ..common.paths import shown

DEFAULT_RACK: Final = "/default-rack"
MAX_MAPPING_BYTES: Final = 16 * 1024 * 1024
SCRIPT_LIMIT_S: Final = 10.0
MAX_RACK_BYTES: Final = 1_024  # that a script prints for a host
READ_BYTES: Final = 8_192
END_LIMIT_S: Final = 2.0  # for what was killed
RACK: Final = re.compile(r"(/[A-Za-z0-9._-]{1,100}){1,8}")


def check_rack(rack: str) -> str:
    """InvalidRequest unless *rack* is like /building/rack."""
    if not RACK.fullmatch(rack):
        raise InvalidRequest(f"{shown(rack)} is no rack: it must look like /building/rack")
    return rack


def parse_mapping(text: str) -> dict[str, str]:
    """Lines `NODE RACK`: NODE is a host, HOST:PORT of the block streams, or a node's uuid; # begins a comment.

    InvalidConfig with the line's number if one is malformed.
    """
    mapping: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        if len(words) != 2 or not RACK.fullmatch(words[1]):
            raise InvalidConfig(f"line {number} of the topology file must be: NODE /RACK")
        if mapping.setdefault(words[0], words[1]) != words[1]:
            raise InvalidConfig(f"line {number} of the topology file gives {words[0]} another rack")
    return mapping


def names_of(address: NodeAddress, uuid: str) -> list[str]:
    """What a mapping may call a node, the most special first."""
    return [uuid, address.data, address.http, address.host]


def rack_in(mapping: Mapping[str, str], address: NodeAddress, uuid: str) -> str | None:
    return next((mapping[n] for n in names_of(address, uuid) if n in mapping), None)


class Topology:
    """The configured source of racks. Without one, nodes say themselves where they are."""

    def __init__(self, *, file: str, script: str) -> None:
        """InvalidConfig if both are given, or *file* can't be read now."""
        if file and script:
            raise InvalidConfig("give a topology file or a topology script, not both")
        self._file = file
        self._script = script
        self._mapping: dict[str, str] = _read_mapping(file) if file else {}

    @property
    def configured(self) -> bool:
        return bool(self._file or self._script)

    async def racks(
        self, nodes: Sequence[tuple[NodeAddress, str]], *, again: bool = False
    ) -> list[str | None]:
        """The rack of each (address, uuid); None where the node's own word stands.

        *again* reads the file anew. InvalidConfig if the file is malformed or the script fails: then nothing is known,
        and nothing should be changed.
        """
        if self._script:
            return await self._ask([address.host for address, _ in nodes])
        if self._file and again:
            self._mapping = await asyncio.to_thread(_read_mapping, self._file)
        return [rack_in(self._mapping, address, uuid) for address, uuid in nodes]

    async def _ask(self, hosts: list[str]) -> list[str | None]:
        """Run the script with hosts as arguments, as HDFS's net.topology.script.file.name; it prints a rack for each."""
        if not hosts:
            return []
        try:
            process = await asyncio.create_subprocess_exec(
                self._script,
                *hosts,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise InvalidConfig(
                f"the topology script {self._script} can't be run: {error.strerror}"
            ) from None
        assert process.stdout is not None
        assert process.stderr is not None
        limit = MAX_RACK_BYTES * len(hosts)
        ended = False

        def end() -> None:
            # With what it has started, which may hold its output open.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        try:
            async with asyncio.timeout(SCRIPT_LIMIT_S):
                output, complaint = await asyncio.gather(
                    _read(process.stdout, limit, end), _read(process.stderr, READ_BYTES)
                )
                code = await process.wait()
            ended = True
        except TimeoutError:
            raise InvalidConfig(
                f"the topology script {self._script} did not end within {SCRIPT_LIMIT_S:.0f} s"
            ) from None
        finally:
            if not ended:
                end()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(END_LIMIT_S):
                        await asyncio.gather(_read(process.stdout, 0), _read(process.stderr, 0))
                        await process.wait()
        if len(output) > limit:
            raise InvalidConfig(
                f"the topology script {self._script} printed more than {limit} bytes for"
                f" {len(hosts)} hosts"
            )
        if code:
            lines = complaint.decode(errors="replace").strip().splitlines()
            said = f": {shown(lines[-1][:200])}" if lines else ""
            how = f"exit code {code}" if code > 0 else f"signal {-code}"
            raise InvalidConfig(f"the topology script {self._script} failed with {how}{said}")
        words = output.decode(errors="replace").split()
        if len(words) != len(hosts) or not all(RACK.fullmatch(word) for word in words):
            raise InvalidConfig(
                f"the topology script {self._script} must print {len(hosts)} racks like"
                f" /building/rack; it printed {shown(' '.join(words)[:200])}"
            )
        return list(words)


async def _read(
    stream: asyncio.StreamReader, limit: int, too_much: Callable[[], None] | None = None
) -> bytes:
    """All that comes to its end, if *too_much* is given: it is called when there are more than *limit* bytes. Else the last *limit*."""
    found = bytearray()
    while part := await stream.read(READ_BYTES):
        if too_much is None:
            found += part
            del found[: max(0, len(found) - limit)]
        elif len(found) <= limit:
            found += part
            if len(found) > limit:
                too_much()
    return bytes(found)


def _read_mapping(file: str) -> dict[str, str]:
    try:
        with Path(file).open("rb") as stream:
            content = stream.read(MAX_MAPPING_BYTES + 1)
    except OSError as error:
        raise InvalidConfig(
            f"the topology file {file} can't be read: {error.strerror or error}"
        ) from None
    if len(content) > MAX_MAPPING_BYTES:
        raise InvalidConfig(f"the topology file {file} is larger than {MAX_MAPPING_BYTES} bytes")
    try:
        return parse_mapping(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidConfig(f"the topology file {file} is not UTF-8 text") from None

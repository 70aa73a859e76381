"""The command `cid`, which knows most answers after one question: without an event loop, and all that reads and writes content."""

from __future__ import annotations

from typing import Any

import click

from ...common.codec import error_of
from ...common.content import GetCids, PathCid
from ...common.ipld.cid import Cid
from ...common.model import FileStatus
from .support import Shell, json_option, print_json, shell_command, shown


@shell_command(name="cid")
@click.argument("paths", nargs=-1, required=True)
@click.option("--base", default="base32", show_default=True, help="The multibase to print it in.")
@json_option
def cid_command(shell: Shell, paths: tuple[str, ...], base: str, as_json: bool) -> None:
    """The CID of each of PATHS, files or directories of the cluster."""

    def tell(status: FileStatus, cid: Cid, tsize: int) -> None:
        text = cid.encode(base)
        if as_json:
            print_json({"path": status.path, "cid": text, "tsize": tsize})
        elif len(paths) == 1:
            print(text)
        else:
            print(f"{text}  {shown(status.path)}")

    async def make(fs: Any, status: FileStatus) -> None:
        found = await fs.content.cid(status.path)
        tell(status, found.cid, found.tsize)

    for text in paths:
        for status in shell.expand([text], "find the CID of"):
            with shell.reporting("find the CID of", text):
                request = GetCids(paths=[status.path])
                known: PathCid = shell.call("path_cids", request).results[0]
                if known.failure is not None:
                    raise error_of(known.failure)
                if known.cid:
                    tell(status, Cid.from_bytes(known.cid), known.tsize)
                    continue
                from .content import with_filesystem

                with_filesystem(shell, lambda fs, status=status: make(fs, status))  # type: ignore[misc]

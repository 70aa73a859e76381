"""Commands that ask a peer: peers, providers, name, peer add|get|fetch|pin. None of them needs a NameNode."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import click

from ...common.errors import (
    InvalidRequest,
    PathExists,
)
from ...common.ipld import dag
from ...common.ipld.cid import Cid
from ...common.ipld.layout import PROFILES, profile
from ...common.ipns import read_record
from ...common.peerid import parse
from ...common.runtime import SystemClock, system_random
from ..peer_client import PeerClient
from .progress import ProgressLine
from .support import Shell, human, json_option, print_json, quoted, shell_command, table

peer_option = click.option(
    "--peer", metavar="URL", help="The peer to ask, e.g. http://127.0.0.1:9864."
)


def connect(shell: Shell, url: str | None) -> PeerClient:
    """The peer that a command is about."""
    return PeerClient(url or shell.config.peer, token=shell.config.peer_token)


def split_cid(text: str) -> tuple[Cid, list[str]]:
    """(root, names) of CID[/path], with or without /ipfs/ before it."""
    root, _, rest = text.removeprefix("/ipfs/").partition("/")
    return Cid.parse(root), [name for name in rest.split("/") if name]


@shell_command(name="peers")
@peer_option
@json_option
def peers_command(shell: Shell, peer: str | None, as_json: bool) -> None:
    """List the peers that a peer knows, and whether they are there."""
    status = connect(shell, peer).call("GET", "/v1/peer/status")
    if as_json:
        for entry in status["peers"]:
            print_json(entry)
        return
    rows = [["PEER", "ADDRESS", "STATE"], [status["id"], ",".join(status["addresses"]), "this one"]]
    for entry in status["peers"]:
        state = "alive" if entry["alive"] else "silent"
        rows.append([entry["id"], ",".join(entry["addresses"]), state])
    for line in table(rows):
        print(line)


@shell_command(name="providers")
@click.argument("cid")
@peer_option
@json_option
def providers_command(shell: Shell, cid: str, peer: str | None, as_json: bool) -> None:
    """List who has the block CID, as a peer finds out; without --peer, which DataNodes of the cluster do."""
    root, _ = split_cid(cid)
    asked = connect(shell, peer) if peer else PeerClient(shell.config.namenode.split(",")[0])
    found = asked.call("GET", f"/routing/v1/providers/{root}")["Providers"]
    for record in found:
        if as_json:
            print_json(record)
        else:
            print(f"{record['ID']}  {' '.join(record['Addrs'])}")
    if not found:
        shell.complain(f"nobody is known to have {root}")


@click.group(name="name", context_settings={"help_option_names": ["-h", "--help"]})
def name_command() -> None:
    """Mutable names (IPNS): signed by a key of a peer, resolved by anybody."""


@shell_command(name="publish")
@click.argument("target", metavar="CID|/ipfs/CID/PATH|/ipns/NAME")
@click.option("--key", default="self", help="Which key's name; made when there is none.")
@click.option("--lifetime", "hours", type=float, default=48.0, help="Hours that it holds.")
@click.option("--ttl", "ttl_s", type=float, default=300.0, help="Seconds that it may be cached.")
@peer_option
@json_option
def name_publish(
    shell: Shell, target: str, key: str, hours: float, ttl_s: float, peer: str | None, as_json: bool
) -> None:
    """Make a name mean CID from now on."""
    value = target
    if not target.startswith(("/ipfs/", "/ipns/")):
        root, names = split_cid(target)
        value = "/".join([f"/ipfs/{root}", *names])
    body = {"value": value, "key": key, "lifetime_s": hours * 3600, "ttl_s": ttl_s}
    made = connect(shell, peer).call("POST", "/v1/peer/names", body)
    if as_json:
        print_json(made)
    else:
        print(f"/ipns/{made['name']} -> {made['value']} (number {made['sequence']})")


@shell_command(name="resolve")
@click.argument("name")
@click.option("--record", "as_record", is_flag=True, help="Show the signed record itself.")
@peer_option
@json_option
def name_resolve(shell: Shell, name: str, as_record: bool, peer: str | None, as_json: bool) -> None:
    """Print what a name means now."""
    client = connect(shell, peer)
    bare = name.removeprefix("/ipns/").partition("/")[0]
    key = parse(bare)
    if as_record:
        # Checked here too: nobody's word is needed for what proves itself.
        record = read_record(key, client.get(f"/routing/v1/ipns/{bare}"))
        print_json(
            {
                "value": record.value,
                "sequence": record.sequence,
                "expires_ms": record.expires_ms,
                "ttl_s": record.ttl_s,
            }
        )
        return
    found = client.call("GET", f"/v1/peer/names?name={bare}")
    rest = name.removeprefix("/ipns/").partition("/")[2]
    path = f"{found['path']}/{rest}" if rest else found["path"]
    if as_json:
        print_json({"path": path, "holds_s": found["holds_s"]})
    else:
        print(path)


@shell_command(name="keys")
@peer_option
@json_option
def name_keys(shell: Shell, peer: str | None, as_json: bool) -> None:
    """List a peer's keys and the names that are theirs."""
    keys = connect(shell, peer).call("GET", "/v1/peer/names")["keys"]
    for called, name in keys.items():
        if as_json:
            print_json({"key": called, "name": name})
        else:
            print(f"{name}  {called}")


for command in (name_publish, name_resolve, name_keys):
    name_command.add_command(command)


@click.group(name="peer", context_settings={"help_option_names": ["-h", "--help"]})
def peer_command() -> None:
    """Content of a plain peer: add, get, fetch, and pins kept with others."""


@shell_command(name="add")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--only-hash", is_flag=True, help="Print the CIDs; send nothing.")
@click.option(
    "--profile",
    "profile_name",
    type=click.Choice(list(PROFILES)),
    default="twinfs",
    help="How content becomes a DAG, and so its CID.",
)
@click.option("--pin/--no-pin", default=True, help="Keep it until it is unpinned.")
@click.option("--quiet", "-q", is_flag=True, help="Print the CIDs alone.")
@peer_option
def peer_add(
    shell: Shell,
    paths: tuple[str, ...],
    only_hash: bool,
    profile_name: str,
    pin: bool,
    quiet: bool,
    peer: str | None,
) -> None:
    """Add files and folders to a peer ("-": standard input); only what it lacks is sent."""
    from ..peer_import import Importer

    client = None if only_hash else connect(shell, peer)
    progress = ProgressLine("adding")
    importer = Importer(client, profile(profile_name), told=progress)
    try:
        for path in paths:
            with shell.reporting("add", path):
                if path == "-":
                    added = importer.add_bytes(_standard_input())
                else:
                    added = importer.add(Path(path))
                if client is not None:
                    if pin:
                        body = {"cid": str(added.root), "name": Path(path).name, "here": True}
                        client.call("POST", "/v1/peer/pins", body)
                    else:
                        client.call("POST", "/v1/peer/provide", {"cids": [str(added.root)]})
                progress.close()
                print(str(added.root) if quiet else f"{added.root}  {path}", flush=True)
    finally:
        progress.close()
        importer.close()


MAX_INPUT_BYTES = 1024 * 1024 * 1024


def _standard_input() -> bytes:
    data = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
    if len(data) > MAX_INPUT_BYTES:
        raise InvalidRequest("standard input has more than 1 GiB: add a file")
    return data


@shell_command(name="fetch")
@click.argument("cid")
@peer_option
@json_option
def peer_fetch(shell: Shell, cid: str, peer: str | None, as_json: bool) -> None:
    """Have a peer fetch all of CID from the others; going on where an earlier try ended."""
    _fetch(connect(shell, peer), split_cid(cid)[0], as_json=as_json)


def _fetch(client: PeerClient, root: Cid, *, as_json: bool = False, quiet: bool = False) -> None:
    progress = ProgressLine("fetching")
    seen = 0
    try:
        for line in client.lines("POST", "/v1/peer/fetch", {"cid": str(root)}):
            progress(line["bytes"] - seen)
            seen = line["bytes"]
            if line["done"] and not quiet:
                progress.close()
                if as_json:
                    print_json(line)
                else:
                    print(f"{line['blocks']} blocks, {human(line['bytes'])} from other peers")
    finally:
        progress.close()


@shell_command(name="get")
@click.argument("cid", metavar="CID[/PATH]")
@click.argument("target", required=False)
@peer_option
def peer_get(shell: Shell, cid: str, target: str | None, peer: str | None) -> None:
    """Copy content to a local file or folder TARGET, which must not be there yet ("-": standard output)."""
    client = connect(shell, peer)
    root, names = split_cid(cid)
    place = target or (names[-1] if names else str(root))
    if place != "-" and os.path.lexists(place):
        raise PathExists(f"{quoted(place)} is there already")
    asyncio.run(_get(client.url, root, names, place))


async def _get(url: str, root: Cid, names: list[str], place: str) -> None:
    from ..exchange import Exchange
    from ..routing_client import RoutingFinder
    from .extract import extract

    finder = RoutingFinder([url])
    exchange = Exchange(finder, clock=SystemClock(), rng=system_random(), peers=(url,))
    progress = ProgressLine("getting")
    try:

        async def get(wanted: Cid) -> dag.Block:
            return await exchange.block(wanted, root=root)

        found = await dag.run_async(dag.resolve(root, names), get)
        await extract(get, found.cid, place, progress)
    finally:
        progress.close()
        await exchange.close()
        await finder.close()


@click.group(name="pin", context_settings={"help_option_names": ["-h", "--help"]})
def pin_group() -> None:
    """Content that is kept: by one peer, or so many copies by all of them together."""


@shell_command(name="add")
@click.argument("cid")
@click.option("--replicas", type=click.IntRange(1, 64), help="Copies, over all peers.")
@click.option("--direct", is_flag=True, help="The block alone, not what it links to.")
@click.option("--name", "pin_name", default="", help="What it is called in lists.")
@peer_option
@json_option
def pin_add(
    shell: Shell,
    cid: str,
    replicas: int | None,
    direct: bool,
    pin_name: str,
    peer: str | None,
    as_json: bool,
) -> None:
    """Keep CID: on this peer, or with --replicas on so many peers, whichever come and go."""
    if direct and replicas:
        raise InvalidRequest("--direct is for one peer, --replicas for whole DAGs")
    body = {
        "cid": str(split_cid(cid)[0]),
        "kind": "direct" if direct else "recursive",
        "replicas": replicas or 0,
        "name": pin_name,
    }
    answer = connect(shell, peer).call("POST", "/v1/peer/pins", body)
    if as_json:
        print_json(answer)
        return
    print(f"pinned {answer['cid']}")
    for holder in answer["holders"]:
        print(f"  {holder}")


@shell_command(name="rm")
@click.argument("cid")
@peer_option
def pin_rm(shell: Shell, cid: str, peer: str | None) -> None:
    """Keep CID no more."""
    connect(shell, peer).call("DELETE", f"/v1/peer/pins/{split_cid(cid)[0]}")


@shell_command(name="ls")
@peer_option
@json_option
def pin_ls(shell: Shell, peer: str | None, as_json: bool) -> None:
    """List what a peer keeps, and what all keep together."""
    pins = connect(shell, peer).call("GET", "/v1/peer/pins")["pins"]
    if as_json:
        for pin in pins:
            print_json(pin)
        return
    rows = [["CID", "KIND", "COPIES", "NAME"]]
    for pin in pins:
        copies = str(pin["replicas"]) if pin["replicas"] else "here"
        rows.append([pin["cid"], pin["kind"], copies, pin["name"]])
    for line in table(rows):
        print(line)


for command in (pin_add, pin_rm, pin_ls):
    pin_group.add_command(command)
for entry in (peer_add, peer_fetch, peer_get, pin_group):
    peer_command.add_command(entry)

__all__ = [
    "connect",
    "name_command",
    "peer_command",
    "peers_command",
    "providers_command",
]

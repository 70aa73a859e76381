"""Commands that ask a peer: peers, providers, name, and `peer`: fetch, and all commands on content. None of them needs a NameNode."""

from __future__ import annotations

import click

from ...common.ipld.cid import Cid
from ...common.ipns import read_record
from ...common.peerid import parse
from ..peer_client import PeerClient
from .cas import add_command, gc_command, pin_command, verify_command
from .content import cat_command, get_command
from .dags import block_command, dag_command
from .listing import ls_command
from .progress import ProgressLine
from .support import Shell, human, json_option, peer_option, print_json, shell_command, table


def split_cid(text: str) -> tuple[Cid, list[str]]:
    """(root, names) of CID[/path], with or without /ipfs/ before it."""
    root, _, rest = text.removeprefix("/ipfs/").partition("/")
    return Cid.parse(root), [name for name in rest.split("/") if name]


@shell_command(name="peers")
@peer_option
@json_option
def peers_command(shell: Shell, as_json: bool) -> None:
    """List the peers that a peer knows, and whether they are there."""
    status = shell.peer().call("GET", "/v1/peer/status")
    this = {"id": status["id"], "addresses": status["addresses"], "alive": True, "this": True}
    entries = [this, *({**entry, "this": False} for entry in status["peers"])]
    if as_json:
        for entry in entries:
            print_json(entry)
        return
    rows = [["PEER", "ADDRESS", "STATE"]]
    for entry in entries:
        state = "this one" if entry["this"] else "alive" if entry["alive"] else "silent"
        rows.append([entry["id"], ",".join(entry["addresses"]), state])
    for line in table(rows):
        print(line)


@shell_command(name="providers")
@click.argument("cid")
@peer_option
@json_option
def providers_command(shell: Shell, cid: str, as_json: bool) -> None:
    """List who has the block CID, as a peer finds out; without --peer, which DataNodes of the cluster do."""
    root, _ = split_cid(cid)
    asked = shell.peer() if shell.on_peer else PeerClient(shell.config.namenode.split(",")[0])
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
    shell: Shell, target: str, key: str, hours: float, ttl_s: float, as_json: bool
) -> None:
    """Make a name mean CID from now on."""
    value = target
    if not target.startswith(("/ipfs/", "/ipns/")):
        root, names = split_cid(target)
        value = "/".join([f"/ipfs/{root}", *names])
    body = {"value": value, "key": key, "lifetime_s": hours * 3600, "ttl_s": ttl_s}
    made = shell.peer().call("POST", "/v1/peer/names", body)
    if as_json:
        print_json(made)
    else:
        print(f"/ipns/{made['name']} -> {made['value']} (number {made['sequence']})")


@shell_command(name="resolve")
@click.argument("name")
@click.option("--record", "as_record", is_flag=True, help="Show the signed record itself.")
@peer_option
@json_option
def name_resolve(shell: Shell, name: str, as_record: bool, as_json: bool) -> None:
    """Print what a name means now."""
    client = shell.peer()
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
def name_keys(shell: Shell, as_json: bool) -> None:
    """List a peer's keys and the names that are theirs."""
    keys = shell.peer().call("GET", "/v1/peer/names")["keys"]
    for called, name in keys.items():
        if as_json:
            print_json({"key": called, "name": name})
        else:
            print(f"{name}  {called}")


for command in (name_publish, name_resolve, name_keys):
    name_command.add_command(command)


@click.group(name="peer", context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def peer_command(ctx: click.Context) -> None:
    """The commands on content, asked of a peer although there is a cluster, too; and `fetch`."""
    ctx.find_root().obj["to_peer"] = True


@shell_command(name="fetch")
@click.argument("cid")
@peer_option
@json_option
def peer_fetch(shell: Shell, cid: str, as_json: bool) -> None:
    """Have a peer fetch all of CID from the others; going on where an earlier try ended."""
    progress = ProgressLine("fetching")
    seen = 0
    try:
        for line in shell.peer().lines("POST", "/v1/peer/fetch", {"cid": str(split_cid(cid)[0])}):
            progress(line["bytes"] - seen)
            seen = line["bytes"]
            if not line["done"]:
                continue
            progress.close()
            if as_json:
                print_json(line)
            else:
                print(f"{line['blocks']} blocks, {human(line['bytes'])} from other peers")
    finally:
        progress.close()


for entry in (
    peer_fetch,
    add_command,
    get_command,
    cat_command,
    ls_command,
    pin_command,
    gc_command,
    verify_command,
    block_command,
    dag_command,
):
    peer_command.add_command(entry)

__all__ = [
    "name_command",
    "peer_command",
    "peers_command",
    "providers_command",
]

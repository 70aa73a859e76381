"""Commands on CID blocks and DAGs: block get|put|stat, dag get|put|stat|export|import."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ...common.errors import InvalidContent, Unsupported
from ...common.ipld import car, dag, dag_cbor, dag_json, dag_pb, forms
from ...common.ipld.cid import (
    CODECS,
    DAG_CBOR,
    DAG_JSON,
    DAG_PB,
    MAX_BLOCK_BYTES,
    RAW,
    Cid,
)
from ...common.ipld.multihash import NAMES as HASHES
from ..beside import unfinished
from .references import reference
from .stores import with_content
from .streams import StandardInput, write_out
from .support import Shell, json_option, peer_option, print_json, shell_command

PIECE_BYTES = 1024 * 1024
MAX_DAG_BLOCKS = 100_000_000
STORED = ["raw", "dag-pb", "dag-cbor", "dag-json"]
hash_option = click.option(
    "--hash", "hash_name", type=click.Choice(["blake3", "sha2-256"]), default="blake3",
    show_default=True, help="Hash function of the CID.",
)  # fmt: skip


def _read_whole(name: str, limit: int = MAX_BLOCK_BYTES) -> bytes:
    """A file or standard input, at most *limit* bytes."""
    if name == "-":
        source, data = StandardInput(), bytearray()
        while len(data) <= limit and (piece := source.read(PIECE_BYTES)):
            data += piece
    else:
        with Path(name).open("rb") as file:
            data = bytearray(file.read(limit + 1))
    if len(data) > limit:
        raise InvalidContent(f"a CID block has at most {limit} bytes")
    return bytes(data)


async def write_bytes(data: bytes) -> None:
    """To standard output."""
    write_out(data)


# --- block -------------------------------------------------------------------------------------


@click.group(name="block")
def block_command() -> None:
    """Single CID blocks."""


@click.argument("cids", metavar="CID[/PATH]...", nargs=-1, required=True)
@peer_option
def _block_get(shell: Shell, cids: tuple[str, ...]) -> None:
    """Write the bytes of blocks to standard output."""

    async def work(content: Any) -> None:
        for text in cids:
            with shell.reporting("read", text):
                where = reference(text)
                cid = await content.reader.resolve(where.root, where.names)
                await write_bytes(await content.reader.get(cid))

    with_content(shell, work)


@click.argument("cids", metavar="CID[/PATH]...", nargs=-1, required=True)
@json_option
@peer_option
def _block_stat(shell: Shell, cids: tuple[str, ...], as_json: bool) -> None:
    """The size of blocks."""

    async def work(content: Any) -> None:
        for text in cids:
            with shell.reporting("read", text):
                where = reference(text)
                cid = await content.reader.resolve(where.root, where.names)
                size = len(await content.reader.get(cid))
                if as_json:
                    print_json({"cid": str(cid), "size": size, "codec": cid.codec_name, "hash": cid.hash_name})  # fmt: skip
                else:
                    print(f"{cid}  {size} bytes  {cid.codec_name}  {cid.hash_name}")

    with_content(shell, work)


@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--codec", type=click.Choice(STORED), default="raw", show_default=True,
              help="What the bytes are.")  # fmt: skip
@hash_option
@click.option("--pin", is_flag=True, help="Keep it (a direct pin).")
@json_option
@peer_option
def _block_put(
    shell: Shell, files: tuple[str, ...], codec: str, hash_name: str, pin: bool, as_json: bool
) -> None:
    """Store FILES (- is standard input), each as one block."""

    async def work(content: Any) -> None:
        for name in files:
            with shell.reporting("put", name):
                data = _read_whole(name)
                cid = Cid.of(CODECS[codec], data, HASHES[hash_name])
                dag.links_of(cid, data)  # what is no such node is refused
                await content.put_blocks([(cid, data)])
                if pin:
                    await content.pin(cid, kind="direct", fetch=False)
                if as_json:
                    print_json({"cid": str(cid), "size": len(data)})
                else:
                    print(cid)

    with_content(shell, work)


block_command.add_command(shell_command(name="get")(_block_get))
block_command.add_command(shell_command(name="put")(_block_put))
block_command.add_command(shell_command(name="stat")(_block_stat))


# --- dag ---------------------------------------------------------------------------------------


@click.group(name="dag")
def dag_command() -> None:
    """DAGs: looking into them, and moving them as CAR files."""


def _as_json(cid: Cid, block: bytes) -> bytes:
    return forms.encoded(forms.value_of(cid, block), DAG_JSON)


@click.argument("cid", metavar="CID[/PATH]")
@click.option("--json", "as_json", is_flag=True, help="As dag-json, in a line: so it comes anyway.")
@click.option("--cbor", "as_cbor", is_flag=True, help="As dag-cbor.")
@peer_option
def _dag_get(shell: Shell, cid: str, as_json: bool, as_cbor: bool) -> None:
    """A block's value, as a gateway has it with ?format=dag-json."""
    if as_json and as_cbor:
        raise click.UsageError("it comes as dag-json or as dag-cbor, not as both")

    async def work(content: Any) -> None:
        with shell.reporting("read", cid):
            where = reference(cid)
            found = await content.reader.resolve(where.root, where.names)
            value = forms.value_of(found, await content.reader.get(found))
            data = forms.encoded(value, DAG_CBOR if as_cbor else DAG_JSON)
            await write_bytes(data if as_cbor else data + b"\n")

    with_content(shell, work)


@click.argument("cid", metavar="CID[/PATH]")
@json_option
@peer_option
def _dag_stat(shell: Shell, cid: str, as_json: bool) -> None:
    """How many blocks and bytes a DAG has, each block counted once."""

    async def work(content: Any) -> None:
        with shell.reporting("read", cid):
            where = reference(cid)
            root = await content.reader.resolve(where.root, where.names)
            blocks, size = 0, 0
            async for _, data in _blocks(content, root):
                blocks, size = blocks + 1, size + len(data)
            if as_json:
                print_json({"cid": str(root), "blocks": blocks, "bytes": size})
            else:
                print(f"{root}  {blocks} blocks  {size} bytes")

    with_content(shell, work)


async def _blocks(content: Any, root: Cid) -> Any:
    """Every block of a DAG, the root first, each once."""
    reader = content.reader
    walk = dag.walk(root, max_blocks=MAX_DAG_BLOCKS)
    wish = next(walk, None)
    while wish is not None:
        block = await reader.get(wish)
        yield wish, block
        if wish.codec != RAW:
            await reader.prefetch(dag.links_of(wish, block))
        try:
            wish = walk.send(block)
        except StopIteration:
            return


@click.argument("cids", metavar="CID...", nargs=-1, required=True)
@click.option("-o", "--output", default="-", help="The file to write; - is standard output.")
@click.option("--version", "version", type=click.IntRange(1, 2), default=1, show_default=True,
              help="2 adds an index, and needs a file to write to.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Blocks as dag-json, one a line, no CAR.")
@peer_option
def _dag_export(
    shell: Shell, cids: tuple[str, ...], output: str, version: int, as_json: bool
) -> None:
    """Write DAGs as a CAR file, their CIDs as its roots."""
    roots = [reference(text).root for text in cids]
    if version == 2 and output == "-":
        raise click.UsageError("a CAR of version 2 needs --output FILE: its header is written last")

    async def work(content: Any) -> None:
        with shell.reporting("export", cids[0]):
            if output == "-":
                await _export(content, roots, write_bytes, as_json)
                return
            target = Path(output)
            temporary = unfinished(target)
            try:
                with temporary.open("wb") as file:
                    await _export_file(content, roots, file, version, as_json)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    with_content(shell, work)


async def _export(
    content: Any, roots: list[Cid], write: Any, as_json: bool
) -> list[tuple[Cid, int]]:
    """Where each block's frame begins."""
    places: list[tuple[Cid, int]] = []
    at = 0
    if not as_json:
        front = car.header(roots)
        await write(front)
        at = len(front)
    seen: set[bytes] = set()
    for root in roots:
        async for cid, block in _blocks(content, root):
            if cid.multihash in seen:
                continue
            seen.add(cid.multihash)
            if as_json:
                line = b'{"cid":' + dag_json.encode(cid) + b',"block":' + _as_json(cid, block)
                await write(line + b"}\n")
                continue
            head = car.frame_head(cid, len(block))
            await write(head)
            await write(block)
            places.append((cid, at))
            at += len(head) + len(block)
    return places


async def _export_file(
    content: Any, roots: list[Cid], file: Any, version: int, as_json: bool
) -> None:
    async def write(data: bytes) -> None:
        file.write(data)

    if version == 1 or as_json:
        await _export(content, roots, write, as_json)
        return
    file.write(car.v2_header(0))
    places = await _export(content, roots, write, False)
    size = file.tell() - car.V2_HEADER_BYTES
    file.write(car.v2_index(places))
    file.seek(0)
    file.write(car.v2_header(size))


@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--pin/--no-pin", default=True, show_default=True, help="Keep the roots.")
@json_option
@peer_option
def _dag_import(shell: Shell, files: tuple[str, ...], pin: bool, as_json: bool) -> None:
    """Store the blocks of CAR files (- is standard input), each verified."""

    async def one(content: Any, name: str) -> None:
        reader = car.Reader()
        count, incomplete = await content.import_blocks(
            block for piece in _pieces(name) for block in reader.feed(piece)
        )
        reader.finish()
        for root in reader.roots or []:
            if pin:
                await content.pin_if_new(root)
            if as_json:
                print_json({"root": str(root), "pinned": pin})
            else:
                print(f"{'pinned' if pin else 'imported'} {root}")
        if as_json:
            print_json({"blocks": count, "incomplete": incomplete})
        else:
            print(f"{count} blocks")

    async def work(content: Any) -> None:
        for name in files:
            with shell.reporting("import", name):
                await one(content, name)

    with_content(shell, work)


def _pieces(name: str) -> Iterator[bytes]:
    if name == "-":
        source = StandardInput()
        while piece := source.read(PIECE_BYTES):
            yield piece
        return
    with Path(name).open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--codec", type=click.Choice(["dag-cbor", "dag-json", "dag-pb"]), default="dag-cbor",
              show_default=True, help="What it is stored as.")  # fmt: skip
@hash_option
@click.option("--pin/--no-pin", default=True, show_default=True, help="Keep it.")
@json_option
@peer_option
def _dag_put(
    shell: Shell, files: tuple[str, ...], codec: str, hash_name: str, pin: bool, as_json: bool
) -> None:
    """Store dag-json documents (- is standard input) as blocks."""

    async def work(content: Any) -> None:
        for name in files:
            with shell.reporting("put", name):
                value = dag_json.decode(_read_whole(name))
                block = _encoded(value, CODECS[codec])
                cid = Cid.of(CODECS[codec], block, HASHES[hash_name])
                await content.put_blocks([(cid, block)])
                if pin:
                    await content.pin_if_new(cid)
                if as_json:
                    print_json({"cid": str(cid), "size": len(block)})
                else:
                    print(cid)

    with_content(shell, work)


def _encoded(value: Any, codec: int) -> bytes:
    if codec == DAG_CBOR:
        return dag_cbor.encode(value)
    if codec == DAG_JSON:
        return dag_json.encode(value)
    if codec == DAG_PB:
        node = dag_json.to_node(value)
        return dag_pb.encode(dag_pb.sorted_links(node.links), node.data)
    raise Unsupported(f"there is no codec 0x{codec:x} here")


dag_command.add_command(shell_command(name="get")(_dag_get))
dag_command.add_command(shell_command(name="put")(_dag_put))
dag_command.add_command(shell_command(name="stat")(_dag_stat))
dag_command.add_command(shell_command(name="export")(_dag_export))
dag_command.add_command(shell_command(name="import")(_dag_import))

"""`corrupt.py NAME`: flip a bit of a replica, cut one short, or damage a volume's index; `--undo` puts it back."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from scripts.faults.targets import (
    CantBreak,
    Target,
    at,
    chosen,
    dir_option,
    pid_option,
    run,
    volume_of,
)


class CutShort(CantBreak):
    """The replica does not reach that far: it was cut before."""


@dataclass(frozen=True)
class Place:
    """Bytes of a replica: in a file of its own, or in its volume's index."""

    volume: Path
    block_id: int
    file: Path | None
    length: int


def places(target: Target) -> list[Place]:
    """All finalized replicas of a DataNode, whether it runs or not."""
    found: list[Place] = []
    for volume in target.volumes:
        index = volume / "index.db"
        if not index.exists():
            continue
        connection = sqlite3.connect(f"file:{index}?mode=ro", uri=True)
        try:
            rows = connection.execute(
                "SELECT block_id, generation, length, inline FROM replicas ORDER BY block_id"
            ).fetchall()
        except sqlite3.Error as error:
            raise CantBreak(f"the index of {volume} can't be read: {error}") from None
        finally:
            connection.close()
        for block_id, generation, length, inline in rows:
            if not all(isinstance(value, int) for value in (block_id, generation, length)):
                raise CantBreak(f"the index of {volume} can't be read: a row has words for numbers")
            file = volume / "blocks" / f"{block_id & 0xFF:02x}" / f"blk_{block_id}_{generation}"
            found.append(Place(volume, block_id, None if inline else file, length))
    return found


def flip(target: Target, place: Place, bit: int) -> dict[str, object]:
    """Flip one bit of a replica's bytes; what undoes it."""
    if not 0 <= bit < place.length * 8:
        raise CantBreak(f"block {place.block_id} has the bits 0 to {place.length * 8 - 1}")
    was = _change_byte(place, bit // 8, lambda byte: byte ^ 1 << bit % 8)
    return {
        "do": "flip",
        "volume": str(place.volume),
        "block": place.block_id,
        "bit": bit,
        "was": was,
    }


def _change_byte(place: Place, at: int, change: Callable[[int], int]) -> int:
    """Change one byte of a replica; what it was."""
    short = CutShort(f"the replica of block {place.block_id} was cut short of that byte before")
    if place.file is not None:
        with place.file.open("r+b") as file:
            file.seek(at)
            found = file.read(1)
            if not found:
                raise short
            file.seek(at)
            file.write(bytes([change(found[0])]))
        return found[0]
    kept: list[int] = []

    def edit(data: bytes) -> bytes:
        if at >= len(data):
            raise short
        kept.append(data[at])
        return data[:at] + bytes([change(data[at])]) + data[at + 1 :]

    _edit_inline(place, edit)
    return kept[0]


def _edit_inline(place: Place, edit) -> None:  # type: ignore[no-untyped-def]
    connection = sqlite3.connect(place.volume / "index.db", timeout=30.0)
    try:
        # The DataNode alone copies the log into the file: it keeps sums of the file's pages.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        with connection:
            row = connection.execute(
                "SELECT data FROM small WHERE block_id = ?", (place.block_id,)
            ).fetchone()
            if row is None or not isinstance(row[0], bytes):
                raise CantBreak(f"block {place.block_id} is gone meanwhile")
            connection.execute(
                "UPDATE small SET data = ? WHERE block_id = ?", (edit(row[0]), place.block_id)
            )
    except sqlite3.Error as error:
        raise CantBreak(f"the index of {place.volume} can't be written: {error}") from None
    finally:
        connection.close()
    if not (place.volume / "index.db-wal").exists():
        # Nobody else had it open, so SQLite has copied the log itself: what the sums say is not so any more.
        (place.volume / "index.db-sums").unlink(missing_ok=True)


def truncate(target: Target, place: Place, length: int) -> dict[str, object]:
    """Cut a replica short; what undoes it. What is cut off is kept beside the volume."""
    if not 0 <= length < place.length:
        raise CantBreak(
            f"block {place.block_id} has {place.length} bytes; it can't be cut to {length}"
        )
    tail = _cut_off(place.volume, place.block_id, length)

    def keep(data: bytes) -> bytes:
        _require_longer(place, len(data), length)
        tail.write_bytes(data[length:])
        return data[:length]

    if place.file is None:
        _edit_inline(place, keep)
    else:
        with place.file.open("r+b") as file:
            _require_longer(place, os.fstat(file.fileno()).st_size, length)
            file.seek(length)
            with tail.open("wb") as kept:
                shutil.copyfileobj(file, kept)
            file.truncate(length)
    return {
        "do": "append",
        "volume": str(place.volume),
        "block": place.block_id,
        "length": length,
    }


def _require_longer(place: Place, size: int, length: int) -> None:
    if size <= length:
        raise CutShort(f"the replica of block {place.block_id} was cut to {size} bytes before")


def _cut_off(volume: Path, block: int, length: int) -> Path:
    return volume.with_name(f"{volume.name}.block-{block}-from-{length}")


def damage_index(
    target: Target, volume: Path, rng: random.Random, bits: int = 64
) -> dict[str, object]:
    """Flip bits of a volume's index file. Its process has to be dead: a running one has pages in memory."""
    file = _index_of(target, volume)
    size = file.stat().st_size
    places = sorted(rng.sample(range(size * 8), min(bits, size * 8)))
    was = _bytes_at(file, places)
    _flip_all(file, places)
    return {
        "do": "flip-index",
        "volume": str(volume),
        "bits": places,
        "was": was.hex(),
        "inode": file.stat().st_ino,
    }


def truncate_index(target: Target, volume: Path, length: int) -> dict[str, object]:
    """Cut a volume's index file short; what undoes it. What is cut off is kept beside the volume."""
    file = _index_of(target, volume)
    size = file.stat().st_size
    if not 0 <= length < size:
        raise CantBreak(f"{file} has {size} bytes; it can't be cut to {length}")
    with file.open("r+b") as opened, _tail_of(volume, length).open("wb") as tail:
        opened.seek(length)
        shutil.copyfileobj(opened, tail)
        opened.truncate(length)
    return {
        "do": "append-index",
        "volume": str(volume),
        "length": length,
        "inode": file.stat().st_ino,
    }


def _tail_of(volume: Path, length: int) -> Path:
    return volume.with_name(f"{volume.name}.index-from-{length}")


def _index_of(target: Target, volume: Path) -> Path:
    """The file of the index, of a process that is dead."""
    if target.alive:
        raise CantBreak(f"{target.name} is running; kill it first (kill.py {target.name})")
    file = volume / "index.db"
    if not file.is_file():
        raise CantBreak(f"{volume} has no index")
    return file


def _flip_all(file: Path, bits: Sequence[int]) -> None:
    with file.open("r+b") as opened:
        for bit in bits:
            opened.seek(bit // 8)
            (byte,) = opened.read(1)
            opened.seek(bit // 8)
            opened.write(bytes([byte ^ 1 << bit % 8]))


def _bytes_at(file: Path, bits: Sequence[int]) -> bytes:
    """The byte of each bit; fewer where the file ends before."""
    with file.open("rb") as opened:
        found = []
        for bit in bits:
            opened.seek(bit // 8)
            found.append(opened.read(1))
        return b"".join(found)


def _undo_index(target: Target, volume: Path, what: dict[str, Any]) -> None:
    file = _index_of(target, volume)
    if file.stat().st_ino != what["inode"]:
        raise CantBreak(f"the index of {volume} was made anew meanwhile: there is nothing to undo")
    if what["do"] == "flip-index":
        bits = what["bits"]
        masks: dict[int, int] = {}
        for bit in bits:
            masks[bit // 8] = masks.get(bit // 8, 0) ^ 1 << bit % 8
        was = bytes.fromhex(what["was"])
        damaged = bytes(b ^ masks[bit // 8] for b, bit in zip(was, bits, strict=True))
        if _bytes_at(file, bits) != damaged:
            raise CantBreak(f"{file} was put back before, or has changed: nothing is put back")
        _flip_all(file, bits)
        return
    if file.stat().st_size != what["length"]:
        raise CantBreak(f"{file} was put back before, or has changed: nothing is put back")
    _append(file, _tail_of(volume, what["length"]))


def _append(file: Path, tail: Path) -> None:
    """Give a file back what was cut off."""
    _require_kept(tail)
    with file.open("ab") as opened, tail.open("rb") as kept:
        shutil.copyfileobj(kept, opened)
    tail.unlink()


def _require_kept(tail: Path) -> None:
    if not tail.exists():
        raise CantBreak(f"{tail}, which has what was cut off, is gone")


# What the commands print for `--undo`, besides "do".
RECORDS: dict[str, dict[str, type]] = {
    "flip": {"volume": str, "block": int, "bit": int, "was": int},
    "append": {"volume": str, "block": int, "length": int},
    "flip-index": {"volume": str, "bits": list, "was": str, "inode": int},
    "append-index": {"volume": str, "length": int, "inode": int},
}


def as_printed(text: str) -> dict[str, Any]:
    """What undoes a damage, from the words that its command printed."""
    try:
        what = json.loads(text)
    except json.JSONDecodeError:
        what = None
    fields = RECORDS.get(str(what.get("do"))) if isinstance(what, dict) else None
    if fields is None or not all(isinstance(what.get(key), fields[key]) for key in fields):
        raise CantBreak(f"--undo takes what the damage printed behind it, not {text!r}")
    return what  # type: ignore[no-any-return]


def undo(target: Target, what: dict[str, Any]) -> None:
    """Put back what was damaged, if it still is: healed bytes would be damaged anew."""
    volume = Path(what["volume"])
    if what["do"] in ("flip-index", "append-index"):
        _undo_index(target, volume, what)
        return
    fitting = [p for p in places(target) if p.volume == volume and p.block_id == what["block"]]
    if not fitting:
        raise CantBreak(f"block {what['block']} is no longer there: it was healed, or deleted")
    (place,) = fitting
    whole = CantBreak(f"block {place.block_id} was put back before, or healed: nothing is put back")
    if what["do"] == "flip":
        damaged = what["was"] ^ 1 << what["bit"] % 8

        def put_back(byte: int) -> int:
            if byte != damaged:
                raise whole
            return int(what["was"])

        _change_byte(place, what["bit"] // 8, put_back)
        return
    tail = _cut_off(volume, place.block_id, what["length"])
    if place.file is not None:
        if place.file.stat().st_size != what["length"]:
            raise whole
        _append(place.file, tail)
        return

    def joined(data: bytes) -> bytes:
        if len(data) != what["length"]:
            raise whole
        _require_kept(tail)
        return data + tail.read_bytes()

    _edit_inline(place, joined)
    tail.unlink()


def pick(target: Target, block: int | None, rng: random.Random) -> Place:
    """The replica of *block*, or one by chance."""
    found = [p for p in places(target) if p.length and (block is None or p.block_id == block)]
    if not found:
        what = "no replica" if block is None else f"no replica of block {block}"
        raise CantBreak(f"{target.name} has {what} with bytes to damage")
    return rng.choice(found)


@click.command()
@click.argument("name", required=False)
@click.option("--block", type=int, default=None, help="Id of the block; any if not given.")
@click.option("--bit", type=int, default=None, help="Number of the bit to flip; any if not given.")
@click.option("--truncate", "cut", type=int, default=None, help="Cut it to so many bytes instead.")
@click.option(
    "--index", is_flag=True, help="Damage the index of a volume instead (64 bits, or --truncate)."
)
@click.option("--volume", type=int, default=None, help="With --index: its number, from 1 [1].")
@click.option("--seed", default=0, help="Of what is left to chance.")
@click.option("--undo", "undoing", default=None, help="Put back what was damaged (as printed).")
@dir_option
@pid_option
def main(
    name: str | None,
    block: int | None,
    bit: int | None,
    cut: int | None,
    index: bool,
    volume: int | None,
    seed: int,
    undoing: str | None,
    folder: Path | None,
    pid: int | None,
) -> None:
    """Damage bytes that the DataNode NAME keeps."""
    target = chosen(folder, pid, name)
    rng = random.Random(seed)
    if undoing is not None:
        undo(target, as_printed(undoing))
        print("What was damaged is as it was.")
        return
    if bit is not None and cut is not None:
        raise CantBreak("say one of --bit and --truncate")
    if volume is not None and not index:
        raise CantBreak("--volume goes with --index; --block chooses a replica")
    if index:
        if bit is not None or block is not None:
            raise CantBreak("--index goes with --truncate, --volume and --seed only")
        where = volume_of(target, volume or 1)
        if cut is not None:
            done = truncate_index(target, where, cut)
            print(f"{where}/index.db is cut to {cut} bytes.")
        else:
            done = damage_index(target, where, rng)
            print(f"64 bits of {where}/index.db are flipped.")
    else:
        place = pick(target, block, rng)
        lies = "in the index" if place.file is None else str(place.file)
        if cut is not None:
            done = truncate(target, place, cut)
            print(f"The replica of block {place.block_id} ({lies}) is cut to {cut} bytes.")
        else:
            number = rng.randrange(place.length * 8) if bit is None else bit
            done = flip(target, place, number)
            print(f"Bit {number} of the replica of block {place.block_id} ({lies}) is flipped.")
    words = f" {name}" if name else ""
    print(
        f"Undo: python scripts/faults/corrupt.py{words}{at(folder, pid)} --undo '{json.dumps(done)}'"
    )


if __name__ == "__main__":
    run(main)

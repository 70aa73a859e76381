"""Backups of an SQLite namespace while the NameNode runs, and bringing one back.

A backup repository is a directory:

    repository.json             format, cluster id
    NNNNNNNN.json               one backup: when, of which state, and the pieces that make up the database image, in order
    NNNNNNNN.pack               the pieces that backup NNNNNNNN brought: zlib-compressed, one after the other

The image is a snapshot of the database, cut into pieces of 16 KiB. A piece is named by its BLAKE3 and stored once, so a backup after
the first writes what has changed. A pack is durable before the manifest that names it appears, so a backup that was
interrupted leaves nothing but a pack that the next one overwrites. Every piece is verified when it is read.

A namespace that was brought back knows nothing of what came after its backup, while DataNodes still hold those blocks. So
`restore` moves every id counter far ahead (no id is ever given twice), and notes where block ids begin anew: replicas of
unknown blocks below are left alone instead of being deleted as orphans (`is_spared`), until `spare_no_more`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ..common import disk
from ..common.checksum import digest_of
from ..common.errors import DiskFull, InvalidConfig, StoreDamaged, StoreError, StoreTooNew
from ..common.runtime import format_time
from ..common.sqlite import database_error
from .store import migrate
from .store.base import Transaction
from .store.sqlite import alone_with

FORMAT = 1
PIECE_BYTES = 16 * 1024  # four pages: what changes is scattered
DATABASE = "namespace.db"
# How far the counters are moved: more than was ever given out after a backup, far less than there is.
ID_LEAP = 1 << 40
SPARED = "restored_end_block"

Progress = Callable[[int, int], None]


class Piece(NamedTuple):
    """Where a piece of the image lies: which pack, and which bytes of it (compressed)."""

    digest: str
    pack: int
    offset: int
    length: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One backup."""

    format: int
    number: int
    made_ms: int
    cluster_id: str
    version: int  # of the schema
    last_event: int  # offset of the newest event that it contains
    size_bytes: int  # of the image
    digest: str  # BLAKE3 over the pieces' digests, joined
    new_bytes: int  # what this backup added to the repository
    pieces: list[Piece]


_manifests = msgspec.json.Decoder(Manifest)


def backup(
    folder: Path, repository: Path, *, now_ms: int, progress: Progress | None = None
) -> Manifest:
    """Take a backup of the namespace in *folder* into *repository* (made if it is not there).

    Consistent, and the NameNode may go on working: it sees one reader. Raises InvalidConfig if there is no
    namespace or the repository is of another cluster, DiskFull, StoreDamaged, StoreError.
    """
    database = folder / DATABASE
    if not database.is_file():
        raise InvalidConfig(f"there is no namespace in {folder}: {database} is missing")
    try:
        repository.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _alone(repository):
            return _backup(database, repository, now_ms, progress)
    except OSError as error:
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            raise DiskFull(f"no space left for the backup in {repository}") from None
        raise StoreError(f"can't write the backup to {repository}: {error.strerror}") from None


def _backup(database: Path, repository: Path, now_ms: int, progress: Progress | None) -> Manifest:
    image = repository / "image.tmp"
    try:
        _snapshot(database, image)
        facts = _facts_of(image)
        known = list(manifests(repository))
        _check_cluster(repository, facts["cluster_id"])
        number = known[-1].number + 1 if known else 1
        stored = {piece.digest: piece for manifest in known for piece in manifest.pieces}
        pieces, new_bytes = _pack(image, repository, number, stored, progress)
        manifest = Manifest(
            format=FORMAT,
            number=number,
            made_ms=now_ms,
            size_bytes=image.stat().st_size,
            digest=_digest_of(pieces),
            new_bytes=new_bytes,
            pieces=pieces,
            **facts,
        )
        _write(repository / f"{number:08}.json", msgspec.json.encode(manifest))
        return manifest
    finally:
        for path in (image, Path(f"{image}-wal"), Path(f"{image}-shm"), Path(f"{image}-journal")):
            path.unlink(missing_ok=True)


def _snapshot(database: Path, image: Path) -> None:
    """A copy of the database as it is at one moment."""
    image.unlink(missing_ok=True)
    try:
        source = sqlite3.connect(f"file:{database}?mode=rw", uri=True, isolation_level=None)
        target = sqlite3.connect(image, isolation_level=None)
        try:
            target.execute("PRAGMA synchronous = OFF")  # a copy to be read once
            source.execute("PRAGMA query_only = ON")
            # In one step: a reader's snapshot, which other connections' commits do not disturb.
            source.backup(target, pages=-1)
        finally:
            target.close()
            source.close()
    except sqlite3.Error as error:
        raise database_error(error, database) from error


def _facts_of(image: Path) -> dict[str, Any]:
    connection = sqlite3.connect(image, isolation_level=None)
    try:
        meta = dict(connection.execute("SELECT name, value FROM meta"))
        (last,) = connection.execute("SELECT COALESCE(MAX(event_offset), 0) FROM events").fetchone()
    except sqlite3.Error as error:
        raise database_error(error, image) from error
    finally:
        connection.close()
    return {
        "cluster_id": meta["cluster_id"],
        "version": int(meta["format_version"]),
        "last_event": last,
    }


def _check_cluster(repository: Path, cluster_id: str) -> None:
    file = repository / "repository.json"
    if not file.exists():
        _write(file, json.dumps({"format": FORMAT, "cluster_id": cluster_id}).encode())
    found = json.loads(file.read_bytes())
    if found["format"] > FORMAT:
        raise StoreTooNew(f"the repository {repository} was written by a newer TwinFS")
    if found["cluster_id"] != cluster_id:
        raise InvalidConfig(
            f"the repository {repository} has backups of the cluster {found['cluster_id']}; "
            f"this is {cluster_id}: give it a directory of its own"
        )


def _pack(
    image: Path,
    repository: Path,
    number: int,
    stored: dict[str, Piece],
    progress: Progress | None,
) -> tuple[list[Piece], int]:
    """Store what of *image* is not stored yet; (all pieces of the image, bytes written)."""
    pieces: list[Piece] = []
    size_bytes, offset = image.stat().st_size, 0
    with image.open("rb") as source, (repository / f"{number:08}.pack").open("wb") as pack:
        while data := source.read(PIECE_BYTES):
            digest = digest_of(data).hex()
            piece = stored.get(digest)
            if piece is None:
                packed = zlib.compress(data, 1)
                pack.write(packed)
                piece = stored[digest] = Piece(digest, number, offset, len(packed))
                offset += len(packed)
            pieces.append(piece)
            if progress is not None:
                progress(len(pieces) * PIECE_BYTES, size_bytes)
        pack.flush()
        disk.fsync(pack.fileno(), "backup.sync")
    return pieces, offset


def _digest_of(pieces: list[Piece]) -> str:
    return digest_of(b"".join(bytes.fromhex(piece.digest) for piece in pieces)).hex()


# --- looking, thinning out ---


def manifests(repository: Path) -> Iterator[Manifest]:
    """The backups in *repository*, oldest first. StoreDamaged if one can't be read."""
    for path in sorted(repository.glob("[0-9]*.json")):
        try:
            found = _manifests.decode(path.read_bytes())
        except (OSError, msgspec.DecodeError) as error:
            raise StoreDamaged(f"the backup {path} can't be read: {error}") from None
        if found.format > FORMAT:
            raise StoreTooNew(f"the backup {path} was made by a newer TwinFS")
        yield found


def verify(repository: Path, manifest: Manifest) -> None:
    """Read everything a backup is made of. StoreDamaged if anything is missing or changed."""
    for _ in _pieces(repository, manifest):
        pass


def prune(repository: Path, keep: int) -> list[int]:
    """Forget all but the newest *keep* backups, and packs that none of those needs; the numbers that went."""
    with _alone(repository):
        found = list(manifests(repository))
        gone, left = found[: max(0, len(found) - keep)], found[max(0, len(found) - keep) :]
        for manifest in gone:
            (repository / f"{manifest.number:08}.json").unlink()
        needed = {piece.pack for manifest in left for piece in manifest.pieces}
        for path in repository.glob("[0-9]*.pack"):
            if int(path.stem) not in needed:
                path.unlink()
        return [manifest.number for manifest in gone]


def choose(repository: Path, number: int | None) -> Manifest:
    """Backup *number*, or the newest. InvalidConfig if it is not there."""
    found = list(manifests(repository)) if repository.is_dir() else []
    if not found:
        raise InvalidConfig(f"there is no backup in {repository}")
    if number is None:
        return found[-1]
    for manifest in found:
        if manifest.number == number:
            return manifest
    raise InvalidConfig(f"there is no backup {number} in {repository}")


# --- bringing one back ---


def restore(
    repository: Path, manifest: Manifest, folder: Path, *, progress: Progress | None = None
) -> None:
    """Make the namespace of *manifest* in *folder*, where there must be none.

    Verified piece by piece and by SQLite's own check before it gets its name. Raises InvalidConfig, StoreDamaged, StoreTooNew, DiskFull.
    """
    migrate.check_version(manifest.version, str(repository))
    target = folder / DATABASE
    if target.exists():
        raise InvalidConfig(f"{target} is there: restore into a new directory, or move it away")
    temporary = folder / f"{DATABASE}.restoring"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        done = 0
        with temporary.open("wb") as file:
            for data in _pieces(repository, manifest):
                file.write(data)
                done += len(data)
                if progress is not None:
                    progress(done, manifest.size_bytes)
            file.truncate(manifest.size_bytes)
        _leap(temporary)
        with temporary.open("rb") as file:
            disk.fsync(file.fileno(), "restore.sync")
        disk.rename(temporary, target, "restore.rename")
        disk.fsync_directory(folder, "restore.folder")
    except OSError as error:
        if error.errno in (28, 122):
            raise DiskFull(f"no space left for the namespace in {folder}") from None
        raise StoreError(f"can't restore to {folder}: {error.strerror}") from None
    finally:
        for path in (temporary, Path(f"{temporary}-journal"), Path(f"{temporary}-wal")):
            path.unlink(missing_ok=True)


def _leap(path: Path) -> None:
    """Check the database, move its counters ahead, and note the block ids between."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = DELETE")
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StoreDamaged(f"the backup holds a damaged database: {verdict}")
        connection.execute("BEGIN")
        (block,) = connection.execute("SELECT next FROM counters WHERE name = 'block'").fetchone()
        connection.execute(
            "UPDATE counters SET next = next + ? WHERE name IN ('inode', 'block', 'generation')",
            (ID_LEAP,),
        )
        connection.execute(
            "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)",
            (SPARED, str(block + ID_LEAP)),
        )
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise database_error(error, path) from error
    finally:
        connection.close()


def _pieces(repository: Path, manifest: Manifest) -> Iterator[bytes]:
    if _digest_of(manifest.pieces) != manifest.digest:
        raise StoreDamaged(f"the list of pieces of backup {manifest.number} was changed")
    packs: dict[int, Any] = {}
    with contextlib.ExitStack() as stack:
        for piece in manifest.pieces:
            if piece.pack not in packs:
                path = repository / f"{piece.pack:08}.pack"
                try:
                    packs[piece.pack] = stack.enter_context(path.open("rb"))
                except OSError as error:
                    raise StoreDamaged(f"{path} can't be read: {error.strerror}") from None
            packs[piece.pack].seek(piece.offset)
            try:
                data = zlib.decompressobj().decompress(
                    packs[piece.pack].read(piece.length), PIECE_BYTES
                )
            except (OSError, zlib.error):
                data = b""
            if digest_of(data).hex() != piece.digest:
                raise StoreDamaged(
                    f"a piece of backup {manifest.number}, in {piece.pack:08}.pack at {piece.offset}, is damaged"
                )
            yield data


def is_spared(tx: Transaction, block_id: int) -> bool:
    """Whether a block that no file knows may have been written after the backup that this namespace came from."""
    row = tx.one("SELECT value FROM meta WHERE name = ?", (SPARED,))
    return row is not None and block_id < int(row[0])


def spare_no_more(folder: Path) -> bool:
    """Let the blocks go that no file knows since the restore; whether there were any to spare. The NameNode must be stopped."""
    database = folder / DATABASE
    if not database.is_file():
        raise InvalidConfig(f"there is no namespace in {folder}: {database} is missing")
    with alone_with(database):
        connection = sqlite3.connect(database, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            done = connection.execute("DELETE FROM meta WHERE name = ?", (SPARED,))
            if done.rowcount:
                # Writers from before the restore are gone, too.
                connection.execute(
                    "DELETE FROM allocations WHERE last_block_id < "
                    "(SELECT next - ? FROM counters WHERE name = 'block')",
                    (ID_LEAP // 2,),
                )
            connection.execute("COMMIT")
            return done.rowcount > 0
        except sqlite3.Error as error:
            raise database_error(error, database) from error
        finally:
            connection.close()


# --- files ---


@contextlib.contextmanager
def _alone(repository: Path) -> Iterator[None]:
    """One backup or pruning at a time."""
    descriptor = os.open(repository / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(f"another backup into {repository} is under way") from None
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        disk.fsync(file.fileno(), "backup.sync")
    disk.rename(temporary, path, "backup.rename")
    disk.fsync_directory(path.parent, "backup.folder")


def described(manifest: Manifest) -> str:
    """One line for people."""
    return (
        f"backup {manifest.number} of {format_time(manifest.made_ms)}: namespace of "
        f"{manifest.size_bytes:,} bytes up to event {manifest.last_event}, {manifest.new_bytes:,} bytes new"
    )

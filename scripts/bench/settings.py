"""What every group of rows is told."""

from __future__ import annotations

import os
import random
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1024 * 1024


@dataclass
class Settings:
    """*folder* is on the disk that is measured; everything in it goes at the end."""

    folder: Path
    runs: int = 3
    seed: int = 1
    large_bytes: int = 1024 * MIB
    small_files: int = 10_000
    small_bytes: int = 4096
    scale_files: int = 1_000_000
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def large_file(self) -> Path:
        """Bytes that don't repeat, durable and in the page cache."""
        path = self.folder / "large.bin"
        if not path.exists():
            with path.open("wb") as file:
                for _ in range(self.large_bytes // (16 * MIB)):
                    file.write(self.rng.randbytes(16 * MIB))
                file.flush()
                os.fsync(file.fileno())
        return path

    def small_tree(self) -> Path:
        """`small_files` files in folders of 1,000."""
        tree = self.folder / "tree"
        if not tree.exists():
            for number in range(self.small_files):
                folder = tree / f"d{number // 1000:03d}"
                if number % 1000 == 0:
                    folder.mkdir(parents=True)
                (folder / f"f{number:06d}").write_bytes(self.rng.randbytes(self.small_bytes))
        return tree

    def fresh(self, name: str) -> Path:
        """A new folder."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))

"""`twinfs.datanode` with the bug that PLANTED_BUG names."""

from __future__ import annotations

from . import plant

plant()

from twinfs.datanode.__main__ import main  # noqa: E402

if __name__ == "__main__":
    main()

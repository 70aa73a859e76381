"""Whom a volume belongs to, when several NameNodes say so at the same time."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from twinfs.datanode.volumes import Volume


def test_several_may_identify_a_volume_at_once(tmp_path: Path) -> None:
    """Registrations with two NameNodes of one cluster are answered together."""
    volume = Volume(tmp_path / "volume", reserved_bytes=0)
    try:
        with ThreadPoolExecutor(8) as threads:
            for node_id in range(1, 30):
                done = [
                    threads.submit(volume.identify, node_uuid="u", cluster_id="c", node_id=node_id)
                    for _ in range(8)
                ]
                for future in done:
                    future.result()
        found = json.loads((tmp_path / "volume" / "VERSION").read_text())
        assert (found["cluster_id"], found["node_id"]) == ("c", 29)
    finally:
        volume.close()

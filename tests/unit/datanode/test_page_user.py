"""For whom, and through which NameNodes, a DataNode acts when a page of the dashboard sends it bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinfs.common.config import DataNodeConfig
from twinfs.common.errors import Unavailable
from twinfs.common.runtime import ManualClock
from twinfs.datanode.api.web import WebApi


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ((), "http://127.0.0.1:9870"),  # where a DataNode registers that was told of none
        (("http://a:1", "http://b:1"), "http://a:1,http://b:1"),
    ],
)
async def test_it_asks_the_namenodes_it_registers_with(
    tmp_path: Path, given: tuple[str, ...], found: str
) -> None:
    config = DataNodeConfig(dir=(str(tmp_path),), namenode=given)
    pages = WebApi(config, ManualClock(), page_keys=lambda: [], facts=dict)
    async with pages.acting_as("ann") as fs:
        assert (fs.config.namenode, fs.config.user) == (found, "ann")


async def test_a_plain_peer_has_none_to_ask(tmp_path: Path) -> None:
    config = DataNodeConfig(dir=(str(tmp_path),), bootstrap=("none",))
    pages = WebApi(config, ManualClock(), page_keys=lambda: [], facts=dict)
    with pytest.raises(Unavailable):
        async with pages.acting_as("ann"):
            pass

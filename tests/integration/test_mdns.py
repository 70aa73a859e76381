"""Peers that find each other on the local network, with no address given to either."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from twinfs.common.errors import InvalidConfig

from ..support.cluster import eventually
from .peers_help import Peers


@pytest_asyncio.fixture
async def peers(tmp_path: Path) -> AsyncIterator[Peers]:
    found = Peers(tmp_path)
    try:
        yield found
    finally:
        await found.close()


async def test_peers_find_each_other_by_mdns(peers: Peers) -> None:
    try:
        first, second = await peers.grow(2, mdns=True, alone=True)
    except InvalidConfig as error:
        if "mDNS does not work" in error.message:
            pytest.skip(f"this machine's loopback has no multicast: {error.message}")
        raise

    async def met() -> bool:
        return second.id in first.service.node.table and first.id in second.service.node.table

    await eventually(met, "that they met", 30.0)

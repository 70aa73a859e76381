"""Who has to wait for a NameNode hears of it, once."""

from __future__ import annotations

import logging

import pytest

from twinfs.client.http_namenode import HttpNameNode
from twinfs.client.namenode_api import RpcNameNode
from twinfs.common.errors import Unavailable
from twinfs.common.messages import GetServerInfo

NOBODY = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinfs.common.retry.PATIENCE_S", 0.0)


def test_a_command_says_that_it_waits(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(Unavailable):
        HttpNameNode(NOBODY, user="root", retry_s=0.3).call("server_info", GetServerInfo())
    (line,) = caplog.messages
    assert line == f"can't reach the NameNode at {NOBODY}: Connection refused; trying for 0 s more"


async def test_a_session_says_that_it_waits(caplog: pytest.LogCaptureFixture) -> None:
    namenode = RpcNameNode([NOBODY], user="root", retry_s=0.3)
    with caplog.at_level(logging.WARNING), pytest.raises(Unavailable):
        await namenode.call("server_info", GetServerInfo())
    await namenode.close()
    (line,) = caplog.messages
    assert line.startswith(f"can't reach the NameNode at {NOBODY}: ")
    assert line.endswith("; trying for 0 s more")

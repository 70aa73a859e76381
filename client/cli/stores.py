"""Where commands on content find it: in the cluster, or on a peer. Both have the same face."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from .content import with_filesystem
from .support import Shell


def with_content(shell: Shell, work: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Run *work* with the `ContentApi` of the cluster, or the `PeerContent` of the peer that was named."""
    if not shell.on_peer:
        with_filesystem(shell, lambda fs: work(fs.content))
        return
    from ..peer_content import PeerContent

    async def run() -> None:
        async with PeerContent(shell.peer()) as content:
            await work(content)

    asyncio.run(run())

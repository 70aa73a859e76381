"""Who has a CID block, by asking delegated routers: NameNodes, peers, other people's."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Sequence

import aiohttp

from ..common.ipld.cid import Cid
from ..common.routing_v1 import JSON, peer_of

log = logging.getLogger(__name__)
MAX_BYTES = 1024 * 1024
LIMIT_S = 10.0


class RoutingFinder:
    """The exchange's finder over `/routing/v1/providers`. *without*: base URLs that are ourselves."""

    def __init__(self, routers: Sequence[str], *, without: Sequence[str] = ()) -> None:
        self._routers = [router.rstrip("/") for router in routers]
        self._without = set(without)
        self._session: aiohttp.ClientSession | None = None

    async def providers(self, cid: Cid) -> AsyncIterator[str]:
        """Base URLs; nothing where no router answers."""
        seen = set(self._without)
        for router in self._routers:
            found = False
            for url in await self._ask(router, cid):
                found = True
                if url not in seen:
                    seen.add(url)
                    yield url
            if found:
                return  # the others of a cluster would say the same

    async def _ask(self, router: str, cid: Cid) -> list[str]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=LIMIT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept": JSON},
            )
        try:
            async with self._session.get(
                f"{router}/routing/v1/providers/{cid}", allow_redirects=False
            ) as answer:
                if answer.status != 200:
                    return []
                body = bytearray()
                async for piece in answer.content.iter_any():
                    body += piece
                    if len(body) > MAX_BYTES:
                        answer.close()
                        return []
            records = json.loads(body)["Providers"]
            known = [peer_of(record) for record in records[:256]]
        except (
            aiohttp.ClientError,
            OSError,
            ValueError,
            KeyError,
            TypeError,
            RecursionError,
        ) as error:
            log.info("the router %s gives no providers: %s", router, error)
            return []
        except TimeoutError:
            return []
        return [url for found in known if found for url in found[1]]

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

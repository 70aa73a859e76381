"""Which targets events are pushed to just now: those of the table of webhooks, and the configured sinks.

One NameNode of several does it (the job "push"); each target's offset is in its group's row, so any other can go on.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

from ..common.config import NameNodeConfig
from ..common.errors import DfsError, PermissionDenied
from ..common.follow import DeadLetters, GetDeadLetters, GetWebhooks, Webhooks
from ..common.metrics import Counts
from ..common.runtime import Clock, to_next_tick_s
from . import sinks, webhooks
from .permissions import Caller
from .push import Patience, Pusher, Pushers, Refused
from .store.base import MetadataStore
from .tail import Tail
from .webhooks import Hook, HookLetters, HttpTarget

log = logging.getLogger(__name__)
LOOK_S: Final = 2.0
RETRIED_AT_ONCE: Final = 100


class Pushing:
    """Keeps the loops in step with what is configured."""

    def __init__(
        self,
        config: NameNodeConfig,
        store: MetadataStore,
        tail: Tail,
        clock: Clock,
        rng: random.Random,
        cluster_id: str,
        holds: Callable[[str], Awaitable[bool]],
    ) -> None:
        """InvalidConfig for a sink that can't be. *holds* takes or renews the lease of a job."""
        self._store = store
        self._tail = tail
        self._clock = clock
        self._rng = rng
        self._cluster_id = cluster_id
        self._holds = holds
        self._patience = Patience(attempts=config.webhook_attempts, base_s=config.webhook_backoff_s)
        self._places = [sinks.parse(url) for url in config.event_sinks]
        for place in self._places:
            sinks.make(place, cluster_id)  # says now if the client is missing
        self._pushers = Pushers()
        self.outcomes = Counts()
        self._running: dict[str, int] = {}  # group -> which version of its webhook

    def handlers(self) -> dict[str, Callable[[Caller, Any], Any]]:
        return {"webhooks": self.list, "dead_letters": self.dead}

    def lags(self) -> dict[str, int]:
        """How many events each target is behind."""
        return self._pushers.lags(self._tail.last)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                try:
                    if await self._holds("push"):
                        await self._step()
                    else:
                        self._running.clear()
                        await self._pushers.close()
                except DfsError as error:
                    log.warning("pushing events has to wait: %s", error)
                except Exception:
                    log.exception("pushing events failed; it is tried again")
                await asyncio.sleep(to_next_tick_s(self._clock.monotonic_s(), LOOK_S))
        finally:
            await self._pushers.close()

    async def _step(self) -> None:
        hooks = [hook for hook in await self._store.read(webhooks.all_hooks) if not hook.paused]
        wanted = {hook.group: hook.created_ms for hook in hooks}
        wanted |= {place.group: 0 for place in self._places}
        for group in list(self._running):
            if wanted.get(group) != self._running[group]:
                del self._running[group]
                await self._pushers.stop(group)
        for hook in hooks:
            if hook.group not in self._running:
                self._running[hook.group] = hook.created_ms
                self._pushers.start(self._hook(hook))
        for place in self._places:
            if place.group not in self._running:
                self._running[place.group] = 0
                target = sinks.make(place, self._cluster_id)
                self._pushers.start(
                    Pusher(
                        place.group,
                        target,
                        self._tail,
                        self._store,
                        self._clock,
                        self._rng,
                        Patience(attempts=0),
                        outcomes=self.outcomes,
                    )
                )
        for hook in hooks:
            await self._retry(hook)

    def _hook(self, hook: Hook) -> Pusher:
        return Pusher(
            hook.group,
            HttpTarget(hook, self._cluster_id, self._clock),
            self._tail,
            self._store,
            self._clock,
            self._rng,
            self._patience,
            prefix=hook.path_prefix,
            kinds=hook.kinds,
            letters=HookLetters(hook.name, self._store, self._clock),
            outcomes=self.outcomes,
        )

    async def _retry(self, hook: Hook) -> None:
        """Send dead letters that somebody wants sent once more; the first that fails ends it, and is dead again."""
        name = hook.name
        entries = await self._store.read(lambda tx: webhooks.to_retry(tx, name, RETRIED_AT_ONCE))
        if not entries:
            return
        target = HttpTarget(hook, self._cluster_id, self._clock)
        letters = HookLetters(name, self._store, self._clock)
        try:
            for entry in entries:
                try:
                    await target.send([entry])
                except Refused as refused:
                    await letters.bury(entry, 1, refused.reason)
                    return
                offset = entry.event.offset
                await self._store.run(
                    lambda tx, offset=offset: webhooks.settled(tx, name, offset)  # type: ignore[misc]
                )
        finally:
            await target.close()

    # --- answers ---

    async def list(self, caller: Caller, request: GetWebhooks) -> Webhooks:
        if not caller.superuser:
            raise PermissionDenied("webhooks are for superusers")
        last = self._tail.last
        found = await self._store.read(lambda tx: webhooks.list_hooks(tx, last))
        return Webhooks(webhooks=found)

    async def dead(self, caller: Caller, request: GetDeadLetters) -> DeadLetters:
        if not caller.superuser:
            raise PermissionDenied("webhooks are for superusers")
        return await self._store.read(lambda tx: webhooks.dead_letters(tx, request))

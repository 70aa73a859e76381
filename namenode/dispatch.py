"""From the name of an operation to what carries it out. Both transports share everything here."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import pwd
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ..common import codec
from ..common.codec import failure_of, pack
from ..common.config import NameNodeConfig
from ..common.errors import (
    DfsError,
    InternalError,
    InvalidRequest,
    LeaseConflict,
    PermissionDenied,
    UnknownOperation,
)
from ..common.follow import CommitOffset
from ..common.messages import (
    Append,
    Call,
    Create,
    Done,
    Recovered,
    Stat,
)
from ..common.model import FileStatus, Struct
from ..common.operations import OPERATIONS, Operation
from ..common.paths import shown
from ..common.runtime import Clock, new_uuid
from . import contents, groups, health, leases, pins, providers, webhooks
from .datanodes import DataNodes
from .history import Hot
from .leases import Recovery, WriteRules
from .namespace import access, attributes, files, linking, tree, undo, whole
from .namespace.walk import walk
from .permissions import Caller
from .safemode import SafeModeGate
from .silence import Silence
from .store import superuser_of
from .store.base import MetadataStore, ReplySink, RequestId, Transaction

log = logging.getLogger(__name__)
Read = Callable[[Transaction, Caller, Any], Struct]
Write = Callable[..., Any]
Special = Callable[[Caller, Any], Any]

TRUE_REPLY = b"\xc3"
DONE = pack(Done())
GROUP_MEMORY_S = 300.0
# Mutations after whose commit there is more to do.
FOLLOWED = frozenset({"set_replication", "recover_lease"})
# Those that may find a file whose writer is gone in their way.
TAKING = frozenset({"create", "append"})


class Effects:
    """What is to happen once a mutation is committed."""

    def __init__(self) -> None:
        self.blocks: list[int] = []
        self.recoveries: list[Recovery] = []


class Dispatcher:
    """Runs operations for callers."""

    def __init__(
        self,
        config: NameNodeConfig,
        store: MetadataStore,
        nodes: DataNodes,
        clock: Clock,
        gate: SafeModeGate,
        *,
        consider: Callable[[Sequence[int]], None],
        recover: Callable[[Sequence[Recovery]], None],
        silence: Silence,
    ) -> None:
        """*consider* gets blocks whose replication may be off, *recover* blocks that lost their writer."""
        self._silence = silence
        self.store = store
        self._nodes = nodes
        self._clock = clock
        self._gate = gate
        self._consider = consider
        self._recover = recover
        self._superuser = superuser_of(config)
        self._supergroup = config.supergroup
        self._callers: dict[tuple[str, str], tuple[float, Caller]] = {}
        self._rules = WriteRules.of(config)
        self._grouping = {"restricted": config.event_readers == "superusers"}
        self._reads: dict[str, Read] = self._read_table()
        self._writes: dict[str, Write] = self._write_table()
        self.specials: dict[str, Special] = {}
        self.hot: Hot | None = None  # where samples of paths go
        self.count_failure: Callable[[DfsError], None] = lambda error: None  # of a frame's reads

    def _read_table(self) -> dict[str, Read]:
        nodes = self._nodes
        return {
            "stat": tree.stat,
            "stat_many": tree.stat_many,
            "list": lambda tx, c, r: tree.list_directory(tx, c, r, nodes=nodes),
            "summarize": tree.summarize,
            "locate": lambda tx, c, r: tree.locate(tx, c, r, nodes=nodes),
            "locate_many": lambda tx, c, r: tree.locate_many(tx, c, r, nodes=nodes),
            "get_xattrs": attributes.get_xattrs,
            "get_acl": access.get_acl,
            "check_access": access.check_access,
            "path_cids": providers.path_cids,
            "find_cids": lambda tx, c, r: providers.find(tx, c, r, nodes=nodes),
            "find_blocks": lambda tx, c, r: providers.find_blocks(tx, c, r, nodes=nodes),
            "list_pins": pins.listed,
            "list_contents": lambda tx, c, r: providers.page(tx, c, r, nodes=nodes),
            "content_totals": providers.totals,
            "check": lambda tx, c, r: health.check(tx, c, r, nodes=nodes),
        }

    def _write_table(self) -> dict[str, Write]:
        rules = {"rules": self._rules}
        placed = {**rules, "placer": self._nodes}
        located = {**placed, "nodes": self._nodes}

        def plain(function: Any, more: dict[str, Any] | None = None) -> Write:
            more = more or {}

            def call(tx: Transaction, caller: Caller, request: Any, now_ms: int, _: Effects) -> Any:
                return function(tx, caller, request, now_ms=now_ms, **more)

            return call

        def set_replication(
            tx: Transaction, caller: Caller, request: Any, now_ms: int, effects: Effects
        ) -> Struct:
            effects.blocks = attributes.set_replication(tx, caller, request, now_ms=now_ms)
            return attributes.kept_by_others(tx, request.path, request.replication)

        def recover_lease(
            tx: Transaction, caller: Caller, request: Any, now_ms: int, effects: Effects
        ) -> Recovered:
            answer, effects.recoveries = leases.recover_lease(tx, caller, request, now_ms=now_ms)
            return answer

        return {
            "mkdirs": plain(tree.mkdirs),
            "mkdirs_many": plain(tree.mkdirs_many),
            "create": plain(files.create, rules),
            "add_block": plain(files.add_block, placed),
            "abandon_block": plain(files.abandon_block),
            "update_pipeline": plain(files.update_pipeline, located),
            "sync": plain(files.sync, rules),
            "complete": plain(files.complete, rules),
            "append": plain(files.append, located),
            "cancel_append": plain(undo.cancel_append),
            "truncate": plain(files.truncate, located),
            "allocate": plain(whole.allocate, placed),
            "put_files": plain(whole.put_files, rules),
            "rename": plain(tree.rename),
            "rename_all": plain(tree.rename_all),
            "delete": plain(tree.delete),
            "delete_many": plain(tree.delete_many),
            "move_to_trash": plain(tree.move_to_trash),
            "concat": plain(whole.concat, rules),
            "copy": plain(whole.copy, rules),
            "link_file": plain(linking.link_file, rules),
            "set_dag": plain(providers.set_dag, rules),
            "cache_cid": plain(providers.cache_cid),
            "begin_add": plain(contents.begin_add),
            "end_add": plain(contents.end_add),
            "have_contents": plain(contents.have, rules),
            "put_contents": plain(contents.put, rules),
            "pin_add": plain(pins.add),
            "pin_remove": plain(pins.remove),
            "collect": plain(contents.collect),
            "set_replication": set_replication,
            "set_mode": plain(attributes.set_mode),
            "set_owner": plain(attributes.set_owner),
            "set_times": plain(attributes.set_times),
            "set_xattr": plain(attributes.set_xattr),
            "remove_xattr": plain(attributes.remove_xattr),
            "set_quota": plain(attributes.set_quota),
            "set_acl": plain(access.set_acl),
            "modify_acl": plain(access.modify_acl),
            "remove_acl_entries": plain(access.remove_acl_entries),
            "remove_acl": plain(access.remove_acl),
            "renew_lease": plain(leases.renew_lease),
            "commit_offset": plain(groups.commit_offset, self._grouping),
            "delete_group": plain(groups.delete_group, self._grouping),
            "add_webhook": plain(webhooks.add),
            "delete_webhook": plain(webhooks.delete),
            "pause_webhook": plain(webhooks.pause),
            "settle_dead_letters": plain(webhooks.settle),
            "recover_lease": recover_lease,
        }

    # --- callers ---

    async def caller(self, user: str, host: str) -> Caller:
        """Who *user* is: groups come from the operating system, as in HDFS's simple mode."""
        user = user or "dr.who"  # HDFS's name for somebody who gave none
        now_s = self._clock.monotonic_s()
        known = self._callers.get((user, host))
        if known is not None and known[0] > now_s:
            return known[1]
        if len(user) > 255 or "/" in user or not user.isprintable():
            raise InvalidRequest(f"{shown(user)} is no user name")
        groups = await asyncio.to_thread(_groups_of, user)
        caller = Caller(
            user=user,
            groups=groups,
            superuser=user == self._superuser or self._supergroup in groups,
            host=host,
        )
        if len(self._callers) > 10_000:
            self._callers.clear()
        self._callers[(user, host)] = (now_s + GROUP_MEMORY_S, caller)
        return caller

    def now_ms(self) -> int:
        return self._clock.wall_ms()

    def impersonate(self, caller: Caller, user: str) -> None:
        """Raise unless *caller* may act as *user*."""
        if not caller.superuser and user != caller.user:
            raise PermissionDenied(f"User: {caller.user} is not allowed to impersonate {user}")

    # --- operations ---

    @staticmethod
    def operation(name: str) -> Operation:
        found = OPERATIONS.get(name)
        if found is None:
            raise UnknownOperation(f"there is no operation {shown(name)}")
        return found

    def is_read(self, name: str) -> bool:
        return name in self._reads

    def read(self, caller: Caller, name: str, request: Any) -> Callable[[Transaction], Struct]:
        """A reading operation, to be given to the store."""
        function = self._reads[name]
        return lambda tx: function(tx, caller, request)

    def read_frame(self, caller: Caller, calls: Sequence[Call]) -> Callable[[Transaction], bytes]:
        """All reading calls of a frame on one snapshot; the encoded replies, joined. Runs in the store's thread."""
        reads = self._reads

        def run(tx: Transaction) -> bytes:
            stats = self._stat_together(tx, caller, calls) if len(calls) > 1 else {}
            replies = []
            for call in calls:
                try:
                    answer: Any = stats.get(call.call_id)
                    if answer is None:
                        request = codec.unpack(call.request, OPERATIONS[call.operation].request)
                        answer = reads[call.operation](tx, caller, request)
                    elif isinstance(answer, DfsError):
                        raise answer
                    reply: Any = (call.call_id, True, answer)
                except Exception as error:
                    failed, reference = described(error, call.operation)
                    self.count_failure(failed)
                    reply = (call.call_id, False, failure_of(failed, reference))
                replies.append(pack(reply))
            return b"".join(replies)

        return run

    @staticmethod
    def _stat_together(
        tx: Transaction, caller: Caller, calls: Sequence[Call]
    ) -> dict[int, FileStatus | DfsError]:
        """The stats among *calls* by their ids: what clients ask for most is looked up at once."""
        ids: list[int] = []
        paths: list[str] = []
        for call in calls:
            if call.operation == "stat":
                # A malformed one is refused when its turn comes.
                with contextlib.suppress(DfsError):
                    paths.append(codec.unpack(call.request, Stat).path)
                    ids.append(call.call_id)
        return dict(zip(ids, tree.stat_each(tx, caller, paths), strict=True)) if paths else {}

    def write(
        self, caller: Caller, name: str, request: Any, request_id: RequestId, *, resent: bool
    ) -> asyncio.Future[bytes]:
        """Start a mutation. Its answer is encoded; *request* is a struct, or msgpack of it."""
        effects = Effects()
        operation = self._mutation(caller, name, request, effects, resent)
        future = self.store.submit_answer(operation, request_id, resent=resent)

        def after(done: asyncio.Future[bytes]) -> None:
            if done.cancelled():
                return
            error = done.exception()
            if error is None:
                if effects.blocks:
                    self._consider(effects.blocks)
                if effects.recoveries:
                    self._recover(effects.recoveries)
            else:
                self.refused(caller, name, request, error)

        if name in FOLLOWED or name in TAKING:
            future.add_done_callback(after)
        return future

    async def commit_offset(self, caller: Caller, request: CommitOffset) -> None:
        """For a consumer that follows the stream over a connection of its own."""
        now_ms = self._clock.wall_ms()
        more = self._grouping
        await self.store.run(
            lambda tx: groups.commit_offset(tx, caller, request, now_ms=now_ms, **more)
        )

    def refused(self, caller: Caller, name: str, request: Any, error: BaseException) -> None:
        """To be called when a mutation given to `write_to` was refused."""
        if name in TAKING and isinstance(error, LeaseConflict):
            self._take_over(caller, request, OPERATIONS[name].request)

    def write_to(
        self,
        sink: ReplySink,
        caller: Caller,
        name: str,
        request: msgspec.Raw,
        request_id: RequestId,
        *,
        resent: bool,
    ) -> None:
        """As `write`; the outcome goes to *sink*, together with others'."""
        operation = self._mutation(caller, name, request, Effects(), resent)
        self.store.submit_reply(operation, request_id, sink, resent=resent)

    def _mutation(
        self, caller: Caller, name: str, request: Any, effects: Effects, resent: bool
    ) -> Callable[[Transaction], bytes]:
        refusal = self._gate.refusal(name)
        if refusal is not None and not resent:
            raise refusal
        function = self._writes[name]
        kind = OPERATIONS[name].request
        now_ms = self._clock.wall_ms

        def operation(tx: Transaction) -> bytes:
            if refusal is not None:
                raise refusal  # only here: a resent request may have its answer recorded
            decoded = codec.unpack(request, kind) if isinstance(request, msgspec.Raw) else request
            answer = function(tx, caller, decoded, now_ms(), effects)
            return DONE if answer is None else pack(answer)

        return operation

    def _take_over(self, caller: Caller, request: Any, kind: type[Struct]) -> None:
        """A file whose writer is silent stands in somebody's way: begin to close it."""
        decoded = codec.unpack(request, kind) if isinstance(request, msgspec.Raw) else request
        assert isinstance(decoded, Create | Append)
        path, clock = decoded.path, self._clock
        limit_s = self._rules.lease_timeout_ms / 1000
        before_ms = self._silence.before_ms(limit_s, clock.wall_ms(), clock.monotonic_s())

        def begin(tx: Transaction) -> list[Recovery]:
            node = walk(tx, Caller(caller.user, superuser=True), path).node
            now_ms = clock.wall_ms()
            if node is None or not node.is_open or node.is_directory:
                return []
            found = leases.holder_of(tx, node.inode_id)
            if found is not None and (
                found[0] == leases.RECOVERY_HOLDER or before_ms is None or found[1] >= before_ms
            ):
                return []
            return leases.begin_recovery(tx, node, now_ms=now_ms)

        def send(done: asyncio.Future[list[Recovery]]) -> None:
            if not done.cancelled() and done.exception() is None and done.result():
                self._recover(done.result())

        self.store.submit(begin).add_done_callback(send)


def described(error: BaseException, operation: str) -> tuple[DfsError, str]:
    """*error* as a DfsError and a reference: ours are logged whole, and told without their inside."""
    if isinstance(error, DfsError):
        return error, ""
    reference = new_uuid()[:8]
    log.error("operation %s failed [%s]", operation, reference, exc_info=error)
    return InternalError(f"the NameNode failed to carry out {operation}"), reference


def _groups_of(user: str) -> frozenset[str]:
    try:
        account = pwd.getpwnam(user)
        ids = os.getgrouplist(user, account.pw_gid)
    except (KeyError, OSError, UnicodeError):
        return frozenset()
    names = set()
    for group_id in ids:
        try:
            names.add(grp.getgrgid(group_id).gr_name)
        except KeyError:
            continue
    return frozenset(names)

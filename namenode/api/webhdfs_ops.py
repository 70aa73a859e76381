"""The operations of WebHDFS that the NameNode answers itself. Each only translates; what an operation does is in `namespace/`."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ...common import codec, tokens
from ...common.access import (
    CheckAccess,
    GetAcl,
    ModifyAcl,
    RemoveAcl,
    RemoveAclEntries,
    SetAcl,
    parse_entries,
)
from ...common.errors import (
    DirectoryNotEmpty,
    InvalidMove,
    InvalidPath,
    InvalidRequest,
    IsADirectory,
    NotADirectory,
    PathExists,
    PathNotFound,
    Unsupported,
    XattrExists,
    XattrNotFound,
)
from ...common.messages import (
    Concat,
    Delete,
    DirectoryPage,
    GetReport,
    GetServerInfo,
    GetXattrs,
    ListDirectory,
    Locate,
    Mkdirs,
    RemoveXattr,
    Rename,
    SetMode,
    SetOwner,
    SetQuota,
    SetReplication,
    SetTimes,
    SetXattr,
    Stat,
    Summarize,
)
from ...common.model import Struct
from ...common.operations import OPERATIONS
from ...common.paths import join, parse, shown
from ...common.runtime import new_uuid
from ...common.webhdfs import JavaError, Parameters, user_name
from .. import tokens as token_store
from ..dispatch import Dispatcher
from ..permissions import Caller
from ..store.base import RequestId
from . import webhdfs_counts as counts
from . import webhdfs_json as j

QUOTA_UNCHANGED = 2**63 - 1  # HDFS's QUOTA_DONT_SET
PAGE = 1_000
OK: dict[str, Any] = {}  # answered by an empty body
SNAPSHOT_PARAMETERS = {
    "DELETESNAPSHOT": ("snapshotname",),
    "RENAMESNAPSHOT": ("oldsnapshotname", "snapshotname"),
}
Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """One request, its path unescaped and its user known."""

    dispatcher: Dispatcher
    caller: Caller
    path: str
    parameters: Parameters

    async def read(self, name: str, request: Struct) -> Any:
        dispatcher = self.dispatcher
        return await dispatcher.store.read(dispatcher.read(self.caller, name, request))

    async def list(self, after: str, *, remaining: bool = False) -> tuple[DirectoryPage, int]:
        """A page of the directory after a name; and how many entries follow it, if *remaining* is wanted."""
        request = ListDirectory(path=self.path, start_after=after, limit=PAGE)
        operation = counts.page(self.dispatcher, self.caller, request, remaining=remaining)
        return await self.dispatcher.store.read(operation)

    async def write(self, name: str, request: Struct) -> Any:
        given = RequestId(bytes.fromhex(new_uuid().replace("-", "")), 1)
        answer = await self.dispatcher.write(self.caller, name, request, given, resent=False)
        return codec.unpack(answer, OPERATIONS[name].response)

    async def special(self, name: str, request: Struct) -> Any:
        return await self.dispatcher.specials[name](self.caller, request)


Operation = Callable[[Request], Awaitable[Answer]]


# --- reading -----------------------------------------------------------------------------------


async def get_file_status(r: Request) -> Answer:
    counted = counts.stat(r.dispatcher, r.caller, Stat(path=r.path))
    return {"FileStatus": j.file_status(await r.dispatcher.store.read(counted))}


async def get_link_target(r: Request) -> Answer:
    await r.read("stat", Stat(path=r.path))
    raise JavaError(f"Path {r.path} is not a symbolic link")  # there are none


async def list_status_batch(r: Request) -> Answer:
    after = r.parameters.text("startafter")
    page, left = await r.list(after, remaining=True)
    return {
        "DirectoryListing": {
            "partialListing": {"FileStatuses": {"FileStatus": j.listing(page)}},
            "remainingEntries": left,
        }
    }


async def get_content_summary(r: Request) -> Answer:
    return j.content_summary(await r.read("summarize", Summarize(path=r.path)))


async def get_quota_usage(r: Request) -> Answer:
    return j.quota_usage(await r.read("summarize", Summarize(path=r.path)))


def home(r: Request) -> str:
    return f"/user/{r.caller.user}"


async def get_home_directory(r: Request) -> Answer:
    return {"Path": home(r)}


async def get_trash_root(r: Request) -> Answer:
    return {"Path": f"{home(r)}/.Trash"}


async def get_server_defaults(r: Request) -> Answer:
    return j.server_defaults(await r.special("server_info", GetServerInfo()))


async def get_status(r: Request) -> Answer:
    report = await r.special("report", GetReport(counts=False))
    return {
        "FsStatus": {
            "capacity": report.capacity_bytes,
            "used": report.used_bytes,
            "remaining": report.remaining_bytes,
        }
    }


def _range(r: Request) -> tuple[int, int]:
    offset = r.parameters.number("offset", 0) or 0
    length = r.parameters.number("length")
    return offset, -1 if length is None else length


async def get_file_block_locations(r: Request) -> Answer:
    offset, length = _range(r)
    return j.block_locations(
        await r.read("locate", Locate(path=r.path, offset=offset, length=length))
    )


async def get_block_locations(r: Request) -> Answer:
    offset, length = _range(r)
    found = await r.read("locate", Locate(path=r.path, offset=offset, length=length))
    size = found.status.length
    tail = found.blocks
    if size and (not tail or tail[-1].offset + tail[-1].block.length < size):
        tail = (await r.read("locate", Locate(path=r.path, offset=size - 1))).blocks
    info = await r.special("server_info", GetServerInfo())
    return j.located_blocks(found, tail[-1] if tail else None, f"BP-{info.cluster_id}")


async def get_acl_status(r: Request) -> Answer:
    return j.acl_status(await r.read("get_acl", GetAcl(path=r.path)))


async def check_access(r: Request) -> Answer:
    await r.read("check_access", CheckAccess(path=r.path, rights=r.parameters.rights("fsaction")))
    return OK


def _xattr_name(text: str) -> str:
    """With the namespace in lower case, as Hadoop reads it."""
    namespace, dot, rest = text.partition(".")
    if namespace.lower() not in ("user", "trusted", "system", "security", "raw") or not rest:
        raise InvalidRequest(
            f"An XAttr name must be prefixed with user/trusted/security/system/raw, followed by a '.': {shown(text)}"
        )
    return namespace.lower() + dot + rest


def _one_xattr(r: Request) -> str:
    return _xattr_name(r.parameters.required("xattr.name"))


async def get_xattrs(r: Request) -> Answer:
    encoding = r.parameters.text("encoding").upper()
    if encoding not in ("", "TEXT", "HEX", "BASE64"):
        raise Parameters.invalid("encoding", encoding, "it must be text, hex or base64")
    wanted = [_xattr_name(name) for name in r.parameters.all("xattr.name") if name]
    found = (await r.read("get_xattrs", GetXattrs(path=r.path))).xattrs
    if wanted:
        if any(name not in found for name in wanted):
            raise JavaError("At least one of the attributes provided was not found.")
        found = {name: found[name] for name in dict.fromkeys(wanted)}
    return j.xattrs(found, encoding)


async def list_xattrs(r: Request) -> Answer:
    return j.xattr_names((await r.read("get_xattrs", GetXattrs(path=r.path))).xattrs)


async def get_storage_policies(r: Request) -> Answer:
    return {"BlockStoragePolicies": {"BlockStoragePolicy": [j.HOT]}}


async def get_storage_policy(r: Request) -> Answer:
    await r.read("stat", Stat(path=r.path))
    return {"BlockStoragePolicy": j.HOT}


# --- changing ----------------------------------------------------------------------------------


async def mkdirs(r: Request) -> Answer:
    mode = r.parameters.mode("permission", 0o755)
    unmasked = r.parameters.mode("unmaskedpermission")
    await r.write("mkdirs", Mkdirs(path=r.path, mode=mode or 0, unmasked=unmasked))
    return {"boolean": True}


def _destination(r: Request) -> str:
    text = r.parameters.required("destination")
    if not text.startswith("/"):
        raise Parameters.invalid("destination", text, "it must be an absolute path")
    return join(parse(text))


async def rename(r: Request) -> Answer:
    destination = _destination(r)
    options = [o for o in r.parameters.text("renameoptions").upper().split(",") if o]
    if any(option not in ("NONE", "OVERWRITE", "TO_TRASH") for option in options):
        raise Parameters.invalid("renameoptions", ",".join(options), "NONE, OVERWRITE or TO_TRASH")
    if options:
        return await _rename_or_say_why(r, destination, overwrite="OVERWRITE" in options)
    try:
        await r.write("rename", Rename(source=r.path, destination=destination, into=True))
    except (PathNotFound, PathExists, InvalidMove, DirectoryNotEmpty):
        return {"boolean": False}
    return {"boolean": True}


async def _rename_or_say_why(r: Request, destination: str, *, overwrite: bool) -> Answer:
    """The newer rename: no moving into a directory, and exceptions in place of false."""
    if parse(r.path) == parse(destination):
        await r.read("stat", Stat(path=r.path))
        raise PathExists(f"The source {r.path} and destination {destination} are the same")
    request = Rename(source=r.path, destination=destination, overwrite=overwrite)
    try:
        await r.write("rename", request)
    except DirectoryNotEmpty as error:
        raise JavaError(f"rename failed: {error.message}") from None
    except (IsADirectory, NotADirectory) as error:
        raise JavaError(
            f"Source and destination must both be files or directories: {error.message}"
        ) from None
    return OK


async def delete(r: Request) -> Answer:
    recursive = r.parameters.boolean("recursive", False)
    try:
        done = await r.write("delete", Delete(path=r.path, recursive=recursive))
    except InvalidPath:
        if parse(r.path):
            raise
        return {"boolean": False}  # the root
    return {"boolean": done.existed}


async def set_replication(r: Request) -> Answer:
    replication = r.parameters.replication()
    if replication is None:
        replication = (await r.special("server_info", GetServerInfo())).default_replication
    try:
        await r.write("set_replication", SetReplication(path=r.path, replication=replication))
    except IsADirectory:
        return {"boolean": False}
    return {"boolean": True}


async def set_owner(r: Request) -> Answer:
    owner, group = r.parameters.text("owner"), r.parameters.text("group")
    if not owner and not group:
        raise InvalidRequest("Both owner and group are empty.")
    for name, text in (("owner", owner), ("group", group)):
        if len(text) > 255 or not text.isprintable() or any(c in "/:," for c in text):
            raise Parameters.invalid(name, text, "it is no name of a user or group")
    await r.write("set_owner", SetOwner(path=r.path, owner=owner or None, group=group or None))
    return OK


async def set_permission(r: Request) -> Answer:
    mode = r.parameters.mode("permission", 0o755)  # the document's default
    await r.write("set_mode", SetMode(path=r.path, mode=mode or 0))
    return OK


async def set_times(r: Request) -> Answer:
    mtime = r.parameters.number("modificationtime", -1, low=-1, high=2**62 - 1)
    atime = r.parameters.number("accesstime", -1, low=-1, high=2**62 - 1)
    await r.write(
        "set_times",
        SetTimes(
            path=r.path,
            mtime_ms=None if mtime == -1 else mtime,
            atime_ms=None if atime == -1 else atime,
        ),
    )
    return OK


async def set_quota(r: Request) -> Answer:
    if r.parameters.text("storagetype"):
        raise Unsupported("Quotas by storage type are not supported")
    limits = []
    for name in ("namespacequota", "storagespacequota"):
        value = r.parameters.number(name, QUOTA_UNCHANGED, low=-1)
        limits.append(None if value == QUOTA_UNCHANGED else value)
    try:
        await r.write("set_quota", SetQuota(path=r.path, names=limits[0], space_bytes=limits[1]))
    except NotADirectory as error:
        raise JavaError(error.message, "org.apache.hadoop.fs.PathIsNotDirectoryException") from None
    return OK


async def concat(r: Request) -> Answer:
    text = r.parameters.required("sources")
    sources = [part for part in text.split(",") if part]
    if not sources:
        raise Parameters.invalid("sources", text, "no source is named")
    if len(sources) > 1024:
        raise Parameters.invalid("sources", text, "1024 sources at most")
    await r.write("concat", Concat(target=r.path, sources=sources))
    return OK


async def set_xattr(r: Request) -> Answer:
    name = _one_xattr(r)
    value = j.decoded_value(r.parameters.text("xattr.value"))
    flags = {flag.strip() for flag in r.parameters.text("flag").upper().split(",")} - {""}
    if flags - {"CREATE", "REPLACE"} or not flags:
        raise Parameters.invalid("flag", ",".join(sorted(flags)), "CREATE, REPLACE or both")
    flag: Any = "set" if len(flags) == 2 else flags.pop().lower()
    try:
        await r.write("set_xattr", SetXattr(path=r.path, name=name, value=value, flag=flag))
    except (XattrExists, XattrNotFound) as error:
        raise JavaError(error.message) from None
    return OK


async def remove_xattr(r: Request) -> Answer:
    try:
        await r.write("remove_xattr", RemoveXattr(path=r.path, name=_one_xattr(r)))
    except XattrNotFound:
        raise JavaError("No matching attributes found for remove operation") from None
    return OK


def _entries(r: Request, *, rights: bool = True) -> Any:
    text = r.parameters.required("aclspec")
    try:
        return parse_entries(text, rights=rights)
    except InvalidRequest as error:
        raise Parameters.invalid("aclspec", text, error.message) from None


async def set_acl(r: Request) -> Answer:
    await r.write("set_acl", SetAcl(path=r.path, entries=_entries(r)))
    return OK


async def modify_acl(r: Request) -> Answer:
    await r.write("modify_acl", ModifyAcl(path=r.path, entries=_entries(r)))
    return OK


async def remove_acl_entries(r: Request) -> Answer:
    entries = _entries(r, rights=False)
    await r.write("remove_acl_entries", RemoveAclEntries(path=r.path, entries=entries))
    return OK


async def remove_acl(r: Request) -> Answer:
    await r.write("remove_acl", RemoveAcl(path=r.path))
    return OK


async def remove_default_acl(r: Request) -> Answer:
    await r.write("remove_acl", RemoveAcl(path=r.path, scope="default"))
    return OK


async def set_storage_policy(r: Request) -> Answer:
    """There is one policy, so asking for it changes nothing."""
    name = r.parameters.required("storagepolicy")
    if name.upper() != j.HOT["name"]:
        raise Parameters.invalid("storagepolicy", name, "Cannot find a block policy with this name")
    return await unset_storage_policy(r)


async def unset_storage_policy(r: Request) -> Answer:
    """To satisfy the one policy takes nothing either: every replica is on a disk."""
    await r.read("check_access", CheckAccess(path=r.path, rights=2))
    return OK


async def no_snapshots(r: Request) -> Answer:
    for name in SNAPSHOT_PARAMETERS.get(r.parameters.text("op").upper(), ()):
        r.parameters.required(name)
    await r.read("stat", Stat(path=r.path))
    raise JavaError(
        f"Directory is not a snapshottable directory: {r.path}",
        "org.apache.hadoop.hdfs.protocol.SnapshotException",
    )


async def unsupported(r: Request) -> Answer:
    raise Unsupported(f"{r.parameters.text('op').upper()} is not supported")


# --- tokens ------------------------------------------------------------------------------------


async def get_delegation_token(r: Request) -> Answer:
    if r.parameters.text("delegation"):
        # Else a token could be renewed for ever by asking for the next one.
        raise InvalidRequest("delegation parameter is not null.")
    renewer = user_name(r.parameters.text("renewer")) or r.caller.user
    service = r.parameters.text("service")
    kind = r.parameters.text("kind") or tokens.KIND
    now_ms, secret = r.dispatcher.now_ms(), os.urandom(tokens.SECRET_BYTES)
    identifier, password = await r.dispatcher.store.run(
        lambda tx: token_store.issue(tx, r.caller, renewer, secret, now_ms=now_ms)
    )
    text = tokens.encode(tokens.Token(identifier.encode(), password, kind, service))
    return {"Token": {"urlString": text}}


async def renew_delegation_token(r: Request) -> Answer:
    token = tokens.decode(r.parameters.required("token"))
    now_ms = r.dispatcher.now_ms()
    return {
        "long": await r.dispatcher.store.run(
            lambda tx: token_store.renew(tx, r.caller, token, now_ms=now_ms)
        )
    }


async def cancel_delegation_token(r: Request) -> Answer:
    token = tokens.decode(r.parameters.required("token"))
    now_ms = r.dispatcher.now_ms()
    await r.dispatcher.store.run(lambda tx: token_store.cancel(tx, r.caller, token, now_ms=now_ms))
    return OK


def _table(
    *operations: tuple[str, Operation], unsupported_ones: Iterable[str] = ()
) -> dict[str, Operation]:
    return {**dict(operations), **dict.fromkeys(unsupported_ones, unsupported)}


READS = _table(
    ("GETFILESTATUS", get_file_status),
    ("GETFILELINKSTATUS", get_file_status),
    ("GETLINKTARGET", get_link_target),
    ("LISTSTATUS_BATCH", list_status_batch),
    ("GETCONTENTSUMMARY", get_content_summary),
    ("GETQUOTAUSAGE", get_quota_usage),
    ("GETHOMEDIRECTORY", get_home_directory),
    ("GETTRASHROOT", get_trash_root),
    ("GETSERVERDEFAULTS", get_server_defaults),
    ("GETSTATUS", get_status),
    ("GETFILEBLOCKLOCATIONS", get_file_block_locations),
    ("GET_BLOCK_LOCATIONS", get_block_locations),
    ("GETACLSTATUS", get_acl_status),
    ("CHECKACCESS", check_access),
    ("GETXATTRS", get_xattrs),
    ("LISTXATTRS", list_xattrs),
    ("GETDELEGATIONTOKEN", get_delegation_token),
    ("GETALLSTORAGEPOLICY", get_storage_policies),
    ("GETSTORAGEPOLICY", get_storage_policy),
    unsupported_ones=(
        "GETECPOLICY",
        "GETECPOLICIES",
        "GETECCODECS",
        "GETSNAPSHOTDIFF",
        "GETSNAPSHOTDIFFLISTING",
        "GETSNAPSHOTTABLEDIRECTORYLIST",
        "GETSNAPSHOTLIST",
        "GETTRASHROOTS",
        "GETDELEGATIONTOKENS",
    ),
)
PUTS = _table(
    ("MKDIRS", mkdirs),
    ("RENAME", rename),
    ("SETREPLICATION", set_replication),
    ("SETOWNER", set_owner),
    ("SETPERMISSION", set_permission),
    ("SETTIMES", set_times),
    ("SETQUOTA", set_quota),
    ("SETXATTR", set_xattr),
    ("REMOVEXATTR", remove_xattr),
    ("SETACL", set_acl),
    ("MODIFYACLENTRIES", modify_acl),
    ("REMOVEACLENTRIES", remove_acl_entries),
    ("REMOVEACL", remove_acl),
    ("REMOVEDEFAULTACL", remove_default_acl),
    ("RENEWDELEGATIONTOKEN", renew_delegation_token),
    ("CANCELDELEGATIONTOKEN", cancel_delegation_token),
    ("SETSTORAGEPOLICY", set_storage_policy),
    ("SATISFYSTORAGEPOLICY", unset_storage_policy),
    ("CREATESNAPSHOT", no_snapshots),
    ("RENAMESNAPSHOT", no_snapshots),
    unsupported_ones=(
        "ALLOWSNAPSHOT",
        "DISALLOWSNAPSHOT",
        "CREATESYMLINK",
        "SETQUOTABYSTORAGETYPE",
        "ENABLEECPOLICY",
        "DISABLEECPOLICY",
        "SETECPOLICY",
    ),
)
POSTS = _table(
    ("CONCAT", concat),
    ("UNSETSTORAGEPOLICY", unset_storage_policy),
    unsupported_ones=("UNSETECPOLICY",),
)
DELETES = _table(("DELETE", delete), ("DELETESNAPSHOT", no_snapshots))

"""Configuration: one frozen value per role, from defaults < TOML file < environment < flags.

The TOML file has a table for each role; the environment has `TWINFS_<ROLE>_<FIELD>` for each field, e.g.
`TWINFS_NAMENODE_DIR`, and `TWINFS_CONFIG` names the file. An unknown key, a wrong type or a broken relation is
InvalidConfig at start, with the key and where it came from.
"""

from __future__ import annotations

import dataclasses
import getpass
import os
import socket
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .errors import InvalidConfig
from .model import DEFAULT_BLOCK_BYTES, MAX_BLOCK_BYTES, MIB
from .proxy import parse_proxy


def _positive(config: Any, *names: str) -> None:
    for name in names:
        if getattr(config, name) <= 0:
            raise InvalidConfig(f"{name} must be greater than 0")


def _ports(config: Any, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) <= 65_535:
            raise InvalidConfig(f"{name} must be between 0 and 65535, not {getattr(config, name)}")


def _endpoint(url: str) -> None:
    if url not in ("", "program") and not url.startswith(("http://", "https://")):
        raise InvalidConfig(f"otlp_endpoint must be an http:// URL, not {url!r}")


EVENT_READERS = ("permitted", "superusers", "everybody")


@dataclass(frozen=True, slots=True, kw_only=True)
class NameNodeConfig:
    """`dfs namenode`."""

    dir: str = (
        "twinfs-namenode"  # where the SQLite database lies; unused with a postgresql:// database
    )
    database: str = ""  # "" = SQLite in *dir*; else a postgresql:// URL
    host: str = (
        "127.0.0.1"  # address to listen on; nothing is authenticated yet, so loopback by default
    )
    port: int = 9870  # HDFS's dfs.namenode.http-address; 0 takes a free one
    ready_file: str = ""  # written, as JSON, when the server answers
    user: str = ""  # superuser; "" = the account that runs the NameNode
    supergroup: str = "supergroup"  # HDFS's dfs.permissions.superusergroup
    replication: int = 3  # default for new files
    block_bytes: int = DEFAULT_BLOCK_BYTES  # default for new files; HDFS's dfs.blocksize
    min_replicas: int = (
        2  # copies that must be durable before a write is acknowledged (never more than asked)
    )
    small_block_bytes: int = 1 * MIB  # blocks up to this size travel in the batched stream
    heartbeat_interval_s: float = 3.0  # how often DataNodes say that they live
    stale_after_s: float = 10.0  # a stale node is asked last and gets no new blocks if others can
    dead_after_s: float = 30.0  # HDFS waits 630 s: copying is dear at its size
    block_report_interval_s: float = 3600.0  # how often DataNodes list all they hold
    lease_timeout_s: float = 60.0  # HDFS's soft limit: after it another client may take over
    lease_hard_timeout_s: float = (
        1200.0  # HDFS's hard limit: after it the NameNode closes the file by itself
    )
    trash_interval_s: int = 86_400  # 0 deletes at once
    delete_grace_s: float = (
        5.0  # bytes of a deleted file stay this long for readers that have it open
    )
    content_grace_s: float = (
        86_400.0  # content that nothing holds is kept this long before it is collected by itself
    )
    request_memory_s: float = (
        600.0  # how long answers are kept for resent requests; HDFS's retry cache: 600 s
    )
    event_retention: int = (
        10_000_000  # entries of the change stream that are kept; 0: no such limit
    )
    event_retention_days: float = 0.0  # older ones are dropped; 0: no such limit
    event_retention_mib: int = 0  # about so much of it is kept, MiB; 0: no such limit
    prune_interval_s: float = 30.0  # how often what is no longer kept is dropped
    checkpoint_interval_s: float = (
        3600.0  # how often the change stream is signed; 0: only when asked
    )
    event_readers: str = "permitted"  # who sees events: each what he may list; "superusers" alone, as HDFS's inotify; or "everybody" all
    event_sinks: tuple[
        str, ...
    ] = ()  # nats://HOST:PORT/STREAM or kafka://HOST:PORT/TOPIC to publish to
    webhook_attempts: int = (
        12  # after so many, over about seven minutes, an event goes to the dead letters
    )
    webhook_backoff_s: float = 0.5  # the pause after the first failure; it doubles up to a minute
    audit_key: str = ""  # PEM file with the Ed25519 key for that; "" = audit.key in *dir*
    readers: int = 2  # threads for reading transactions
    cache_mib: int = 64  # SQLite's page cache in all, MiB
    safe_mode_nodes: int = 1  # DataNodes that must have registered before writes are allowed
    max_request_bytes: int = 16 * MIB  # a larger body is refused unread
    cors_origins: tuple[
        str, ...
    ] = ()  # web pages of these origins may use WebHDFS; "*" is every one
    allowed_hosts: tuple[
        str, ...
    ] = ()  # names in URLs by which it may be called, beside addresses, names without a dot and the machine's own; () = any, unless *host* is this machine's own interface
    max_transfers_per_node: int = (
        8  # repair copies one node sends or receives at a time; small ones count for a part
    )
    faults: str = ""  # file with faults to inject, for trying a cluster out; "" = none, and no cost
    slow_operation_s: float = 1.0  # a call that takes longer is logged, with what held it up
    max_transfers: int = (
        0  # repair copies in the whole cluster at a time; 0: what the nodes' limits allow
    )
    repair_bytes_per_s: int = 0  # begun in the whole cluster; 0: no limit
    maintenance_copies: int = 1  # copies of a block that must be outside maintenance; HDFS's dfs.namenode.maintenance.replication.min
    topology_file: str = ""  # lines "NODE /RACK"; a node not in it is on the rack it says itself
    topology_script: str = (
        ""  # gets hosts, prints a rack for each; HDFS's net.topology.script.file.name
    )
    stop_grace_s: float = 20.0  # what is in flight gets so long to end when the process is to stop, then it is cut off
    log_level: str = "INFO"  # or "DEBUG", "WARNING", "ERROR"
    log_format: str = "text"  # or "json"
    otlp_endpoint: str = ""  # http://HOST:4318 of an OpenTelemetry collector (extra "otel"); "" = no traces, and no cost

    def __post_init__(self) -> None:
        _positive(self, "replication", "min_replicas", "heartbeat_interval_s", "lease_timeout_s")
        _positive(self, "readers", "cache_mib", "block_bytes", "max_request_bytes")
        _positive(self, "max_transfers_per_node", "stop_grace_s")
        _ports(self, "port")
        _endpoint(self.otlp_endpoint)
        if self.event_readers not in EVENT_READERS:
            raise InvalidConfig(f"event_readers must be one of {', '.join(EVENT_READERS)}")
        if self.block_bytes % MIB or self.block_bytes > MAX_BLOCK_BYTES:
            raise InvalidConfig("block_bytes must be a multiple of 1 MiB, 128 MiB at most")
        if self.dead_after_s <= 3 * self.heartbeat_interval_s:
            raise InvalidConfig("dead_after_s must exceed three heartbeat intervals")
        if not self.heartbeat_interval_s < self.stale_after_s <= self.dead_after_s:
            raise InvalidConfig(
                "stale_after_s must lie between heartbeat_interval_s and dead_after_s"
            )
        if self.topology_file and self.topology_script:
            raise InvalidConfig("give topology_file or topology_script, not both")
        if min(self.max_transfers, self.repair_bytes_per_s, self.maintenance_copies) < 0:
            raise InvalidConfig("limits of repair must not be negative")
        if self.lease_hard_timeout_s < self.lease_timeout_s:
            raise InvalidConfig("lease_hard_timeout_s must not be below lease_timeout_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataNodeConfig:
    """`dfs datanode`."""

    # () = none for a peer (with *bootstrap* or *mdns*), else http://127.0.0.1:9870; "none" = none in any case
    namenode: tuple[str, ...] = ()
    bootstrap: tuple[str, ...] = ()  # HOST:PORT of peers to join; "none" = the first of its network
    mdns: bool = False  # find peers on the local network, and be found (extra "peers")
    dir: tuple[str, ...] = ("twinfs-datanode",)  # one volume each
    host: str = (
        "127.0.0.1"  # address to listen on, and, unless *advertise* is set, to be reached at
    )
    advertise: str = ""  # the name or address that others reach this node by; "" = *host*, or the machine's name where that is 0.0.0.0 or ::
    port: int = 9864  # HTTP; HDFS's dfs.datanode.http.address; 0 takes a free one
    data_port: int = 9866  # block stream protocol; HDFS's dfs.datanode.address
    socket: str = ""  # Unix socket for clients on this machine; "" = inside the first volume; "none" = no socket
    ready_file: str = ""
    rack: str = "/default-rack"  # copies are spread over racks; HDFS's topology script
    reserved_bytes: int = 0  # left free on each volume for others
    failed_volumes_tolerated: int = 0  # the process ends when more volumes than this have failed
    small_block_bytes: int = 64 * 1024  # blocks up to this size live inside the volume's index
    cors_origins: tuple[str, ...] = ()  # as the NameNode's
    allowed_hosts: tuple[str, ...] = ()  # as the NameNode's; the gateway may have any name
    max_connections: int = 1024  # block streams open at once, idle ones included; HDFS's dfs.datanode.max.transfer.threads
    transfer_memory_mib: int = 64  # buffers of all transfers together
    idle_timeout_s: float = 300.0  # an idle connection is closed after this
    stall_timeout_s: float = 60.0  # a peer that moves no byte for this long is given up
    volume_bytes: int = 0  # each volume holds so many at most; 0: as much as its disk
    copy_bytes_per_s: int = 0  # for copies that repair and the balancer bring here; 0: no limit
    serve_bytes_per_s: int = (
        0  # given to others over TCP, by the gateway and block streams together; 0: no limit
    )
    scrub_bytes_per_s: int = (
        8 * MIB
    )  # read by the scrubber on each volume, clients come first; 0: no scrubbing but on order
    scrub_interval_s: float = (
        7 * 86_400.0
    )  # from the beginning of one pass to the next; HDFS's dfs.datanode.scan.period.hours: 3 weeks
    report_page: int = 10_000  # replicas in a page of a full block report
    provider_ttl_s: float = (
        86_400.0  # how long other peers keep what we announced; renewed well before
    )
    peer_refresh_s: float = 60.0  # between looks at who is still there
    pin_dead_after_s: float = (
        30.0  # a peer silent for so long counts as gone: others take its pins over
    )
    accept_pins: bool = (
        True  # keep content that other peers pin with --replicas, where it falls to us
    )
    accept_pins_gib: int = 100  # at most so much of it
    proxy: str = ""  # http://NAME@HOST:PORT of an HTTP proxy for all connections made; "" = none
    faults: str = ""  # file with faults to inject, for trying a cluster out; "" = none, and no cost
    slow_operation_s: float = 10.0  # a request of a block stream that takes longer is logged
    stop_grace_s: float = 20.0  # what is in flight gets so long to end when the process is to stop, then it is cut off
    log_level: str = "INFO"  # or "DEBUG", "WARNING", "ERROR"
    log_format: str = "text"  # or "json"
    otlp_endpoint: str = ""  # http://HOST:4318 of an OpenTelemetry collector (extra "otel"); "" = no traces, and no cost

    def __post_init__(self) -> None:
        _positive(self, "max_connections", "transfer_memory_mib", "stall_timeout_s", "report_page")
        _ports(self, "port", "data_port")
        if not self.dir:
            raise InvalidConfig("a DataNode needs at least one volume: --dir DIR")
        if len({str(Path(path).resolve()) for path in self.dir}) != len(self.dir):
            raise InvalidConfig("the same volume directory is given twice")
        limits = (self.copy_bytes_per_s, self.scrub_bytes_per_s, self.serve_bytes_per_s)
        if min(self.volume_bytes, *limits) < 0:
            raise InvalidConfig("limits of a DataNode must not be negative")
        if self.failed_volumes_tolerated < 0 or self.reserved_bytes < 0:
            raise InvalidConfig("failed_volumes_tolerated and reserved_bytes must not be negative")
        if not 0 <= self.small_block_bytes <= MIB:
            raise InvalidConfig("small_block_bytes must be between 0 and 1 MiB")
        _endpoint(self.otlp_endpoint)
        _positive(self, "provider_ttl_s", "peer_refresh_s", "pin_dead_after_s", "accept_pins_gib")
        _positive(self, "stop_grace_s")
        parse_proxy(self.proxy)

    @property
    def is_peer(self) -> bool:
        """Whether it takes part in a network of peers."""
        return bool(self.bootstrap) or self.mdns

    @property
    def reached_at(self) -> str:
        """The name or address that others are told."""
        if self.advertise:
            return self.advertise
        return socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host

    @property
    def namenodes(self) -> tuple[str, ...]:
        if "none" in self.namenode or (not self.namenode and self.is_peer):
            return ()
        return self.namenode or ("http://127.0.0.1:9870",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """Every `dfs` command and `FileSystem`."""

    namenode: str = "http://127.0.0.1:9870"  # "none": there is a peer alone
    peer: str = "http://127.0.0.1:9864"  # asked about content where it is given and no NameNode is
    peer_token: str = ""  # that peer's own, where it is on another machine
    user: str = ""  # "" = the account that runs the program
    replication: int = 0  # 0 = the cluster's default
    block_bytes: int = 0  # 0 = the cluster's default
    durability: str = "synced"  # or "replicated": don't wait for the disks of the DataNodes
    retry_s: float = 30.0  # how long a call is retried while the NameNode is away
    connect_timeout_s: float = 5.0  # a server that does not accept for so long is given up
    read_timeout_s: float = 30.0  # a DataNode that sends nothing for so long is given up
    ack_timeout_s: float = 60.0  # a pipeline that acknowledges nothing for so long is rebuilt
    parallel_blocks: int = 3  # blocks in flight in a get or put
    ack_window_packets: int = 16  # packets of 1 MiB a writer keeps until they are acknowledged
    all_replicas: str = "auto"  # a get from all replicas at once: "always", "never", or where the file is large and no replica is on this machine
    short_circuit: bool = (
        True  # read through the DataNode's Unix socket where it is on this machine
    )
    proxy: str = ""  # http://NAME@HOST:PORT of an HTTP proxy for all connections; "" = none
    otlp_endpoint: str = ""  # http://HOST:4318 of an OpenTelemetry collector (extra "otel"), or "program": as the program has set up; "" = no traces
    trace_share: float = 1.0  # of the requests that begin here, so many are traced, from 0 to 1
    trash: bool = True  # rm moves to the trash where the cluster has one
    working_directory: str = ""  # "" = /user/USER

    def __post_init__(self) -> None:
        _positive(self, "retry_s", "connect_timeout_s", "read_timeout_s", "parallel_blocks")
        _positive(self, "ack_window_packets", "ack_timeout_s")
        if not 0 <= self.trace_share <= 1:
            raise InvalidConfig("trace_share must lie between 0 and 1")
        _endpoint(self.otlp_endpoint)
        if self.durability not in ("synced", "replicated"):
            raise InvalidConfig('durability must be "synced" or "replicated"')
        if self.all_replicas not in ("auto", "always", "never"):
            raise InvalidConfig('all_replicas must be "auto", "always" or "never"')
        if self.namenode != "none" and not self.namenode.startswith(("http://", "https://")):
            raise InvalidConfig(f"namenode must be an http:// URL, not {self.namenode!r}")
        parse_proxy(self.proxy)

    @property
    def user_name(self) -> str:
        return self.user or getpass.getuser()


ROLES: dict[str, type] = {
    "namenode": NameNodeConfig,
    "datanode": DataNodeConfig,
    "client": ClientConfig,
}
# What everybody sets first; the second is Hadoop's HADOOP_USER_NAME.
SHORT_NAMES = {"namenode": "TWINFS_NAMENODE", "user": "TWINFS_USER"}
C = TypeVar("C", NameNodeConfig, DataNodeConfig, ClientConfig)


@dataclass(frozen=True, slots=True)
class Setting:
    """One value and where it came from, for `dfs config`."""

    name: str
    value: Any
    origin: str


def load(
    kind: type[C],
    flags: Mapping[str, Any] | None = None,
    *,
    file: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> C:
    """The configuration of one role. *flags* that are None are not given."""
    return build(kind, settings(kind, flags, file=file, environ=environ))


def build(kind: type[C], values: list[Setting]) -> C:
    return kind(**{setting.name: setting.value for setting in values})


def settings(
    kind: type[C],
    flags: Mapping[str, Any] | None = None,
    *,
    file: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> list[Setting]:
    """Every field with its value and origin ("default", "file PATH", "environment NAME", "flag")."""
    role = next(name for name, cls in ROLES.items() if cls is kind)
    hints = typing.get_type_hints(kind)
    path = file or environ.get("TWINFS_CONFIG") or _default_file(environ)
    table = _read_table(path, role, bool(file or environ.get("TWINFS_CONFIG"))) if path else {}
    unknown = sorted(set(table) - set(hints))
    if unknown:
        raise InvalidConfig(f"unknown key {unknown[0]!r} in table [{role}] of {path}")
    unknown = sorted(set(flags or ()) - set(hints))
    if unknown:
        raise InvalidConfig(f"a {role} has no setting {unknown[0]!r}")
    found = []
    for field in dataclasses.fields(kind):
        variable = f"TWINFS_{role.upper()}_{field.name.upper()}"
        if role == "client" and variable not in environ:
            variable = SHORT_NAMES.get(field.name, variable)
        given = None if flags is None else flags.get(field.name)
        if given is not None and given != ():
            value, origin = given, "flag"
        elif variable in environ:
            value, origin = environ[variable], f"environment {variable}"
        elif field.name in table:
            value, origin = table[field.name], f"file {path}"
        else:
            value, origin = field.default, "default"
        if origin != "default":
            value = _coerce(value, hints[field.name], field.name, origin)
        found.append(Setting(field.name, value, origin))
    return found


def _default_file(environ: Mapping[str, str]) -> str | None:
    base = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "/")) / ".config")
    for path in (Path(base) / "twinfs" / "twinfs.toml", Path("/etc/twinfs/twinfs.toml")):
        if path.is_file():
            return str(path)
    return None


def _read_table(path: str, role: str, required: bool) -> dict[str, Any]:
    import tomllib  # here, since most commands have no such file

    try:
        with Path(path).open("rb") as stream:
            document = tomllib.load(stream)
    except OSError as error:
        if not required:
            return {}
        raise InvalidConfig(f"can't read the configuration {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path} is not valid TOML: {error}") from None
    unknown = sorted(set(document) - set(ROLES))
    if unknown:
        raise InvalidConfig(f"unknown table [{unknown[0]}] in {path}")
    table = document.get(role, {})
    if not isinstance(table, dict):
        raise InvalidConfig(f"[{role}] in {path} must be a table")
    return table


def _coerce(value: Any, hint: Any, name: str, origin: str) -> Any:
    try:
        if hint is bool:
            if isinstance(value, bool):
                return value
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                str(value).lower()
            ]
        if isinstance(value, bool):
            raise ValueError
        if hint is int:
            if isinstance(value, float):
                raise ValueError
            return int(value)
        if hint is float:
            return float(value)
        if hint is str:
            if not isinstance(value, str | os.PathLike):
                raise ValueError
            return os.fspath(value)
        if isinstance(hint, types.GenericAlias) or typing.get_origin(hint) is tuple:
            parts = value.split(",") if isinstance(value, str) else list(value)
            return tuple(str(part) for part in parts)
    except (ValueError, KeyError, TypeError):
        pass
    else:
        return value
    wanted = getattr(hint, "__name__", str(hint))
    raise InvalidConfig(f"{name} ({origin}) must be of type {wanted}, not {value!r}") from None

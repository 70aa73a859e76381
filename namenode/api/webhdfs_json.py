"""The JSON objects of WebHDFS, made from the namespace's own answers. Pure functions."""

from __future__ import annotations

import base64
import json
from typing import Any

from ...common import codec
from ...common.access import AclStatus
from ...common.errors import InvalidRequest
from ...common.messages import DirectoryPage, ServerInfo
from ...common.model import ContentSummary, FileBlocks, FileStatus, LocatedBlock, NodeAddress

HOT = {
    "id": 7,
    "name": "HOT",
    "storageTypes": ["DISK"],
    "creationFallbacks": [],
    "replicationFallbacks": ["ARCHIVE"],
    "copyOnCreateFile": False,
}
CRC32C_TYPE = 2  # of Hadoop's DataChecksum
BYTES_PER_CRC = 512
PACKET_BYTES = 65_536


def file_status(status: FileStatus, suffix: str = "") -> dict[str, Any]:
    """`FileStatus`; *suffix* is the name within the directory that was listed."""
    directory = status.type == "directory"
    found: dict[str, Any] = {
        "accessTime": 0 if directory else status.atime_ms,
        "blockSize": status.block_size,
        "childrenNum": max(0, status.children),
        "fileId": status.inode_id,
        "group": status.group,
        "length": status.length,
        "modificationTime": status.mtime_ms,
        "owner": status.owner,
        "pathSuffix": suffix,
        "permission": f"{status.mode:o}",
        "replication": status.replication,
        "storagePolicy": 0,
        "type": "DIRECTORY" if directory else "FILE",
    }
    if status.acl:
        found["aclBit"] = True
    return found


def listing(page: DirectoryPage) -> list[dict[str, Any]]:
    if page.is_file:
        return [file_status(status) for status in page.entries]
    return [file_status(status, status.name) for status in page.entries]


def content_summary(summary: ContentSummary) -> dict[str, Any]:
    return {
        "ContentSummary": {
            "directoryCount": summary.directories,
            "fileCount": summary.files,
            "length": summary.length,
            "quota": summary.name_quota,
            "spaceConsumed": summary.space_consumed,
            "spaceQuota": summary.space_quota,
            "snapshotDirectoryCount": 0,
            "snapshotFileCount": 0,
            "snapshotLength": 0,
            "snapshotSpaceConsumed": 0,
            "ecPolicy": "Replicated",
            "typeQuota": {},
        }
    }


def quota_usage(summary: ContentSummary) -> dict[str, Any]:
    counted = summary.directories + summary.files
    return {
        "QuotaUsage": {
            "fileAndDirectoryCount": summary.name_used if summary.name_used >= 0 else counted,
            "quota": summary.name_quota,
            "spaceConsumed": summary.space_used
            if summary.space_used >= 0
            else summary.space_consumed,
            "spaceQuota": summary.space_quota,
            "typeQuota": {},
        }
    }


def server_defaults(info: ServerInfo) -> dict[str, Any]:
    return {
        "FsServerDefaults": {
            "blockSize": info.default_block_size,
            "bytesPerChecksum": BYTES_PER_CRC,
            "writePacketSize": PACKET_BYTES,
            "replication": info.default_replication,
            "fileBufferSize": 4096,
            "encryptDataTransfer": False,
            "trashInterval": info.trash_interval_s // 60,
            "checksumType": CRC32C_TYPE,
            "keyProviderUri": "",
            "defaultStoragePolicyId": HOT["id"],
        }
    }


def acl_status(status: AclStatus) -> dict[str, Any]:
    entries = [str(entry) for entry in status.entries]
    return {
        "AclStatus": {
            "entries": entries,
            "group": status.group,
            "owner": status.owner,
            "permission": f"{status.mode & 0o777:o}",
            "stickyBit": bool(status.mode & 0o1000),
        }
    }


# --- blocks ------------------------------------------------------------------------------------


def _name(node: NodeAddress) -> str:
    return node.data


def block_locations(found: FileBlocks) -> dict[str, Any]:
    return {
        "BlockLocations": {
            "BlockLocation": [
                {
                    "cachedHosts": [],
                    "corrupt": not located.nodes,
                    "hosts": [node.host for node in located.nodes],
                    "length": located.block.length,
                    "names": [_name(node) for node in located.nodes],
                    "offset": located.offset,
                    "storageTypes": ["DISK"] * len(located.nodes),
                    "topologyPaths": [f"{node.rack}/{_name(node)}" for node in located.nodes],
                }
                for located in found.blocks
            ]
        }
    }


def located_blocks(found: FileBlocks, last: LocatedBlock | None, pool: str) -> dict[str, Any]:
    """*last* is the file's last block, whether or not it is among those of the range."""
    status = found.status
    return {
        "LocatedBlocks": {
            "fileLength": status.length,
            "isUnderConstruction": status.under_construction,
            "isLastBlockComplete": last is None or not last.under_construction,
            "lastLocatedBlock": None if last is None else _located(last, pool),
            "locatedBlocks": [_located(block, pool) for block in found.blocks],
        }
    }


def _located(located: LocatedBlock, pool: str) -> dict[str, Any]:
    block = located.block
    return {
        "block": {
            "blockPoolId": pool,
            "blockId": block.block_id,
            "generationStamp": block.generation,
            "numBytes": block.length,
        },
        "startOffset": located.offset,
        "isCorrupt": not located.nodes,
        "blockToken": {"urlString": "AAAAAA"},  # the empty token
        "locations": [_datanode(node) for node in located.nodes],
        "cachedLocations": [],
        "storageTypes": ["DISK"] * len(located.nodes),
    }


def _datanode(node: NodeAddress) -> dict[str, Any]:
    return {
        "ipAddr": node.host,
        "hostName": node.host,
        "storageID": f"DS-{node.node_id}",
        "name": _name(node),
        "xferPort": _port(node.data),
        "infoPort": _port(node.http),
        "infoSecurePort": 0,
        "ipcPort": 0,
        "networkLocation": node.rack,
        "adminState": "NORMAL",
        "capacity": 0,
        "dfsUsed": 0,
        "remaining": 0,
        "blockPoolUsed": 0,
        "lastUpdate": 0,
        "lastUpdateMonotonic": 0,
        "xceiverCount": 0,
        "cacheCapacity": 0,
        "cacheUsed": 0,
    }


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


# --- extended attributes -----------------------------------------------------------------------


def encoded_value(value: bytes, encoding: str) -> str | None:
    """A value in the *encoding* asked for ("" is text, or hex where it is no text). An empty one is null."""
    if not value:
        return None
    if encoding in ("", "TEXT"):
        try:
            return '"' + value.decode() + '"'
        except UnicodeDecodeError:
            if encoding:
                raise InvalidRequest(
                    "the value is no UTF-8 text: ask for encoding=hex or base64"
                ) from None
    return "0s" + base64.b64encode(value).decode() if encoding == "BASE64" else "0x" + value.hex()


def decoded_value(text: str) -> bytes:
    """The bytes that a request's xattr.value stands for: 0x... hex, 0s... base64, else text, quoted or not."""
    head, rest = text[:2].lower(), text[2:]
    try:
        if head == "0x":
            return bytes.fromhex(rest)
        if head == "0s":
            return base64.b64decode(rest, validate=True)
    except ValueError:
        raise InvalidRequest(
            f'Invalid value for webhdfs parameter "xattr.value": {text[:40]!r}'
        ) from None
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1]
    return text.encode()


def xattrs(found: dict[str, bytes], encoding: str) -> dict[str, Any]:
    return {
        "XAttrs": [
            {"name": name, "value": encoded_value(value, encoding)} for name, value in found.items()
        ]
    }


def xattr_names(found: dict[str, bytes]) -> dict[str, Any]:
    """The list is a string of JSON: so the document's example has it, and clients parse it twice."""
    return {"XAttrNames": json.dumps(list(found), ensure_ascii=False, separators=(",", ":"))}


def encode(value: Any) -> bytes:
    return codec.to_json(value)

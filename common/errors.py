"""Every error TwinFS raises on purpose, and what each means outside.

    DfsError
    ├── NamespaceError            the path world said no
    │   ├── PathNotFound, PathExists, NotADirectory, IsADirectory, DirectoryNotEmpty
    │   │   └── LinkNotFound      (of PathNotFound) no such entry in a DAG
    │   ├── InvalidPath           ├── NameTooLong, PathTooLong, PathTooDeep
    │   ├── InvalidMove           rename of a directory into itself, of the root, ...
    │   ├── PermissionDenied
    │   ├── QuotaExceeded         ├── NameQuotaExceeded, SpaceQuotaExceeded
    │   ├── LeaseConflict         somebody else is writing the file
    │   ├── LeaseLost             the caller's lease has expired or was taken over
    │   ├── InvalidAcl               entries that contradict each other, or too many
    │   ├── XattrNotFound, XattrExists
    │   └── PinNotFound, PinExists
    ├── RequestError              the request itself is wrong; resending it can't help
    │   ├── InvalidRequest, UnknownOperation, RequestTooLarge, VersionMismatch, Unsupported, EventsGone
    │   ├── WrongMethod, WrongMediaType
    │   └── InvalidCid, InvalidContent, DagTooLarge
    ├── BlockError                bytes
    │   ├── BlockNotFound         no such replica here  └── ContentNotFound  nobody has the CID's block
    │   ├── StaleGeneration       the replica or the request is of an older generation
    │   ├── ChecksumMismatch      bytes do not match their digest
    │   ├── BlockUnavailable      no replica could be read
    │   ├── PipelineFailed        a write lost too many of its nodes
    │   └── NotEnoughReplicas     the block is not yet on min_replicas nodes
    ├── StorageError              DiskFull, VolumeFailed
    ├── ServiceError              try again later: the only retryable branch
    │   ├── SafeMode, Busy, ShuttingDown, NotEnoughDataNodes
    │   ├── StoreUnavailable      the NameNode can't reach its database
    │   ├── Unavailable           nobody answered  └── ConnectionLost
    │   └── TimedOut              the answer came too late
    ├── StoreError                StoreTooNew, StoreConflict, StoreDamaged
    ├── InvalidConfig
    └── InternalError             our own mistake, with a reference to the log

An error carries a *code*, stable on the wire, and a message for people, which may change. `retryable`
says whether the same request may succeed later without the caller changing anything.
"""

from __future__ import annotations

import errno
import os
from typing import ClassVar


class DfsError(Exception):
    """Base of all errors; *message* says what happened and what to do about it."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[type[DfsError], tuple[str]]:
        return type(self), (self.message,)


class NamespaceError(DfsError):
    code = "namespace-error"


class PathNotFound(NamespaceError):
    code = "path-not-found"


class LinkNotFound(PathNotFound):
    code = "link-not-found"


class PathExists(NamespaceError):
    code = "path-exists"


class NotADirectory(NamespaceError):
    code = "not-a-directory"


class IsADirectory(NamespaceError):
    code = "is-a-directory"


class DirectoryNotEmpty(NamespaceError):
    code = "directory-not-empty"


class InvalidPath(NamespaceError):
    code = "invalid-path"


class NameTooLong(InvalidPath):
    code = "name-too-long"


class PathTooLong(InvalidPath):
    code = "path-too-long"


class PathTooDeep(InvalidPath):
    code = "path-too-deep"


class InvalidMove(NamespaceError):
    code = "invalid-move"


class PermissionDenied(NamespaceError):
    code = "permission-denied"


class QuotaExceeded(NamespaceError):
    code = "quota-exceeded"


class NameQuotaExceeded(QuotaExceeded):
    code = "name-quota-exceeded"


class SpaceQuotaExceeded(QuotaExceeded):
    code = "space-quota-exceeded"


class LeaseConflict(NamespaceError):
    code = "lease-conflict"


class LeaseLost(NamespaceError):
    code = "lease-lost"


class InvalidAcl(NamespaceError):
    code = "invalid-acl"


class XattrNotFound(NamespaceError):
    code = "xattr-not-found"


class XattrExists(NamespaceError):
    code = "xattr-exists"


class PinNotFound(NamespaceError):
    code = "pin-not-found"


class PinExists(NamespaceError):
    code = "pin-exists"


class RequestError(DfsError):
    code = "request-error"


class InvalidRequest(RequestError):
    code = "invalid-request"


class UnknownOperation(RequestError):
    code = "unknown-operation"


class RequestTooLarge(RequestError):
    code = "request-too-large"


class VersionMismatch(RequestError):
    code = "version-mismatch"


class Unsupported(RequestError):
    code = "unsupported"


class InvalidCid(RequestError):
    code = "invalid-cid"


class InvalidContent(RequestError):
    code = "invalid-content"


class DagTooLarge(RequestError):
    code = "dag-too-large"


class EventsGone(RequestError):
    code = "events-gone"


class WrongMethod(RequestError):
    code = "wrong-method"


class WrongMediaType(RequestError):
    code = "wrong-media-type"


class BlockError(DfsError):
    code = "block-error"


class BlockNotFound(BlockError):
    code = "block-not-found"


class ContentNotFound(BlockNotFound):
    code = "content-not-found"


class StaleGeneration(BlockError):
    code = "stale-generation"


class ChecksumMismatch(BlockError):
    code = "checksum-mismatch"


class BlockUnavailable(BlockError):
    code = "block-unavailable"


class PipelineFailed(BlockError):
    code = "pipeline-failed"


class NotEnoughReplicas(BlockError):
    code = "not-enough-replicas"
    retryable = True


class StorageError(DfsError):
    code = "storage-error"


class DiskFull(StorageError):
    code = "disk-full"


class VolumeFailed(StorageError):
    code = "volume-failed"


class ServiceError(DfsError):
    code = "service-error"
    retryable = True


class SafeMode(ServiceError):
    code = "safe-mode"


class Busy(ServiceError):
    code = "busy"


class ShuttingDown(ServiceError):
    code = "shutting-down"


class NotEnoughDataNodes(ServiceError):
    code = "not-enough-datanodes"


class StoreUnavailable(ServiceError):
    code = "store-unavailable"


class Unavailable(ServiceError):
    code = "unavailable"


class ConnectionLost(Unavailable):
    code = "connection-lost"


class TimedOut(ServiceError):
    code = "timed-out"


class StoreError(DfsError):
    code = "store-error"


class StoreTooNew(StoreError):
    code = "store-too-new"


class StoreConflict(StoreError):
    code = "store-conflict"
    retryable = True


class StoreDamaged(StoreError):
    code = "store-damaged"


class InvalidConfig(DfsError):
    code = "invalid-config"


class InternalError(DfsError):
    code = "internal-error"


# Each outside view has one table, searched along the class order, so that a new subclass inherits
# a sensible answer and a test can demand that every class has one.

HTTP_STATUS: dict[type[DfsError], int] = {
    DfsError: 500,
    NamespaceError: 409,
    PathNotFound: 404,
    XattrNotFound: 404,
    PinNotFound: 404,
    InvalidPath: 400,
    InvalidAcl: 400,
    PermissionDenied: 403,
    QuotaExceeded: 403,
    RequestError: 400,
    UnknownOperation: 404,
    RequestTooLarge: 413,
    DagTooLarge: 413,
    Unsupported: 501,
    EventsGone: 410,
    WrongMethod: 405,
    WrongMediaType: 415,
    BlockError: 500,
    BlockNotFound: 404,
    StaleGeneration: 409,
    ChecksumMismatch: 422,
    NotEnoughReplicas: 503,
    StorageError: 500,
    DiskFull: 507,
    ServiceError: 503,
    TimedOut: 504,
    StoreConflict: 503,
}

ERRNO: dict[type[DfsError], int] = {
    DfsError: errno.EIO,
    PathNotFound: errno.ENOENT,
    PathExists: errno.EEXIST,
    NotADirectory: errno.ENOTDIR,
    IsADirectory: errno.EISDIR,
    DirectoryNotEmpty: errno.ENOTEMPTY,
    InvalidPath: errno.EINVAL,
    NameTooLong: errno.ENAMETOOLONG,
    PathTooLong: errno.ENAMETOOLONG,
    PathTooDeep: errno.ENAMETOOLONG,
    InvalidMove: errno.EINVAL,
    InvalidAcl: errno.EINVAL,
    PermissionDenied: errno.EACCES,
    QuotaExceeded: errno.EDQUOT,
    LeaseConflict: errno.EBUSY,
    LeaseLost: errno.ESTALE,
    XattrNotFound: errno.ENODATA,
    PinNotFound: errno.ENOENT,
    PinExists: errno.EEXIST,
    XattrExists: errno.EEXIST,
    RequestError: errno.EINVAL,
    RequestTooLarge: errno.EMSGSIZE,
    Unsupported: errno.ENOTSUP,
    EventsGone: errno.ESTALE,
    BlockNotFound: errno.EIO,
    ContentNotFound: errno.ENOENT,
    StaleGeneration: errno.ESTALE,
    DiskFull: errno.ENOSPC,
    ServiceError: errno.EAGAIN,
    SafeMode: errno.EROFS,
    NotEnoughDataNodes: errno.ENOSPC,
    Unavailable: errno.EHOSTUNREACH,
    TimedOut: errno.ETIMEDOUT,
    InvalidConfig: errno.EINVAL,
}

# Exit codes of `dfs`: 1 as coreutils for "the file system said no", 2 for wrong usage (click's),
# and codes of their own where a script would act differently.
EXIT_CODE: dict[type[DfsError], int] = {
    DfsError: 1,
    RequestError: 2,
    EventsGone: 1,
    InvalidContent: 1,  # the request was right, what it is about is not
    DagTooLarge: 1,
    InvalidConfig: 2,
    ServiceError: 69,  # EX_UNAVAILABLE of sysexits.h
    BlockError: 74,  # EX_IOERR
    StorageError: 74,
    StoreError: 74,
    InternalError: 70,  # EX_SOFTWARE
}


def _lookup(table: dict[type[DfsError], int], error: DfsError) -> int:
    return next(
        table[cls] for cls in type(error).__mro__ if issubclass(cls, DfsError) and cls in table
    )


def http_status(error: DfsError) -> int:
    """The HTTP status that answers a request which failed with *error*."""
    return _lookup(HTTP_STATUS, error)


def errno_of(error: DfsError) -> int:
    """The POSIX errno nearest to *error*, for faces that raise OSError."""
    return _lookup(ERRNO, error)


def exit_code(error: DfsError) -> int:
    """The exit code of a command that failed with *error*."""
    return _lookup(EXIT_CODE, error)


def all_errors() -> list[type[DfsError]]:
    """Every class of the tree, the root first, parents before children.

    Without those that other modules derive for themselves: they never travel.
    """
    found: list[type[DfsError]] = []
    queue: list[type[DfsError]] = [DfsError]
    while queue:
        cls = queue.pop(0)
        found.append(cls)
        queue.extend(sub for sub in cls.__subclasses__() if sub.__module__ == __name__)
    return found


BY_CODE: dict[str, type[DfsError]] = {cls.code: cls for cls in all_errors()}


def error_from_code(code: str, message: str) -> DfsError:
    """Rebuild an error received from the wire; an unknown code (a newer peer) is a plain DfsError."""
    return BY_CODE.get(code, DfsError)(message)


def system_reason(error: Exception) -> str:
    """The system's own words for what went wrong, without what asyncio and Python put around them."""
    number = getattr(error, "errno", None) or 0
    if number > 0:  # a resolver's are below
        return os.strerror(number)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

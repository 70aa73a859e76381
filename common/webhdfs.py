"""What both halves of WebHDFS share: paths and parameters of a request, errors as Hadoop's client knows them, who may ask.

Source: Hadoop's "WebHDFS REST API" document, and what its Java client does where that says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from . import codec
from .access import CheckAccess, parse_rights
from .errors import (
    BlockError,
    BlockUnavailable,
    Busy,
    DfsError,
    DirectoryNotEmpty,
    InternalError,
    InvalidAcl,
    InvalidPath,
    InvalidRequest,
    IsADirectory,
    LeaseConflict,
    LeaseLost,
    NameQuotaExceeded,
    NameTooLong,
    NotADirectory,
    PathExists,
    PathNotFound,
    PathTooDeep,
    PathTooLong,
    PermissionDenied,
    QuotaExceeded,
    RequestError,
    SafeMode,
    ShuttingDown,
    SpaceQuotaExceeded,
    StoreError,
    Unavailable,
    Unsupported,
)
from .messages import Stat
from .model import MAX_BLOCK_BYTES, MAX_REPLICATION, MIB, Struct
from .paths import shown

PREFIX = "/webhdfs/v1"
CSRF_HEADER = "X-XSRF-HEADER"
_IO_ERROR = "java.io.IOException"
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9._@-]*[$]?")
_BROWSER = re.compile(r"Mozilla|Opera")
_MISSING = re.compile(r"['\"](.*)['\"] does not exist", re.DOTALL)
MAX_PARAMETERS = 64
# Hadoop's CreateFlag. Only OVERWRITE makes a difference here: a file is always synced, and where it is placed is not the client's affair.
CREATE_FLAGS = frozenset(
    {
        *("CREATE", "OVERWRITE", "APPEND", "SYNC_BLOCK", "LAZY_PERSIST", "NEW_BLOCK"),
        *("NO_LOCAL_WRITE", "NO_LOCAL_RACK", "SHOULD_REPLICATE", "IGNORE_CLIENT_LOCALITY"),
    }
)

# Status and Java class of an error, searched along the class order as the tables of `common/errors.py`.
REMOTE: dict[type[DfsError], tuple[int, str]] = {
    DfsError: (403, _IO_ERROR),
    PathNotFound: (404, "java.io.FileNotFoundException"),
    PathExists: (403, "org.apache.hadoop.fs.FileAlreadyExistsException"),
    NotADirectory: (403, "org.apache.hadoop.fs.ParentNotDirectoryException"),
    IsADirectory: (404, "java.io.FileNotFoundException"),
    DirectoryNotEmpty: (403, "org.apache.hadoop.fs.PathIsNotEmptyDirectoryException"),
    InvalidPath: (400, "org.apache.hadoop.fs.InvalidPathException"),
    NameTooLong: (
        403,
        "org.apache.hadoop.hdfs.protocol.FSLimitException$PathComponentTooLongException",
    ),
    PathTooLong: (403, _IO_ERROR),
    PathTooDeep: (403, _IO_ERROR),
    PermissionDenied: (403, "org.apache.hadoop.security.AccessControlException"),
    QuotaExceeded: (403, "org.apache.hadoop.hdfs.protocol.QuotaExceededException"),
    NameQuotaExceeded: (403, "org.apache.hadoop.hdfs.protocol.NSQuotaExceededException"),
    SpaceQuotaExceeded: (403, "org.apache.hadoop.hdfs.protocol.DSQuotaExceededException"),
    LeaseConflict: (403, "org.apache.hadoop.hdfs.protocol.AlreadyBeingCreatedException"),
    LeaseLost: (403, "org.apache.hadoop.hdfs.server.namenode.LeaseExpiredException"),
    InvalidAcl: (403, "org.apache.hadoop.hdfs.protocol.AclException"),
    RequestError: (400, "java.lang.IllegalArgumentException"),
    Unsupported: (400, "java.lang.UnsupportedOperationException"),
    BlockError: (403, _IO_ERROR),
    BlockUnavailable: (403, "org.apache.hadoop.hdfs.BlockMissingException"),
    SafeMode: (403, "org.apache.hadoop.hdfs.server.namenode.SafeModeException"),
    Busy: (403, "org.apache.hadoop.ipc.RetriableException"),
    ShuttingDown: (403, "org.apache.hadoop.ipc.RetriableException"),
    Unavailable: (403, "org.apache.hadoop.ipc.RetriableException"),
    StoreError: (500, "java.lang.RuntimeException"),
    InternalError: (500, "java.lang.RuntimeException"),
}


class JavaError(DfsError):
    """An error whose Java class the operation knows better than the table. Never leaves WebHDFS."""

    code = "java-error"

    def __init__(self, message: str = "", java: str = _IO_ERROR, status: int = 403) -> None:
        super().__init__(message)
        self.java = java
        self.status = status


def remote_of(error: DfsError) -> tuple[int, str]:
    """(HTTP status, Java class) of *error*."""
    if isinstance(error, JavaError):
        return error.status, error.java
    return next(REMOTE[cls] for cls in type(error).__mro__ if cls in REMOTE)


def remote_exception(error: DfsError, reference: str = "") -> tuple[int, bytes]:
    """(HTTP status, body) that tell Hadoop's client of *error*."""
    status, java = remote_of(error)
    message = error.message
    missing = _MISSING.fullmatch(message)
    if missing is not None and isinstance(error, PathNotFound):
        message = f"File does not exist: {missing[1]}"  # Hadoop's words, which people search for
    message += f" (reference {reference})" if reference else ""
    simple = re.split(r"[.$]", java)[-1]
    exception = {"exception": simple, "javaClassName": java, "message": message}
    return status, codec.to_json({"RemoteException": exception})


# --- paths -------------------------------------------------------------------------------------


def path_of(raw_path: str) -> str:
    """The file system's path in the raw path of a URL: unescaped once; `+` and `;` mean themselves.

    Raises InvalidPath for what is no UTF-8.
    """
    try:
        text = unquote_to_bytes(raw_path[len(PREFIX) :]).decode()
    except UnicodeError:
        raise InvalidPath("Invalid path name: it is not UTF-8") from None
    if text and not text.startswith("/"):
        raise InvalidPath(f"Invalid path name {shown(text)}")
    return text or "/"


def url_path(path: str) -> str:
    """*path* as it stands in a URL, everything escaped that could mean something there."""
    return PREFIX + quote(path, safe="/")


# --- parameters --------------------------------------------------------------------------------


class Parameters:
    """The query of a request. Names are matched whatever their case; unknown ones are ignored, as Hadoop does.

    Every reading method raises InvalidRequest (IllegalArgumentException to the client) for a value that is no such thing.
    """

    def __init__(self, query: str) -> None:
        self._values: dict[str, list[str]] = {}
        self.names: list[tuple[str, str]] = []
        pairs = query.split("&") if query else []
        if len(pairs) > MAX_PARAMETERS:
            raise InvalidRequest(f"a request may have {MAX_PARAMETERS} parameters")
        for pair in pairs:
            if not pair:
                continue
            name, _, value = pair.partition("=")
            name, value = _form(name), _form(value)
            self.names.append((name, value))
            self._values.setdefault(name.lower(), []).append(value)

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def text(self, name: str, default: str = "") -> str:
        """The value of *name* (in lower case). An empty value counts as none."""
        found = self._values.get(name)
        if not found:
            return default
        if len(found) > 1 and len(set(found)) > 1:
            raise InvalidRequest(f'The parameter "{name}" is given {len(found)} times')
        return found[0] or default

    def required(self, name: str) -> str:
        found = self.text(name)
        if not found:
            raise InvalidRequest(f'Required param "{name}" for the operation is missing')
        return found

    def number(
        self, name: str, default: int | None = None, *, low: int = 0, high: int = 2**63 - 1
    ) -> int | None:
        text = self.text(name)
        if not text or text == "null":
            return default
        if not re.fullmatch(r"-?[0-9]{1,19}", text):
            raise self.invalid(name, text, "it is no number")
        value = int(text)
        if not low <= value <= high:
            raise self.invalid(name, text, f"it must be between {low} and {high}")
        return value

    def boolean(self, name: str, default: bool) -> bool:
        text = self.text(name).lower()
        if text in ("", "null"):
            return default
        if text not in ("true", "false"):
            raise self.invalid(name, text, "it must be true or false")
        return text == "true"

    def mode(self, name: str, default: int | None = None) -> int | None:
        text = self.text(name)
        if not text or text == "null":
            return default
        if not re.fullmatch(r"[01]?[0-7]{1,3}", text):
            raise self.invalid(name, text, "it must be between 0 and 1777, in octal")
        return int(text, 8)

    def rights(self, name: str) -> int:
        text = self.required(name)
        try:
            return parse_rights(text)
        except InvalidRequest as error:
            raise self.invalid(name, text, error.message) from None

    def replication(self) -> int | None:
        return self.number("replication", low=1, high=MAX_REPLICATION)

    def block_size(self) -> int | None:
        """Rounded up to a multiple of 1 MiB by whoever creates; larger blocks than there can be are cut down to the largest."""
        found = self.number("blocksize", low=1)
        return None if found is None else min(MAX_BLOCK_BYTES, -(-found // MIB) * MIB)

    def buffer_size(self) -> int | None:
        """Read only to be refused if it is no size: buffers here are as large as they are."""
        return self.number("buffersize", low=1, high=2**31 - 1)

    def overwrites(self) -> bool:
        """Whether CREATE may replace what is there."""
        text = self.text("createflag").upper()
        flags = {flag.strip() for flag in text.split(",")} - {""}
        if flags - CREATE_FLAGS:
            raise self.invalid(
                "createflag", text, f"the flags are {', '.join(sorted(CREATE_FLAGS))}"
            )
        if "APPEND" in flags:
            raise self.invalid("createflag", text, "to append there is op=APPEND")
        return self.boolean("overwrite", False) or "OVERWRITE" in flags

    @staticmethod
    def invalid(name: str, text: str, why: str) -> InvalidRequest:
        return InvalidRequest(f'Invalid value for webhdfs parameter "{name}": {shown(text)}: {why}')


def _form(text: str) -> str:
    """One name or value of a query, unescaped."""
    try:
        return unquote_to_bytes(text.replace("+", " ")).decode()
    except UnicodeError:
        raise InvalidRequest("a parameter is not UTF-8") from None


def user_name(text: str) -> str:
    """*text* if it may be a user's name; "" stays "" (nobody said who he is)."""
    if text and (len(text) > 255 or not _USER.fullmatch(text)):
        raise Parameters.invalid("user.name", text, "it is no user name")
    return text


def operation(
    parameters: Parameters, method: str, known: Mapping[str, frozenset[str]], whose: str
) -> str:
    """The op of a request, in upper case. *known*: which there are, by method; *whose* they are, for people."""
    text = parameters.text("op")
    name = text.upper()
    if name in known[method]:
        return name
    right = [other for other, ops in known.items() if name in ops]
    if right:
        raise Parameters.invalid("op", text, f"{name} is a {' or '.join(right)}, not a {method}")
    raise Parameters.invalid("op", text, f"{whose} has no such operation for {method}")


# --- creating ----------------------------------------------------------------------------------

Ask = Callable[[str, Struct], Awaitable[Any]]


async def require_creatable(ask: Ask, path: str, *, overwrite: bool, create_parents: bool) -> None:
    """Say at once what putting the file would say in the end, before the client has sent it all.

    *ask* carries out a reading operation for the user.
    """
    parent = path.rstrip("/").rpartition("/")[0] or "/"
    try:
        status = await ask("stat", Stat(path=path))
    except PathNotFound:
        try:
            await ask("check_access", CheckAccess(path=parent, rights=3))
        except PathNotFound:
            if not create_parents:
                raise
            return
        found = await ask("stat", Stat(path=parent))
        if not found.is_directory:
            raise NotADirectory(f"Parent path is not a directory: {parent}") from None
        return
    if status.is_directory:
        raise PathExists(f"{path} already exists as a directory")
    if not overwrite:
        raise PathExists(f"{path} already exists")
    await ask("check_access", CheckAccess(path=path, rights=2))


def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding says so: "gzip;q=0" says the contrary."""
    for part in header.lower().split(","):
        coding, _, quality = part.partition(";")
        if coding.strip() in ("gzip", "x-gzip"):
            return not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", quality)
    return False


# --- browsers ----------------------------------------------------------------------------------


class Origins:
    """Which web pages may use the interface.

    A page of another origin may only where its origin is listed ("*": every one may). What changes anything must carry the header
    X-XSRF-HEADER when a browser sends it, because a browser sends no such header for a page without asking first.
    """

    METHODS = "GET, HEAD, PUT, POST, DELETE, OPTIONS"
    HEADERS = "X-Requested-With, Content-Type, Accept, Origin, Range, X-XSRF-HEADER"

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._allowed = frozenset(allowed)

    def allows(self, origin: str) -> bool:
        return "*" in self._allowed or origin in self._allowed

    def answer(self, origin: str) -> dict[str, str]:
        """Headers of an answer to a page of *origin*."""
        if not origin or not self.allows(origin):
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Methods": self.METHODS,
            "Access-Control-Allow-Headers": self.HEADERS,
            "Access-Control-Expose-Headers": "Location, Content-Length, Content-Type",
            "Access-Control-Max-Age": "1800",
            "Vary": "Origin",
        }

    def refuse(self, method: str, headers: Mapping[str, str]) -> None:
        """Raise unless a request of this method and these headers may be carried out."""
        if method in ("GET", "HEAD", "OPTIONS") or CSRF_HEADER in headers:
            return
        if _BROWSER.match(headers.get("User-Agent", "")) or "Origin" in headers:
            raise JavaError(
                "Missing Required Header for CSRF Vulnerability Protection: " + CSRF_HEADER,
                "java.lang.IllegalArgumentException",
                400,
            )

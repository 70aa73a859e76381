"""Paths of the namespace: parsing, and the limits HDFS documents.

A path is absolute, "/"-separated UTF-8 text. Parsing gives its components; the root has none.
Empty components (a doubled or trailing slash) are dropped, as POSIX does. "." and ".." are refused:
resolving them is the client's affair, because only the client has a working directory.
"""

from __future__ import annotations

from .errors import InvalidPath, NameTooLong, PathTooDeep, PathTooLong

NAME_LIMIT_BYTES = 255
DEPTH_LIMIT = 1_000
PATH_LIMIT_CHARS = 8_000

Components = tuple[str, ...]


def check_name(name: str) -> None:
    """Raise unless *name* may be one component of a path."""
    if not name or name in (".", ".."):
        raise InvalidPath(f"{name!r} can't be the name of a file or directory")
    if "/" in name or "\x00" in name:
        raise InvalidPath(f"name {shown(name)} contains '/' or a NUL character")
    if len(name) * 3 > NAME_LIMIT_BYTES or not name.isascii():
        try:
            size_bytes = len(name.encode())
        except UnicodeEncodeError:
            raise InvalidPath(f"name {shown(name)} is not valid Unicode text") from None
        if size_bytes > NAME_LIMIT_BYTES:
            raise NameTooLong(
                f"name {shown(name)} is {size_bytes} bytes long in UTF-8; "
                f"the limit is {NAME_LIMIT_BYTES}"
            )


def parse(path: str) -> Components:
    """The components of *path*.

    Raises InvalidPath for a relative path, "." or "..", NUL or lone surrogates, and NameTooLong,
    PathTooLong or PathTooDeep for the limits above.
    """
    if not path.startswith("/"):
        raise InvalidPath(f"path {shown(path)} is not absolute: it must begin with '/'")
    if len(path) > PATH_LIMIT_CHARS:
        raise PathTooLong(
            f"path {shown(path)} has {len(path)} characters; the limit is {PATH_LIMIT_CHARS}"
        )
    components = tuple(filter(None, path.split("/")))
    if len(components) > DEPTH_LIMIT:
        raise PathTooDeep(
            f"path {shown(path)} is {len(components)} components deep; the limit is {DEPTH_LIMIT}"
        )
    # Most paths pass as a whole: nothing in them needs a closer look.
    if (
        len(path) <= NAME_LIMIT_BYTES
        and path.isascii()
        and "\x00" not in path
        and "." not in components
        and ".." not in components
    ):
        return components
    for name in components:
        check_name(name)
    return components


def is_plain(path: str, name: str) -> bool:
    """Whether *path*, made of the path of a directory, "/" and *name*, is short and simple enough to need no parsing."""
    return (
        len(path) <= NAME_LIMIT_BYTES
        and path.startswith("/")
        and name != ""
        and name != "."
        and name != ".."
        and path.isascii()
        and "\x00" not in name
    )


def join(components: Components) -> str:
    """The path text of *components*; the root is "/"."""
    return "/" + "/".join(components)


def shown(text: str, limit_chars: int = 120) -> str:
    """*text* quoted for a message: one line, no control characters, bounded."""
    clipped = text if len(text) <= limit_chars else text[: limit_chars - 1] + "…"
    return ascii(clipped) if not clipped.isprintable() else repr(clipped)

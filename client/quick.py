"""`dfs`, as a program: answers `dfs cid PATH` before the command line is loaded, and hands everything else to it.

Loading it all takes several times as long as asking the NameNode. So the plainest form of that command is answered here, with
the standard library and one request; whatever is out of the ordinary, an error among it, is left to `client/cli`, which begins anew.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

KNOWN = frozenset(("namenode", "user", "working_directory"))  # settings that are understood here
SHORT_NAMES = {"namenode": "TWINFS_NAMENODE", "user": "TWINFS_USER"}  # as `common.config` has them
FILES = ("{XDG_CONFIG_HOME}/twinfs/twinfs.toml", "/etc/twinfs/twinfs.toml")
TIMEOUT_S = 5.0
MAX_PATHS = 100


def main() -> None:
    """The entry point of `dfs`."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        found = answer(sys.argv[1:], os.environ)
        if found is not None:
            try:
                sys.stdout.write(found)
                sys.stdout.flush()
            except OSError:
                from .cli import end

                end(0)  # it can't be written a second time either, and says so
            return
    from .cli import main as whole

    whole()


def answer(argv: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """What `dfs` with these arguments prints; None where that is not for here to say."""
    if "cid" not in argv[:3]:
        return None
    words = list(argv)
    flag = ""
    if words[0] == "--namenode" and len(words) > 2:
        flag = words[1]
        del words[:2]
    paths = words[1:]
    if words[0] != "cid" or not 0 < len(paths) <= MAX_PATHS:
        return None
    given = _settings(environ)
    if given is None:
        return None
    url = flag or given.get("namenode") or "http://127.0.0.1:9870"
    user = given.get("user") or _account()
    base = given.get("working_directory") or f"/user/{user}"
    wanted = [_absolute(path, base) for path in paths]
    if not url.isascii() or not user.isascii() or not user.isprintable() or "" in wanted:
        return None
    found = _ask(url, user, wanted)
    if found is None:
        return None
    if len(found) == 1:
        return f"{found[0]}\n"
    return "".join(f"{cid}  {path}\n" for cid, path in zip(found, wanted, strict=True))


def _settings(environ: Mapping[str, str]) -> dict[str, str] | None:
    """As `common.config` finds them: from the environment before the file. None where there are others."""
    file = environ.get("TWINFS_CONFIG", "")
    if not file:
        base = environ.get("XDG_CONFIG_HOME") or environ.get("HOME", "/") + "/.config"
        places = [place.format(XDG_CONFIG_HOME=base) for place in FILES]
        file = next((place for place in places if os.path.isfile(place)), "")  # noqa: PTH113
    found: dict[str, str] = {}
    if file:
        import tomllib

        try:
            with open(file, "rb") as stream:  # noqa: PTH123
                document = tomllib.load(stream)
        except (OSError, ValueError):
            return None
        table = document.get("client", {})
        if not isinstance(table, dict) or set(document) - {"client", "namenode", "datanode"}:
            return None
        found.update(table)
    for name, variable in SHORT_NAMES.items():
        if variable in environ:
            found[name] = environ[variable]
    for name, value in environ.items():
        if name.startswith("TWINFS_CLIENT_"):
            found[name.removeprefix("TWINFS_CLIENT_").lower()] = value
    if set(found) - KNOWN or not all(isinstance(value, str) for value in found.values()):
        return None
    return found


def _account() -> str:
    from getpass import getuser

    return getuser()


def _absolute(path: str, base: str) -> str:
    """ "" for what means more than it says: options, URLs, bytes that are no text, ways back up."""
    if path.startswith(("-", "dfs://")) or not path or not path.isprintable():
        return ""
    parts = [part for part in (path if path[0] == "/" else f"{base}/{path}").split("/") if part]
    return "" if {".", ".."} & set(parts) else "/" + "/".join(parts)


def _ask(url: str, user: str, paths: Sequence[str]) -> list[str] | None:
    import base64
    import json
    import urllib.parse

    from .http_call import HttpConnection

    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
            return None
        connection = HttpConnection(
            parts.hostname, parts.port or 9870, connect_timeout_s=TIMEOUT_S, timeout_s=TIMEOUT_S
        )
        headers = {"Content-Type": "application/json", "X-TwinFS-User": user}
        body = json.dumps({"paths": paths}).encode()
        said = connection.post("/v1/path_cids", body, headers)
        connection.close()
        if said.status != 200:
            return None
        found = []
        for one in json.loads(said.body)["results"]:
            cid = base64.b64decode(one.get("cid") or "")
            if one.get("failure") is not None or cid[:1] != b"\x01":
                return None  # an error, a directory that has to be gone through, a CIDv0
            found.append("b" + base64.b32encode(cid).decode().rstrip("=").lower())
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return None
    return found if len(found) == len(paths) else None

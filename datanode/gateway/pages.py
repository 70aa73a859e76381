"""The pages that list a folder and show a value. Everything that comes from content is escaped. Pure."""

from __future__ import annotations

import html
import json
import re
import urllib.parse
from collections.abc import Sequence
from typing import Any

from ...common.ipld import dag_json
from ...common.ipld.dag import Entry

STYLE = """
:root{color-scheme:light dark;--line:#8883;--dim:#888;--link:#0b62c4}
@media(prefers-color-scheme:dark){:root{--link:#6cb2ff}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;padding:1.5rem 1rem 3rem;max-width:60rem}
header{border-bottom:1px solid var(--line);padding-bottom:.75rem;margin-bottom:.5rem}
h1{font-size:1.1rem;font-weight:600;margin:0;overflow-wrap:anywhere}
header p{color:var(--dim);margin:.25rem 0 0;font-size:.85rem;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;table-layout:fixed}
td{padding:.35rem .5rem;border-bottom:1px solid var(--line);overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
td:nth-child(2){width:12em;color:var(--dim)}
td:nth-child(3){width:7em;text-align:right;font-variant-numeric:tabular-nums}
a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}
code{font:.85em ui-monospace,monospace}
pre{font:.85rem/1.5 ui-monospace,monospace;white-space:pre-wrap;overflow-wrap:anywhere}
@media(max-width:36rem){td:nth-child(2){display:none}}
"""


def size_text(size: int) -> str:
    """1023 B, 1.5 KiB, 12 MiB."""
    if size < 1024:
        return f"{size} B"
    value, units = size / 1024, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.1f} {units[0]}" if value < 10 else f"{value:.0f} {units[0]}"


def folder_page(path: str, cid: str, entries: Sequence[Entry], *, has_parent: bool) -> bytes:
    """HTML of the folder at *path* ("/ipfs/CID/a/b", not escaped)."""
    rows = []
    if has_parent:
        rows.append('<tr><td><a href="../">..</a></td><td></td><td></td></tr>')
    for entry in entries:
        name, target = html.escape(entry.name), urllib.parse.quote(entry.name, safe="")
        whole = str(entry.cid)
        short = f"{whole[:6]}…{whole[-6:]}"
        rows.append(
            f'<tr><td><a href="./{target}">{name}</a></td>'
            f'<td><a href="/ipfs/{whole}?filename={target}"><code title="{whole}">{short}</code></a></td>'
            f"<td>{size_text(entry.tsize)}</td></tr>"
        )
    count = f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'}"
    note = f"<code>{cid}</code> · {count}"
    return _page(path, note, f"<table><tbody>{''.join(rows)}</tbody></table>")


def value_page(path: str, cid: str, codec: str, value: Any) -> bytes:
    """HTML of a dag-json or dag-cbor block at *path*: its dag-json, links to follow, and the block to download."""
    plain = json.loads(dag_json.encode(value))
    text = html.escape(json.dumps(plain, indent=2, ensure_ascii=False))
    # In a text of the value's, quotes have a backslash before them, so only links look like this.
    text = _LINK.sub(r'&quot;/&quot;: &quot;<a href="/ipfs/\1">\1</a>&quot;', text)
    saved = " · ".join(
        f'<a href="/ipfs/{cid}?format={form}&amp;download=true">{form}</a>'
        for form in ("dag-json", "dag-cbor", "raw", "car")
    )
    return _page(path, f"<code>{cid}</code> · {codec} · save as {saved}", f"<pre>{text}</pre>")


_LINK = re.compile(r"&quot;/&quot;: &quot;([A-Za-z0-9]{4,400})&quot;")


def _page(path: str, note: str, content: str) -> bytes:
    title = html.escape(path)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>"
        f"<header><h1>{title}</h1><p>{note}</p></header>{content}</body></html>\n"
    ).encode()

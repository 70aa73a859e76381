"""Imports point down only: namenode and datanode on top, then client, then common. Exit 1 if one does not.

The folders of the checkout are the package itself, so the rule is read off the sources' relative imports.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "common": {"common"},
    "client": {"common", "client"},
    "datanode": {"common", "client", "datanode"},
    "namenode": {"common", "namenode"},
}


def layers_of(path: Path) -> set[str]:
    """The layers that a module imports."""
    package = ("twinfs", *path.relative_to(ROOT).parts[:-1])
    found: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = tuple(node.module.split(".")) if node.module else ()
            found |= {(*base, *module, alias.name) for alias in node.names}
    return {name[1] for name in found if name[0] == "twinfs" and len(name) > 1} & set(MAY_IMPORT)


def violations() -> list[str]:
    wrong = []
    for layer, allowed in MAY_IMPORT.items():
        for path in sorted((ROOT / layer).rglob("*.py")):
            for imported in sorted(layers_of(path) - allowed):
                wrong.append(f"{path.relative_to(ROOT)}: {layer} may not import {imported}")
    return wrong


if __name__ == "__main__":
    found = violations()
    print("\n".join(found) or "import layers: ok")
    sys.exit(bool(found))

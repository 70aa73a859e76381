"""`twinfs` as programs import it: lazy, complete, and the same whether one blocks or awaits."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import twinfs
from twinfs.client import filesystem, sync

# What the blocking face has in a form of its own, or can't have.
OWN = {"close", "connect", "events", "list", "open", "walk"}
ONLY_ASYNC = {"located", "reader", "stream_append", "stream_put"}


def test_all_names_are_there_and_listed() -> None:
    assert set(twinfs.__all__) <= set(dir(twinfs))
    assert set(twinfs.__all__) == {*twinfs._HOMES, "__version__"}
    assert list(twinfs.__all__) == sorted(twinfs.__all__)
    for name in twinfs.__all__:
        assert getattr(twinfs, name) is not None
    assert twinfs.errors.PathNotFound.__mro__[-4] is twinfs.DfsError
    with pytest.raises(AttributeError, match="nothing"):
        _ = twinfs.nothing  # type: ignore[attr-defined]


def test_importing_twinfs_imports_nothing_else() -> None:
    program = (
        "import sys; import twinfs; assert twinfs.__version__;"
        "print([m for m in sys.modules if m.startswith('twinfs.') or m == 'aiohttp'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def public(kind: type) -> dict[str, object]:
    return {n: v for n, v in inspect.getmembers_static(kind) if not n.startswith("_")}


def test_the_blocking_face_has_every_method() -> None:
    wanted = set(public(filesystem.FileSystem)) - ONLY_ASYNC
    assert set(public(sync.FileSystem)) == wanted, "list it in client/sync.py"


@pytest.mark.parametrize("name", sorted(set(public(filesystem.FileSystem)) - ONLY_ASYNC - OWN))
def test_both_faces_agree(name: str) -> None:
    one, other = public(filesystem.FileSystem)[name], public(sync.FileSystem)[name]
    if isinstance(one, property):
        assert isinstance(other, property)
        return
    assert callable(one)
    assert callable(other)
    assert inspect.iscoroutinefunction(one)
    assert not inspect.iscoroutinefunction(other)
    assert inspect.signature(one) == inspect.signature(other)
    assert one.__doc__ == other.__doc__

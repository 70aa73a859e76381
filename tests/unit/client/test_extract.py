"""Content onto the local disk: what hostile DAGs do, nothing lands outside of the target, links included."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twinfs.client.content_reader import read_file
from twinfs.client.extract import Extractor
from twinfs.common.errors import ContentNotFound, DfsError, InvalidContent, PathExists
from twinfs.common.ipld import dag, dag_pb, unixfs
from twinfs.common.ipld.cid import DAG_PB, RAW, Cid
from twinfs.common.ipld.dag_pb import PBLink
from twinfs.common.ipld.unixfs import Kind, UnixFs


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Blocks(dict[Cid, bytes]):
    def keep(self, codec: int, block: bytes) -> Cid:
        cid = Cid.of(codec, block)
        self[cid] = block
        return cid

    def folder(self, entries: list[tuple[str, Cid]]) -> Cid:
        links = [PBLink(cid, name, 1) for name, cid in entries]
        return self.keep(DAG_PB, dag_pb.encode(links, unixfs.DIRECTORY_DATA))

    def link(self, target: str) -> Cid:
        data = unixfs.encode(UnixFs(kind=Kind.SYMLINK, data=target.encode()))
        return self.keep(DAG_PB, dag_pb.encode([], data))


class Reader:
    """Reads from blocks at hand."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks

    async def get(self, cid: Cid) -> bytes:
        if cid not in self._blocks:
            raise ContentNotFound(str(cid))
        return self._blocks[cid]

    async def find(self, cid: Cid) -> None:
        return

    async def prefetch(self, wanted: Sequence[Cid]) -> None:
        return

    def forget(self) -> None:
        return

    async def resolve(self, root: Cid, names: list[str]) -> Cid:
        return (await dag.run_async(dag.resolve(root, names), self.get)).cid

    async def entity(self, cid: Cid) -> dag.Entity:
        return dag.entity(cid, await self.get(cid))

    async def entries(self, found: dag.Entity) -> list[dag.Entry]:
        return await dag.run_async(dag.entries(found), self.get)

    def read(
        self, found: dag.Entity, start: int = 0, end: int | None = None
    ) -> AsyncIterator[dag.Block]:
        return read_file(self.get, found, start, end)


def unpack(blocks: Blocks, root: Cid, place: Path) -> None:
    """The first error of all, also of those inside of folders."""
    extractor = Extractor(Reader(blocks), overwrite=False, progress=lambda size: None)
    asyncio.run(extractor.extract(root, place))
    for _, error in extractor.done.errors:
        raise error


def test_a_tree_comes_out_as_it_went_in(tmp_path: Path) -> None:
    blocks = Blocks()
    hello = blocks.keep(RAW, b"hello")
    inner = blocks.folder([("empty", blocks.keep(RAW, b"")), ("ünï", hello)])
    root = blocks.folder([("a", hello), ("d", inner), ("l", blocks.link("d/ünï"))])
    unpack(blocks, root, tmp_path / "out")
    assert (tmp_path / "out/d/ünï").read_bytes() == (tmp_path / "out/l").read_bytes() == b"hello"
    assert (tmp_path / "out/d/empty").read_bytes() == b""
    with pytest.raises(PathExists):
        unpack(blocks, root, tmp_path / "out")


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../x", "/etc/x", "a\0b", "x" * 256])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    blocks = Blocks()
    root = blocks.folder([(name, blocks.keep(RAW, b"x"))])
    with pytest.raises(InvalidContent):
        unpack(blocks, root, tmp_path / "out")
    assert set(names_in(tmp_path)) <= {"out"}
    assert not (tmp_path / "out").exists() or not names_in(tmp_path / "out")


@pytest.mark.parametrize("target", ["/etc", "..", "../..", "d/../../x", "../out2", ""])
def test_links_that_lead_outside_are_left_out_and_the_rest_is_there(
    tmp_path: Path, target: str
) -> None:
    blocks = Blocks()
    hello = blocks.keep(RAW, b"hello")
    root = blocks.folder([("a", hello), ("l", blocks.link(target)), ("z", hello)])
    with pytest.raises(InvalidContent):
        unpack(blocks, root, tmp_path / "out")
    assert names_in(tmp_path / "out") == ["a", "z"]


def test_links_that_lead_outside_by_way_of_others_are_left_out(tmp_path: Path) -> None:
    """A "." or ".." is inside, and so is a link's name with a ".." behind it, as text: the system goes up from where the link leads."""
    blocks = Blocks()
    hello = blocks.keep(RAW, b"hello")
    inner = blocks.folder([("up", blocks.link("..")), ("x", blocks.link("up/../secret"))])
    entries = [("here", blocks.link(".")), ("inner", inner), ("out", blocks.link("here/.."))]
    root = blocks.folder([*entries, ("z", hello)])
    with pytest.raises(InvalidContent):
        unpack(blocks, root, tmp_path / "out")
    assert names_in(tmp_path / "out") == ["here", "inner", "z"]
    assert names_in(tmp_path / "out" / "inner") == ["up"]


def test_names_as_long_as_they_may_be_come_out(tmp_path: Path) -> None:
    blocks = Blocks()
    hello = blocks.keep(RAW, b"hello")
    long = ["a" * 255, "海" * 85, "é" * 127]
    unpack(blocks, blocks.folder([(name, hello) for name in long]), tmp_path / "out")
    assert set(names_in(tmp_path / "out")) == set(long)


def test_a_link_and_a_folder_of_one_name_are_refused(tmp_path: Path) -> None:
    blocks = Blocks()
    (tmp_path / "elsewhere").mkdir()
    folder = blocks.folder([("x", blocks.keep(RAW, b"x"))])
    root = blocks.folder([("a", blocks.link(str(tmp_path / "elsewhere"))), ("a", folder)])
    with pytest.raises(DfsError):
        unpack(blocks, root, tmp_path / "out")
    assert not names_in(tmp_path / "elsewhere")


names = st.one_of(
    st.sampled_from(["..", ".", "a", "b", "a/b", "/x", "../../x", "l"]), st.text(max_size=4)
)


@st.composite
def trees(draw: st.DrawFn) -> tuple[Blocks, Cid]:
    blocks = Blocks()
    known = [blocks.keep(RAW, b"data"), blocks.link("../../.."), blocks.link("/tmp")]
    for _ in range(draw(st.integers(0, 5))):
        entries = draw(st.lists(st.tuples(names, st.sampled_from(known)), max_size=4))
        known.append(blocks.folder(entries))
    junk = draw(st.binary(max_size=40))
    known.append(blocks.keep(DAG_PB, junk))
    return blocks, draw(st.sampled_from(known))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(made=trees())
def test_nothing_is_ever_written_outside_of_the_target(
    made: tuple[Blocks, Cid], tmp_path_factory: pytest.TempPathFactory
) -> None:
    blocks, root = made
    place = tmp_path_factory.mktemp("x")
    inside = place / "deep" / "out"
    inside.parent.mkdir()
    with contextlib.suppress(DfsError):
        unpack(blocks, root, inside)
    assert names_in(place) == ["deep"]
    assert set(names_in(inside.parent)) <= {"out"}

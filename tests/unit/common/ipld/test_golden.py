"""What we make of contents is what other IPFS software makes of them (tests/golden says how that was recorded)."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from twinfs.common.ipld import car, dag, dag_cbor, dag_json, directory, layout
from twinfs.common.ipld.cid import Cid
from twinfs.common.ipld.layout import PROFILES, Node, Profile, root_of_digests

from .contents import MIB, Blocks, add_bytes, add_file, add_tree, content, pieces, repeated

GOLDEN = Path(__file__).parents[3] / "golden"
CIDS: dict[str, dict[str, Any]] = json.loads((GOLDEN / "unixfs_cids.json").read_text())

FILES = {
    "empty": lambda: b"",
    "one": lambda: content(1, 1),
    "chunk": lambda: repeated(2, MIB),
    "chunk+1": lambda: repeated(2, MIB + 1),
    "three": lambda: repeated(3, 3 * MIB - 7),
    "quarter": lambda: repeated(5, MIB // 4),
    "quarter+1": lambda: repeated(5, MIB // 4 + 1),
    "174 quarters": lambda: repeated(6, 174 * MIB // 4),
    "174 quarters+1": lambda: repeated(6, 174 * MIB // 4 + 1),
}
UNICODE = ["\u00e9", "e\u0301", "日本語", "😀 smile", "Z", "a", "\uffee", "a b+c%"]
TREES: dict[str, Any] = {
    "directory": lambda: {
        "a": content(10, 100),
        "b.txt": b"",
        "big": repeated(12, 2 * MIB + 5),
    },
    "nested": lambda: {
        "x": {"y": {"z": content(13, 10)}, "w": content(14, 20)},
        "top": content(15, 30),
        "e": {},
    },
    "unicode": lambda: {name: content(20 + i, 5 + i) for i, name in enumerate(UNICODE)},
    "wide": lambda: {f"name-{i}": content(i, 3) for i in range(10_000)},
    **{
        f"names {count}": lambda count=count: {f"f{i:06d}": content(i, 3) for i in range(count)}
        for count in (4000, 4400, 4500, 5000, 5500, 6000)
    },
}
EACH_PROFILE = pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))


def check(profile: Profile, name: str, node: Node, blocks: Blocks) -> None:
    wanted = CIDS[profile.name][name]
    assert str(node.cid) == wanted["cid"]
    assert len(blocks) == wanted["blocks"]


@EACH_PROFILE
@pytest.mark.parametrize("name", list(FILES))
def test_a_file_has_the_cid_others_give_it(profile: Profile, name: str) -> None:
    blocks = Blocks()
    check(profile, name, add_bytes(profile, FILES[name](), blocks), blocks)


@EACH_PROFILE
@pytest.mark.parametrize("name", list(TREES))
def test_a_directory_has_the_cid_others_give_it(profile: Profile, name: str) -> None:
    blocks = Blocks()
    check(profile, name, add_tree(profile, TREES[name](), blocks), blocks)


@EACH_PROFILE
def test_a_symlink_has_the_cid_others_give_it(profile: Profile) -> None:
    blocks = Blocks()
    link, made = directory.symlink(profile, "target/of it")
    blocks.add(*made)
    entries = {"link": link, "file": add_bytes(profile, content(30, 4), blocks)}
    root, above = directory.build(profile, entries)
    for one in above:
        blocks.add(*one)
    check(profile, "symlink", root, blocks)


@EACH_PROFILE
@pytest.mark.parametrize("rest", [0, 1])
def test_a_file_at_the_width_of_a_node(profile: Profile, rest: int) -> None:
    """1024 of the profile's chunks, and one byte more; in unixfs-v0-2015, of 174 links a node, that is no boundary."""
    cycle = pieces(profile, content(4, MIB))
    chunks = itertools.chain(cycle * (1024 // len(cycle)), [cycle[0][:rest]] if rest else [])
    blocks = Blocks()
    root = add_file(profile, chunks, blocks)
    check(profile, "1024 chunks+1" if rest else "1024 chunks", root, blocks)


@pytest.mark.parametrize("name", ["twinfs", "unixfs-v1-2025"])
def test_digests_alone_give_the_same_root(name: str) -> None:
    profile = PROFILES[name]
    for file in FILES.values():
        data = file()
        digests = b"".join(
            layout.leaf(profile, chunk)[0].cid.digest for chunk in pieces(profile, data)
        )
        blocks = Blocks()
        root, made = root_of_digests(profile, digests if data else b"", len(data))
        assert root == add_bytes(profile, data, blocks)
        assert all(blocks[one.cid.multihash] == one.block for one in made)


def test_a_car_of_other_software_reads_and_is_written_alike() -> None:
    packed = (GOLDEN / "packed.car").read_bytes()
    roots, blocks = car.read_all(packed)
    assert len(roots) == 1
    again = car.header(roots) + b"".join(car.frame(b.cid, b.data) for b in blocks)
    assert again == packed

    store = Blocks({block.cid.multihash: block.data for block in blocks})
    found = dag.run(dag.resolve(roots[0], ["sub", "ünïcode"]), store.get_block)
    assert store.get_block(found.cid) == b"x" * 3000
    root = dag.entity(roots[0], store.get_block(roots[0]))
    assert [e.name for e in dag.run(dag.entries(root), store.get_block)] == ["hello.txt", "sub"]


def test_values_are_encoded_as_others_encode_them() -> None:
    for case in json.loads((GOLDEN / "values.json").read_text()):
        value = dag_json.decode(case["json"])
        assert dag_json.encode(value).decode() == case["json"]
        block = bytes.fromhex(case["cbor"])
        assert dag_cbor.encode(value) == block
        assert dag_cbor.decode(block) == value


def test_known_names_of_nothing() -> None:
    """The CIDs that everybody who works with IPFS knows by sight."""
    v1 = PROFILES["unixfs-v1-2025"]
    empty, _ = directory.build(v1, {})
    assert str(empty.cid) == "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"
    old, _ = directory.build(PROFILES["unixfs-v0-2015"], {})
    assert str(old.cid) == "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"
    assert Cid.parse("bafkqaaa").is_identity

"""Racks: a mapping file, a script, and what happens when they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinfs.common.errors import InvalidConfig, InvalidRequest
from twinfs.common.model import NodeAddress, NodeId
from twinfs.namenode.topology import Topology, check_rack, parse_mapping, rack_in

A = NodeAddress(node_id=NodeId(1), host="a", data="a:1", http="a:2")
B = NodeAddress(node_id=NodeId(2), host="b", data="b:1", http="b:2")


def test_a_mapping_names_hosts_addresses_and_uuids() -> None:
    mapping = parse_mapping("# racks\na /west\nb:1 /east/r1  # two levels\n\nu3 /north\n")
    assert rack_in(mapping, A, "u1") == "/west"
    assert rack_in(mapping, B, "u2") == "/east/r1"
    assert rack_in(mapping, A, "u3") == "/north"  # the most special name decides
    assert rack_in({}, A, "u1") is None


@pytest.mark.parametrize("text", ["a", "a west", "a /x y", "a /x\na /y", "a /x/", "a /x//y"])
def test_a_malformed_mapping_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(InvalidConfig, match="line"):
        parse_mapping(text)


@pytest.mark.parametrize("rack", ["", "x", "/", "/a b", "/a/", "/ä", "/" + "x" * 200, "/a" * 20])
def test_what_is_no_rack_is_refused(rack: str) -> None:
    with pytest.raises(InvalidRequest):
        check_rack(rack)


async def test_a_file_is_read_again_when_asked(tmp_path: Path) -> None:
    file = tmp_path / "racks"
    file.write_text("a /one\n")
    topology = Topology(file=str(file), script="")
    nodes = [(A, "u1"), (B, "u2")]
    file.write_text("a /two\nb /three\n")
    assert await topology.racks(nodes) == ["/one", None]
    assert await topology.racks(nodes, again=True) == ["/two", "/three"]
    file.write_text("nonsense\n")
    with pytest.raises(InvalidConfig):
        await topology.racks(nodes, again=True)
    assert await topology.racks(nodes) == ["/two", "/three"]


def test_a_file_that_is_not_there_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="can't be read"):
        Topology(file=str(tmp_path / "none"), script="")


def script(folder: Path, text: str) -> Topology:
    path = folder / "racks.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return Topology(file="", script=str(path))


async def test_a_script_prints_a_rack_for_each_host(tmp_path: Path) -> None:
    topology = script(tmp_path, 'for host in "$@"; do echo "/rack-$host"; done')
    assert await topology.racks([(A, "u1"), (B, "u2")]) == ["/rack-a", "/rack-b"]
    assert await topology.racks([]) == []


@pytest.mark.parametrize("text", ["exit 3", "echo /only-one", "echo a b", "echo '/x y /z'"])
async def test_a_script_that_fails_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidConfig, match="topology script"):
        await script(tmp_path, text).racks([(A, "u1"), (B, "u2")])


async def test_a_script_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="can't be run"):
        await Topology(file="", script=str(tmp_path / "none")).racks([(A, "u1")])

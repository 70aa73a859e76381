"""Racks: a mapping file, a script, and what happens when they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinfs.common.errors import InvalidConfig, InvalidRequest
from twinfs.common.model import NodeAddress, NodeId
from twinfs.namenode import topology
from twinfs.namenode.topology import Topology, check_rack, parse_mapping, rack_in

from ...support.cluster import eventually

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
    found = Topology(file=str(file), script="")
    nodes = [(A, "u1"), (B, "u2")]
    file.write_text("a /two\nb /three\n")
    assert await found.racks(nodes) == ["/one", None]
    assert await found.racks(nodes, again=True) == ["/two", "/three"]
    file.write_text("nonsense\n")
    with pytest.raises(InvalidConfig):
        await found.racks(nodes, again=True)
    assert await found.racks(nodes) == ["/two", "/three"]


def test_a_file_that_is_not_there_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="can't be read"):
        Topology(file=str(tmp_path / "none"), script="")


def script(folder: Path, text: str) -> Topology:
    path = folder / "racks.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return Topology(file="", script=str(path))


async def test_a_script_prints_a_rack_for_each_host(tmp_path: Path) -> None:
    found = script(tmp_path, 'for host in "$@"; do echo "/rack-$host"; done')
    assert await found.racks([(A, "u1"), (B, "u2")]) == ["/rack-a", "/rack-b"]
    assert await found.racks([]) == []


@pytest.mark.parametrize("text", ["exit 3", "echo /only-one", "echo a b", "echo '/x y /z'"])
async def test_a_script_that_fails_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidConfig, match="topology script"):
        await script(tmp_path, text).racks([(A, "u1"), (B, "u2")])


async def test_what_a_failing_script_complains_of_is_told(tmp_path: Path) -> None:
    noisy = "seq 100000 >&2; echo 'no such host: a' >&2; exit 2"
    with pytest.raises(InvalidConfig, match="failed with exit code 2: 'no such host: a'"):
        await script(tmp_path, noisy).racks([(A, "u1")])
    with pytest.raises(InvalidConfig, match="failed with signal 9"):
        await script(tmp_path, "kill -9 $$").racks([(A, "u1")])


async def test_a_script_that_never_stops_printing_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="printed more than 2048 bytes for 2 hosts"):
        await script(tmp_path, "yes /rack").racks([(A, "u1"), (B, "u2")])


@pytest.mark.parametrize("ending", ["wait", "exit 0"])
async def test_a_script_that_hangs_is_ended_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(topology, "SCRIPT_LIMIT_S", 0.5)
    pid_file = tmp_path / "pid"
    hanging = f"sleep 600 & echo $! > {pid_file}; echo /rack; {ending}"
    with pytest.raises(InvalidConfig, match="did not end"):
        await script(tmp_path, hanging).racks([(A, "u1")])
    status = Path(f"/proc/{pid_file.read_text().strip()}/stat")
    await eventually(lambda: gone(status), "the sleeper is gone")


async def gone(status: Path) -> bool:
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


async def test_a_script_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="can't be run"):
        await Topology(file="", script=str(tmp_path / "none")).racks([(A, "u1")])

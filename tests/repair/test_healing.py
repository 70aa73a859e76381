"""Real processes: nodes are killed, replicas damaged, nodes taken out of service; the cluster heals by itself."""

from __future__ import annotations

import json
import random
import sqlite3
from pathlib import Path

from ..support.cluster import Server, wait_until
from .conftest import Bench

MIB = 1024 * 1024


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Change one bit of a file, its time of change kept."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ (1 << bit)]))


def index_of(four: Bench, server: Server) -> Path:
    return four.cluster.folder / server.name / "index.db"


def test_a_killed_node_is_made_up_for_and_welcome_back(four: Bench) -> None:
    """Its blocks get three copies again elsewhere; when it returns, what is too many goes."""
    rng = random.Random(1)
    data = {f"/killed/{n}": rng.randbytes(size) for n, size in enumerate((100, 70_000, 3 * MIB))}
    for path, content in data.items():
        four.put(path, content)
    victim = four.holders("/killed/2")[0]
    victim.kill()
    four.cluster.wait_live(3)
    four.healed("three copies without the killed node")
    for path, content in data.items():
        assert four.get(path) == content
        assert victim not in four.holders(path)
    victim.restart()
    four.cluster.wait_live(4)
    four.healed("the surplus dropped")


def test_a_flipped_bit_is_found_by_a_scrub_and_healed(four: Bench) -> None:
    data = random.Random(2).randbytes(2 * MIB + 77)
    four.put("/flipped", data)
    server = four.holders("/flipped")[0]
    (file,) = four.files_of(server, "/flipped")
    before = file.read_bytes()
    flip(file, MIB + 5, 3)
    assert file.read_bytes() != before
    four.dfs("admin", "scrub", str(four.number(server)))
    wait_until(lambda: "is damaged" in server.log_text(), "the damage found")
    wait_until(lambda: not file.exists() or file.read_bytes() == before, "the damaged copy gone")
    four.healed("three good copies")
    assert four.get("/flipped") == data
    for holder in four.holders("/flipped"):
        (file,) = four.files_of(holder, "/flipped")
        assert file.read_bytes() == before


def test_a_truncated_and_a_vanished_replica_are_found_by_readers(four: Bench) -> None:
    """Readers get the right bytes from elsewhere, and tell."""
    data = random.Random(3).randbytes(2 * MIB)
    four.put("/cut", data)
    first, second, _ = four.holders("/cut")
    (cut,) = four.files_of(first, "/cut")
    (gone,) = four.files_of(second, "/cut")
    with cut.open("r+b") as file:
        file.truncate(MIB)
    gone.unlink()

    def told() -> bool:
        assert four.get("/cut") == data
        if not cut.exists() or cut.stat().st_size == len(data):
            return True  # put aside or healed already, between two looks
        state = four.blocks("/cut")[0]
        return four.fsck()["cluster"]["corrupt_replicas"] > 0 or len(state["replicas"]) != 3

    wait_until(told, "a reader's word")
    four.dfs("admin", "scrub")  # a reader need not have met both
    four.healed("both made up for")
    assert four.get("/cut") == data


def test_a_damaged_small_block_inside_an_index_is_healed(four: Bench) -> None:
    data = random.Random(4).randbytes(5_000)
    four.put("/small", data)
    server = four.holders("/small")[0]
    block_id = four.blocks("/small")[0]["block"]["block_id"]
    with sqlite3.connect(index_of(four, server)) as connection:
        connection.execute(
            "UPDATE small SET data = zeroblob(length(data)) WHERE block_id = ?", (block_id,)
        )
    connection.close()
    four.dfs("admin", "scrub", server.facts["data"])
    wait_until(lambda: f"block {block_id} in" in server.log_text(), "the damage found")
    four.healed("the small block healed")
    assert four.get("/small") == data


def test_a_damaged_index_is_made_anew_and_healed(four: Bench) -> None:
    """A row changed on the disk: what the index says can't be trusted, so it is made anew while the node serves."""
    data = random.Random(5).randbytes(3_000)
    large = random.Random(6).randbytes(MIB + 1)
    four.put("/indexed", data)
    four.put("/indexed-large", large)
    server = four.holders("/indexed")[0]
    block_id = four.blocks("/indexed")[0]["block"]["block_id"]
    with sqlite3.connect(index_of(four, server)) as connection:
        connection.execute(
            "UPDATE replicas SET generation = generation + 64 WHERE block_id = ?", (block_id,)
        )
    connection.close()
    four.dfs("admin", "scrub", server.facts["data"])
    wait_until(lambda: "is back with" in server.log_text(), "the index made anew")
    four.healed("the lost block healed")
    assert four.get("/indexed") == data
    assert four.get("/indexed-large") == large


def test_the_last_damaged_copies_are_put_together(four: Bench) -> None:
    """Every copy is damaged, each in another chunk: a whole one is made of them."""
    data = random.Random(7).randbytes(3 * MIB)
    four.put("/salvaged", data)
    for number, server in enumerate(four.holders("/salvaged")):
        (file,) = four.files_of(server, "/salvaged")
        flip(file, number * MIB + 9)
    four.dfs("admin", "scrub")
    wait_until(
        lambda: (
            four.fsck("/salvaged")["corrupt"] == 1 or four.fsck("/salvaged")["corrupt_replicas"]
        ),
        "the damage known",
    )
    four.healed("a whole copy made of three damaged ones")
    assert four.get("/salvaged") == data


def test_fsck_says_what_is_lost(four: Bench) -> None:
    data = random.Random(8).randbytes(2 * MIB)
    four.put("/lost", data)
    four.dfs("setrep", "1", "/lost")
    four.healed("one copy left")
    (server,) = four.holders("/lost")
    (file,) = four.files_of(server, "/lost")
    assert four.dfs("fsck", "/lost").endswith("/lost is HEALTHY\n")
    flip(file, 10)
    four.dfs("admin", "scrub", str(four.number(server)))
    wait_until(lambda: four.fsck("/lost")["corrupt"] == 1, "the loss known")
    text = four.dfs("fsck", "/", "--racks", code=1)
    assert "/lost: " in text
    assert "corrupt" in text
    assert "/ is CORRUPT: 1 block can't be read" in text
    assert four.blocks("/lost")[0]["problems"][0] == "corrupt"
    flip(file, 10)  # as it was: the next look finds it good
    four.dfs("admin", "scrub", str(four.number(server)))
    four.healed("the copy good again")
    assert four.get("/lost") == data
    (server,) = four.holders("/lost")  # another may have made a copy of the right bytes meanwhile
    server.kill()
    wait_until(lambda: four.fsck("/lost")["missing"] == 1, "the loss known")
    assert four.fsck("/")["status"] == "corrupt"
    server.restart()
    four.cluster.wait_live(4)
    four.healed("everything there")


def test_decommissioning_drains_a_node(four: Bench) -> None:
    for number in range(12):
        four.put(f"/drained/{number}", random.Random(number).randbytes(40_000 * (number + 1)))
    server = four.holders("/drained/3")[0]
    output = four.dfs("admin", "decommission", server.facts["data"], "--wait")
    assert output.splitlines()[-1] == f"{server.facts['data']}: decommissioned"
    found = four.fsck()
    assert found["under_replicated"] == 0
    others = {s.facts["data"] for s in four.cluster.datanodes if s is not server}
    for number in range(12):
        for block in four.blocks(f"/drained/{number}"):
            good = {r["address"] for r in block["replicas"] if r["state"] == "good"}
            assert others <= good
    before = found["live_replicas"]
    refused = four.dfs("admin", "decommission", *sorted(others), code=2)
    assert "last DataNodes in service" in refused
    assert four.fsck()["live_replicas"] == before
    four.dfs("admin", "recommission", server.facts["data"])
    four.healed("the surplus dropped")


def test_a_node_in_maintenance_may_go_without_being_made_up_for(four: Bench) -> None:
    four.put("/kept", random.Random(9).randbytes(200_000))
    server = four.holders("/kept")[0]
    four.dfs("admin", "maintenance", str(four.number(server)), "--for", "1h", "--wait")
    server.kill()
    four.cluster.wait_live(3)
    # As many rounds of repair as would have made up for a dead node.
    rounds = four.fsck()
    assert rounds["under_replicated"] == 0
    assert len(four.blocks("/kept")[0]["replicas"]) == 3
    server.restart()
    four.cluster.wait_live(4)
    four.dfs("admin", "maintenance", str(four.number(server)), "--for", "0.5s")
    wait_until(lambda: four.admin_state(server) == "in-service", "the end of maintenance")
    four.healed("everything there")


def test_bad_orders_are_refused_and_change_nothing(four: Bench) -> None:
    states = [node.admin_state for node in four.cluster.report().nodes]
    assert "no DataNode 'nobody'" in four.dfs("admin", "decommission", "1", "nobody", code=2)
    assert "several" in four.dfs("admin", "decommission", "127.0.0.1", code=2)
    assert "duration" in four.dfs("admin", "maintenance", "1", "--for", "soon", code=2)
    assert "superuser" in four.dfs("--user", "guest", "admin", "decommission", "1", code=1)
    assert "superuser" in four.dfs("--user", "guest", "admin", "safemode", "enter", code=1)
    assert [node.admin_state for node in four.cluster.report().nodes] == states


def test_safe_mode_by_order_outlives_a_restart(four: Bench) -> None:
    four.dfs("admin", "safemode", "enter")
    four.cluster.namenode.restart()
    assert "ordered it" in four.dfs("admin", "safemode", "get")
    assert json.loads(four.dfs("admin", "safemode", "get", "--json"))["safe_mode"] is True
    assert "still on" in four.dfs("admin", "safemode", "wait", "--timeout", "0.1s", code=69)
    assert four.get("/kept")  # reads go on
    four.dfs("admin", "safemode", "leave")
    four.dfs("admin", "safemode", "wait")
    four.cluster.wait_live(4)
    four.dfs("mkdir", "/after")


def test_racks_come_from_a_file_and_copies_spread_over_them(four: Bench) -> None:
    """Given racks later, blocks that lie on one alone get a copy on the other."""
    four.put("/spread", random.Random(10).randbytes(100_000))
    holders = four.holders("/spread")
    racks = four.cluster.folder.parent / "racks"
    other = next(s for s in four.cluster.datanodes if s not in holders)
    racks.write_text(f"127.0.0.1 /west\n{other.facts['data']} /east\n")
    told = four.dfs("admin", "refresh")
    assert f"{other.facts['data']}: /default-rack -> /east" in told
    assert "/east\n    " in four.dfs("admin", "topology")
    four.healed("copies on both racks", 90.0)
    assert len({r["rack"] for r in four.blocks("/spread")[0]["replicas"]}) == 2
    racks.write_text("127.0.0.1 west\n")
    assert "line 1" in four.dfs("admin", "refresh", code=2)
    assert "/east" in four.dfs("admin", "topology")

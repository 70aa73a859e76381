"""The commands in scripts/faults, each on a running cluster: what it says, what happens, and that its undo undoes it."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from scripts.faults import (
    clock,
    corrupt,
    crash,
    facts,
    kill,
    link,
    netns,
    pause,
    restart,
    slow_disk,
    volume,
)
from scripts.faults.local import LocalFaultyCluster
from scripts.faults.schedule import DESTRUCTIVE, KINDS, NAMENODE, schedule
from scripts.faults.targets import CantBreak, by_pid
from twinfs.client.cli.cluster import named_proxy
from twinfs.client.sync import FileSystem
from twinfs.common.config import ClientConfig
from twinfs.common.disk import POINTS
from twinfs.common.errors import DfsError
from twinfs.common.runtime import SystemClock

from ..support.cluster import wait_until

pytestmark = pytest.mark.timeout(300)  # a slow machine is no failure
ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "clock.py": clock.main,
    "corrupt.py": corrupt.main,
    "crash.py": crash.main,
    "kill.py": kill.main,
    "link.py": link.main,
    "pause.py": pause.main,
    "restart.py": restart.main,
    "slow_disk.py": slow_disk.main,
    "volume.py": volume.main,
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFaultyCluster]:
    folder = tmp_path_factory.mktemp("tools")
    with LocalFaultyCluster(folder, datanodes=3, replication=2, volumes=2) as found:
        with FileSystem(config(found, "")) as fs:
            for number in range(12):
                fs.write_bytes(f"/seed/f{number}", bytes([number]) * 120_000)
        yield found


@pytest.fixture(autouse=True)
def healed(cluster: LocalFaultyCluster) -> Iterator[None]:
    yield
    cluster.heal()


def config(cluster: LocalFaultyCluster, name: str, retry_s: float = 20.0) -> ClientConfig:
    return ClientConfig(
        namenode=cluster.url,
        user="root",
        proxy=named_proxy(cluster.proxy_url, name) if name else "",
        retry_s=retry_s,
        connect_timeout_s=1.0,
        read_timeout_s=2.0,
        short_circuit=False,
    )


def command(cluster: LocalFaultyCluster, words: str) -> str:
    """Run a command of scripts/faults on the cluster; what it printed."""
    script, *rest = shlex.split(words)
    if "--dir" not in rest and "--pid" not in rest:
        rest += ["--dir", str(cluster.folder)]
    done = CliRunner().invoke(COMMANDS[script], rest)
    cluster.reap()
    assert done.exit_code == 0, done.output
    return done.output


def undo_of(printed: str) -> str:
    """The command after "Undo:"."""
    line = next(line for line in printed.splitlines() if line.startswith("Undo: "))
    return line.removeprefix("Undo: python scripts/faults/")


def refused(cluster: LocalFaultyCluster, words: str) -> str:
    script, *rest = shlex.split(words)
    done = CliRunner().invoke(COMMANDS[script], [*rest, "--dir", str(cluster.folder)])
    assert done.exit_code != 0
    return done.output


# --- processes ---


@pytest.mark.parametrize("term", ["", "--term"])
def test_killed_and_started_again(cluster: LocalFaultyCluster, term: str) -> None:
    before = cluster.target("datanode2").pid
    printed = command(cluster, f"kill.py datanode2 {term}")
    assert f"datanode2 (pid {before}) got SIG{'TERM' if term else 'KILL'}" in printed
    assert not cluster.target("datanode2").alive
    address = cluster.entry("datanode2")["data"]
    command(cluster, undo_of(printed))
    assert cluster.target("datanode2").alive
    assert cluster.entry("datanode2")["data"] == address


def test_a_process_can_be_given_by_its_pid(cluster: LocalFaultyCluster) -> None:
    target = by_pid(cluster.target("datanode1").pid)
    assert target.role == "datanode"
    assert [path.name for path in target.volumes] == ["v1", "v2"]
    printed = command(cluster, f"pause.py --pid {target.pid}")
    assert undo_of(printed) == f"pause.py --resume --pid {target.pid}"
    command(cluster, undo_of(printed))


def test_paused_is_silent_and_goes_on(cluster: LocalFaultyCluster) -> None:
    def state() -> str:
        return next(n.state for n in cluster.report().nodes if n.address.data == address)

    address = cluster.entry("datanode3")["data"]
    printed = command(cluster, "pause.py datanode3")
    wait_until(lambda: state() == "dead", "it counts as dead")
    command(cluster, undo_of(printed))
    wait_until(lambda: state() == "live", "it counts as alive")


# --- links ---


def test_a_cut_link_holds_everything_back_until_it_is_healed(cluster: LocalFaultyCluster) -> None:
    with FileSystem(config(cluster, "someone", retry_s=1.0)) as fs:
        assert fs.exists("/seed/f1")
        printed = command(cluster, "link.py cut someone namenode")
        with FileSystem(config(cluster, "someone", retry_s=1.0)) as late:
            with pytest.raises(DfsError):
                late.stat("/seed/f1")
        with FileSystem(config(cluster, "other")) as other:
            assert other.exists("/seed/f1")
        command(cluster, undo_of(printed))
        assert fs.exists("/seed/f1")


@pytest.mark.parametrize("kind", ["refuse", "half-open"])
def test_a_link_that_answers_nothing_useful(cluster: LocalFaultyCluster, kind: str) -> None:
    printed = command(cluster, f"link.py {kind} someone namenode")
    with FileSystem(config(cluster, "someone", retry_s=1.0)) as fs:
        with pytest.raises(DfsError):
            fs.stat("/seed/f1")
    command(cluster, undo_of(printed))
    with FileSystem(config(cluster, "someone")) as fs:
        assert fs.exists("/seed/f1")


@pytest.mark.parametrize(
    "how", ["slow someone namenode --latency-ms 150", "slow someone namenode --kib-s 1"]
)
def test_a_slow_link_is_slow(cluster: LocalFaultyCluster, how: str) -> None:
    command(cluster, f"link.py {how}")
    timer = SystemClock()
    with FileSystem(config(cluster, "someone")) as fs:
        began_s = timer.monotonic_s()
        fs.stat("/seed/f1")
        assert timer.monotonic_s() - began_s > 0.3
    assert "someone -> namenode slow" in command(cluster, "link.py show")
    assert "1 broken" in command(cluster, "link.py heal")


def test_one_way_is_one_way(cluster: LocalFaultyCluster) -> None:
    """What is asked arrives and is done; only the answer is lost."""
    with FileSystem(config(cluster, "someone", retry_s=1.0)) as fs:
        fs.exists("/")
        command(cluster, "link.py cut namenode someone --one-way")
        with FileSystem(config(cluster, "")) as direct:
            with (
                pytest.raises(DfsError),
                FileSystem(config(cluster, "someone", retry_s=1.0)) as cut,
            ):
                cut.mkdirs("/one-way")
            assert not direct.exists("/one-way"), "a new connection needs both ways"
    command(cluster, "link.py heal")


def test_between_datanodes_a_lossy_link_only_slows(cluster: LocalFaultyCluster) -> None:
    command(cluster, "link.py lossy datanode1 datanode2 --loss 0.3")
    command(cluster, "link.py lossy datanode2 datanode3 --loss 0.3")
    data = bytes(range(256)) * 4096
    with FileSystem(config(cluster, "someone")) as fs:
        fs.write_bytes("/lossy", data, replication=3, overwrite=True)
        assert fs.read_bytes("/lossy") == data


# --- disks ---


def test_a_flipped_bit_and_a_cut_replica_are_put_back(cluster: LocalFaultyCluster) -> None:
    def wrong() -> int:
        found = facts.gather(cluster)
        return sum(
            replica.digest != found.blocks[block].digest
            for replicas in found.replicas.values()
            for block, replica in replicas.items()
            if block in found.blocks
        )

    chosen: list[tuple[str, int]] = []
    with FileSystem(config(cluster, "")) as fs:
        fs.write_bytes("/seed/inline", b"i" * 20_000)
        for path in ("/seed/f1", "/seed/inline"):
            # Each on a node that has it: a node that was away lately may lack what is new.
            (located,) = fs.locate(path).blocks
            data = located.nodes[0].data
            name = next(n for n in cluster.datanodes if cluster.entry(n)["data"] == data)
            chosen.append((name, located.block.block_id))
    for how in ("--seed 3", "--truncate 100"):
        for name, damaged in chosen:
            assert wrong() == 0
            undo = undo_of(command(cluster, f"corrupt.py {name} --block {damaged} {how}"))
            assert wrong() == 1
            command(cluster, undo)
            assert wrong() == 0
            # Once more would damage it again.
            assert "put back before, or healed" in refused(cluster, undo)
    assert wrong() == 0


def test_a_replica_is_cut_shorter_only_and_its_rest_is_kept_once(
    cluster: LocalFaultyCluster,
) -> None:
    """What was cut off lies in a file: the words of the undo have to fit into a command line."""
    with FileSystem(config(cluster, "")) as fs:
        fs.write_bytes("/seed/cut", bytes(range(250)) * 4_000)
        (located,) = fs.locate("/seed/cut").blocks
    block, data = located.block.block_id, located.nodes[0].data
    name = next(n for n in cluster.datanodes if cluster.entry(n)["data"] == data)
    cut = f"corrupt.py {name} --block {block} --truncate"
    first = undo_of(command(cluster, f"{cut} 900000"))
    assert len(first) < 1_000
    for length in (900_000, 950_000):
        assert "was cut to 900000 bytes before" in refused(cluster, f"{cut} {length}")
    assert "cut short of" in refused(cluster, f"corrupt.py {name} --block {block} --bit 7900000")
    second = undo_of(command(cluster, f"{cut} 400000"))
    assert "nothing is put back" in refused(cluster, first)
    command(cluster, second)
    command(cluster, first)
    places = corrupt.places(cluster.target(name))
    (file,) = [place.file for place in places if place.block_id == block]
    assert file is not None and file.read_bytes() == bytes(range(250)) * 4_000


@pytest.mark.parametrize("how", ["--seed 1", "--truncate 100"])
def test_a_damaged_index_is_rebuilt_from_the_files(cluster: LocalFaultyCluster, how: str) -> None:
    assert "is running; kill it first" in refused(cluster, "corrupt.py datanode1 --index")
    command(cluster, "kill.py datanode1")
    index = cluster.target("datanode1").volumes[1] / "index.db"
    whole = index.read_bytes()
    damage = f"corrupt.py datanode1 --index --volume 2 {how}"
    undo = undo_of(command(cluster, damage))
    assert index.read_bytes() != whole
    command(cluster, undo)
    assert index.read_bytes() == whole
    assert "nothing is put back" in refused(cluster, undo)
    assert index.read_bytes() == whole
    damages = [f"{damage.removesuffix(how)} {each}" for each in ("--truncate 900", how)]
    for undo in reversed([undo_of(command(cluster, each)) for each in damages]):
        command(cluster, undo)
    assert index.read_bytes() == whole
    undo = undo_of(command(cluster, damage))
    command(cluster, "restart.py datanode1")
    cluster.wait_live(3)
    # Now it would damage what was healed.
    assert "kill it first" in refused(cluster, undo)
    with FileSystem(config(cluster, "")) as fs:
        for number in range(12):
            assert fs.read_bytes(f"/seed/f{number}") == bytes([number]) * 120_000


def test_a_deleted_volume_is_lived_without(cluster: LocalFaultyCluster) -> None:
    def working() -> int:
        (node,) = [n for n in cluster.report().nodes if n.address.data == address]
        return node.volumes - node.failed_volumes

    address = cluster.entry("datanode2")["data"]
    printed = command(cluster, "volume.py delete datanode2 --volume 2")
    wait_until(lambda: working() == 1, "the volume is given up")
    with FileSystem(config(cluster, "")) as fs:
        for number in range(12):
            assert fs.read_bytes(f"/seed/f{number}") == bytes([number]) * 120_000
    command(cluster, undo_of(printed))
    command(cluster, "kill.py datanode2")
    command(cluster, "restart.py datanode2")
    wait_until(lambda: working() == 2, "it is back")


def test_a_full_volume_takes_no_writes_and_the_node_goes_on(cluster: LocalFaultyCluster) -> None:
    printed = command(cluster, "volume.py fill datanode1")
    assert "ENOSPC" in printed
    data = bytes(500_000)
    with FileSystem(config(cluster, "someone")) as fs:
        for number in range(6):
            fs.write_bytes(f"/full/{number}", data)
            assert fs.read_bytes(f"/full/{number}") == data
    assert cluster.target("datanode1").alive
    command(cluster, undo_of(printed))


def test_a_slow_disk_is_slow_and_a_failing_one_is_read_around(cluster: LocalFaultyCluster) -> None:
    timer = SystemClock()
    with FileSystem(config(cluster, "someone")) as fs:
        for name in cluster.datanodes:
            command(cluster, f"slow_disk.py {name} --delay-s 0.3 --only syncs")
        began_s = timer.monotonic_s()
        fs.write_bytes("/slow", bytes(200_000))
        assert timer.monotonic_s() - began_s > 0.3
        for name in cluster.datanodes:
            assert "3 faults taken" in command(cluster, f"slow_disk.py {name} --heal")
        command(cluster, "slow_disk.py datanode1 --fail --only reads")
        for number in range(12):
            assert fs.read_bytes(f"/seed/f{number}") == bytes([number]) * 120_000


# --- moments and clocks ---


def test_a_crash_at_a_point_comes_at_that_point(cluster: LocalFaultyCluster) -> None:
    for name in cluster.datanodes:
        printed = command(cluster, f"crash.py at {name} replica.rename --after --skip 1")
    with FileSystem(config(cluster, "someone")) as fs:
        for number in range(8):
            try:
                fs.write_bytes(f"/crash/{number}", bytes(1_500_000), overwrite=True)
            except DfsError:
                break  # fewer nodes are left than copies are needed

    def dead() -> list[str]:
        return [name for name in cluster.datanodes if not cluster.target(name).alive]

    wait_until(lambda: cluster.reap() is None and len(dead()) >= 2, "they crashed")
    for name in dead():
        assert "crash after replica.rename" in (cluster.faults / f"{name}.json.log").read_text()
    for name in cluster.datanodes:
        command(cluster, f"crash.py disarm {name}")
    assert "disarm" in undo_of(printed)
    command(cluster, "restart.py")
    cluster.wait_live(3)


def test_a_process_that_is_named_by_its_pid_crashes(cluster: LocalFaultyCluster) -> None:
    target = cluster.target("datanode2")
    printed = command(cluster, f"crash.py at --pid {target.pid} replica.sync")
    assert undo_of(printed) == f"crash.py disarm --pid {target.pid}"
    assert "1 crash taken back" in command(cluster, undo_of(printed))
    wrong = refused(cluster, f"crash.py at --pid {target.pid} datanode2 replica.sync")
    assert "give NAME POINT, or --pid PID POINT" in wrong
    assert "give NAME POINT, or --pid PID POINT" in refused(cluster, "crash.py at replica.sync")
    assert "Undo: start it again" in command(cluster, f"crash.py now --pid {target.pid}")
    assert not target.alive
    command(cluster, "restart.py datanode2")
    cluster.wait_live(3)


def test_the_points_are_listed() -> None:
    printed = CliRunner().invoke(crash.main, ["points"]).output
    assert [line.split()[0] for line in printed.splitlines()] == list(POINTS)


def test_power_lost_on_every_machine_loses_nothing_acknowledged(
    cluster: LocalFaultyCluster,
) -> None:
    with FileSystem(config(cluster, "")) as fs:
        fs.write_bytes("/power/a", b"a" * 300_000)
        fs.write_bytes("/power/b", b"b" * 300)
        for name in cluster.names:
            assert "has lost power" in command(cluster, f"crash.py now {name}")
        for name in cluster.names:
            command(cluster, f"restart.py {name}")
        cluster.wait_live(3)
        assert fs.read_bytes("/power/a") == b"a" * 300_000
        assert fs.read_bytes("/power/b") == b"b" * 300


def test_a_clock_can_be_wrong(cluster: LocalFaultyCluster) -> None:
    printed = command(cluster, "clock.py namenode --offset-s -86400")
    with FileSystem(config(cluster, "")) as fs:
        fs.write_bytes("/yesterday", b"x", overwrite=True)
        behind_ms = SystemClock().wall_ms() - fs.stat("/yesterday").mtime_ms
        assert abs(behind_ms - 86_400_000) < 60_000
    command(cluster, undo_of(printed))


def test_no_writer_loses_its_file_to_a_namenode_that_was_away(cluster: LocalFaultyCluster) -> None:
    """By its clock it was down for an hour, and then the clock is set back: longer than any lease, and nobody was silent."""
    with FileSystem(config(cluster, "", retry_s=60.0)) as fs:
        with fs.open("/away", "xb") as file:
            file.write(b"a" * 300_000)
            file.flush()
            file.raw.hsync()
            command(cluster, "kill.py namenode")
            command(cluster, "clock.py namenode --offset-s 3600")
            command(cluster, "restart.py namenode")
            cluster.wait_live(3)
            file.write(b"b" * 300_000)
            file.flush()
            file.raw.hsync()
            command(cluster, "clock.py namenode")
            file.write(b"c" * 300_000)
        assert fs.read_bytes("/away") == b"".join(bytes([n]) * 300_000 for n in b"abc")


# --- what can't be done ---


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("kill.py datanode9", "there is no 'datanode9'"),
        ("kill.py", "name a process"),
        ("link.py cut datanode1", "two names"),
        ("link.py slow datanode1 datanode2", "--kib-s or --latency-ms"),
        ("crash.py at datanode1 nowhere", "no point 'nowhere'"),
        ("slow_disk.py datanode1", "say one of"),
        ("slow_disk.py datanode1 --delay-s 1 --volume 7", "volumes 1 to 2"),
        ("slow_disk.py datanode1 --delay-s 1 --errno EIO", "go with --fail"),
        ("slow_disk.py datanode1 --heal --volume 1", "takes all faults from all disks"),
        ("slow_disk.py namenode --fail", "namenode is no DataNode"),
        ("volume.py restore datanode1", "volume 1 of datanode1 was not deleted"),
        ("volume.py delete namenode", "namenode is no DataNode"),
        ("corrupt.py datanode1 --volume 2", "--volume goes with --index"),
        ("corrupt.py datanode1 --undo nonsense", "takes what the damage printed"),
        ("corrupt.py datanode1 --undo [1]", "takes what the damage printed"),
        ('corrupt.py datanode1 --undo \'{"do": "flip"}\'', "takes what the damage printed"),
        ("link.py heal cut:a:b", "no broken link has the id 'cut:a:b'"),
        ("link.py show datanode1", "takes no names"),
        ("restart.py datanode9", "there is no 'datanode9'"),
        ("corrupt.py datanode1 --block 123456789", "no replica of block"),
        ("corrupt.py datanode1 --bit 1 --truncate 5", "say one of"),
        ("corrupt.py datanode1 --index --bit 1", "--index goes with"),
        ("restart.py datanode1", "is running"),
    ],
)
def test_what_makes_no_sense_is_refused(
    cluster: LocalFaultyCluster, words: str, reason: str
) -> None:
    assert reason in refused(cluster, words)


@pytest.mark.parametrize("words", ["restart.py", "kill.py", "kill.py datanode1"])
def test_where_no_cluster_is_it_says_so(tmp_path: Path, words: str) -> None:
    script, *rest = shlex.split(words)
    done = CliRunner().invoke(COMMANDS[script], [*rest, "--dir", str(tmp_path)])
    assert done.exit_code == 1
    assert f"there is no cluster in {tmp_path}" in done.output


def test_who_is_dead_can_lose_no_power_and_an_undo_says_that_it_is(
    cluster: LocalFaultyCluster,
) -> None:
    printed = command(cluster, "slow_disk.py datanode3 --delay-s 0.1 --volume 1 --only reads")
    command(cluster, "kill.py datanode3")
    assert "datanode3 is not running" in refused(cluster, "crash.py now datanode3")
    printed = command(cluster, undo_of(printed))
    assert "1 fault taken from the disks of datanode3" in printed
    again = next(line for line in printed.splitlines() if line.startswith("datanode3 is not"))
    command(cluster, again.partition("python scripts/faults/")[2])
    assert cluster.target("datanode3").alive


def test_a_volume_that_is_emptied_keeps_other_faults(cluster: LocalFaultyCluster) -> None:
    command(cluster, "slow_disk.py datanode1 --delay-s 0.01 --only reads")
    command(cluster, undo_of(command(cluster, "volume.py fill datanode1")))
    assert "1 fault taken" in command(cluster, "slow_disk.py datanode1 --heal")


def test_who_was_not_paused_does_not_go_on(cluster: LocalFaultyCluster) -> None:
    undo = undo_of(command(cluster, "pause.py datanode1"))
    assert "goes on" in command(cluster, undo)
    assert "was not paused" in command(cluster, undo)


def test_a_process_that_is_none_of_ours_is_left_alone() -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with pytest.raises(CantBreak, match="neither a NameNode nor a DataNode"):
            by_pid(other.pid)
    finally:
        other.communicate(b"\n")


def test_the_scripts_run_as_they_are_called(cluster: LocalFaultyCluster) -> None:
    script = str(ROOT / "scripts" / "faults" / "link.py")
    done = subprocess.run(
        [sys.executable, script, "show", "--dir", str(cluster.folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""


def test_a_proxy_that_ends_leaves_no_tracebacks(tmp_path: Path) -> None:
    """asyncio logs one for each connection that is cancelled."""
    ready = tmp_path / "ready"
    script = [
        sys.executable,
        str(ROOT / "scripts" / "faults" / "proxy.py"),
        str(tmp_path / "links"),
    ]
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = subprocess.Popen(
            [*script, "--ready-file", str(ready)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            wait_until(ready.exists, "the proxy answers")
            host, port = json.loads(ready.read_text())["proxy"].split(":")
            with socket.create_connection((host, int(port)), timeout=30.0) as client:
                client.sendall(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\n" % server.getsockname()[1])
                assert b"200" in client.recv(100)
                proxy.terminate()
                _, complaints = proxy.communicate(timeout=60)
        finally:
            proxy.kill()
            proxy.wait()
    assert (proxy.returncode, complaints) == (0, b"")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["/proc/none/links"], "No such file or directory"),
        (["links", "--port", "99999"], "not in the range"),
        (["broken"], "broken can't be read"),
    ],
)
def test_a_proxy_that_can_not_start_says_why(tmp_path: Path, words: list[str], reason: str) -> None:
    (tmp_path / "broken").write_text("nothing")
    script = [sys.executable, str(ROOT / "scripts" / "faults" / "proxy.py")]
    done = subprocess.run(
        [*script, *words], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode != 0
    assert reason in done.stderr and "Traceback" not in done.stderr


# --- schedules ---


def test_a_schedule_is_replayed_by_its_seed() -> None:
    assert schedule(3, 3, 5) == schedule(3, 3, 5)
    assert schedule(3, 3, 5) != schedule(4, 3, 5)


def test_a_schedule_keeps_within_what_is_survived() -> None:
    kinds = set()
    for seed in range(200):
        rounds = schedule(seed, 3, 5)
        assert len(rounds) == 9
        kills = [f for faults in rounds for f in faults if (f.kind, f.target) == ("kill", NAMENODE)]
        assert len(kills) >= 2
        for faults in rounds:
            kinds |= {fault.kind for fault in faults}
            assert len({f.target for f in faults if f.kind in DESTRUCTIVE}) <= 1
            assert len({f.target for f in faults} - {NAMENODE}) <= 2
    assert kinds == set(KINDS)


# --- real networks ---


@pytest.mark.skipif(bool(netns.supported()), reason=netns.supported() or "-")
def test_real_packets_are_dropped_between_two_processes(tmp_path: Path) -> None:
    """Each process in a network of its own; the host's clients go by way of the router, too."""
    cluster = netns.start(tmp_path / "net", 3)
    network = netns.Network(cluster.folder)
    try:
        with FileSystem(
            ClientConfig(namenode=cluster.url, user="root", connect_timeout_s=1.0)
        ) as fs:
            fs.write_bytes("/a", bytes(100_000))
            network.cut("host", "datanode1")
            fs.write_bytes("/b", bytes(100_000), replication=2)
            assert fs.read_bytes("/b") == bytes(100_000)
            network.heal("host", "datanode1")
            network.cut("datanode2", "datanode3")
            for number in range(3):
                fs.write_bytes(f"/c{number}", bytes(2_000_000))
            network.heal("datanode2", "datanode3")
    finally:
        _, removed = netns.stop(cluster.folder)
        for entry in cluster.entries():
            print(json.dumps(entry))
    assert removed == 5
    assert isinstance(netns.main, click.Group)

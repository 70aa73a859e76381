"""Networks of peers as processes: who has what after half of them died; what moves when peers come and go."""

from __future__ import annotations

import http.client
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster import Server, wait_for
from figures import Figure, Series
from settings import Settings

from twinfs.client.peer_client import PeerClient
from twinfs.client.peer_import import Importer
from twinfs.common.ipld.cid import Cid
from twinfs.common.ipld.layout import PROFILES
from twinfs.common.runtime import elapsed_timer
from twinfs.datanode.peers.group import holders

TWINFS = PROFILES["twinfs"]
PEERS = 50
BLOCKS_EACH = 4
STARTED_AT_ONCE = 5
GROUP = 10
PINS = 200
COPIES = 3


class Network:
    """Peers as processes, each told of one that was there before it."""

    def __init__(self, folder: Path, rng: random.Random, *, options: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.peers: list[Server] = []
        self._rng = rng
        self._options = options

    def grow(self, count: int) -> list[Server]:
        made: list[Server] = []
        while len(made) < count:
            # The first one alone: the others need somebody to ask.
            batch = min(STARTED_AT_ONCE if self.peers else 1, count - len(made))
            started = [self._launch() for _ in range(batch)]
            for server in started:
                wait_for(lambda server=server: server.ready.exists(), f"{server.name} ready", 120)
                server.facts = json.loads(server.ready.read_text())
            self.peers += started
            made += started
        return made

    def _launch(self) -> Server:
        name = f"peer{len(list(self.folder.glob('peer*.log')))}"
        known = self._rng.choice(self.peers).facts["http"] if self.peers else "none"
        arguments = ["twinfs.datanode", "--dir", str(self.folder / f"{name}-data")]
        arguments += ["--bootstrap", known, "--port", "0", "--data-port", "0", "--socket", "none"]
        server = Server(self.folder, name, [*arguments, *self._options])
        server.launch()
        return server

    def kill(self, peers: Sequence[Server]) -> None:
        """All at once, as if their power went."""
        for server in peers:
            assert server.process is not None
            server.process.kill()
        for server in peers:
            server.kill()
        self.peers = [server for server in self.peers if server not in peers]

    def close(self) -> None:
        for server in self.peers:
            if server.process is not None:
                server.process.terminate()
        for server in self.peers:
            server.stop()


def client_of(server: Server) -> PeerClient:
    return PeerClient(f"http://{server.facts['http']}")


def identity_of(server: Server) -> str:
    client = client_of(server)
    try:
        return str(client.call("GET", "/v1/peer/status")["id"])
    finally:
        client.close()


# --- half of them killed ---


def measure_network(settings: Settings) -> list[Figure]:
    """Each of 50 peers adds files; half are killed; every CID is looked for at living peers that don't have it, at once."""
    rng = settings.rng
    network = Network(settings.fresh("network"), rng)
    try:
        network.grow(PEERS)
        of: dict[str, list[Cid]] = {}
        for server in network.peers:
            of[server.name] = list(added(server, rng))
        names = {server.name: identity_of(server) for server in network.peers}
        network.kill(rng.sample(network.peers, PEERS // 2))
        living = list(network.peers)
        sought = [(server, cid) for server in living for cid in of[server.name]]
        # In no order, so that no search profits from what the one before it taught the asked peer.
        rng.shuffle(sought)
        hits, found_ms, read_ms = 0, [], []
        for server, cid in sought:
            asked = rng.choice([other for other in living if other is not server])
            took_ms = first_provider_ms(asked, cid, names[server.name])
            hits += took_ms is not None
            if took_ms is not None:
                found_ms.append(took_ms)
            read_ms.append(read_through_ms(asked, cid))
    finally:
        network.close()
    return [
        Figure(
            f"network: CIDs of living peers found, {PEERS // 2} of {PEERS} killed",
            "of 1",
            [hits / len(sought)],
            at_least=1.0,
            note=f"{len(sought)} CIDs, each asked for once at one of the other living peers, from the moment after the kill",
        ),
        Figure("network: such a search", "ms", found_ms, at_most=200),
        Figure("network: the slowest of them", "ms", [max(found_ms)]),
        Figure("network: the content read through another peer", "ms", read_ms),
    ]


def added(server: Server, rng: random.Random) -> Iterator[Cid]:
    client = client_of(server)
    importer = Importer(client, TWINFS)
    for _ in range(BLOCKS_EACH):
        root = importer.add_bytes(rng.randbytes(4096)).root
        client.call("POST", "/v1/peer/pins", {"cid": str(root), "here": True})
        yield root
    importer.close()
    client.close()


def first_provider_ms(asked: Server, cid: Cid, wanted: str) -> float | None:
    """Until the peer *asked* names the provider *wanted*; None if it never does."""
    host, _, port = asked.facts["http"].rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    began_s = elapsed_timer()
    try:
        connection.request(
            "GET", f"/routing/v1/providers/{cid}", headers={"Accept": "application/x-ndjson"}
        )
        response = connection.getresponse()
        while line := response.readline():
            if json.loads(line)["ID"] == wanted:
                return (elapsed_timer() - began_s) * 1000
        return None
    finally:
        connection.close()


def read_through_ms(asked: Server, cid: Cid) -> float:
    """Search, fetch, verification: the file's bytes from a peer that does not have them."""
    client = client_of(asked)
    began_s = elapsed_timer()
    body = client.get(f"/ipfs/{cid}")
    took_ms = (elapsed_timer() - began_s) * 1000
    client.close()
    cid.verify(body)
    return took_ms


# --- what moves ---


def measure_placement(settings: Settings) -> list[Figure]:
    """The rule alone, for groups of several sizes; then ten peers as processes, and what they really fetch."""
    figures = [figure for peers in (5, 10, 50, 200) for figure in by_rule(peers, settings.rng)]
    return figures + by_processes(settings)


def by_rule(peers: int, rng: random.Random) -> list[Figure]:
    """20,000 pins of 3 copies: the share of copies that lie elsewhere after one peer came, or went."""
    ids = [rng.randbytes(38) for _ in range(peers + 1)]
    cids = [rng.randbytes(36) for _ in range(20_000)]
    before = [set(holders(ids[:-1], cid, COPIES)) for cid in cids]
    more = [set(holders(ids, cid, COPIES)) for cid in cids]
    fewer = [set(holders(ids[1:-1], cid, COPIES)) for cid in cids]
    total = COPIES * len(cids)
    came = sum(len(b - a) for a, b in zip(before, more, strict=True)) / total
    went = sum(len(b - a) for a, b in zip(before, fewer, strict=True)) / total
    return [
        Figure(
            f"placement: copies moved, a peer comes to {peers}",
            "of 1",
            [came],
            Series("1/(n+1)", (1 / (peers + 1),)),
        ),
        Figure(
            f"placement: copies moved, a peer of {peers} goes",
            "of 1",
            [went],
            Series("1/n", (1 / peers,)),
        ),
    ]


def by_processes(settings: Settings) -> list[Figure]:
    rng = settings.rng
    network = Network(settings.fresh("group"), rng, options=("--pin-dead-after-s", "8"))
    try:
        network.grow(GROUP)
        wait_for(
            lambda: all(len(alive(s)) == GROUP - 1 for s in network.peers), "that all know all", 120
        )
        cids = []
        clients = [client_of(server) for server in network.peers]
        for client in clients:
            importer = Importer(client, TWINFS)
            client.begin_add()
            for _ in range(PINS // GROUP):
                cid = importer.add_bytes(rng.randbytes(4096)).root
                client.call("POST", "/v1/peer/pins", {"cid": str(cid), "replicas": COPIES})
                cids.append(str(cid))
            importer.close()
        whole = COPIES * PINS
        began_s = elapsed_timer()
        wait_for(
            lambda: sum(len(h) for h in held(network)) == whole, "that all copies are held", 240
        )
        spread_s = elapsed_timer() - began_s
        before = held(network)
        network.grow(1)
        began_s = elapsed_timer()
        wait_for(lambda: settled(network, whole), "that the newcomer has its share", 240)
        came_s = elapsed_timer() - began_s
        after = held(network)
        came = (
            sum(len(b - a) for a, b in itertools.zip_longest(before, after, fillvalue=set()))
            / whole
        )
        victim = network.peers[0]
        lost = len(after[0])
        network.kill([victim])
        began_s = elapsed_timer()
        wait_for(lambda: settled(network, whole), "that the dead one's copies are elsewhere", 240)
        went_s = elapsed_timer() - began_s
        went = sum(len(b - a) for a, b in zip(after[1:], held(network), strict=True)) / whole
        for client in clients:
            client.close()
    finally:
        network.close()
    note = (
        f"{PINS} pins of {COPIES} copies; spread in {spread_s:.1f} s; in place {came_s:.1f} s after the newcomer was ready,"
        f" and {went_s:.1f} s after one was killed that counts as dead after 8 s (it held {lost} of {whole} copies)"
    )
    return [
        Figure(
            f"placement: fetched, a peer comes to {GROUP} processes",
            "of 1",
            [came],
            Series("1/(n+1)", (1 / (GROUP + 1),)),
            note=note,
        ),
        Figure(
            f"placement: fetched, a peer of {GROUP + 1} processes is killed",
            "of 1",
            [went],
            Series("1/n", (1 / (GROUP + 1),)),
        ),
    ]


def alive(server: Server) -> list[str]:
    client = client_of(server)
    peers = client.call("GET", "/v1/peer/status")["peers"]
    client.close()
    return [peer["id"] for peer in peers if peer["alive"]]


def held(network: Network) -> list[set[str]]:
    """What each peer holds for the group."""

    def of(server: Server) -> set[str]:
        client = client_of(server)
        pins = client.call("GET", "/v1/peer/pins")["pins"]
        client.close()
        return {pin["cid"] for pin in pins if pin["replicas"] and pin["held_here"]}

    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(of, network.peers))


def settled(network: Network, copies: int) -> bool:
    """Every copy is with whom it belongs to, and nobody else."""
    found = held(network)
    if sum(len(cids) for cids in found) != copies:
        return False
    ids = {server.name: identity_of(server) for server in network.peers}
    client = client_of(network.peers[-1])
    pins = client.call("GET", "/v1/peer/pins")["pins"]
    client.close()
    wanted: dict[str, set[str]] = {name: set() for name in ids.values()}
    for pin in pins:
        for holder in pin.get("holders", ()):
            if holder not in wanted:
                return False
            wanted[holder].add(pin["cid"])
    return found == [wanted[ids[server.name]] for server in network.peers]

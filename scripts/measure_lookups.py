"""How the cost of a lookup grows with the number of peers: a network of simulated ones that grows to 10,000, one joining after the other.

python scripts/measure_lookups.py                                  about four minutes; prints seed, sizes and what was counted
python scripts/measure_lookups.py --plot docs/images/lookups.png   draws it, too (matplotlib)

Each peer is the code that a real one runs, with a transport that calls the other one. Signatures are left out: they take two thirds of the
time and change no message. Counted are the questions that a peer asks until it is told of the first provider of a key that it never asked
for before, and the steps: the longest chain of peers that named each other. Time is none here; `scripts/bench network` measures it.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from unittest import mock

from twinfs.common.peerid import KEY_BYTES, SIGNATURE_BYTES, peer_id_of
from twinfs.common.peering import Answer, PeerRecord, Question
from twinfs.common.runtime import ManualClock, elapsed_timer
from twinfs.datanode.peers import node as node_module
from twinfs.datanode.peers.node import PeerNode
from twinfs.datanode.peers.routing import Contact, Search, contact_of

SIZES = (30, 100, 300, 1_000, 3_000, 10_000)
LOOKUPS = 300


class Bare:
    """An identity whose signatures are empty."""

    def __init__(self, rng: random.Random) -> None:
        self.peer_id = peer_id_of(rng.randbytes(KEY_BYTES))

    def sign(self, message: bytes) -> bytes:
        return bytes(SIGNATURE_BYTES)


class Watched(Search):
    """A search that can be looked at while it goes on."""

    latest: ClassVar[Watched]

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        Watched.latest = self

    def step_of(self, contact: Contact) -> int:
        """How many peers had to be asked one after the other, up to this one."""
        return self._depth[contact.peer] + 1


class Simulated(PeerNode):
    """A peer that remembers how far it had to ask for providers. All share what follows from a record alone."""

    contacts: dict[bytes, Contact]
    step = 0

    def _believed(self, records: Iterable[PeerRecord]) -> list[Contact]:
        return [self.contacts[record.peer] for record in records]

    async def ask(self, contact: Contact, question: Question) -> Answer:
        answer = await super().ask(contact, question)
        if answer.providers and not self.step:
            self.step = Watched.latest.step_of(contact)
        return answer


class Wire:
    """A network without latency."""

    def __init__(self) -> None:
        self.nodes: dict[str, Simulated] = {}

    async def ask(self, address: str, question: Any) -> Any:
        return await self.nodes[address].answer(question)


class Counted(NamedTuple):
    """Of the lookups in a network of *peers*."""

    peers: int
    messages: list[int]
    steps: list[int]
    found: int


async def grow(sizes: Sequence[int], seed: int) -> list[Counted]:
    rng, clock, wire = random.Random(seed), ManualClock(), Wire()
    contacts: dict[bytes, Contact] = {}
    everybody: list[Simulated] = []
    counted = []
    began_s = elapsed_timer()
    for size in sizes:
        while len(everybody) < size:
            number = len(everybody)
            address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:1"
            node = Simulated(Bare(rng), [address], wire, clock=clock, rng=rng)  # type: ignore[arg-type]
            node.contacts = contacts
            contacts[node.identity.peer_id] = contact_of(node.me)
            wire.nodes[address] = node
            if everybody:
                await node.join([rng.choice(everybody).me.addresses[0]])
            everybody.append(node)
        counted.append(await look_up(everybody, rng))
        took_s = elapsed_timer() - began_s
        print(f"{size:,} peers after {took_s:.0f} s", file=sys.stderr, flush=True)
    for node in everybody:
        await node.close()
    return counted


async def look_up(everybody: Sequence[Simulated], rng: random.Random) -> Counted:
    messages, steps, found = [], [], 0
    for _ in range(LOOKUPS):
        provider, asking = rng.sample(everybody, 2)
        key = b"\x1e\x20" + rng.randbytes(32)
        await provider.provide([key])
        before, asking.step = asking.questions, 0
        async for record in asking.find_providers(key, 1):
            found += record.peer == provider.identity.peer_id
            break
        messages.append(asking.questions - before)
        steps.append(asking.step)  # 0: it keeps the record itself
    return Counted(len(everybody), messages, steps, found)


def fit(points: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """(a, b, R²) of the line a + b log2 x through *points*."""
    xs, ys = [math.log2(x) for x, _ in points], [y for _, y in points]
    slope, start = statistics.linear_regression(xs, ys)
    return start, slope, statistics.correlation(xs, ys) ** 2


def plot(counted: Sequence[Counted], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = [one.peers for one in counted]
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for name, colour, of in (
        ("messages", "#1f6f8b", lambda one: one.messages),
        ("steps", "#c1666b", lambda one: one.steps),
    ):
        means = [statistics.mean(of(one)) for one in counted]
        tenths = [statistics.quantiles(of(one), n=10) for one in counted]
        axes.fill_between(
            sizes, [t[0] for t in tenths], [t[-1] for t in tenths], color=colour, alpha=0.12, lw=0
        )
        axes.plot(sizes, means, "o", color=colour, label=f"{name}, mean (shaded: 8 of 10 lookups)")
        start, slope, _ = fit(list(zip(sizes, means, strict=True)))
        line = [max(0.0, start + slope * math.log2(size)) for size in sizes]
        sign = "+" if start >= 0 else "−"
        label = f"{slope:.2f} log₂ n {sign} {abs(start):.1f}"
        axes.plot(sizes, line, "--", color=colour, lw=1, label=label)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("peers (logarithmic)")
    axes.set_ylabel("until the first provider is known")
    axes.set_title(f"Lookups in a network of simulated peers, {LOOKUPS} at each size")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--peers", type=int, default=SIZES[-1], help="how many at last (10,000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a picture, .png or .svg")
    given = parser.parse_args()
    sizes = [*(size for size in SIZES if size < given.peers), given.peers]

    def nothing(*_: object) -> None:
        return

    with (
        mock.patch.object(node_module, "Search", Watched),
        mock.patch.object(node_module, "check_record", nothing),
        mock.patch.object(node_module, "check_announce", nothing),
        mock.patch.object(node_module, "is_signed_by", lambda *_: True),
    ):
        counted = asyncio.run(grow(sizes, given.seed))
    print(f"seed {given.seed}, {LOOKUPS} lookups at each size")
    print("   peers  found  messages: mean  median  90 of 100   steps: mean  most")
    for one in counted:
        tenth = statistics.quantiles(one.messages, n=10)[-1]
        print(
            f"{one.peers:8,} {one.found / LOOKUPS:6.1%} {statistics.mean(one.messages):15.2f}"
            f" {statistics.median(one.messages):7g} {tenth:10g} {statistics.mean(one.steps):13.2f} {max(one.steps):5}"
        )
    for name, points in (
        ("messages", [(one.peers, statistics.mean(one.messages)) for one in counted]),
        ("steps", [(one.peers, statistics.mean(one.steps)) for one in counted]),
    ):
        start, slope, share = fit(points)
        print(f"{name}: {start:.2f} + {slope:.3f} log2 n, R² {share:.3f}")
    if given.plot:
        plot(counted, given.plot)


if __name__ == "__main__":
    main()

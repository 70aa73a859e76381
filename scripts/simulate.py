"""Losses in a simulated cluster: how long until they are noticed and mended, beside HDFS's documented defaults.

\b
    .venv/bin/python scripts/simulate.py                         every scenario, 1,000 DataNodes, a million blocks
    .venv/bin/python scripts/simulate.py --nodes 60 --blocks 20000 rack-loss
    .venv/bin/python scripts/simulate.py --plan 10000            one planning step over so many DataNodes
    .venv/bin/python scripts/simulate.py --plot repair.png       the course of it as a picture (needs matplotlib)

Real are the cores that decide; time, network and disks are simulated (tests/sim/world.py). A seed replays a run.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.sim.world import TWINFS, Outcome, Policy, World, hdfs_defaults, memory_of
from twinfs.common.model import MIB, Block, BlockId, GenerationStamp, NodeId
from twinfs.common.runtime import elapsed_timer
from twinfs.namenode.placement import Candidate
from twinfs.namenode.replication import BlockState, ReplicationMonitor, View

RACK_NODES = 40
RESTART_AWAY_S = 45.0
FLAP_S = 40.0
LIMIT_S = 6 * 3_600.0


def node_loss(world: World) -> None:
    """One DataNode dies, and stays dead."""
    world.crash(1)


def rack_loss(world: World) -> None:
    """A whole rack loses its power, and stays dark."""
    for node, rack in world.rack.items():
        if rack == "/rack0":
            world.crash(node)


def rolling_restart(world: World) -> None:
    """Every twentieth DataNode is away for 45 s, one after the other."""
    for turn, node in enumerate(range(1, len(world.up) + 1, 20)):
        start_s = world.now_s + turn * (RESTART_AWAY_S + 5.0)
        world.at(start_s, lambda node=node: world.crash(node))  # type: ignore[misc]
        world.at(start_s + RESTART_AWAY_S, lambda node=node: world.restart(node))  # type: ignore[misc]


def flapping(world: World) -> None:
    """One DataNode goes every 80 s, and comes back after 40 s, ten times."""
    for turn in range(10):
        start_s = world.now_s + turn * 2 * FLAP_S
        world.at(start_s, lambda: world.crash(1))
        world.at(start_s + FLAP_S, lambda: world.restart(1))


SCENARIOS: dict[str, Callable[[World], None]] = {
    "node-loss": node_loss,
    "rack-loss": rack_loss,
    "rolling-restart": rolling_restart,
    "flapping": flapping,
}


def run(name: str, policy: Policy, seed: int, nodes: int, blocks: int, block_mib: int) -> Outcome:
    world = World(
        seed,
        datanodes=nodes,
        racks=max(2, nodes // RACK_NODES),
        blocks=blocks,
        block_bytes=block_mib * MIB,
        policy=policy,
    )
    world.step()
    SCENARIOS[name](world)
    world.step()
    world.run_until(world.settled, limit_s=LIMIT_S)
    world.outcome.lost_blocks = sum(
        1 for holders in world.holders if not any(world.up[node] for node in holders)
    )
    return world.outcome


# --- one planning step ---


def plan(nodes: int, seed: int, states: int = 2_500) -> dict[str, float]:
    """Seconds for one step of the planner over *nodes* DataNodes: preparing them, and deciding about blocks short of a copy.

    The state is that of 100 GiB in blocks of 1 MiB, all of them waiting.
    """
    rng = random.Random(seed)
    live = [
        Candidate(NodeId(n), f"h{n}", f"/rack{n // RACK_NODES}", 1 << 42, rng.randrange(8))
        for n in range(1, nodes + 1)
    ]
    monitor = ReplicationMonitor(random.Random(seed))
    waiting = 100 * 1024
    monitor.consider(range(waiting))
    prepared, decided = [], []
    for _ in range(5):
        begun_s = elapsed_timer()
        view = View(live)
        prepared.append(elapsed_timer() - begun_s)
        taken = monitor.take(states, nodes)
        found = []
        for block_id in taken:
            block = Block(
                block_id=BlockId(block_id), generation=GenerationStamp(1), length=MIB, digest=b""
            )
            found.append(BlockState(block, 3, (NodeId(1 + rng.randrange(nodes)),)))
        begun_s = elapsed_timer()
        monitor.decide(found, view, 0.0)
        decided.append(elapsed_timer() - begun_s)
    return {
        "datanodes": nodes,
        "blocks_waiting": waiting,
        "blocks_decided": states,
        "prepare_s_p50": statistics.median(prepared),
        "decide_s_p50": statistics.median(decided),
        "step_s_max": max(a + b for a, b in zip(prepared, decided, strict=True)),
        "planner_bytes": memory_of(monitor),
    }


# --- what people see ---


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} s"


def row(name: str, policy: Policy, outcome: Outcome) -> list[str]:
    return [
        name,
        policy.name,
        seconds(outcome.detected_s),
        f"{outcome.single_copy_blocks:,}",
        seconds(outcome.no_single_copy_s) if outcome.single_copy_blocks else "0 s",
        seconds(outcome.repaired_s),
        f"{outcome.copied_bytes / 1e12:.2f} TB",
        f"{outcome.across_racks_bytes / 1e12:.2f} TB",
        f"{outcome.dropped:,}",
        f"{outcome.planner_bytes / 1e6:.1f} MB",
        f"{outcome.lost_blocks}",
    ]


HEAD = [
    "scenario",
    "settings",
    "detected",
    "one copy left",
    "none with one",
    "all repaired",
    "copied",
    "across racks",
    "copies dropped",
    "planner",
    "lost",
]


def table(rows: list[list[str]]) -> str:
    widths = [max(len(line[i]) for line in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in rows
    )


def plot(path: str, results: list[tuple[str, Policy, Outcome]]) -> None:
    """Blocks short of copies over time, a panel for each scenario."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(name for name, _, _ in results))
    figure, panels = plt.subplots(
        len(names), 1, figsize=(9, 2.9 * len(names)), squeeze=False, layout="constrained"
    )
    colours = {TWINFS.name: "tab:blue"}
    for panel, name in zip(panels[:, 0], names, strict=True):
        for found, policy, outcome in results:
            if found != name:
                continue
            times = [entry[0] / 60 for entry in outcome.history]
            colour = colours.get(policy.name, "tab:orange")
            for index, style, what in ((2, "-", "too few copies"), (1, ":", "one copy")):
                values = [entry[index] for entry in outcome.history]
                if any(values):
                    panel.step(
                        times,
                        values,
                        style,
                        where="post",
                        color=colour,
                        label=f"{policy.name}: {what}",
                    )
        panel.set_title(f"{name}: {' '.join((SCENARIOS[name].__doc__ or '').split())}", fontsize=10)
        panel.set_ylabel("blocks")
        panel.set_yscale("symlog", linthresh=1)
        panel.set_ylim(bottom=0)
        panel.set_xlim(left=0)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8, loc="upper right")
    panels[-1, 0].set_xlabel("minutes after the first failure")
    figure.savefig(path, dpi=110)


def _drawable(_context: click.Context, _option: click.Parameter, file: str | None) -> str | None:
    """Before minutes are spent: whether the picture can be drawn there."""
    if file is None:
        return None
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise click.BadParameter("a picture needs matplotlib (pip install matplotlib)") from None
    path = Path(file)
    if not path.parent.is_dir():
        raise click.BadParameter(f"there is no folder {path.parent}")
    known = Figure().canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise click.BadParameter(f"{file} ends in none of {', '.join(sorted(known))}")
    return file


@click.command(help=__doc__, context_settings={"show_default": True})
@click.argument("scenarios", nargs=-1, type=click.Choice(list(SCENARIOS)))
@click.option("--seed", type=int, default=1, help="Replays a run.")
@click.option("--nodes", type=click.IntRange(6, 20_000), default=1_000, help="DataNodes.")
@click.option("--blocks", type=click.IntRange(1, 20_000_000), default=1_000_000, help="Blocks.")
@click.option(
    "--block-mib", type=click.IntRange(1, 128), default=128, help="MiB of the largest block."
)
@click.option(
    "--plan",
    "plan_nodes",
    metavar="NODES",
    type=click.IntRange(6, 100_000),
    help="Only time a planning step over so many DataNodes.",
)
@click.option(
    "--plot", "picture", metavar="FILE", callback=_drawable, help="Draw it, too (.png, .svg ...)."
)
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each row.")
def main(
    scenarios: tuple[str, ...],
    seed: int,
    nodes: int,
    blocks: int,
    block_mib: int,
    plan_nodes: int | None,
    picture: str | None,
    as_json: bool,
) -> None:
    if plan_nodes is not None:
        found = plan(plan_nodes, seed)
        print(
            json.dumps(found)
            if as_json
            else "\n".join(f"{k:>16}  {v:,.6g}" for k, v in found.items())
        )
        return
    print(
        f"seed {seed}: {nodes:,} DataNodes in {max(2, nodes // RACK_NODES)} racks, {blocks:,} blocks of up to"
        f" {block_mib} MiB in 3 copies, 200 MB/s a node",
        file=sys.stderr,
    )
    results: list[tuple[str, Policy, Outcome]] = []
    for name in scenarios or SCENARIOS:
        for policy in (TWINFS, hdfs_defaults(nodes)):
            results.append((name, policy, run(name, policy, seed, nodes, blocks, block_mib)))
            if as_json:
                print(json.dumps(as_record(*results[-1])), flush=True)
    if not as_json:
        print(table([HEAD, *(row(*result) for result in results)]))
    if picture:
        plot(picture, results)
        print(f"drawn: {picture}", file=sys.stderr)


def as_record(name: str, policy: Policy, outcome: Outcome) -> dict[str, Any]:
    skipped = ("history",)
    values = {k: getattr(outcome, k) for k in Outcome.__slots__ if k not in skipped}
    return {"scenario": name, "settings": policy.name, **values}


if __name__ == "__main__":
    main()

"""The dashboard in a real Chromium: its first view from a cold NameNode, what it costs while open, a directory of 100,000 entries.

The NameNode knows a million files and fifty DataNodes, that only register and send heartbeats (`silent_nodes.py`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import scale
from cluster import Cluster, wait_for
from figures import Figure, Series
from scrapes import AT_MOST_MS, SERIES, scrape, series
from settings import Settings

from twinfs.client.http_namenode import HttpNameNode
from twinfs.common.runtime import elapsed_timer
from twinfs.common.watch import GetOverview, Overview

NODES = 50
COST_S = 20.0  # how long the NameNode is watched, with the page and without
FIRST_VIEW_S = 1.0
COST_PERCENT = 2.0
FROZEN_MS = 200.0  # what people feel as a halt
SCROLLS = 120
SIMULATED = Path(__file__).with_name("silent_nodes.py")

# Notes when the first view is whole: health, figures of all nodes, charts.
WATCH = """() => {
  const look = () => {
    if (document.querySelector('.health h1') && document.querySelectorAll('.grid .value').length >= 5 && document.querySelector('svg.chart')) {
      requestAnimationFrame(() => setTimeout(() => { document.documentElement.dataset.seenMs = performance.now(); }));
      watcher.disconnect();
    }
  };
  const watcher = new MutationObserver(look);
  watcher.observe(document, { childList: true, subtree: true });
}"""
# Scrolls as a hand on a wheel does, and notes how long each frame and each task took.
SCROLL = """async (steps) => {
  const list = document.querySelector('.list'), frames = [], tasks = [];
  new PerformanceObserver((found) => { for (const entry of found.getEntries()) tasks.push(entry.duration); }).observe({ type: 'longtask' });
  const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
  let last = await frame(), empty = 0;
  for (let step = 0; step < steps; step += 1) {
    list.scrollTop = step % 10 === 9 ? Math.random() * list.scrollHeight : list.scrollTop + 600;
    const now = await frame();
    frames.push(now - last); last = now;
    await frame().then((time) => { frames.push(time - last); last = time; });
    if (!list.querySelector('.entry')) empty += 1;
  }
  await new Promise((resolve) => setTimeout(resolve, 200));
  return { frames, tasks, empty };
}"""


def measure(settings: Settings) -> list[Figure]:
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("Debian's chromium is not installed")
    from playwright.sync_api import sync_playwright

    # Without DataNodes the NameNode would make no difference between a cold start and safe mode.
    cluster = Cluster(
        settings.folder / "dashboard", datanodes=0, namenode_options=("--safe-mode-nodes", "0")
    ).start()
    try:
        cluster.namenode.stop()
        database = cluster.folder / "nn" / "namespace.db"
        scale.fill(database, 0, settings.scale_files, big=True)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"]
            )
            try:
                return _measure(settings, cluster, browser)
            finally:
                browser.close()
    finally:
        cluster.stop()


def _measure(settings: Settings, cluster: Cluster, browser: Any) -> list[Figure]:
    blank: list[float] = []
    views: list[float] = []
    # The browser's own first page is not ours to answer for.
    warm = browser.new_page()
    warm.goto("about:blank")
    for _ in range(settings.runs):
        cluster.namenode.start()
        with _nodes(cluster.url):
            views.append(_first_view_s(browser, cluster.url))
        blank.append(_plain_s(browser, f"{cluster.url}/healthz"))
        cluster.namenode.kill()
    cluster.namenode.start()
    with _nodes(cluster.url):
        # Counting a million files for the first time is work that no page asks for.
        wait_for(lambda: _counted(cluster.url), "files counted")
        took, text = scrape(cluster.url)
        idle, busy = [], []
        for _ in range(settings.runs):  # in turns, since the machine may have slow minutes
            idle.append(_cpu_percent(cluster.namenode.pid))
            page = browser.new_page()
            page.goto(cluster.url)
            page.wait_for_selector("svg.chart")
            busy.append(_cpu_percent(cluster.namenode.pid))
            page.close()
        page = browser.new_page()
        began_s = elapsed_timer()
        page.goto(f"{cluster.url}/#/files/m0/big")
        page.get_by_role("row").first.wait_for()
        rows_s = elapsed_timer() - began_s
        page.get_by_text(f"{scale.BIG:,} entries", exact=True).wait_for(timeout=60_000)
        whole_s = elapsed_timer() - began_s
        told = page.evaluate(SCROLL, SCROLLS)
    cluster.namenode.stop()
    if told["empty"]:
        raise SystemExit(f"{told['empty']} times nothing was shown while scrolling")
    frames = sorted(told["frames"])
    cost = [max(0.0, b - a) for a, b in zip(idle, busy, strict=True)]
    return [
        Figure(
            "dashboard: first view, cold NameNode",
            "s",
            views,
            Series("a plain text page", tuple(blank)),
            at_most=FIRST_VIEW_S,
            smaller=True,
        ),
        Figure(
            "NameNode's core while the page is open",
            "%",
            cost,
            Series("with 50 DataNodes, no page", tuple(idle)),
            at_most=COST_PERCENT,
        ),
        Figure("/metrics, all files counted, 50 DataNodes", "ms", took, at_most=AT_MOST_MS),
        Figure("its series", "", [series(text)], at_most=SERIES),
        Figure("100,000 entries: first rows", "s", [rows_s], at_most=FIRST_VIEW_S),
        Figure("100,000 entries: all known", "s", [whole_s]),
        Figure("scrolling them: 99 of 100 frames within", "ms", [frames[len(frames) * 99 // 100]]),
        Figure(
            "scrolling them: longest halt",
            "ms",
            [max([*told["tasks"], frames[-1]])],
            at_most=FROZEN_MS,
        ),
    ]


@contextlib.contextmanager
def _nodes(url: str) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, str(SIMULATED), url, str(NODES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            raise SystemExit("the simulated DataNodes did not register")
        yield
    finally:
        process.stdin.close()
        process.terminate()
        process.wait()


def _first_view_s(browser: Any, url: str) -> float:
    context = browser.new_context(viewport={"width": 1280, "height": 900})  # an empty cache
    try:
        page = context.new_page()
        page.add_init_script(f"({WATCH})()")
        page.goto(url, wait_until="commit")
        seen = page.wait_for_selector("html[data-seen-ms]", timeout=60_000)
        return float(seen.get_attribute("data-seen-ms")) / 1000
    finally:
        context.close()


def _plain_s(browser: Any, url: str) -> float:
    """What the browser needs for any page at all, on this machine at this moment."""
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(url)
        return (
            float(page.evaluate("performance.getEntriesByType('navigation')[0].domComplete")) / 1000
        )
    finally:
        context.close()


def _counted(url: str) -> bool:
    namenode = HttpNameNode(url, user="root")
    try:
        found: Overview = namenode.call("overview", GetOverview())
        return found.counted_ms > 0
    finally:
        namenode.close()


def _cpu_percent(pid: int) -> float:
    """Of one core, over a while, by the event loop's thread: it does all that pages ask for, while others look through the blocks."""
    began_s, before = elapsed_timer(), _cpu_s(pid)
    threading.Event().wait(COST_S)
    return 100 * (_cpu_s(pid) - before) / (elapsed_timer() - began_s)


def _cpu_s(pid: int) -> float:
    fields = (
        Path(f"/proc/{pid}/task/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    )
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

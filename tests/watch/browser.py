"""A real, headless Chromium (Debian's) for the tests of pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
expect.set_options(timeout=30_000)  # of a slow, busy machine


@dataclass
class Complaints:
    """What the browser was not content with: errors of scripts, violations of the page's policy."""

    found: list[str] = field(default_factory=list)

    def hear(self, message: ConsoleMessage) -> None:
        # A server that is away, or says no, is something the page deals with by itself.
        expected = ("net::ERR", "WebSocket", "Failed to load resource")
        if message.type == "error" and not any(text in message.text for text in expected):
            self.found.append(message.text)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For one module: while it is there, its event loop runs in this thread, and no async test can."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield found
        found.close()


def open_page(
    browser: Browser,
    complaints: Complaints,
    *,
    user: str = "root",
    dark: bool = False,
    phone: bool = False,
) -> Page:
    """A page in a context of its own, acting as *user*. Its limits are those of a slow, busy machine."""
    context = browser.new_context(
        color_scheme="dark" if dark else "light",
        viewport={"width": 390, "height": 844} if phone else {"width": 1280, "height": 900},
        has_touch=phone,
        accept_downloads=True,
    )
    context.add_init_script(f"localStorage.setItem('twinfs-user', '{user}')")
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.on("console", complaints.hear)
    page.on("pageerror", lambda error: complaints.found.append(str(error)))
    return page


def shot(page: Page, name: str) -> None:
    """Keep a picture where SCREENSHOTS says, for people to look at."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))

"""A progress line on a terminal, for what takes longer than a second; silent anywhere else."""

from __future__ import annotations

import sys
import threading

from ...common.runtime import SystemClock
from .support import human

SHOW_AFTER_S = 1.0
EVERY_S = 0.2


class ProgressLine:
    """Counts bytes from any thread. *total* 0: not known."""

    def __init__(self, label: str, total: int = 0) -> None:
        self._label = label
        self._total = total
        self._done = 0
        self._clock = SystemClock()
        self._began_s = self._clock.monotonic_s()
        self._last_s = self._began_s + SHOW_AFTER_S - EVERY_S
        self._shown = False
        self._lock = threading.Lock()
        self._wanted = sys.stderr.isatty()

    def __call__(self, count: int) -> None:
        with self._lock:
            self._done += count
            now_s = self._clock.monotonic_s()
            if self._wanted and now_s - self._last_s >= EVERY_S:
                self._last_s = now_s
                self._shown = True
                sys.stderr.write("\r\x1b[K" + self._text(now_s))
                sys.stderr.flush()

    def _text(self, now_s: float) -> str:
        rate = self._done / max(now_s - self._began_s, 1e-6)
        text = f"{self._label[:40]:40} {human(self._done):>6}"
        if self._total:
            share = min(1.0, self._done / self._total)
            bar = "#" * int(20 * share)
            text += f" of {human(self._total):>6} [{bar:20}] {100 * share:3.0f}%"
            if rate:
                text += f"  {max(0, self._total - self._done) / rate:4.0f} s left"
        return f"{text}  {human(int(rate))}/s"

    def close(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

"""What a benchmark brings: figures with their spread, the bound measured beside them, and what was asked."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Series:
    """One measurement, taken several times."""

    name: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True)
class Figure:
    """A row of the table.

    *asked* compares the median, or with *of_bound* the ratio to the bound's median, to a number. Ratios are formed so
    that more is better: a rate over its bound, a bound's duration over the figure's.
    """

    name: str
    unit: str
    values: Sequence[float]
    bound: Series | None = None
    at_least: float | None = None
    at_most: float | None = None
    of_bound: bool = False
    smaller: bool = False  # less is better
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def ratio(self) -> float | None:
        """Against the bound, run by run, so that a slow moment of the machine counts on both sides."""
        if self.bound is None:
            return None
        if len(self.bound.values) == len(self.values):
            pairs = zip(self.values, self.bound.values, strict=True)
            return statistics.median(self._ratio(*pair) for pair in pairs)
        return self._ratio(self.median, self.bound.median)

    def _ratio(self, value: float, bound: float) -> float:
        over, under = (bound, value) if self.smaller else (value, bound)
        return over / under if under else float("inf")

    @property
    def reached(self) -> bool | None:
        """Whether what was asked is reached; None if nothing was."""
        found = self.ratio if self.of_bound else self.median
        if found is None:
            return None
        if self.at_least is not None:
            return found >= self.at_least
        if self.at_most is not None:
            return found <= self.at_most
        return None

    @property
    def asked(self) -> str:
        limit = self.at_least if self.at_least is not None else self.at_most
        if limit is None:
            return ""
        sign = ">=" if self.at_least is not None else "<="
        return f"{sign} {limit:g} x" if self.of_bound else f"{sign} {number(limit)}"


@dataclass
class Report:
    """All rows of a run."""

    figures: list[Figure] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    def table(self) -> str:
        heads = ("", "median", "spread", "bound", "ratio", "asked", "")
        rows = [heads, *(_row(figure) for figure in self.figures)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
        lines = []
        for row in rows:
            cells = [row[0].ljust(widths[0])]
            cells += [
                cell.ljust(width) if column > 4 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row[1:], widths[1:], strict=True), 1)
            ]
            lines.append("  ".join(cells).rstrip())
        notes = [f"{figure.name}: {figure.note}" for figure in self.figures if figure.note]
        return "\n".join([*lines, *([""] if notes else []), *notes])

    def as_json(self) -> str:
        return json.dumps(
            {
                "machine": machine(),
                "settings": self.settings,
                "figures": [
                    {
                        "name": figure.name,
                        "unit": figure.unit,
                        "median": figure.median,
                        "values": list(figure.values),
                        "bound": figure.bound
                        and {
                            "name": figure.bound.name,
                            "median": figure.bound.median,
                            "values": figure.bound.values,
                        },
                        "ratio": figure.ratio,
                        "asked": figure.asked,
                        "reached": figure.reached,
                        "note": figure.note,
                    }
                    for figure in self.figures
                ],
            },
            indent=2,
        )


def _row(figure: Figure) -> tuple[str, ...]:
    bound = figure.bound
    return (
        figure.name,
        f"{number(figure.median)} {figure.unit}",
        f"{number(min(figure.values))}..{number(max(figure.values))}",
        f"{number(bound.median)} ({bound.name})" if bound else "",
        f"{figure.ratio:.2f}" if figure.ratio is not None else "",
        figure.asked,
        {True: "ok", False: "SHORT", None: ""}[figure.reached],
    )


def number(value: float) -> str:
    """Three digits that matter."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    processor = ""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    return {
        "processors": len(os.sched_getaffinity(0)),
        "processor": processor,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }

"""A run's loss over its steps as the points of one SVG chart, which the template draws; no library and no script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_LINES = 200  # points of one curve, and lines of one run in a table
MOST_SERIES = 4
WIDTH, HEIGHT = 560, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 40
FEW_POINTS = 12  # below this number each point gets a mark
TICKS = 4
LARGEST = 1e15  # beyond it differences of floats are no longer exact enough to draw


@dataclass(frozen=True)
class Curve:
    """One logged value over the steps: `points` for a polyline, and `marks` where they are few."""

    name: str
    points: str
    marks: tuple[tuple[float, float], ...]
    first: str
    last: str


@dataclass(frozen=True)
class LossChart:
    """The curves and the labels of both axes, each with its position in pixels, in a drawing of this size."""

    width: int
    height: int
    left: int
    right: int
    curves: tuple[Curve, ...]
    steps: tuple[tuple[float, str], ...]
    values: tuple[tuple[float, str], ...]


def loss_chart(lines: Sequence[Mapping[str, Any]]) -> LossChart | None:
    """The chart of every logged value whose name ends with `loss` or `nll`; None without two points to join."""
    series = _series(lines)
    every = [point for points in series.values() for point in points]
    if len({step for step, _ in every}) < 2:
        return None
    steps, values = _range([step for step, _ in every]), _range([value for _, value in every])

    def at(point: tuple[float, float]) -> tuple[float, float]:
        x = LEFT + _share(point[0], steps) * (WIDTH - LEFT - RIGHT)
        return round(x, 1), round(HEIGHT - BOTTOM - _share(point[1], values) * (HEIGHT - TOP - BOTTOM), 1)

    curves = tuple(
        Curve(
            name,
            " ".join(f"{x:g},{y:g}" for x, y in map(at, points)),
            tuple(map(at, points)) if len(points) < FEW_POINTS else (),
            f"{points[0][1]:.4g}",
            f"{points[-1][1]:.4g}",
        )
        for name, points in series.items()
    )
    return LossChart(
        WIDTH,
        HEIGHT,
        LEFT,
        WIDTH - RIGHT,
        curves,
        tuple((at((step, values[0]))[0], f"{step:,.0f}") for step in _ticks(*steps)),
        tuple((at((steps[0], value))[1], f"{value:.3g}") for value in _ticks(*values)),
    )


def spread(lines: Sequence[Any]) -> list[Any]:
    """At most `MOST_LINES` of the lines, evenly spread, with the first and the last."""
    if len(lines) <= MOST_LINES:
        return list(lines)
    return [lines[round(number * (len(lines) - 1) / (MOST_LINES - 1))] for number in range(MOST_LINES)]


def _series(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Name -> its points `(step, value)`, of the first names that occur; values that are not finite are left out."""
    names = [name for name in dict.fromkeys(key for line in lines for key in line) if name.endswith(("loss", "nll"))]
    series = {name: [(line["step"], line[name]) for line in lines if _finite(line, "step", name)] for name in names}
    drawn = [name for name, points in series.items() if points][:MOST_SERIES]
    return {name: spread(series[name]) for name in drawn}


def _finite(line: Mapping[str, Any], *names: str) -> bool:
    values = [line.get(name) for name in names]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return len(numbers) == len(values) and all(math.isfinite(each) and abs(each) < LARGEST for each in numbers)


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _share(value: float, limits: tuple[float, float]) -> float:
    return (value - limits[0]) / (limits[1] - limits[0])


def _ticks(low: float, high: float) -> list[float]:
    return [low + (high - low) * number / TICKS for number in range(TICKS + 1)]

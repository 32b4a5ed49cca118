"""The charts of a report, as SVG elements inside the page; no display is needed.

Each color is a CSS variable of the page with the light color as its fallback, so that charts follow dark mode.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from lora_med.errors import InputMissingError, IntegrityError
from lora_med.metrics.calibration_error import Bin, Coverage

COLORS = ("#14606e", "#c2571a", "#5b4a9e", "#7a7f1f")
VERDICT_KINDS = {"better": "better", "worse": "worse", "cannot tell": "unsure"}
VERDICT_COLORS = {"better": "#17693f", "worse": "#a3242a", "cannot tell": "#55606c"}
INK, SOFT, LINE = "#1c2430", "#5b6675", "#dde2e8"
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "svg.fonttype": "path",
}
VARIABLES = {
    **{color: f"--series-{number}" for number, color in enumerate(COLORS, 1)},
    **{VERDICT_COLORS[verdict]: f"--{kind}" for verdict, kind in VERDICT_KINDS.items()},
    INK: "--ink",
    SOFT: "--soft",
    LINE: "--line",
}
WIDTH_INCHES = 5.2  # text stays above 11 pixels where the page is 480 pixels wide
PANELS_IN_A_ROW = 2
FEW_POINTS = 12  # below this number each point gets a marker


@dataclass(frozen=True)
class Bar:
    """One row of the interval chart: a difference from the base with its interval."""

    label: str
    difference: float
    low: float | None
    high: float | None
    verdict: str


def _svg(figure: Figure, name: str) -> str:
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    svg = text[text.index("<svg") :]
    for color, variable in VARIABLES.items():
        svg = svg.replace(f": {color}", f": var({variable}, {color})")
    # Several charts share the page, so their ids must differ.
    return re.sub(r'((?:\bid="|href="#|url\(#))', rf"\g<1>{name}-", svg)


def intervals(bars: Sequence[Bar], *, axis: str, better_side: str, name: str) -> str:
    """Differences from the base with 95% intervals, zero marked; `better_side` is "left" or "right"."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, 1.0 + 0.42 * len(bars)), layout="constrained")
        axes = figure.add_subplot()
        for row, bar in enumerate(bars):
            color = VERDICT_COLORS[bar.verdict]
            if bar.low is not None and bar.high is not None:
                axes.plot([bar.low, bar.high], [row, row], color=color, linewidth=2.4, solid_capstyle="round")
            axes.plot([bar.difference], [row], "o", color=color, markersize=6.5)
        axes.axvline(0, color=INK, linewidth=0.9)
        edges = [0.0, *(edge for bar in bars for edge in (bar.low, bar.high, bar.difference) if edge is not None)]
        limit = max(map(abs, edges)) * 1.15 or 1.0
        axes.set_xlim(-limit, limit)
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set_yticks(range(len(bars)), [bar.label for bar in bars], color=INK)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        left, right = ("better than the base", "worse") if better_side == "left" else ("worse", "better than the base")
        axes.set_xlabel(f"{axis}\n← {left}          {right} →")
        axes.locator_params(axis="x", nbins=7)
        return _svg(figure, name)


def shares_improved(differences: Mapping[str, Sequence[float]], *, axis: str, name: str) -> str:
    """Each adapter's change of every item, smallest first: how many items gained, and whether any lost much."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, 2.3), layout="constrained")
        axes = figure.add_subplot()
        for color, (label, changes) in zip(COLORS, differences.items(), strict=False):
            ordered = sorted(changes)
            shares = [100 * (rank + 0.5) / len(ordered) for rank in range(len(ordered))]
            axes.plot(shares, ordered, color=color, linewidth=1.8, label=label)
            axes.fill_between(shares, ordered, 0, color=color, alpha=0.12, linewidth=0)
        axes.axhline(0, color=INK, linewidth=0.9)
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of items, sorted by change")
        axes.set_ylabel(axis)
        if len(differences) > 1:
            axes.legend(frameon=False)
        return _svg(figure, name)


def _panels(count: int) -> tuple[Figure, list[Any]]:
    """A figure of `count` panels, some side by side, so that their text stays readable."""
    columns = min(count, PANELS_IN_A_ROW)
    lines = -(-count // columns)
    figure = Figure(figsize=(WIDTH_INCHES, 2.4 * lines), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False).ravel())
    for panel in panels[count:]:
        panel.set_visible(False)
    return figure, panels[:count]


def reliability(subjects: Mapping[str, Sequence[Bin]], *, name: str) -> str:
    """Accuracy over confidence, one panel for each subject; the area of a point is its share of the items."""
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(len(subjects))
        for panel, color, (label, bins) in zip(panels, itertools.cycle(COLORS), subjects.items(), strict=False):
            items = sum(each.count for each in bins)
            confidences, accuracies = [each.confidence for each in bins], [each.accuracy for each in bins]
            panel.plot([0, 1], [0, 1], color=SOFT, linewidth=0.9, linestyle="--")
            panel.plot(confidences, accuracies, color=color, linewidth=1.2)
            panel.scatter(
                confidences, accuracies, [12 + 200 * each.count / items for each in bins], color=color, alpha=0.7
            )
            panel.set_title(label, loc="left", fontsize=10, color=INK)
            panel.set_xlim(0, 1)
            panel.set_ylim(-0.03, 1.03)
            panel.set_xlabel("confidence")
        panels[0].set_ylabel("accuracy")
        return _svg(figure, name)


def risk_curves(subjects: Mapping[str, Sequence[Coverage]], *, name: str) -> str:
    """Error rate over coverage, one line for each subject."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, 2.4), layout="constrained")
        axes = figure.add_subplot()
        for color, (label, curve) in zip(itertools.cycle(COLORS), subjects.items(), strict=False):
            coverage, risk = [100 * point.coverage for point in curve], [100 * point.risk for point in curve]
            axes.plot(coverage, risk, "o-" if len(curve) < FEW_POINTS else "-", color=color, linewidth=1.8, label=label)
        axes.set_xlim(0, 101)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("% of questions answered, most confident first")
        axes.set_ylabel("% wrong")
        axes.grid(axis="y", color=LINE, linewidth=0.7)
        axes.legend(frameon=False)
        return _svg(figure, name)


def roc_curves(curves: Mapping[str, Sequence[tuple[float, float]]], *, name: str) -> str:
    """Members found over false alarms, as shares on logarithmic axes, where rare false alarms are seen."""
    least = min((share for points in curves.values() for point in points for share in point if share > 0), default=0.1)
    floor = 10 ** math.floor(math.log10(min(least, 0.1)))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, 3.4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([floor, 1], [floor, 1], color=SOFT, linewidth=0.9, linestyle="--")
        for color, (label, points) in zip(itertools.cycle(COLORS), curves.items(), strict=False):
            alarms, found = ([max(floor, share) for share in side] for side in zip(*points, strict=True))
            axes.step(alarms, found, where="post", color=color, linewidth=1.8, label=label)
        axes.set(xscale="log", yscale="log", xlim=(floor, 1), ylim=(floor, 1.1))
        axes.set_xlabel("share of outsiders taken for members")
        axes.set_ylabel("share of members found")
        axes.grid(color=LINE, linewidth=0.7)
        axes.legend(frameon=False, loc="lower right")
        return _svg(figure, name)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics.jsonl.

    Raises:
        InputMissingError: there is no such file.
        IntegrityError: a line is not a JSON object.
    """
    if not path.is_file():
        raise InputMissingError(
            f"no such file: {path.name}", where=str(path.parent), fix="name a finished run's folder"
        )
    rows: list[dict[str, float]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise IntegrityError("not valid JSON", where=f"{path}:{number}") from error
        if not isinstance(value, dict):
            raise IntegrityError("not a JSON object", where=f"{path}:{number}")
        rows.append(value)
    return rows


def loss_curves(runs: Mapping[str, Sequence[Mapping[str, float]]], *, name: str = "loss") -> str:
    """Training and validation loss over the steps, one panel for each run; rows as `read_metrics` returns them.

    Two validation points are drawn as points alone: a line between them would suggest a course that nobody measured.
    """
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(len(runs))
        for panel, color, (label, rows) in zip(panels, itertools.cycle(COLORS), runs.items(), strict=False):
            for key, title, shade, line in (("loss", "training", color, "-"), ("eval_loss", "validation", INK, "--")):
                points = [(row["step"], row[key]) for row in rows if key in row and "step" in row]
                if points:
                    steps, losses = zip(*points, strict=True)
                    marker = "o" if key == "eval_loss" or len(points) < FEW_POINTS else ""
                    line = "" if key == "eval_loss" and len(points) <= 2 else line
                    (curve,) = panel.plot(steps, losses, color=shade, linestyle=line, marker=marker, label=title)
                    curve.set(linewidth=1.6, markersize=5)
            panel.set_title(label, loc="left", fontsize=10, color=INK)
            panel.set_xlabel("step")
            panel.grid(axis="y", color=LINE, linewidth=0.7)
            panel.legend(frameon=False)
        panels[0].set_ylabel("loss, nats per token")
        return _svg(figure, name)

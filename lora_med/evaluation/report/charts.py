"""The drawings of a report, as SVG elements that stand inside the page; nothing here needs a display."""

from __future__ import annotations

import io
import itertools
import json
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
WIDTH_INCHES = 7.6
PANELS_IN_A_ROW = 3
FEW_POINTS = 12  # so few are marked one by one


@dataclass(frozen=True)
class Bar:
    """One line of the interval drawing: a difference from the base with its interval."""

    label: str
    difference: float
    low: float | None
    high: float | None
    verdict: str


def _svg(figure: Figure, name: str) -> str:
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    svg = text[text.index("<svg") :]
    # Several drawings share the page, so their ids must not meet.
    return re.sub(r'((?:\bid="|href="#|url\(#))', rf"\g<1>{name}-", svg)


def intervals(bars: Sequence[Bar], *, axis: str, better_side: str, name: str) -> str:
    """Differences from the base with 95% intervals, zero marked; `better_side` is "left" or "right"."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, 0.85 + 0.42 * len(bars)), layout="constrained")
        axes = figure.add_subplot()
        for place, bar in enumerate(bars):
            color = VERDICT_COLORS[bar.verdict]
            if bar.low is not None and bar.high is not None:
                axes.plot([bar.low, bar.high], [place, place], color=color, linewidth=2.4, solid_capstyle="round")
            axes.plot([bar.difference], [place], "o", color=color, markersize=6.5)
        axes.axvline(0, color=INK, linewidth=0.9)
        edges = [0.0, *(edge for bar in bars for edge in (bar.low, bar.high, bar.difference) if edge is not None)]
        reach = max(map(abs, edges)) * 1.15 or 1.0
        axes.set_xlim(-reach, reach)
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set_yticks(range(len(bars)), [bar.label for bar in bars], color=INK)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        left, right = ("better than the base", "worse") if better_side == "left" else ("worse", "better than the base")
        axes.set_xlabel(f"← {left}     {axis}     {right} →")
        return _svg(figure, name)


def shares_improved(differences: Mapping[str, Sequence[float]], *, axis: str, name: str) -> str:
    """Each adapter's change of every item, smallest first: how many items gained, and whether any lost much."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, 2.3), layout="constrained")
        axes = figure.add_subplot()
        for color, (label, found) in zip(COLORS, differences.items(), strict=False):
            ordered = sorted(found)
            shares = [100 * (place + 0.5) / len(ordered) for place in range(len(ordered))]
            axes.plot(shares, ordered, color=color, linewidth=1.8, label=label)
            axes.fill_between(shares, ordered, 0, color=color, alpha=0.12, linewidth=0)
        axes.axhline(0, color=INK, linewidth=0.9)
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of items, sorted by change")
        axes.set_ylabel(axis)
        if len(differences) > 1:
            axes.legend(frameon=False)
        return _svg(figure, name)


def reliability(subjects: Mapping[str, Sequence[Bin]], *, name: str) -> str:
    """Accuracy over confidence, a panel a subject; each point's area is its share of the items."""
    with matplotlib.rc_context(STYLE):
        columns = min(len(subjects), PANELS_IN_A_ROW)
        lines = -(-len(subjects) // columns)
        figure = Figure(figsize=(WIDTH_INCHES, 2.5 * lines), layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for place, panel in enumerate(panels):
            panel.set_visible(place < len(subjects))
        for panel, color, (label, found) in zip(panels, itertools.cycle(COLORS), subjects.items(), strict=False):
            whole = sum(one.count for one in found)
            panel.plot([0, 1], [0, 1], color=SOFT, linewidth=0.9, linestyle="--")
            panel.plot([one.confidence for one in found], [one.accuracy for one in found], color=color, linewidth=1.2)
            sizes = [12 + 200 * one.count / whole for one in found]
            panel.scatter(
                [one.confidence for one in found], [one.accuracy for one in found], sizes, color=color, alpha=0.7
            )
            panel.set_title(label, loc="left", fontsize=10, color=INK)
            panel.set_xlim(0, 1)
            panel.set_ylim(-0.03, 1.03)
            panel.set_xlabel("confidence")
        panels[0].set_ylabel("share right")
        return _svg(figure, name)


def risk_curves(subjects: Mapping[str, Sequence[Coverage]], *, name: str) -> str:
    """Error rate over coverage, a line a subject."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, 2.4), layout="constrained")
        axes = figure.add_subplot()
        for color, (label, curve) in zip(itertools.cycle(COLORS), subjects.items(), strict=False):
            coverage, risk = [100 * one.coverage for one in curve], [100 * one.risk for one in curve]
            axes.plot(coverage, risk, "o-" if len(curve) < FEW_POINTS else "-", color=color, linewidth=1.8, label=label)
        axes.set_xlim(0, 101)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("% of questions answered, the surest first")
        axes.set_ylabel("% wrong")
        axes.grid(axis="y", color=LINE, linewidth=0.7)
        axes.legend(frameon=False)
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
    """Training and validation loss over the steps, one panel a run; rows as `read_metrics` gives them."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, 2.5), layout="constrained")
        panels = figure.subplots(1, len(runs), squeeze=False)[0]
        for place, (panel, (label, rows)) in enumerate(zip(panels, runs.items(), strict=True)):
            color = COLORS[place % len(COLORS)]
            for key, title, style in (("loss", "training", "-"), ("eval_loss", "validation", "o--")):
                points = [(row["step"], row[key]) for row in rows if key in row and "step" in row]
                if points:
                    steps, losses = zip(*points, strict=True)
                    shade = color if key == "loss" else INK
                    shape = "o-" if style == "-" and len(points) < FEW_POINTS else style
                    panel.plot(steps, losses, shape, color=shade, linewidth=1.6, markersize=4, label=title)
            panel.set_title(label, loc="left", fontsize=10, color=INK)
            panel.set_xlabel("step")
            panel.grid(axis="y", color=LINE, linewidth=0.7)
            panel.legend(frameon=False)
        panels[0].set_ylabel("loss, nats per token")
        return _svg(figure, name)

"""The loss curve as a picture, drawn from the run's metrics."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_med.files import write_atomic


def draw_loss(metrics: Sequence[dict[str, Any]], path: Path, *, score: str | None = None) -> Path:
    """Write a PNG with the training and the validation loss over the steps; returns `path`.

    Args:
        metrics: lines of metrics.jsonl; those with `loss` are training, those with `eval_loss` validation.
        score: a task's score, `eval_<name>`, to draw on a second axis.
    """
    # Takes a second to load, and is needed long after a run has begun.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, label, style in (
        ("loss", "training", {"linewidth": 1.2, "color": "#4c78a8"}),
        ("eval_loss", "validation", {"linewidth": 1.6, "color": "#e45756", "marker": "o", "markersize": 4}),
    ):
        points = [(line["step"], line[name]) for line in metrics if isinstance(line.get(name), int | float)]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, **style)  # type: ignore[arg-type]
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats per trained token)")
    axes.grid(alpha=0.25)
    lines = list(axes.lines)
    points = [(line["step"], line[score]) for line in metrics if score is not None and line.get(score) is not None]
    if score is not None and points:
        beside = axes.twinx()
        name = score.removeprefix("eval_").replace("_", " ")
        lines += beside.plot(*zip(*points, strict=True), label=name, color="#54a24b", marker="s", markersize=4)
        beside.set_ylabel(f"{name} (validation)")
    if lines:
        axes.legend(handles=lines, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(lines))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": "lora_med"})
    return write_atomic(path, picture.getvalue())

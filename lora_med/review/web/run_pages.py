"""The pages of runs: what a run's own files say of its loss and scores, read anew for each page.

Nothing runs inside the trainer: metrics.jsonl is read while it grows, and a line that is not complete yet is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lora_med.review.web.page_templates import not_found, page

METRICS = "metrics.jsonl"
MOST_LINES = 200  # of one run on a page, spread over all
FIRST = ("step", "epoch", "loss")


class RunPages:
    """The runs in the folders below one folder."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs

    def routes(self) -> list[Route]:
        """The addresses of these pages."""
        return [Route("/runs", self.runs, methods=["GET"]), Route("/runs/{name}", self.run, methods=["GET"])]

    def runs(self, request: Request) -> Response:
        """Every run with its last line."""
        rows = [(name, _cells(lines[-1] if lines else {}), len(lines)) for name, lines in self._all().items()]
        return page("runs.html.j2", access="", folder=str(self._runs), rows=rows)

    def run(self, request: Request) -> Response:
        """One run's lines; of many, evenly spread ones with the first and the last."""
        name = request.path_params["name"]
        every = self._all()
        if name not in every:
            return not_found(request, None)
        lines = every[name]
        columns = [key for key in dict.fromkeys((*FIRST, *(key for line in lines for key in line))) if _has(lines, key)]
        return page(
            "run.html.j2",
            access="",
            name=name,
            count=len(lines),
            columns=columns,
            rows=[[_number(line.get(key)) for key in columns] for line in spread(lines)],
        )

    def _all(self) -> dict[str, list[dict[str, Any]]]:
        if not self._runs.is_dir():
            return {}
        folders = sorted(folder for folder in self._runs.iterdir() if (folder / METRICS).is_file())
        return {folder.name: read_growing(folder / METRICS) for folder in folders}


def read_growing(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a file that another process may be writing; a damaged line counts as a row of its own."""
    content = path.read_bytes()
    rows: list[dict[str, Any]] = []
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        rows.append(value if isinstance(value, dict) else {"damaged line": 1})
    return rows


def spread(lines: Sequence[Any]) -> list[Any]:
    """At most `MOST_LINES` of the lines, evenly spread, with the first and the last."""
    if len(lines) <= MOST_LINES:
        return list(lines)
    return [lines[round(number * (len(lines) - 1) / (MOST_LINES - 1))] for number in range(MOST_LINES)]


def _has(lines: Sequence[Mapping[str, Any]], key: str) -> bool:
    return any(isinstance(line.get(key), int | float) for line in lines)


def _cells(line: Mapping[str, Any]) -> dict[str, str]:
    return {key: _number(line.get(key)) for key in FIRST}


def _number(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, int | float) else ""

"""The pages of runs: what a run's own files say of its loss, drawn, and of its scores, read anew for each page.

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

from lora_med.data.access import CLASSES, strictest
from lora_med.review.compared_settings import compared_settings
from lora_med.review.web.loss_chart import loss_chart, spread
from lora_med.review.web.page_templates import NO_DATA, not_found, page

METRICS, RUN = "metrics.jsonl", "run.json"
NOT_STATED = "not stated"
FIRST = ("step", "epoch", "loss")


class RunPages:
    """The runs in the folders below one folder."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs

    def routes(self) -> list[Route]:
        """The addresses of these pages."""
        return [Route("/runs", self.runs, methods=["GET"]), Route("/runs/{name}", self.run, methods=["GET"])]

    def runs(self, request: Request) -> Response:
        """Every run with its newest values."""
        rows = [(name, _cells(lines), len(lines)) for name, lines in self._all().items()]
        access = _together([self._access(name) for name, *_ in rows])
        return page("runs.html.j2", access=access, folder=str(self._runs), rows=rows)

    def run(self, request: Request) -> Response:
        """One run's lines, of many evenly spread ones with the first and the last; its settings beside another's."""
        name, against = request.path_params["name"], request.query_params.get("against", "")
        every = self._all()
        if name not in every:
            return not_found(request, None)
        lines = every[name]
        columns = [key for key in dict.fromkeys((*FIRST, *(key for line in lines for key in line))) if _has(lines, key)]
        against = against if against in every else ""
        shown = [name, *([against] if against else [])]
        return page(
            "run.html.j2",
            access=_together([self._access(each) for each in shown]),
            others=[each for each in every if each != name],
            against=against,
            settings=compared_settings(self._settings(name), self._settings(against) if against else None),
            name=name,
            chart=loss_chart(lines),
            count=len(lines),
            columns=columns,
            rows=[[_number(line.get(key)) for key in columns] for line in spread(lines)],
        )

    def _access(self, name: str) -> str | None:
        """The class of a run's data, as its run.json has it; None where that is not written yet."""
        data = self._facts(name).get("data")
        stated = data.get("access") if isinstance(data, dict) else None
        return stated if isinstance(stated, str) and stated in CLASSES else None

    def _settings(self, name: str) -> dict[str, Any]:
        """The settings of a run, as its run.json has them; empty where that is not written yet."""
        settings = self._facts(name).get("settings")
        return settings if isinstance(settings, dict) else {}

    def _facts(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads((self._runs / name / RUN).read_bytes())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _all(self) -> dict[str, list[dict[str, Any]]]:
        if not self._runs.is_dir():
            return {}
        folders = sorted(folder for folder in self._runs.iterdir() if (folder / METRICS).is_file())
        return {folder.name: read_growing(folder / METRICS) for folder in folders}


def _together(classes: Sequence[str | None]) -> str:
    """The strictest class; of runs without one, that it is not stated."""
    if not classes:
        return NO_DATA
    known = [each for each in classes if each is not None]
    return strictest(known) if len(known) == len(classes) or "credentialed" in known else NOT_STATED


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


def _has(lines: Sequence[Mapping[str, Any]], key: str) -> bool:
    return any(isinstance(line.get(key), int | float) for line in lines)


def _cells(lines: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The newest value of each column: an evaluation's line has no training loss."""
    return {key: next((_number(line[key]) for line in reversed(lines) if key in line), "") for key in FIRST}


def _number(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, int | float) else ""

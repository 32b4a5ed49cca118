"""The page of a run's data: rows as they are trained with the mask coloured, and what was dropped and why."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lora_med.review.trained_rows import KINDS, RowFilter, TrainedRows
from lora_med.review.web.page_templates import NO_DATA, not_found, page

ROWS = 20
MOST_LABELS, MOST_TWINS = 12, 5  # named beside one row
FIELDS = ("search", "least", "most", "label", "source", "kind")


class DataPages:
    """The training rows of one run; without one the page says how to name it."""

    def __init__(self, trained: TrainedRows | None) -> None:
        self._trained = trained

    def routes(self) -> list[Route]:
        """The address of this page."""
        return [Route("/data", self.rows, methods=["GET"])]

    def rows(self, request: Request) -> Response:
        """The rows that were asked for."""
        if self._trained is None:
            return page("no_data.html.j2", access=NO_DATA)
        asked = {name: request.query_params.get(name, "") for name in FIELDS}
        least, most = number(asked["least"]) or 0, number(asked["most"])
        wanted = RowFilter(asked["search"], least, most, asked["label"], asked["source"], asked["kind"])
        chosen = self._trained.selection(wanted)
        first = (number(request.query_params.get("page", "")) or 0) * ROWS
        if first and first >= len(chosen):
            return not_found(request, None)

        def at(start: int) -> str:
            return "?" + urlencode({**{key: value for key, value in asked.items() if value}, "page": start // ROWS})

        return page(
            "data.html.j2",
            access=self._trained.access,
            trained=self._trained,
            asked=asked,
            count=len(chosen),
            first=first,
            kinds=KINDS,
            rows=[self._row(self._trained, each) for each in chosen[first : first + ROWS]],
            earlier=at(first - ROWS) if first else None,
            later=at(first + ROWS) if first + ROWS < len(chosen) else None,
        )

    @staticmethod
    def _row(trained: TrainedRows, position: int) -> dict[str, Any]:
        facts = trained.facts[position]
        return {
            "shown": trained.shown(position),
            "source": facts.source if len(trained.sources) > 1 else "",
            "labels": facts.labels[:MOST_LABELS] if trained.labels else (),
            "is_cut": facts.is_cut,
            "twins": [trained.uid(each) for each in facts.twins[:MOST_TWINS]],
            "more_twins": max(0, len(facts.twins) - MOST_TWINS),
        }


def number(text: str) -> int | None:
    """A whole number in a query; None where there is none, or one too long to be meant."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 8 else None

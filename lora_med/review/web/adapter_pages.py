"""The pages of the store: every adapter with its identity, data, access class and scores, and two settings compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lora_med.adapters.store.card import Card
from lora_med.adapters.store.store import cards
from lora_med.data.access import strictest
from lora_med.errors import LoraMedError
from lora_med.review.compared_settings import compared_settings, flat
from lora_med.review.web.page_templates import NO_DATA, not_found, page


class AdapterPages:
    """The adapters of one store, read anew for each page."""

    def __init__(self, store: Path) -> None:
        self._store = store

    def routes(self) -> list[Route]:
        """The addresses of these pages."""
        return [
            Route("/adapters", self.adapters, methods=["GET"]),
            Route("/adapters/{name}", self.adapter, methods=["GET"]),
        ]

    def adapters(self, request: Request) -> Response:
        """All adapters; a card that cannot be read is shown with its error."""
        known, broken = self._cards()
        return page(
            "adapters.html.j2",
            access=strictest(card.data.access for card in known.values()) if known else NO_DATA,
            store=str(self._store),
            cards=[known[name] for name in sorted(known)],
            broken=sorted(broken.items()),
        )

    def adapter(self, request: Request) -> Response:
        """One adapter, and its settings beside those of another."""
        known, _ = self._cards()
        name, against = request.path_params["name"], request.query_params.get("against", "")
        if name not in known:
            return not_found(request, None)
        card, other = known[name], known.get(against)
        second = None if other is None else asdict(other)["settings"]
        return page(
            "adapter.html.j2",
            access=strictest([card.data.access, *([] if other is None else [other.data.access])]),
            card=card,
            facts=_stated({"base": asdict(card)["base"], "data": asdict(card)["data"], "method": card.method}),
            scores=list(_scores(card.scores)),
            others=[each for each in sorted(known) if each != name],
            against=against if other is not None else "",
            settings=compared_settings(asdict(card)["settings"], second),
        )

    def _cards(self) -> tuple[dict[str, Card], dict[str, str]]:
        if not self._store.is_dir():
            return {}, {}
        every = cards(self._store)
        known = {name: card for name, card in every.items() if isinstance(card, Card)}
        return known, {name: str(error) for name, error in every.items() if isinstance(error, LoraMedError)}


def _scores(scores: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    """Evaluation, measure, value, the base's value and the verdict; of a run's own notes name and value."""
    for name, score in scores.items():
        measures = score.get("measures") if isinstance(score, Mapping) else None
        if not isinstance(measures, Mapping):
            for key, value in flat({name: score}).items():
                yield key, "", value, "", ""
            continue
        for measure, each in measures.items():
            verdict = str(each.get("change", {}).get("verdict", ""))
            yield name, measure, _number(each.get("value")), _number(each.get("base")), verdict


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else ""


def _stated(values: Mapping[str, Any]) -> dict[str, str]:
    """Nested values as `section.key` -> text, without those that are empty."""
    return {name: text for name, text in flat(values).items() if text not in ("None", "{}", "[]", "")}

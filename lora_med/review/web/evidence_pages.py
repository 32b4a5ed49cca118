"""The pages of reports: their verdicts, each item with base and adapters side by side, and the claims in the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lora_med.data.access import strictest
from lora_med.evaluation.results import BASE
from lora_med.review.item_filter import (
    BELOW_THRESHOLD,
    CONFIDENCE_ORDERS,
    CONFIDENCES,
    ORDERS,
    OUTCOMES,
    Confidences,
    ItemFilter,
)
from lora_med.review.located_claims import claims, unlocated
from lora_med.review.playground.answering import Answering
from lora_med.review.report_folder import outputs_of, written_by
from lora_med.review.trained_rows import TrainedRows
from lora_med.review.web.adapter_pages import AdapterPages
from lora_med.review.web.data_pages import DataPages, number
from lora_med.review.web.evidence import EvaluationEvidence, Evidence
from lora_med.review.web.page_guard import PageGuard
from lora_med.review.web.page_templates import NO_DATA, guarded, not_found, page
from lora_med.review.web.playground_pages import PlaygroundPages
from lora_med.review.web.run_pages import RunPages
from lora_med.review.web.study_evidence import StudyEvidence

RUNS = Path("runs")
ROWS = 50
MOST_SHOWN = 20_000  # characters of one text on a page
EXCERPT = 160
Segment = tuple[str, str, str]  # text, kind of claim or "", and what a reader is told about it


class EvidencePages:
    """The pages of some reports and studies, of the store, of the runs, and of one run's data."""

    def __init__(
        self,
        evidence: Sequence[Evidence],
        store: Path,
        *,
        studies: Sequence[StudyEvidence] = (),
        runs: Path = RUNS,
        trained: TrainedRows | None = None,
        answering: Answering | None = None,
    ) -> None:
        self._evidence, self._studies = evidence, studies
        self._others = (AdapterPages(store), RunPages(runs), DataPages(trained), PlaygroundPages(answering))

    def application(self) -> PageGuard:
        """The web application, guarded."""
        routes = [
            Route("/", self.reports, methods=["GET"]),
            Route("/reports/{report:int}/{evaluation:int}", self.items, methods=["GET"]),
            Route("/reports/{report:int}/{evaluation:int}/{item:int}", self.item, methods=["GET"]),
            *(route for pages in self._others for route in pages.routes()),
        ]
        return guarded(routes)

    def reports(self, request: Request) -> Response:
        """Every report with its values, differences and verdicts."""
        classes = [each.evaluation.access for one in self._evidence for each in one.evaluations]
        classes += [study.access for study in self._studies]
        access = strictest(classes) if classes else NO_DATA
        shown = {study.sealed for study in self._studies}
        reports = [_report(one, shown) for one in self._evidence]
        return page("reports.html.j2", access=access, reports=reports, studies=self._studies)

    def items(self, request: Request) -> Response:
        """The items of an evaluation, filtered and ordered."""
        found = self._find(request)
        if found is None:
            return not_found(request, None)
        adapters = found.evaluation.adapters or (BASE,)
        asked = ItemFilter.of_query(request.query_params)
        wanted = asked if asked.adapter in adapters else replace(asked, adapter=adapters[0])
        chosen, sure = found.selection(wanted), found.confidences[wanted.adapter]
        first = (number(request.query_params.get("page", "")) or 0) * ROWS
        return page(
            "items.html.j2",
            access=found.evaluation.access,
            address=request.url.path,
            name=found.evaluation.name,
            adapters=adapters,
            base_only=wanted.adapter == BASE,
            asked=wanted,
            outcomes=OUTCOMES,
            orders=ORDERS | (CONFIDENCE_ORDERS if sure.is_known else {}),
            item_subjects=found.subjects,
            confidences=_confidence_choices(sure),
            count=len(chosen),
            total=len(found.evaluation.items),
            measure=found.measure,
            rows=[_row(found, index, wanted.adapter) for index in chosen[first : first + ROWS]],
            first=first,
            earlier=_query(asked, first // ROWS - 1) if first else None,
            later=_query(asked, first // ROWS + 1) if first + ROWS < len(chosen) else None,
        )

    def item(self, request: Request) -> Response:
        """One item: the prompt, the reference, and the answers side by side with their claims."""
        found = self._find(request)
        index = request.path_params["item"]
        if found is None or not index < len(found.evaluation.items):
            return not_found(request, None)
        evaluation, item = found.evaluation, found.evaluation.items[index]
        text = found.texts.get(item["uid"])
        subjects = (BASE, *evaluation.adapters)
        return page(
            "item.html.j2",
            access=evaluation.access,
            back=request.url.path.rpartition("/")[0],
            uid=item["uid"],
            subject=text.subject if text is not None else "",
            number=index,
            total=len(evaluation.items),
            prompt=None if text is None else _cut(text.prompt),
            reference=None if text is None else _cut(text.reference),
            answer=item.get("answer"),
            measure=found.measure,
            subjects=[
                {
                    "name": name,
                    "facts": _facts(outputs_of(item, name), found.confidences[name].values[index]),
                    "gain": None if name == BASE else found.gains[name][index],
                    "answer": _answer(written_by(item, name), None if text is None else text.prompt),
                }
                for name in subjects
            ],
        )

    def _find(self, request: Request) -> EvaluationEvidence | None:
        report, evaluation = (request.path_params[name] for name in ("report", "evaluation"))
        if report >= len(self._evidence) or evaluation >= len(self._evidence[report].evaluations):
            return None
        return self._evidence[report].evaluations[evaluation]


def _report(evidence: Evidence, shown: set[str]) -> dict[str, Any]:
    """A report; of its blind ratings those that are not among the studies `shown` themselves."""
    ratings = [each for each in evidence.report.content.get("ratings", []) if each["study"] not in shown]
    return {
        "title": evidence.report.title,
        "created": evidence.report.content.get("created", ""),
        "comparisons": evidence.report.content.get("comparisons", []),
        "ratings": ratings,
        "evaluations": [
            {
                "name": each.evaluation.name,
                "access": each.evaluation.access,
                "count": len(each.evaluation.items),
                "notes": each.evaluation.entry.get("notes", []),
                "measures": each.evaluation.entry["measures"],
                "subjects": each.evaluation.entry["subjects"],
            }
            for each in evidence.evaluations
        ],
    }


def _confidence_choices(sure: Confidences) -> dict[str, str]:
    """The choices of a filter by confidence; empty where the report holds none."""
    if not sure.is_known:
        return {}
    return CONFIDENCES | ({} if sure.threshold is None else BELOW_THRESHOLD)


def _row(found: EvaluationEvidence, index: int, adapter: str) -> dict[str, Any]:
    item = found.evaluation.items[index]
    return {
        "number": index,
        "uid": item["uid"],
        "reference": item.get("answer", ""),
        "base": _excerpt(item, BASE),
        "adapter": _excerpt(item, adapter),
        "gain": found.gains[adapter][index],
        "confidence": found.confidences[adapter].values[index],
    }


def _excerpt(item: Mapping[str, Any], subject: str) -> str:
    """What a subject answered, in a few words; numbers where the report holds no text."""
    written = written_by(item, subject)
    if written is None:
        predicted = outputs_of(item, subject).get("predicted")
        return str(predicted) if predicted is not None else ""
    return written if len(written) <= EXCERPT else f"{written[:EXCERPT]}…"


def _facts(outputs: Mapping[str, Any], confidence: float | None) -> dict[str, str]:
    """What the report says of an answer besides its text and its sums."""
    sure = {} if confidence is None else {"confidence": f"{confidence:.0%}"}
    return sure | {
        name.replace("_", " "): ", ".join(f"{each:.3g}" if isinstance(each, float) else str(each) for each in values)
        for name, value in outputs.items()
        if name not in ("written", "sums")
        for values in ([*value] if isinstance(value, list) else [value],)
    }


def _cut(text: str) -> dict[str, Any]:
    return {"text": text[:MOST_SHOWN], "left_out": max(0, len(text) - MOST_SHOWN)}


def _answer(written: str | None, prompt: str | None) -> dict[str, Any] | None:
    """An answer as segments, with the claims that the prompt does not support marked; None where there is no text."""
    if written is None:
        return None
    shown = _cut(written)
    if prompt is None:
        return {**shown, "segments": [(shown["text"], "", "")], "claims": [], "unlocated": [], "checked": False}
    source, text = prompt[:MOST_SHOWN], shown["text"]
    located = claims(source, text)
    segments: list[Segment] = []
    done = 0
    for claim in located:
        segments.append((text[done : claim.start], "", ""))
        kind = "" if claim.is_supported else claim.kind
        segments.append((text[claim.start : claim.end], kind, _meaning(claim.kind, claim.place is not None)))
        done = claim.end
    segments.append((text[done:], "", ""))
    listed = [
        {
            "text": text[claim.start : claim.end],
            "kind": claim.kind,
            "is_supported": claim.is_supported,
            "place": None if claim.place is None else _place(source, *claim.place),
        }
        for claim in located
    ]
    missing = [f"{each.value:g} {each.unit}".strip() for each in unlocated(source, text)]
    return {**shown, "segments": segments, "claims": listed, "unlocated": missing, "checked": True}


def _meaning(kind: str, has_place: bool) -> str:
    if kind in ("number", "word"):
        return f"{kind} not in the prompt"
    return f"{kind} that the prompt states otherwise" if has_place else f"{kind} without a place in the prompt"


def _place(source: str, start: int, end: int) -> str:
    """The passage of the source, with a little around a short one."""
    around = max(0, 60 - (end - start)) // 2
    text = " ".join(source[max(0, start - around) : end + around][: 2 * EXCERPT].split())
    return f"{'…' if start > around else ''}{text}{'…' if end + around < len(source) else ''} (character {start:,})"


def _query(asked: ItemFilter, page_number: int) -> str:
    return "?" + urlencode({**{name: value for name, value in asdict(asked).items() if value}, "page": page_number})

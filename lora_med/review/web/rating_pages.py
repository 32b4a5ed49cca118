"""The pages of blind rating: a rater's overview, and one page for each assignment.

The address holds the rater's token. A page shows the sides that the sealed plan drew, so reloading it or going back
changes nothing. The answer to a submitted form is sent after the rating is on disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from lora_med.errors import DataError, LoraMedError
from lora_med.review.blind.rating import (
    AXES,
    AXIS_CHOICES,
    CHOICES,
    MARKS,
    MOST_COMMENT,
    Rating,
    rating_from_form,
)
from lora_med.review.blind.rating_log import RatingLog
from lora_med.review.blind.shown_text import differ_much, sentence_ranges
from lora_med.review.blind.study import Assignment, Study
from lora_med.review.web.page_guard import PageGuard
from lora_med.review.web.page_templates import guarded, not_found, page

MOST_FIELDS = 20_000
Form = Mapping[str, Sequence[str]]


class RatingPages:
    """The pages of one study."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._log = RatingLog(study)

    def application(self) -> PageGuard:
        """The web application, guarded."""
        routes = [
            Route("/", self.start, methods=["GET"]),
            Route("/rate/{token}", self.overview, methods=["GET"]),
            Route("/rate/{token}/{position:int}", self.assignment, methods=["GET", "POST"]),
        ]
        return guarded(routes)

    def start(self, request: Request) -> Response:
        """What to do without a link; nothing of the study."""
        return page("rating_start.html.j2", access=self._access)

    def overview(self, request: Request) -> Response:
        """A rater's progress, and the link to the next page."""
        rater = self._study.rater_of(request.path_params["token"])
        if rater is None:
            return not_found(request, None)
        assignments, current = self._study.by_rater[rater], self._log.current()
        done = [each.id in current for each in assignments]
        return page(
            "rating_overview.html.j2",
            access=self._access,
            token=request.path_params["token"],
            rater=rater,
            pages=[(each.position, each.id in current) for each in assignments],
            done=sum(done),
            next_position=next((each.position for each in assignments if each.id not in current), None),
        )

    async def assignment(self, request: Request) -> Response:
        """The page of one assignment, or the stored rating and the way to the next page."""
        rater = self._study.rater_of(request.path_params["token"])
        position = request.path_params["position"]
        if rater is None or not 1 <= position <= len(self._study.by_rater[rater]):
            return not_found(request, None)
        assignment = self._study.by_rater[rater][position - 1]
        if request.method == "GET":
            return await run_in_threadpool(self._show, request, assignment, {}, "")
        body = (await request.body()).decode("utf-8", "replace")
        try:
            form = parse_qs(body, max_num_fields=MOST_FIELDS)
        except ValueError:
            return await run_in_threadpool(self._show, request, assignment, {}, "the form has too many fields", 422)
        return await run_in_threadpool(self._store, request, assignment, form)

    def _store(self, request: Request, assignment: Assignment, form: Form) -> Response:
        try:
            self._log.store(rating_from_form(form, self._study, assignment))
        except DataError as error:
            return self._show(request, assignment, form, error.what, 422)
        except LoraMedError as error:
            return self._show(request, assignment, form, f"not saved: {error.what}", 503)
        token, following = request.path_params["token"], assignment.position + 1
        is_last = following > len(self._study.by_rater[assignment.rater])
        return RedirectResponse(f"/rate/{token}" if is_last else f"/rate/{token}/{following}", 303)

    def _show(self, request: Request, assignment: Assignment, form: Form, problem: str, status: int = 200) -> Response:
        current = self._log.current()
        stored = current.get(assignment.id)
        texts = self._study.texts(assignment)
        mine = self._study.by_rater[assignment.rater]
        return page(
            "rating.html.j2",
            status,
            access=self._access,
            token=request.path_params["token"],
            position=assignment.position,
            total=len(mine),
            done=sum(each.id in current for each in mine),
            prompt=self._study.items[assignment.item].prompt,
            sides=[
                {"side": side, "sentences": [text[start:end] for start, end in sentence_ranges(text)], "text": text}
                for side, text in zip("ab", texts, strict=True)
            ],
            lengths_differ=differ_much(*texts),
            choices=CHOICES,
            axes=AXES,
            axis_choices=AXIS_CHOICES,
            marks=MARKS,
            most_comment=MOST_COMMENT,
            given=_given(form) if form else _stored(stored, texts),
            is_stored=stored is not None,
            problem=problem,
        )

    @property
    def _access(self) -> str:
        return str(self._study.plan["access"])


def _given(form: Form) -> dict[str, Any]:
    return {name: values[-1] for name, values in form.items()}


def _stored(rating: Rating | None, texts: Sequence[str]) -> dict[str, Any]:
    """The fields of the form as a stored rating fills them."""
    if rating is None:
        return {}
    fields: dict[str, Any] = {"choice": rating.choice, "comment": rating.comment, **rating.axes}
    numbers = {
        (side, *each): number
        for side, text in zip("ab", texts, strict=True)
        for number, each in enumerate(sentence_ranges(text))
    }
    marked = ((numbers[mark.side, mark.start, mark.end], mark) for mark in rating.marks)
    return fields | {f"mark-{mark.side}-{number}": mark.kind for number, mark in marked}

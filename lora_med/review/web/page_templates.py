"""The pages' templates and files: HTML in which text is escaped and made visible, one style sheet, two scripts.

`guarded` makes an application of such pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import jinja2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from lora_med.review.web.page_guard import PageGuard
from lora_med.visible import visible

ASSETS = Path(__file__).parents[2] / "assets" / "review"
MOST_CHARACTERS = 100_000  # of one text on a page: as many as an item that is rated may have
MOST_ON_A_LINE = 500
NO_DATA = "no data on this page"  # where a page shows nothing that has an access class
STATIC = {"style.css": "text/css", "keys.js": "text/javascript", "playground.js": "text/javascript"}


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown_value,
        loader=jinja2.FileSystemLoader(ASSETS),
    )
    environment.filters["one_line"] = lambda text: visible(cut(str(text), MOST_ON_A_LINE), one_line=True)
    return environment


def cut(text: str, most: int) -> str:
    """The text, or its first `most` characters and how many more there are: no field makes a page that long."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


def _shown_value(value: object) -> object:
    """The value of an expression in a template, as a reader may see it."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return visible(cut(value, MOST_CHARACTERS))
    return value


def page(template: str, status: int = 200, **values: object) -> HTMLResponse:
    """The page of a template in assets/review."""
    html = _environment().get_template(template).render(**values)
    return HTMLResponse(html.encode("utf-8", "replace"), status_code=status)


def static_file(request: Request) -> Response:
    """The style sheet or the script."""
    name = request.path_params["name"]
    if name not in STATIC:
        return PlainTextResponse("no such file", 404)
    return Response((ASSETS / name).read_bytes(), media_type=STATIC[name])


def not_found(request: Request, error: Exception | None) -> Response:
    """No such page, or no such token: the answer does not say which."""
    return page("not_found.html.j2", 404, access=NO_DATA)


def _no_icon(request: Request) -> Response:
    return Response(status_code=204)  # browsers ask for it; without this each page would report an error


def guarded(routes: Sequence[Route]) -> PageGuard:
    """The web application of these pages and the static files, under the rules of page_guard.py."""
    every = [*routes, Route("/static/{name}", static_file, methods=["GET"]), Route("/favicon.ico", _no_icon)]
    application = Starlette(routes=every, exception_handlers={404: not_found})
    application.router.redirect_slashes = False
    return PageGuard(application)

"""The pages in a real Chromium: by keyboard alone, without JavaScript, on a telephone, with no foreign request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lora_med.review.blind.rating import AXES
from lora_med.review.blind.rating_log import RatingLog
from lora_med.review.blind.study import Study
from tests.review.rating_server import RatingServer

pytestmark = pytest.mark.slow


@pytest.fixture
def server(study: Study) -> Iterator[RatingServer]:
    server = RatingServer(study.folder)
    yield server
    server.kill()


def test_a_study_is_rated_by_keyboard_alone(browser: Any, study: Study, server: RatingServer) -> None:
    page = browser.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("request", lambda request: problems.extend([] if "127.0.0.1" in request.url else [request.url]))
    page.goto(server.links["R1"])
    while page.evaluate("document.activeElement.className") != "button":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    for number in range(len(study.by_rater["R1"])):
        page.wait_for_url(f"**/{number + 1}")
        for key in ("b", "1", "5", "9", "y"):
            page.keyboard.press(key)
        page.keyboard.press("Enter")
    page.wait_for_url(server.links["R1"])
    stored = [rating for rating in RatingLog(study).current().values() if rating.rater == "R1"]
    assert len(stored) == len(study.by_rater["R1"])
    assert {rating.choice for rating in stored} == {"b"}
    assert dict(stored[0].axes) == dict(zip(AXES, ("a", "equal", "b", "equal"), strict=True))
    assert problems == []
    page.close()


def test_a_page_works_without_javascript(browser: Any, study: Study, server: RatingServer) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(server.links["R2"])
    page.get_by_role("link", name="Begin with page 1").click()
    page.get_by_label("A is better").check()
    for name in AXES:
        page.locator(f"input[name={name}][value=b]").check()
    page.get_by_text("Mark sentences of B").click()
    page.locator("select[name=mark-b-0]").select_option("dangerous")
    page.get_by_label("Comment").fill("as text: abc 1")
    page.get_by_role("button", name="Save").click()
    assert page.url.endswith("/2")
    page.go_back()
    assert page.get_by_label("A is better").is_checked()
    stored = RatingLog(study).current()[study.by_rater["R2"][0].id]
    assert stored.choice == "a" and stored.comment == "as text: abc 1"
    assert [(mark.side, mark.start, mark.kind) for mark in stored.marks] == [("b", 0, "dangerous")]
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_scrolls_sideways_on_a_telephone(browser: Any, server: RatingServer, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    for address in (server.links["R1"], f"{server.links['R1']}/1"):
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    context.close()


def test_keys_typed_into_the_comment_are_text(browser: Any, study: Study, server: RatingServer) -> None:
    page = browser.new_page()
    page.goto(f"{server.links['R1']}/1")
    page.get_by_label("Comment").click()
    page.keyboard.type("abc 123\nxyz")
    assert page.locator("input:checked").count() == 0
    assert page.url.endswith("/1")
    page.close()

"""The evidence pages in Chromium: accessible, by keyboard alone, without JavaScript, and with no foreign request."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.review.served_site import Site, served_site

SERIOUS = ("serious", "critical")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole_site(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def site(whole_site: Site) -> str:
    """The address of the evidence pages."""
    return whole_site.address


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core, from the package that brings it."""
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("axe-core is not installed: pip install axe-playwright-python")
    return next(Path(found.origin).parent.rglob("axe.min.js")).read_text(encoding="utf-8")


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that must report no problem and ask nothing of any other host."""
    page = browser.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: problems.extend([] if is_own(request.url) else [request.url]))
    yield page
    page.close()
    assert [each for each in problems if "the server responded with a status of 4" not in each] == []


def is_own(address: str) -> bool:
    return address.startswith("http://127.0.0.1:")


def press_until(page: Any, script: str, key: str = "Tab", most: int = 80) -> None:
    """Press a key until the focused element fulfils a condition in JavaScript, `element`."""
    for _ in range(most):
        page.keyboard.press(key)
        if page.evaluate(f"(element => {script})(document.activeElement)"):
            return
    raise AssertionError(f"{key} never gets to {script}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault_on_any_page(browser: Any, whole_site: Site, axe: str, scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    faults = {}
    for path in whole_site.pages:
        page.goto(path)
        if path.endswith("/playground"):
            page.get_by_label("Prompt").fill("The patient")
            page.get_by_role("button", name="Ask").click()
            page.get_by_text("3 of 3 answers are complete").wait_for()
        page.evaluate(axe)
        found = page.evaluate("axe.run()")
        faults[path] = [
            (fault["id"], fault["impact"], [node["target"] for node in fault["nodes"]])
            for fault in found["violations"]
            if fault["impact"] in SERIOUS
        ]
        assert found["passes"], path
    assert not any(faults.values()), faults
    context.close()


@pytest.mark.parametrize("width", [360, 480, 1280])
def test_no_page_scrolls_sideways(browser: Any, whole_site: Site, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    for path in whole_site.pages:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
    context.close()


def test_items_are_found_filtered_and_read_by_keyboard_alone(page: Any, site: str) -> None:
    page.goto(site)
    press_until(page, "element.textContent.startsWith('Read the items')")
    page.keyboard.press("Enter")
    page.wait_for_url("**/reports/0/0")
    press_until(page, "element.name === 'outcome'")
    page.keyboard.press("ArrowDown")
    press_until(page, "element.name === 'search'")
    page.keyboard.type("ibuprofen")
    page.keyboard.press("Enter")
    page.wait_for_url("**outcome=gained**")
    assert "search=ibuprofen" in page.url
    press_until(page, "element.matches('th a')")
    page.keyboard.press("Enter")
    page.wait_for_url("**/reports/0/0/*")
    press_until(page, "element.tagName === 'SUMMARY'")
    page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == 1
    press_until(page, "element.rel === 'next'", "Shift+Tab")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"


def test_adapters_are_compared_runs_and_rows_read_by_keyboard_alone(page: Any, site: str) -> None:
    page.goto(site)
    press_until(page, "element.textContent === 'Adapters'")
    page.keyboard.press("Enter")
    page.wait_for_url("**/adapters")
    press_until(page, "element.textContent === 'notes'")
    page.keyboard.press("Enter")
    page.wait_for_url("**/adapters/notes")
    press_until(page, "element.name === 'against'")
    page.keyboard.press("ArrowDown")
    press_until(page, "element.tagName === 'BUTTON'")
    page.keyboard.press("Enter")
    page.wait_for_url("**against=other")
    assert "train.learning_rate" in page.locator("main").inner_text()
    press_until(page, "element.textContent === 'Runs'", "Shift+Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs")
    press_until(page, "element.textContent === 'first'")
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/first")
    assert page.locator("svg polyline").count() == 2
    press_until(page, "element.textContent === 'Data'", "Shift+Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/data")
    press_until(page, "element.name === 'kind'")
    page.keyboard.press("End")
    press_until(page, "element.tagName === 'BUTTON'")
    page.keyboard.press("Enter")
    page.wait_for_url("**kind=twin**")


def test_the_playground_streams_and_is_used_by_keyboard_alone(page: Any, site: str) -> None:
    page.goto(f"{site}/playground")
    press_until(page, "element.id === 'prompt'")
    page.keyboard.type("The patient takes aspirin")
    press_until(page, "element.name === 'subject' && element.value === '1'")
    page.keyboard.press("Space")  # not this one
    press_until(page, "element.name === 'most_tokens'")
    page.keyboard.press("Control+a")
    page.keyboard.type("20")
    page.keyboard.press("Enter")
    page.get_by_text("2 of 2 answers are complete").wait_for()
    assert page.url.endswith("/playground")  # nothing of the prompt is in an address
    assert page.locator("#answers h2").all_inner_texts()[-1] == "b"
    assert page.locator("#answers .note").all_inner_texts()[-1].count("adapter weights SHA-256") == 1
    assert all(page.locator("#answers .text").all_inner_texts())


def test_a_refused_form_is_explained_and_the_next_one_is_answered(page: Any, site: str) -> None:
    page.goto(f"{site}/playground")
    page.get_by_label("Prompt").fill("x")
    page.get_by_label("Longest answer").fill("9999")
    with page.expect_response("**/playground/stream") as response:
        page.get_by_role("button", name="Ask").click()
    assert response.value.status == 422
    page.get_by_role("alert").get_by_text("a whole number from 1 to 512").wait_for()
    page.get_by_label("Longest answer").fill("5")
    page.get_by_role("button", name="Ask").click()
    page.get_by_text("3 of 3 answers are complete").wait_for()
    assert page.get_by_role("alert").count() == 0


def test_without_javascript_the_form_gives_a_complete_page(browser: Any, site: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site}/playground")
    page.get_by_label("Prompt").fill("The patient <b>takes")
    page.get_by_label("Longest answer").fill("8")
    page.get_by_role("button", name="Ask").click()
    assert page.locator("#answers .text").count() == 3
    assert page.get_by_label("Prompt").input_value() == "The patient <b>takes"
    context.close()


def test_stop_ends_the_answers(page: Any, site: str) -> None:
    page.goto(f"{site}/playground")
    page.get_by_label("Prompt").fill("x")
    page.evaluate("document.querySelector('form.playground').requestSubmit(), document.getElementById('stop').click()")
    page.get_by_text("Stopped.").wait_for()
    assert page.get_by_role("button", name="Stop").count() == 0

"""A study of blind rating, drawn once from a small report; each test gets a copy."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lora_med.review.blind.draw_plan import draw_study
from lora_med.review.blind.study import Study, open_study
from lora_med.review.item_texts import read_item_texts
from lora_med.review.report_folder import choose_adapter, choose_evaluation, open_report
from tests.review.small_report import make_report

CONNECTED: list[str] = []  # hosts, in the order of the calls
LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def note_connection(event: str, arguments: tuple[Any, ...]) -> None:
    """Python's audit hook: which host a socket of this process connects to."""
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        CONNECTED.append(str(arguments[1][0]))


sys.addaudithook(note_connection)


@pytest.fixture(scope="module", autouse=True)
def only_loopback() -> Iterator[None]:
    """No test of the pages opens a socket to another machine."""
    before = len(CONNECTED)
    yield
    assert set(CONNECTED[before:]) <= LOOPBACK


@pytest.fixture(scope="session")
def small_report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of a report and the file of its records."""
    return make_report(tmp_path_factory.mktemp("review"))


@pytest.fixture(scope="session")
def drawn_study(small_report: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, data = small_report
    report = open_report(folder)
    evaluation = choose_evaluation(report, None)
    texts = read_item_texts(evaluation, [str(data)])
    out = tmp_path_factory.mktemp("drawn") / "study"
    adapter = choose_adapter(evaluation, None)
    return draw_study(report, evaluation, texts, out, adapter=adapter, items=20, raters=3).folder


@pytest.fixture
def study(drawn_study: Path, tmp_path: Path) -> Study:
    """20 items, 3 raters."""
    return open_study(shutil.copytree(drawn_study, tmp_path / "study"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real Chromium; the test is skipped where there is none, or no playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()

"""Two raters at once while the server is killed twice: every acknowledged rating is on disk, each once."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from lora_med.append_log import read_lines
from lora_med.review.blind.draw_plan import draw_study
from lora_med.review.blind.rating import AXES
from lora_med.review.blind.study import RATINGS, Study, open_study
from lora_med.review.item_texts import read_item_texts
from lora_med.review.report_folder import choose_evaluation, open_report
from tests.review.rating_server import RatingServer
from tests.review.small_report import make_report


@pytest.fixture(scope="module")
def large_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("large")
    report_folder, data = make_report(folder, 200)
    report = open_report(report_folder)
    evaluation = choose_evaluation(report, None)
    texts = read_item_texts(evaluation, [str(data)])
    return draw_study(report, evaluation, texts, folder / "study", adapter="notes", items=200, raters=2)


class Rater(threading.Thread):
    """Rates each page in order; after a refused connection it loads the page and submits it again."""

    def __init__(self, link: str, pages: int) -> None:
        super().__init__(daemon=True)
        self.link, self.pages, self.acknowledged = link, pages, 0

    def run(self) -> None:
        with httpx.Client(timeout=20) as client:
            for position in range(1, self.pages + 1):
                self._rate(client, position)
                self.acknowledged = position

    def _rate(self, client: httpx.Client, position: int) -> None:
        form = {"choice": "a" if position % 2 else "b", **dict.fromkeys(AXES, "equal"), "comment": f"page {position}"}
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                answer = client.post(f"{self.link}/{position}", data=form)
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            assert answer.status_code == 303
            return
        raise AssertionError("the server did not come back")


@pytest.mark.slow
def test_every_rating_is_there_once(large_study: Study, tmp_path: Path) -> None:
    study = open_study(shutil.copytree(large_study.folder, tmp_path / "study"))
    server = RatingServer(study.folder)
    raters = [Rater(server.links[name], len(study.by_rater[name])) for name in ("R1", "R2")]
    for rater in raters:
        rater.start()
    for threshold in (20, 70):
        while min(rater.acknowledged for rater in raters) < threshold:
            time.sleep(0.005)
        port = server.port
        server.kill()
        acknowledged = sum(rater.acknowledged for rater in raters)
        assert len(read_lines(study.folder / RATINGS)[0]) >= acknowledged
        server = RatingServer(study.folder, port)
    for rater in raters:
        rater.join(timeout=120)
    server.kill()
    lines, _ = read_lines(study.folder / RATINGS)
    counts = Counter(line["assignment"] for line in lines)
    assert counts == Counter(each.id for each in study.assignments)
    for line in lines:
        assert line["comment"] == f"page {study.by_id[line['assignment']].position}"

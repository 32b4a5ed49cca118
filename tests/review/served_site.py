"""The pages of a small report, study, store, run, training rows and playground, served on loopback by a thread."""

from __future__ import annotations

import json
import queue
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.cli.review.playground_engine import playground_engine
from lora_med.review.blind.draw_plan import draw_study
from lora_med.review.blind.rating import AXES, Rating
from lora_med.review.blind.rating_log import RatingLog
from lora_med.review.blind.study import open_study
from lora_med.review.item_texts import read_item_texts
from lora_med.review.report_folder import open_report
from lora_med.review.verdict.record_verdict import record_verdict
from lora_med.review.verdict.study_result import unseal, write_verdict
from lora_med.review.web.evidence import load_evidence
from lora_med.review.web.evidence_pages import EvidencePages
from lora_med.review.web.rating_pages import RatingPages
from lora_med.review.web.run_review import serve
from lora_med.review.web.study_evidence import load_study
from lora_med.serving.start import Wanted
from tests.review.small_report import make_report, note
from tests.review.small_store import publish_card
from tests.review.test_data_pages import trained_rows
from tests.serving.conftest import make_place

PATHS = ("/", "/reports/0/0", "/reports/0/0/3", "/adapters", "/adapters/notes", "/runs", "/runs/first", "/data",
         "/playground", "/nothing")  # fmt: skip


def serve_in_thread(application: Any) -> str:
    """The address of the application, which is served until the process ends."""
    started: queue.Queue[str] = queue.Queue()
    threading.Thread(target=serve, args=(application, 0, started.put), daemon=True).start()
    return started.get(timeout=60)


@dataclass(frozen=True)
class Site:
    """The address of the evidence pages, and a rater's link to the rating pages of the same study."""

    address: str
    rating: str

    @property
    def pages(self) -> list[str]:
        """An address of every kind of page, each with something on it."""
        start = self.rating.partition("/rate/")[0]
        return [*(self.address + path for path in PATHS), f"{start}/", self.rating, f"{self.rating}/1"]


@contextmanager
def served_site(folder: Path) -> Iterator[Site]:
    """All pages, served until the end of the process."""
    report, data = make_report(folder, 40)
    _record_study(report, data, folder)
    shutil.copytree(folder / "store" / "notes", folder / "store" / "other")
    card = json.loads((folder / "store" / "other" / "card.json").read_text())
    card |= {"name": "other", "settings": {"train": {"learning_rate": 0.0002, "seed": 42}}}
    (folder / "store" / "other" / "card.json").write_text(json.dumps(card))
    run = folder / "runs" / "first"
    run.mkdir(parents=True)
    lines = [{"step": step, "epoch": step / 40, "loss": 1 + 2 / step} for step in range(1, 81)]
    lines += [{"step": step, "eval_loss": 1.3 + 2 / step} for step in (20, 40, 60, 80)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "run.json").write_text(json.dumps({"data": {"access": "open"}}))
    made = [note(number) for number in range(30)]
    rows = [
        {"input": source, "output": f"Takes {drug} {dose} mg daily.", "section": "PLAN"} for drug, source, dose in made
    ]
    trained = trained_rows(folder, "adapter.access=open", None, rows, "data.near_duplicate_similarity=0")
    place = make_place("llama", folder / "tiny", ("a", "b"))
    with playground_engine(Wanted(("a", "b"), place.store, str(place.folder)), 0.1, None) as answering:
        pages = EvidencePages(
            [load_evidence(report, [str(data)])],
            folder / "store",
            studies=[load_study(folder / "study")],
            runs=folder / "runs",
            trained=trained,
            answering=answering,
        )
        study = open_study(folder / "study")
        rating = serve_in_thread(RatingPages(study).application())
        yield Site(serve_in_thread(pages.application()), f"{rating}/rate/{study.tokens['R1']}")


def _record_study(report: Path, data: Path, folder: Path) -> None:
    opened = open_report(report)
    texts = read_item_texts(opened.evaluations[0], [str(data)])
    out = folder / "study"
    study = draw_study(opened, opened.evaluations[0], texts, out, adapter="notes", items=20, raters=2)
    log = RatingLog(study)
    for number, each in enumerate(study.assignments):
        other = "b" if each.adapter_side == "a" else "a"
        choice = each.adapter_side if number % 5 else other
        log.store(Rating(each.id, each.rater, choice, dict.fromkeys(AXES, "equal")))
    unseal(study, "the chair, study complete")
    publish_card(folder / "store", "notes")
    record_verdict(study, write_verdict(study), folder / "store")

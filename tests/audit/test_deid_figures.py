"""The share of identifiers that the patterns and the tagger find in notes that neither was made for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_med.audit.deidentify import Recall, load_finder, measure
from lora_med.audit.tagger import SHIPPED, load_tagger_of_identifiers, with_tagger

INVENTED = Path(__file__).with_name("invented_notes.jsonl")
DATA = Path(__file__).parents[3] / "shared" / "data"


def recall(notes: list[dict[str, Any]]) -> Recall:
    pytest.importorskip("presidio_analyzer")
    for note in notes:
        for span in note["spans"]:
            span["late"] = span["type"] == "NAME"
    return measure(with_tagger(load_finder(), load_tagger_of_identifiers(SHIPPED)), notes)


@pytest.mark.slow
def test_the_tagger_finds_what_the_page_says_in_the_invented_notes() -> None:
    figures = recall([json.loads(line) for line in INVENTED.read_text(encoding="utf-8").splitlines()])
    assert figures.notes == 200
    assert figures.recall > 0.90 and figures.precision > 0.87
    assert figures.late_names[0] / figures.late_names[1] > 0.84


@pytest.mark.slow
def test_the_tagger_finds_what_the_page_says_in_real_texts() -> None:
    pytest.importorskip("faker")
    planted = pytest.importorskip("tools.deid.planted")
    if not (DATA / "aci_bench").is_dir() or not (DATA / "mts_dialog").is_dir():
        pytest.skip("MTS-Dialog and ACI-Bench are not here")
    figures = recall(list(planted.planted(DATA)))
    assert figures.notes == 132
    assert figures.recall > 0.80 and figures.precision > 0.54
    assert figures.late_names[0] / figures.late_names[1] > 0.77

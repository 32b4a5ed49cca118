"""The short study and the general probe: what they take, and the pages that they write from reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
LEVEL = {"low": 0.1, "high": 0.3, "method": "bca"}


@pytest.fixture(scope="module", autouse=True)
def _scripts_can_be_imported() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield


def write_report(folder: Path, measure: str) -> None:
    change = {**LEVEL, "difference": 0.2, "verdict": "better"}
    subjects = [
        {"adapter": None, "values": {measure: {"value": 0.1, **LEVEL}}, "changes": {}},
        {"adapter": "note-42", "values": {measure: {"value": 0.3, **LEVEL}}, "changes": {measure: change}},
    ]
    folder.mkdir(parents=True)
    report = {"evaluations": [{"items": 7, "subjects": subjects}]}
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")


def test_the_general_text_is_there_without_a_download_and_ends_between_passages(tmp_path: Path) -> None:
    from pydoc_data.topics import topics

    import study_probe

    texts = study_probe.general_texts()
    assert len(texts) >= 50
    assert sum(map(len, texts.values())) > 50_000
    for name, text in texts.items():
        rest = topics[name].removeprefix(text)
        assert len(rest) == len(topics[name]) - len(text) and (not rest or rest.startswith("\n\n"))
        assert study_probe.LEAST_CHARACTERS <= len(text) <= study_probe.MOST_CHARACTERS
    assert study_probe.write_texts(tmp_path / "a") == study_probe.write_texts(tmp_path / "b")
    assert len(list((tmp_path / "a").iterdir())) == len(texts)


def test_one_seed_of_each_task_is_probed_and_no_tagger(tmp_path: Path) -> None:
    import study_probe

    kinds = {"note-42": "CAUSAL_LM", "note-43": "CAUSAL_LM", "note-trl": "CAUSAL_LM", "tags-42": "TOKEN_CLS"}
    for name, kind in kinds.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps({"task_type": kind}), encoding="utf-8")
    (tmp_path / "unfinished-42").mkdir()
    assert study_probe.adapters_of(tmp_path) == ["note-42", "note-trl"]


def test_the_probes_part_of_the_page_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    import study_probe

    for name, measure in study_probe.PROBES.items():
        write_report(tmp_path / "reports" / f"general_{name}", measure)
    part = study_probe.page(tmp_path, "0123456789abcdef" * 4)
    assert "| note-42 | 0.300 [0.100 to 0.300] | +0.200 [+0.100 to +0.300] | better |" in part
    text = study_probe.with_part("# Results\n\nbefore\n", part)
    assert text.startswith("# Results\n\nbefore\n")
    assert study_probe.with_part(text + "after\n", part) == text + "after\n"


def test_the_short_study_shows_its_costs_its_verdict_and_the_answer(tmp_path: Path) -> None:
    import study_small

    write_report(tmp_path / "reports" / study_small.NAME, "rouge_l")
    costs = {"seconds": 61.4, "cpu_seconds": 100.0}
    steps = [
        {"name": "training", "peak_mb": 2048, **costs},
        {"name": "answer", "text": "who decides?", "verified": "by a", **costs},
    ]
    text = study_small.table(tmp_path, steps)
    assert "| training | 61 | 100 | 2,048 MB |" in text
    assert "| rouge_l | 0.100 | 0.300 | +0.200 [+0.100 to +0.300] | better |" in text
    assert text.endswith("The adapter asks: **who decides?**\n\n`lora-med serve verify` says:\n\n```\nby a\n```\n")

"""Texts to be written: table and measures by hand, baselines, and tiny models through evaluate."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lora_med.data.heldout_records import HeldOutRecords
from lora_med.data.record import Pair, Passage, Section
from lora_med.errors import DataError, SettingsError
from lora_med.evaluation.eval_options import EvalOptions, PromptOptions
from lora_med.evaluation.measures import NOTHING, Numbers, changes, values
from lora_med.evaluation.report.write_report import write_report
from lora_med.evaluation.runner import evaluate
from lora_med.evaluation.scorers.registry import measures_of
from lora_med.evaluation.scorers.writing_answers import (
    WritingItem,
    lead_answers,
    nearest_answers,
    writing_items,
    writing_measures,
    writing_table,
)
from lora_med.metrics.overlap import read_encoder
from lora_med.models.base import load_base
from tests.evaluation.published import publish_random
from tests.tiny import make_tiny, make_tiny_encoder, make_tokenizer

pytest.importorskip("rouge_score")
pytest.importorskip("sacrebleu")
PAIRS = [
    Pair(
        f"n{n}",
        f"n{n}",
        "mts_dialog",
        f"Doctor: Any fever?\nPatient: No, but I cough for {n} days.",
        f"Cough, {n} days.",
    )
    for n in range(2, 14)
]


def item(source: str, reference: str, uid: str = "u") -> WritingItem:
    return WritingItem(uid, uid, (1, 2), source, reference, 4)


def measured(table: Numbers) -> dict[str, float]:
    return {one.name: float(one.of_sums(table.sum(axis=0))) for one in writing_measures()}


def test_measures_are_those_worked_out_by_hand() -> None:
    items = [item("Aspirin 81 mg. No fever.", "Aspirin 81 mg."), item("Cough.", "A cough it is.")]
    found = measured(writing_table(items, ["Aspirin 80 mg. Fever and rash.", ""]))
    assert found["faults_share"] == pytest.approx(3 / 6)
    assert found["unsupported_quantities"] == 1.0
    assert found["unsupported_words"] == pytest.approx(1 / 3)
    assert found["flipped_findings"] == pytest.approx(1 / 2)
    assert found["length_ratio"] == pytest.approx(6 / 7)
    assert found["empty_rate"] == 0.5
    assert found["rouge_1"] == pytest.approx((2 * 2 / (6 + 3)) / 2)  # aspirin and mg of 6 and 3 words; 0 of the other


def test_a_text_equal_to_its_reference_is_perfect() -> None:
    items = [item("Aspirin 81 mg. No fever.", "Aspirin 81 mg.")]
    found = measured(writing_table(items, [items[0].reference]))
    assert {found[name] for name in ("rouge_1", "rouge_2", "rouge_l", "chrf", "length_ratio")} == {1.0}
    assert found["faults_share"] == 0


def test_who_writes_nothing_is_not_called_faithful() -> None:
    items = [item(f"Fever for {days} days.", f"Fever, {days} days.", f"i{days}") for days in range(2, 8)]
    wrong, nothing = (writing_table(items, [text] * 6) for text in ("Cough for 9 weeks.", ""))
    groups = [one.group for one in items]
    scores = values(writing_measures(), nothing, groups, samples=50, seed=1)
    assert scores["faults_share"].interval == NOTHING and scores["empty_rate"].value == 1
    told = changes(writing_measures(), wrong, nothing, groups, samples=50, seed=1)
    assert told["faults_share"].verdict == "cannot tell" and told["faults_share"].p_value is None
    assert told["length_ratio"].verdict == "cannot tell"  # neither many words nor few are better
    assert told["empty_rate"].verdict == "worse"
    told = changes(
        writing_measures(), nothing, writing_table(items, [one.source for one in items]), groups, samples=50, seed=1
    )
    assert told["faults_share"].interval == NOTHING


def test_baselines_copy_the_lead_and_the_nearest_training_text() -> None:
    training = [
        item("Fever and cough for days.", "one two three", "a"),
        item("Knee pain after a fall.", "four five", "b"),
    ]
    items = [item("My knee hurts since the fall, and that is all of it.", "x", "c")]
    assert lead_answers(items, training) == ["My knee"]  # the median of 3 and 2 words is 2.5
    assert nearest_answers(items, training) == ["four five"]


def test_items_take_the_source_without_the_words_of_the_template() -> None:
    tokenizer = make_tokenizer()
    (found,) = writing_items(PAIRS[:1], "note", tokenizer)
    assert (found.source, found.reference) == (PAIRS[0].input, PAIRS[0].output)
    assert tokenizer.decode(found.prompt_ids).endswith("Note:\n")
    parts = (Section("It was tried.", "METHODS", "METHODS"), Section("It works.", "CONCLUSIONS", "CONCLUSIONS"))
    passage = Passage("p", "p", "pubmed", "METHODS: It was tried.\nCONCLUSIONS: It works.", "On it", parts)
    (found,) = writing_items([passage], "conclusion", tokenizer)
    assert (found.source, found.reference) == ("METHODS: It was tried.", "It works.")


def test_a_record_without_reference_is_named() -> None:
    with pytest.raises(DataError, match="record x: there is no reference"):
        writing_items([Pair("x", "x", "custom", "Ask", " ")], "pair", make_tokenizer())


def heldout(count: int) -> HeldOutRecords:
    """The first pairs to score, the others to learn from."""
    return HeldOutRecords(tuple(PAIRS[:count]), "open", "mts_dialog", training=tuple(PAIRS[count:]))


def test_notes_are_written_scored_and_reported(tmp_path: Path) -> None:
    folder = make_tiny("llama", tmp_path / "base")
    publish_random(folder, "one", tmp_path / "store", template="note")
    base = load_base(str(folder), quantization="none", dtype="float32")
    options = EvalOptions("note", "writing", store=tmp_path / "store", bootstrap_samples=50, samples=2)
    found = evaluate(base, ["one"], heldout(6), options)
    assert {one.name for one in found.baselines} == {
        "Copying the source's first words",
        "Copying the nearest training text",
    }
    assert [set(sample.outputs) for sample in found.samples] == [{"base", "one"}] * 2
    report = write_report([found], tmp_path / "out", title="notes")
    page = report.html.read_text()
    assert "Copying the nearest training text" in page and "numbers and doses not in the source" in page
    assert "By facts not in the source " in report.findings[0] and "words for each of the" in report.findings[0]
    (line, *_) = (tmp_path / "out/items.jsonl").read_text().splitlines()
    assert "written" in json.loads(line)["base"]
    with pytest.raises(SettingsError, match="cannot be scored as writing"):
        evaluate(base, ["one"], heldout(6), replace(options, template="text"))


def test_bertscore_is_listed_with_the_similarities_where_it_is_requested(tmp_path: Path) -> None:
    folder, encoder = make_tiny("llama", tmp_path / "base"), make_tiny_encoder(tmp_path / "encoder")
    base = load_base(str(folder), quantization="none", dtype="float32")
    prompt_options = PromptOptions(bertscore=f"{encoder}:1")
    options = EvalOptions("note", "writing", samples=0, bootstrap_samples=50, prompt_options=prompt_options)
    found = evaluate(base, [], heldout(4), options)
    score = found.subjects[0].values["bertscore"]
    assert 0 <= score.value <= 1 and score.interval.low is not None
    assert "bertscore" in found.baselines[0].values and found.layout["columns"][-1] == "bertscore"
    assert [one.name for one in measures_of("writing", found.layout)] == [one.name for one in found.measures]
    items = [item(one.input, one.output, one.uid) for one in PAIRS]
    copied = writing_table(items, [one.output for one in PAIRS], read_encoder(f"{encoder}:1"))
    assert copied[:, -1] == pytest.approx(np.ones(len(PAIRS)), abs=1e-5)
    with pytest.raises(SettingsError, match="bertscore does nothing"):
        evaluate(base, [], heldout(4), replace(options, template="pair", scoring="text"))

"""The entity task: hand-made answers through table and measures, and real ones from tiny models."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lora_med.data.outcome import ReadOptions
from lora_med.data.record import Annotated, Pair, Record, Span
from lora_med.data.sources import bc5cdr, ncbi_disease
from lora_med.errors import DataError, DependencyMissingError, SettingsError
from lora_med.evaluation.likelihood.constrained_json import entity_list
from lora_med.evaluation.measures import NOTHING, changes, values
from lora_med.evaluation.scorers.entity_answers import (
    EntityItem,
    answer_coverage,
    answer_entities,
    answer_limit,
    entity_items,
    entity_measures,
    entity_table,
    entity_types,
    seen_mentions,
)
from lora_med.evaluation.scorers.entity_scorer import EntityScorer
from lora_med.metrics import spans
from lora_med.models.base import load_base
from lora_med.prompts.render import render
from lora_med.prompts.templates.entity_json import read_entities
from lora_med.prompts.tokens_and_labels import prompt_ids
from tests.data.real_files import REAL, needs_real
from tests.tiny import make_model, make_tiny, make_tokenizer

TEXT = "APC and zinc: loss of APC leads to colon cancer; fever again."


def annotated(uid: str, text: str, *found: tuple[int, int, str]) -> Annotated:
    return Annotated(uid, f"g{uid}", "s", text, tuple(Span(a, b, kind, text[a:b]) for a, b, kind in found))


RECORDS = [
    annotated("1", TEXT, (0, 3, "Gene"), (22, 25, "Gene"), (35, 47, "Disease"), (49, 54, "Disease")),
    annotated("2", "No zinc, no flu.", (3, 7, "Chemical"), (12, 15, "Disease")),
]


def listed(*items: tuple[str, str]) -> str:
    return json.dumps([{"type": kind, "text": text} for kind, text in items])


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model("llama", context=256)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture(scope="module")
def items(model: Any, tokenizer: Any) -> list[EntityItem]:
    return entity_items(RECORDS, "entities", model, tokenizer)


ANSWERS = [
    # right, right (the second APC), a part of "colon cancer", not in the text, a type nobody asked for, once too often
    listed(*[("Gene", "APC")] * 2, ("Disease", "colon"), ("Disease", "gout"), ("Metal", "zinc"), ("Gene", "APC")),
    'I think: [{"type": "Chemical", "text": "zinc"}, {"type": "Dis',  # breaks off
]


def measured(items: list[EntityItem], answers: list[str], seen: frozenset[str] = frozenset()) -> dict[str, float]:
    types = entity_types(items)
    sums = entity_table(items, answers, types, seen).sum(axis=0)
    return {one.name: float(one.of_sums(sums)) for one in entity_measures(types, with_unseen=True)}


def test_measures_are_those_worked_out_by_hand(items: list[EntityItem]) -> None:
    assert entity_types(items) == ("Chemical", "Disease", "Gene")
    found = measured(items, ANSWERS, frozenset({"apc", "flu"}))
    assert found == {
        "micro_f1": pytest.approx(2 * 3 / (6 + 7)),
        "precision": pytest.approx(3 / 7),
        "recall": pytest.approx(3 / 6),
        "macro_f1": pytest.approx((1 + 0 + 0.8) / 3),
        "f1_Chemical": 1.0,
        "f1_Disease": 0.0,
        "f1_Gene": pytest.approx(2 * 2 / (2 + 3)),
        "unseen_f1": pytest.approx(2 * 1 / (3 + 4)),  # gold colon cancer, fever, zinc; said colon, gout, zinc, zinc
        "relaxed_f1": pytest.approx(2 * 4 / (6 + 7)),
        "collapsed_f1": pytest.approx(2 * 2 / (5 + 5)),
        "hallucinated_rate": pytest.approx(2 / 7),
        "invalid_json_rate": pytest.approx(1 / 2),
    }


def test_table_sums_are_what_the_plain_functions_count(items: list[EntityItem]) -> None:
    gold = [mention for item in items for mention in item.gold]
    said = [
        spans.Mention(item.uid, one.type, one.text, (one.start, one.end))
        for item, answer in zip(items, ANSWERS, strict=True)
        for one in read_entities(answer, item.text).spans
    ] + [spans.Mention("1", "Disease", "gout", None), spans.Mention("1", "Gene", "APC", None)]
    found = measured(items, ANSWERS)
    assert found["micro_f1"] == pytest.approx(spans.micro(spans.strict(gold, said)).f1)
    assert found["macro_f1"] == pytest.approx(spans.macro_f1(spans.strict(gold, said), entity_types(items)))
    assert found["relaxed_f1"] == pytest.approx(spans.micro(spans.relaxed(gold, said)).f1)
    assert found["collapsed_f1"] == pytest.approx(spans.micro(spans.collapsed(gold, said)).f1)
    assert found["hallucinated_rate"] == pytest.approx(spans.hallucinated_rate(said))
    assert found["unseen_f1"] == found["micro_f1"]  # nothing was seen


def test_gold_answers_are_perfect_and_empty_ones_score_zero(items: list[EntityItem]) -> None:
    best = measured(items, [item.gold_answer for item in items])
    assert {best[name] for name in best if not name.endswith("rate")} == {1.0}
    assert best["hallucinated_rate"] == best["invalid_json_rate"] == 0.0
    nothing = measured(items, ["[]", ""])
    assert {nothing[name] for name in nothing if name != "invalid_json_rate"} == {0.0}
    assert nothing["invalid_json_rate"] == 0.5
    table, types = entity_table(items, ["[]", ""], entity_types(items), frozenset()), entity_types(items)
    scores = values(entity_measures(types, with_unseen=False), table, ["a", "b"], samples=20, seed=1)
    assert scores["hallucinated_rate"].interval == NOTHING, "who marks nothing invents nothing, and is no better for it"


def test_table_and_measures_give_intervals_and_paired_changes(model: Any, tokenizer: Any) -> None:
    many = [annotated(str(n), f"no {n} flu here", (3 + len(str(n)) + 1, 7 + len(str(n)), "Disease")) for n in range(40)]
    items = entity_items(many, "entities", model, tokenizer)
    types, groups = entity_types(items), [item.group for item in items]
    worse = entity_table(items, ["[]"] * 20 + [item.gold_answer for item in items[20:]], types)
    better = entity_table(items, [item.gold_answer for item in items], types)
    measures = entity_measures(types, with_unseen=False)
    value = values(measures, worse, groups, samples=500, seed=1)["micro_f1"]
    assert value.value == pytest.approx(2 * 20 / (40 + 20))
    assert value.interval.low is not None and value.interval.low < value.value
    change = changes(measures, worse, better, groups, samples=500, seed=1)["micro_f1"]
    assert (change.verdict, change.difference) == ("better", pytest.approx(1 - 2 / 3))
    assert "unseen_f1" not in {one.name for one in measures}


def test_items_hold_the_prompt_that_generation_starts_from(model: Any, tokenizer: Any) -> None:
    for template in ("entities", "entities_chat"):
        for row, item in zip(render(RECORDS, template), entity_items(RECORDS, template, model, tokenizer), strict=True):
            assert list(item.prompt_ids) == prompt_ids(row, tokenizer)
            assert item.answer_tokens == len(tokenizer(row.completion, add_special_tokens=False)["input_ids"]) + 1


def test_gold_that_reading_from_left_to_right_misses_is_counted(model: Any, tokenizer: Any) -> None:
    # Only the second flu is marked, and the list places one flu at the first; the gout ends in a blank.
    record = annotated("1", "flu, flu, gout ", (5, 8, "Disease"), (10, 15, "Disease"))
    items = entity_items([record], "entities", model, tokenizer)
    size = items[0].answer_tokens
    coverage = answer_coverage(items, context=256, max_new_tokens=size)
    assert (coverage.mentions, coverage.placed, coverage.cut_prompts, coverage.long_answers) == (2, 0, 0, 0)
    tight = answer_coverage(items, context=len(items[0].prompt_ids) + size - 2, max_new_tokens=size - 1)
    assert (tight.cut_prompts, tight.long_answers) == (1, 1)
    assert answer_limit(items, 10_000) == size + size // 2
    assert answer_limit(items, 100) == 50


def test_seen_mentions_are_casefolded() -> None:
    pair = Pair("p", "p", "s", "in", "out")
    assert seen_mentions([*RECORDS, pair]) == {"apc", "colon cancer", "fever", "zinc", "flu"}


@pytest.mark.parametrize(
    ("records", "template", "error", "what"),
    [
        ([], "entities", DataError, "none of 0"),
        ([annotated("1", "nothing here")], "entities", DataError, "none of 1 records has"),
        (RECORDS, "note", SettingsError, "takes a Pair"),
        ([Pair("p", "p", "s", "in", "out")], "pair", SettingsError, "does not ask for named entities"),
    ],
)
def test_what_is_no_entity_task_is_refused(
    records: list[Record], template: str, error: type[Exception], what: str, model: Any, tokenizer: Any
) -> None:
    with pytest.raises(error, match=what):
        entity_items(records, template, model, tokenizer)


def test_answers_in_a_batch_equal_answers_alone_and_fit_the_context(items: list[EntityItem], tokenizer: Any) -> None:
    model = make_model("gpt2", context=90)  # it has no position beyond
    assert len(items[0].prompt_ids) > 90 - 24

    def answers(some: list[EntityItem]) -> list[str]:
        return answer_entities(model, tokenizer, some, context=90, max_new_tokens=24)

    assert answers(items) == [answers([item])[0] for item in items]


@pytest.mark.parametrize("template", ["entities", "entities_chat"])
def test_constrained_answers_are_sound_lists_of_the_types(template: str, tokenizer: Any) -> None:
    pytest.importorskip("llguidance")
    limit = 150
    sound = 0
    for seed in range(4):
        model = make_model("llama", context=512, seed=seed)
        items = entity_items(RECORDS, template, model, tokenizer)
        types = ("Chemical", 'Odd "type"')
        answers = answer_entities(model, tokenizer, items, context=512, max_new_tokens=limit, types=types)
        free = answer_entities(model, tokenizer, items, context=512, max_new_tokens=limit)
        assert not any(read_entities(answer, "").sound for answer in free)  # random weights: it is the rule that helps
        for answer in answers:
            found = read_entities(answer, "")
            assert {kind for kind, _ in found.hallucinated} <= set(types)
            if len(tokenizer(answer, add_special_tokens=False)["input_ids"]) < limit:
                assert json.loads(answer) is not None and found.sound
                sound += 1
            else:
                assert answer.lstrip().startswith("[")
    assert sound


def test_constraint_lets_through_what_training_writes(items: list[EntityItem], model: Any, tokenizer: Any) -> None:
    pytest.importorskip("llguidance")
    rule = entity_list(model, tokenizer, entity_types(items))
    for record in (*RECORDS, annotated("3", 'a "β\\flu" b', (2, 9, "Disease"))):
        for space in ("", " "):
            answer = space + entity_items([record], "entities", model, tokenizer)[0].gold_answer
            assert _allowed(rule, tokenizer, answer) == len(tokenizer(answer, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ('[{"type": "Drug"', '[{"type": "D'),
        ('[{"type": "Disease", "text": ""', '[{"type": "Disease", "text": "'),
        ('[{"type": "Disease", "text": " x', '[{"type": "Disease", "text": "'),
        ("  [", " "),
        ("[] more", "[]"),
        ("[,", "["),
        ('[{"type": "Gene", "text": "x"}{', '[{"type": "Gene", "text": "x"}'),
    ],
)
def test_constraint_stops_what_is_no_such_list(
    answer: str, kept: str, items: list[EntityItem], model: Any, tokenizer: Any
) -> None:
    pytest.importorskip("llguidance")
    assert _allowed(entity_list(model, tokenizer, entity_types(items)), tokenizer, answer) == len(kept)


def _allowed(rule: Any, tokenizer: Any, answer: str) -> int:
    """How many of the answer's tokens the rule lets through, one after the other, behind a prompt of two tokens."""
    (processor,) = rule([0])
    ids, wanted = [1, 50], tokenizer(answer, add_special_tokens=False)["input_ids"]
    for place, token in enumerate(wanted):
        scores = processor(torch.tensor([ids]), torch.zeros(1, 264))
        if not torch.isfinite(scores[0, token]):
            return place
        ids.append(token)
    after = torch.isfinite(processor(torch.tensor([ids]), torch.zeros(1, 264))[0])
    assert after.nonzero()[:, 0].tolist() == [2, 4]  # the list is closed: either end token, nothing else
    return len(wanted)


def test_missing_llguidance_is_named_with_its_pip_command(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "llguidance" else found(name))
    with pytest.raises(DependencyMissingError, match="llguidance") as caught:
        entity_list(model, tokenizer, ["Disease"])
    assert "lora-med[eval]" in str(caught.value)
    with pytest.raises(SettingsError, match="no entity type"):
        entity_list(model, tokenizer, [])


@needs_real
@pytest.mark.parametrize(
    ("module", "name", "mentions", "share"),
    [
        (bc5cdr, "bc5cdr/CDR_DevelopmentSet.PubTator.txt", 9591, 0.996),
        (ncbi_disease, "ncbi_disease/original-data/devel/NCBIdevelopset_corpus.txt", 787, 0.90),
    ],
)
def test_nearly_all_published_gold_can_be_matched(
    module: Any, name: str, mentions: int, share: float, model: Any, tokenizer: Any
) -> None:
    records = [one for one in module.read([REAL / name], ReadOptions()) if isinstance(one, Annotated)]
    items = entity_items(records, "entities", model, tokenizer)
    coverage = answer_coverage(items, context=100_000, max_new_tokens=50_000)
    assert coverage.mentions == mentions
    assert share < coverage.placed / coverage.mentions < 1
    types = entity_types(items)
    sums = entity_table(items, [item.gold_answer for item in items], types).sum(axis=0)
    found = {one.name: float(one.of_sums(sums)) for one in entity_measures(types, with_unseen=False)}
    assert found["recall"] == pytest.approx(coverage.placed / coverage.mentions)
    assert found["invalid_json_rate"] == 0.0
    assert np.isclose(found["collapsed_f1"], 1.0, atol=0.001)


def test_the_dictionary_baseline_finds_what_training_marked_as_whole_words_the_longest_first(tmp_path: Path) -> None:
    base = load_base(str(make_tiny("llama", tmp_path / "base")), quantization="none", dtype="float32")
    training = [annotated("t", "Colon cancer and zinc, APC", (0, 12, "Disease"), (17, 21, "Metal"), (23, 26, "Gene"))]
    scorer = EntityScorer(base, RECORDS, "entities", 256, constrained=False, training=training)
    (table,) = scorer.baselines().values()
    found = {one.name: float(one.of_sums(table.sum(axis=0))) for one in scorer.measures}
    # gold 6; marked: APC, zinc (another type), APC, colon cancer, zinc (another type): 3 right of 5
    assert found["micro_f1"] == pytest.approx(2 * 3 / (6 + 5))
    assert found["hallucinated_rate"] == 0
    assert "can reach 6 of 6 gold mentions" in scorer.notes[0]

"""The scores to follow in training: those that `evaluate` gives, of validation items only, refused before a model."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_med.adapters.runtime.attach import attach_new
from lora_med.config.data_settings import DataSettings
from lora_med.config.parse import parse
from lora_med.config.schema import EvaluateSettings, LoraSettings
from lora_med.data.corpus import Corpus, open_corpus, open_heldout
from lora_med.data.record import Pair
from lora_med.errors import DataError, SettingsError
from lora_med.evaluation.eval_during_training import ValidationTask, check_validation_task, validation_task
from lora_med.prompts.render import render
from tests.training.support import make_base

SAMPLE = Path(__file__).parents[2] / "lora_med" / "assets" / "sample"
SHARES: dict[str, Any] = {"validation_share": 0.3, "test_share": 0.3}
QA = DataSettings(source="pubmedqa", paths=[str(SAMPLE / "qa_sample.json")], **SHARES)
TEXT = DataSettings(source="pubmed", paths=[str(SAMPLE / "pubmed_sample.xml.gz")], **SHARES)


@pytest.fixture(scope="module")
def questions() -> Corpus:
    return open_corpus(QA)


@pytest.fixture(scope="module")
def texts() -> Corpus:
    return open_corpus(TEXT)


def settings(**changes: Any) -> EvaluateSettings:
    return EvaluateSettings(**{"eval_steps": 5, **changes})


def changed_model(base: Any) -> Any:
    """The base with an adapter that is not zero."""
    model = attach_new(base, LoraSettings(r=4, lora_dropout=0.0), seed=0)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    return model.get_base_model().eval()


def scored(found: ValidationTask | None, model: Any) -> dict[str, float]:
    assert found is not None
    return found.scores(found.answers(model, range(found.items)))


def test_text_scores_are_those_of_transformers_own_loss(texts: Corpus) -> None:
    base = make_base(context=4096)
    model = changed_model(base)
    nll, tokens, size = 0.0, 0, 0
    for row in render(texts.validation, texts.template):
        ids = torch.tensor([base.tokenizer(row.completion)["input_ids"]])
        loss = model(input_ids=ids, labels=ids).loss.detach()
        nll, tokens = nll + float(loss) * (ids.shape[1] - 1), tokens + ids.shape[1] - 1
        size += len(row.completion.encode())
    found = validation_task(settings(), texts, base, seed=0)
    assert found is not None
    assert (found.metric, found.lower_is_better, found.items) == ("bits_per_byte", True, len(texts.validation))
    values = scored(found, model)
    assert values["nll_per_token"] == pytest.approx(nll / tokens, rel=1e-5)
    assert values["bits_per_byte"] == pytest.approx(nll / size / math.log(2), rel=1e-5)


def test_choice_scores_are_those_of_one_option_at_a_time(questions: Corpus) -> None:
    base = make_base(context=4096)
    model = changed_model(base)
    right = []
    for row in render(questions.validation, questions.template):
        chances = {}
        prompt = base.tokenizer(row.prompt)["input_ids"]
        for option in (" yes", " no", " maybe"):
            ids = torch.tensor([[*prompt, *base.tokenizer(option, add_special_tokens=False)["input_ids"]]])
            logits = model(input_ids=ids).logits[0].detach().log_softmax(-1)
            chances[option] = sum(float(logits[n - 1, ids[0, n]]) for n in range(len(prompt), ids.shape[1]))
        right.append(max(chances, key=lambda one: chances[one]) == row.completion)
    found = validation_task(settings(), questions, base, seed=0)
    assert found is not None
    assert (found.metric, found.lower_is_better) == ("accuracy", False)
    assert scored(found, model)["accuracy"] == pytest.approx(sum(right) / len(right))


def test_shares_of_the_answers_make_the_scores_of_the_whole(questions: Corpus) -> None:
    base = make_base(context=4096)
    model = changed_model(base)
    found = validation_task(settings(), questions, base, seed=0)
    assert found is not None
    halves = [found.answers(model, range(start, found.items, 2)) for start in (0, 1)]
    together = [halves[place % 2][place // 2] for place in range(found.items)]
    assert found.scores(together) == pytest.approx(scored(found, model))


def test_it_never_sees_a_test_record(questions: Corpus) -> None:
    base = make_base(context=4096)
    held_out = open_heldout(QA, "test")
    hidden = {record.uid for record in held_out}
    assert hidden and not hidden & {record.uid for record in questions.validation}
    full = validation_task(settings(max_eval_samples=10_000), questions, base, seed=0)
    assert full is not None
    assert full.items == len(questions.validation)


def test_the_seed_draws_the_items(questions: Corpus) -> None:
    base = make_base(context=4096)
    drawn = [validation_task(settings(max_eval_samples=5), questions, base, seed=seed) for seed in (1, 1, 2)]
    one, same, other = (found.digest for found in drawn if found is not None)
    assert drawn[0] is not None and drawn[0].items == 5
    assert one == same != other


def test_nothing_is_scored_during_training_unless_requested(questions: Corpus) -> None:
    base = make_base(context=4096)
    for none in (EvaluateSettings(), EvaluateSettings(eval_steps=0)):
        check_validation_task(none, questions, seed=0)
        assert validation_task(none, questions, base, seed=0) is None


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "recall_maybe"])
def test_the_metrics_of_closed_labels_are_known_without_a_model(questions: Corpus, name: str) -> None:
    check_validation_task(settings(metric_for_best_model=name), questions, seed=0)
    found = validation_task(settings(metric_for_best_model=name), questions, make_base(context=4096), seed=0)
    assert found is not None and found.metric == name


def test_a_metric_that_the_task_does_not_have_is_refused_with_the_near_one(questions: Corpus, texts: Corpus) -> None:
    with pytest.raises(SettingsError, match="no metric named 'accurate'; did you mean 'accuracy'") as caught:
        check_validation_task(settings(metric_for_best_model="accurate"), questions, seed=0)
    assert caught.value.where == "evaluate.metric_for_best_model"
    with pytest.raises(SettingsError, match="'text' there is no metric named 'accuracy'"):
        check_validation_task(settings(metric_for_best_model="accuracy"), texts, seed=0)


def test_a_row_that_the_chat_template_refuses_is_skipped_and_counted_on_request(
    questions: Corpus, caplog: pytest.LogCaptureFixture
) -> None:
    base = make_base(context=4096)
    base.tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ m.content }}{{ eos_token }}{% endfor %}"
    )
    turns = ((), (("system", "Be brief."),), ())
    pairs = [
        Pair(f"u{n}", f"g{n}", questions.source.name, "Iron?", f"It rusts {n}.", history=history, in_turns=True)
        for n, history in enumerate(turns)
    ]
    talks = replace(questions, validation=pairs, template="pair_chat_v2")
    with pytest.raises(DataError, match="refuses the record u1"):
        validation_task(settings(), talks, base, seed=0)
    found = validation_task(settings(), talks, base, seed=0, skip_bad=True)
    assert found is not None and found.items == 2
    assert "evaluation during training: 1 rows" in caplog.text and "u1" in caplog.text
    with pytest.raises(DataError, match="refuses all 1 validation records"):
        validation_task(settings(), replace(talks, validation=pairs[1:2]), base, seed=0, skip_bad=True)


def test_no_validation_part_is_refused(questions: Corpus) -> None:
    with pytest.raises(DataError, match="no validation record to score"):
        check_validation_task(settings(), replace(questions, validation=[]), seed=0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["evaluate.metric_for_best_model=accuracy"], "chooses nothing without eval_steps"),
        (
            ["evaluate.eval_steps=5", "evaluate.load_best_model_at_end=false", "evaluate.metric_for_best_model=nll"],
            "chooses nothing without load_best_model_at_end: true",
        ),
        (["evaluate.eval_steps=5", "train.lr_scheduler_type=reduce_lr_on_plateau"], "take another schedule"),
        (["evaluate.eval_step=5"], "eval_steps"),
        (["evaluate.eval_steps=-1"], "eval_steps"),
    ],
)
def test_settings_that_cannot_work_together_are_refused(changes: list[str], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(None, changes)
    assert words in str(caught.value)
    assert "``" not in str(caught.value)


def test_two_scorings_are_compared_item_by_item(questions: Corpus) -> None:
    task = validation_task(settings(max_eval_samples=10_000), questions, make_base(context=4096), seed=0)
    assert task is not None and len(set(task.groups)) == task.items > 10
    options = (" yes", " no", " maybe")
    correct = [options.index(row.completion) for row in render(questions.validation, questions.template)]
    right = [tuple(0.0 if option == answer else -50.0 for option in range(3)) for answer in correct]
    wrong = [tuple(-50.0 if option == answer else 0.0 for option in range(3)) for answer in correct]
    assert task.compare(right, wrong) == ((-1.0, -1.0), "worse")
    assert task.compare(wrong, right) == ((1.0, 1.0), "better")
    assert task.compare(right, right) == ((0.0, 0.0), "cannot tell")
    mixed = [wrong[0], *right[1:]]
    ends, verdict = task.compare(right, mixed)
    assert ends is not None and ends[0] < -1 / task.items <= ends[1] <= 0.0
    assert verdict == "cannot tell"

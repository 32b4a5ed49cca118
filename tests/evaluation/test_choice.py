"""Multiple choice: examples, orders, written answers, and measures worked out by hand or by scikit-learn's formulas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lora_med.data.record import Question
from lora_med.errors import DataError, SettingsError
from lora_med.evaluation.likelihood.log_probabilities import score_options
from lora_med.evaluation.measures import changes, values
from lora_med.evaluation.scorers.choice_answers import (
    ChoiceQuestions,
    Choices,
    answer_choices,
    pose_questions,
    read_answers,
    rotations,
    score_choices,
)
from lora_med.evaluation.scorers.choice_measures import ChoiceLayout, layout_of, option_measures, option_table
from lora_med.evaluation.scorers.items import ChoiceItem
from lora_med.metrics.classification import accuracy, macro_f1
from lora_med.prompts.few_shot import Shots, draw_shots, render_with_shots
from tests.tiny import make_model, make_tokenizer

CONTEXT = 512
WORDS = ("iron", "gold", "pure tin", "an alloy")


def question(number: int, *, subject: str = "", source: str = "custom") -> Question:
    return Question(
        f"q{number}",
        f"g{number}",
        source,
        f"Which, {number}?",
        WORDS[number % 4],
        (),
        WORDS,
        right=number % 4,
        subject=subject,
    )


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model("llama", context=CONTEXT)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer(context=CONTEXT)


def closed(truth: list[str], labels: tuple[str, ...]) -> ChoiceQuestions:
    items = tuple(
        ChoiceItem(f"u{n}", f"g{n}", (1,), tuple((9,) for _ in labels), labels, answer)
        for n, answer in enumerate(truth)
    )
    return ChoiceQuestions(items, tuple((item,) for item in items))


def measured(questions: ChoiceQuestions, choices: Choices, *, written: bool = False) -> dict[str, float]:
    table = option_table(questions, choices)
    return {
        one.name: float(one.of_sums(table.sum(0))) for one in option_measures(layout_of(questions, written=written))
    }


def test_measures_of_a_closed_set_by_hand() -> None:
    truth = ["yes", "yes", "no", "no", "maybe", "maybe", "maybe", "yes"]
    said = ("yes", "no", "no", "no", "yes", "maybe", None, None)
    questions = closed(truth, ("yes", "no", "maybe"))
    found = measured(questions, Choices(said, ()), written=True)
    assert found["accuracy"] == 4 / 8
    assert found["invalid_rate"] == 2 / 8
    assert (found["recall_yes"], found["recall_no"], found["recall_maybe"]) == pytest.approx((1 / 3, 1, 1 / 3))
    # F1 = 2 hits / (times true + times said): yes 2/(3+2), no 4/(2+3), maybe 2/(3+1).
    assert found["macro_f1"] == pytest.approx((2 / 5 + 4 / 5 + 2 / 4) / 3)


def test_measures_agree_with_the_plain_functions_where_no_answer_is_invalid() -> None:
    truth = ["A", "B", "C", "B", "A", "D", "D", "B"]
    said = ("A", "C", "C", "B", "D", "D", "A", "B")
    found = measured(closed(truth, ("A", "B", "C", "D")), Choices(said, ()))
    assert found["accuracy"] == accuracy(truth, said)
    assert found["macro_f1"] == pytest.approx(macro_f1(truth, said))
    assert "invalid_rate" not in found


def test_options_in_their_own_words_have_accuracy_and_no_table_of_thousands(model: Any, tokenizer: Any) -> None:
    records = [
        replace(question(n), options=tuple(f"{word} {n}" for word in WORDS), answer=f"{WORDS[n % 4]} {n}")
        for n in range(8)
    ]
    questions = pose_questions(records, "cloze", model, tokenizer)
    choices = score_choices(model, questions, CONTEXT)
    assert questions.labels == ()
    assert option_table(questions, choices).shape == (8, 5)
    found = measured(questions, choices)
    assert set(found) == {"accuracy", "accuracy_by_length"}
    assert found["accuracy"] == sum(a == b for a, b in zip(choices.predicted, questions.truth, strict=True)) / 8
    assert (
        found["accuracy_by_length"] == sum(a == b for a, b in zip(choices.by_length, questions.truth, strict=True)) / 8
    )


def test_measures_bear_intervals_and_paired_differences() -> None:
    truth = ["yes", "no"] * 10
    questions = closed(truth, ("yes", "no"))
    base = option_table(questions, Choices(("no",) * 20, ()))
    adapter = option_table(questions, Choices(tuple(truth), ()))
    groups = [item.group for item in questions.items]
    found = values(option_measures(layout_of(questions, written=False)), adapter, groups, samples=200, seed=1)
    assert found["accuracy"].value == found["recall_yes"].value == 1.0
    change = changes(option_measures(layout_of(questions, written=False)), base, adapter, groups, samples=200, seed=1)[
        "accuracy"
    ]
    assert change.difference == 0.5
    assert change.verdict == "better"


def test_examples_come_from_the_training_part_by_seed_and_subject_in_file_order() -> None:
    training = [question(n, subject="anatomy" if n < 8 else "genetics") for n in range(13)]
    shots = draw_shots(training, "mmlu", 5, seed=3)
    uids = [int(one.uid[1:]) for one in shots.by_subject["anatomy"]]
    assert uids == sorted(uids) and set(uids) < set(range(8))
    assert [one.uid for one in shots.by_subject["genetics"]] == ["q8", "q9", "q10", "q11", "q12"]
    assert draw_shots(training, "mmlu", 5, seed=3) == shots != draw_shots(training, "mmlu", 5, seed=4)
    with pytest.raises(DataError, match="6 examples are wanted and the training split has 5 of genetics"):
        draw_shots(training, "mmlu", 6, seed=3)
    with pytest.raises(SettingsError, match="0 examples"):
        draw_shots(training, "mmlu", 0, seed=3)


def test_a_scored_question_is_never_its_own_example() -> None:
    shots = Shots({"": (question(1), question(2))})
    with pytest.raises(DataError, match="record q1 is scored and shown"):
        render_with_shots([question(3), question(1)], "medqa", shots)
    with pytest.raises(DataError, match="has no examples of its subject"):
        render_with_shots([question(3, subject="anatomy")], "mmlu", shots)


def test_examples_are_worded_with_their_answers_and_the_description_once() -> None:
    records = [question(n, subject="college_medicine") for n in range(3)]
    (row,) = render_with_shots(records[2:], "mmlu", Shots({"college_medicine": tuple(records[:2])}))
    options = "\nA. iron\nB. gold\nC. pure tin\nD. an alloy\nAnswer:"
    assert row.prompt == (
        "The following are multiple choice questions (with answers) about college medicine.\n\n"
        f"Which, 0?{options} A\n\nWhich, 1?{options} B\n\nWhich, 2?{options}"
    )
    assert row.completion == " C"


def test_examples_of_a_conversation_are_turns() -> None:
    records = [
        Question(f"p{n}", f"p{n}", "pubmedqa", f"Is {n}?", ("yes", "no")[n], ("One.",), ("yes", "no", "maybe"))
        for n in (0, 1)
    ]
    (row,) = render_with_shots(records[1:], "pubmedqa_chat", Shots({"": tuple(records[:1])}))
    assert [role for role, _ in row.turns] == ["user", "assistant", "user", "assistant"]
    assert row.turns[1][1] == "yes"
    start, end = row.context
    assert row.turns[2][1][start:end] == "One."


def test_rotating_keeps_the_right_option_right() -> None:
    for number in range(4):
        found = rotations(question(number))
        assert [one.options[one.right_option] for one in found] == [WORDS[number]] * 4
        assert found[0] == question(number)
        assert found[1].options == (*WORDS[1:], WORDS[0])
        assert sorted(one.right_option for one in found) == [0, 1, 2, 3]


def test_scores_are_averaged_over_the_orders(model: Any, tokenizer: Any) -> None:
    records = [question(n) for n in range(6)]
    questions = pose_questions(records, "medqa", model, tokenizer, rotate=True)
    found = score_choices(model, questions, CONTEXT)
    assert all(len(order) == 4 for order in questions.orders)
    for record, scores, predicted, changed in zip(records, found.scores, found.predicted, found.changed, strict=True):
        by_words = dict.fromkeys(WORDS, 0.0)
        chosen = set()
        for turn in range(4):
            turned = (*WORDS[turn:], *WORDS[:turn])
            row = replace(record, options=turned, right=turned.index(record.answer))
            (item,) = pose_questions([row], "medqa", model, tokenizer).items
            (single,) = score_options(model, [(item.prompt_ids, item.option_ids)], CONTEXT)
            chosen.add(turned[single.index(max(single))])
            for word, score in zip(turned, single, strict=True):
                by_words[word] += score / 4
        assert scores == pytest.approx([by_words[word] for word in WORDS], abs=1e-4)
        assert WORDS["ABCD".index(predicted or "")] == max(by_words, key=lambda word: by_words[word])
        assert changed == (len(chosen) > 1)
    assert measured(questions, found)["order_sensitivity"] == sum(found.changed) / 6


def test_only_lettered_options_are_turned(model: Any, tokenizer: Any) -> None:
    with pytest.raises(SettingsError, match="'cloze' gives its options no letters"):
        pose_questions([question(0)], "cloze", model, tokenizer, rotate=True)


def test_written_answers_are_read_by_letters_where_there_are_letters() -> None:
    questions = closed(["yes", "no", "maybe"], ("yes", "no", "maybe"))
    assert read_answers(questions.items, ["Yes, it does.", "It could be yes or no", "Answer: maybe"]) == [
        "yes",
        None,
        "maybe",
    ]
    items = [
        replace(questions.items[0], labels=("A", "B"), texts=("iron", "gold"), option_ids=((5,), (6,)), answer="A")
        for _ in range(3)
    ]
    assert read_answers(items, ["B. gold", "Gold", "B. iron"]) == ["B", "B", None]


def teach(model: Any, tokenizer: Any, prompts: list[tuple[int, ...]], answers: list[str]) -> None:
    """Train until the model writes each answer after its prompt."""
    rows = [
        ([*prompt], [*tokenizer(text, add_special_tokens=False)["input_ids"], 2])
        for prompt, text in zip(prompts, answers, strict=True)
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(80):
        loss = torch.zeros(())
        for prompt, answer in rows:
            logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
            loss = loss + torch.nn.functional.cross_entropy(logits, torch.tensor(answer))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.05 * len(rows):
            break
    model.eval()


def test_what_a_model_writes_is_its_choice_and_what_is_unclear_counts_as_wrong(tokenizer: Any) -> None:
    model = make_model("llama", context=CONTEXT, seed=5)
    questions = pose_questions([question(n) for n in range(3)], "medqa", model, tokenizer)
    said = [" A", " C.", " A or B"]  # right, wrong, neither
    teach(model, tokenizer, [item.prompt_ids for item in questions.items], said)
    found = answer_choices(model, tokenizer, questions, CONTEXT, max_new_tokens=8)
    assert found.written == tuple(said)
    assert found.predicted == ("A", "C", None)
    scores = measured(questions, found, written=True)
    assert scores["accuracy"] == pytest.approx(1 / 3)
    assert scores["invalid_rate"] == pytest.approx(1 / 3)


def test_the_option_written_in_most_orders_is_the_choice(tokenizer: Any) -> None:
    model = make_model("llama", context=CONTEXT, seed=6)
    questions = pose_questions([question(1)], "medqa", model, tokenizer, rotate=True)
    # iron gold tin alloy; gold tin alloy iron; tin alloy iron gold; alloy iron gold tin
    said = [" B", " A", " neither", " A"]  # gold, gold, invalid, alloy
    teach(model, tokenizer, [item.prompt_ids for item in questions.orders[0]], said)
    found = answer_choices(model, tokenizer, questions, CONTEXT, max_new_tokens=10)
    assert found.scores == ((0.0, 0.5, 0.0, 0.25),)
    assert found.predicted == ("B",)
    assert found.changed == (True,)


def test_shares_of_independent_items_have_wilsons_interval_and_of_groups_the_bootstraps() -> None:
    """Wilson by hand for 8 of 10: centre (0.8 + z2/20) / (1 + z2/10), z = 1.959964, gives 0.4902 to 0.9433."""
    layout = ChoiceLayout(("yes", "no"), ("yes",), lengths=False, rotated=False, written=False)
    row_right, row_wrong = [0, 0, 0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0, 0, 0]
    table = np.array([row_right] * 8 + [row_wrong] * 2, dtype=np.float64)
    alone = values(option_measures(layout), table, [str(n) for n in range(10)], samples=200, seed=1)
    for name in ("accuracy", "recall_yes"):
        assert alone[name].interval.method == "Wilson"
        assert alone[name].interval.low == pytest.approx(0.4902, abs=1e-4)
        assert alone[name].interval.high == pytest.approx(0.9433, abs=1e-4)
    grouped = values(option_measures(layout), table, [str(n // 2) for n in range(10)], samples=200, seed=1)
    assert grouped["accuracy"].interval.method != "Wilson"

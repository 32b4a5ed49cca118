"""evaluate() on tiny random models: the same numbers as a naive loop over the same adapter, and its refusals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_med.adapters.runtime.attach import attach, detach
from lora_med.adapters.runtime.swap import load_many
from lora_med.adapters.store.card import read_card
from lora_med.adapters.store.verify import verify
from lora_med.data.heldout_records import HeldOutRecords
from lora_med.data.record import Pair, Passage, Question, Record, Section
from lora_med.errors import BaseMismatchError, DataError, SettingsError
from lora_med.evaluation.eval_options import EvalOptions, PromptOptions
from lora_med.evaluation.likelihood.log_probabilities import score_text
from lora_med.evaluation.record_scores import record_scores
from lora_med.evaluation.report.write_report import write_report
from lora_med.evaluation.runner import evaluate, open_adapters
from lora_med.evaluation.scorers.items import choice_items, text_items
from lora_med.evaluation.swap_check import check_swaps
from lora_med.evaluation.tag_runner import evaluate_taggers
from lora_med.models.base import Base, load_base
from tests.evaluation.published import publish_on, publish_random
from tests.prompts.chat_styles import CHATML
from tests.tiny import make_tiny

WORDS = ["fever", "cough", "aspirin", "of the", "was given", "naïve", "dose", "trial", "95%", "µg"]
PASSAGES = [
    Passage(f"p{n}", f"p{n // 2}", "custom", " ".join(WORDS[(n * k) % 10] for k in range(1, 5 + n)), title=f"Study {n}")
    for n in range(24)
]
QUESTIONS = [
    Question(
        f"q{n}",
        f"q{n}",
        "pubmedqa",
        f"Does {WORDS[n % 10]} help?",
        ("yes", "no", "maybe")[n % 3],
        (" ".join(WORDS[n % 7 :]),),
        ("yes", "no", "maybe"),
    )
    for n in range(24)
]


def heldout(records: Sequence[Record], **others: Any) -> HeldOutRecords:
    """Open records, of the source that they name."""
    return HeldOutRecords(tuple(records), access="open", source=records[0].source if records else "custom", **others)


def options(home: Path, template: str = "text", **others: Any) -> EvalOptions:
    return EvalOptions(template, store=home / "store", **others)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    make_tiny("llama", folder / "base")
    make_tiny("llama", folder / "other", seed=9)
    publish_random(folder / "base", "one", folder / "store", seed=1)
    publish_random(folder / "base", "two", folder / "store", seed=2)
    publish_random(folder / "base", "secret", folder / "store", seed=3, access="credentialed")
    return folder


@pytest.fixture
def base(home: Path) -> Base:
    return load_base(str(home / "base"), quantization="none", dtype="float32")


def log_probability(model: Any, ids: list[int], start: int) -> float:
    with torch.no_grad():
        logits = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0].double(), -1)
    return sum(float(logits[place - 1, ids[place]]) for place in range(start, len(ids)))


def test_text_scores_are_those_of_a_naive_loop(home: Path, base: Base) -> None:
    found = evaluate(base, ["one", "two"], heldout(PASSAGES), options(home, samples=0))
    texts = [f"{passage.title}\n{passage.text}" for passage in PASSAGES]
    # byte-level tokens: BOS 1, then each byte; the end token is not scored
    rows = [base.tokenizer(text)["input_ids"] for text in texts]
    assert [item.size_bytes for item in found.items] == [len(text.encode()) for text in texts]
    assert [item.tokens for item in found.items] == [len(row) - 1 for row in rows]
    expected: dict[str | None, list[float]] = {None: [-log_probability(base.model, row, 1) for row in rows]}
    for name in ("one", "two"):
        model = attach(base, name, home / "store")
        expected[name] = [-log_probability(model, row, 1) for row in rows]
        detach(model)
    for subject in found.subjects:
        assert [one["nll"] for one in subject.facts] == pytest.approx(expected[subject.adapter], abs=1e-3)
        total = sum(expected[subject.adapter]) / sum(len(row) - 1 for row in rows)
        assert subject.values["nll_per_token"].value == pytest.approx(total, abs=1e-5)
    assert expected["one"] != pytest.approx(expected[None], abs=1.0)


def test_option_scores_are_those_of_a_naive_loop(home: Path, base: Base) -> None:
    found = evaluate(base, ["one"], heldout(QUESTIONS), options(home, "pubmedqa", samples=0))
    for subject in found.subjects:
        model = base.model if subject.adapter is None else attach(base, subject.adapter, home / "store")
        scored = [one["log_probabilities"] for one in subject.facts]
        for question, scores, predicted in zip(QUESTIONS, scored, subject.answers.predicted, strict=True):
            prompt = f"Abstract: {question.contexts[0]}\nQuestion: {question.question}\nAnswer:"
            start = len(base.tokenizer(prompt)["input_ids"])
            expected = [
                log_probability(model, base.tokenizer(f"{prompt} {option}")["input_ids"], start)
                for option in question.options
            ]
            assert list(scores) == pytest.approx(expected, abs=1e-3)
            assert predicted == question.options[expected.index(max(expected))]
        if subject.adapter is not None:
            detach(model)
    right = sum(a == q.answer for a, q in zip(found.subjects[1].answers.predicted, QUESTIONS, strict=True))
    assert found.subjects[1].values["accuracy"].value == pytest.approx(right / 24)
    (over,) = found.subjects[1].baseline_changes.values()
    assert over.difference == pytest.approx(right / 24 - 8 / 24)


@pytest.mark.parametrize("template", ["pubmedqa_chat", "pubmedqa_chat_v2"])
def test_a_chat_template_scores_the_same_options(home: Path, base: Base, template: str) -> None:
    items = choice_items(QUESTIONS[:3], template, base.model, base.tokenizer)
    for item, question in zip(items, QUESTIONS, strict=False):
        assert base.tokenizer.decode(item.prompt_ids).endswith("<|im_start|>assistant\n")
        assert [base.tokenizer.decode(option) for option in item.option_ids] == ["yes", "no", "maybe"]
        assert item.answer == question.answer


def test_what_a_chat_template_writes_after_an_answer_is_not_scored(base: Base) -> None:
    broken = base.with_chat_template(CHATML)
    (item,) = choice_items(QUESTIONS[:1], "pubmedqa_chat_v2", broken.model, broken.tokenizer)
    assert [broken.tokenizer.decode(option) for option in item.option_ids] == ["yes", "no", "maybe"]
    (text,) = text_items([Pair("p", "g", "custom", "Why?", "So.")], "pair_chat_v2", broken.model, broken.tokenizer)
    assert broken.tokenizer.decode(text.input_ids[text.first :]) == "So."


def test_adapters_are_scored_with_the_chat_template_they_were_trained_with(home: Path, tmp_path: Path) -> None:
    for name, template in (("own", CHATML), ("other", "{# another #}" + CHATML)):
        base = load_base(str(home / "base"), quantization="none", dtype="float32").with_chat_template(template)
        publish_on(base, name, tmp_path / "store")
    plain = load_base(str(home / "base"), quantization="none", dtype="float32")
    chats = EvalOptions("pubmedqa_chat_v2", store=tmp_path / "store", bootstrap_samples=50, samples=0)
    scored = evaluate(plain, ["own"], heldout(QUESTIONS[:6]), chats)
    given = evaluate(plain.with_chat_template(CHATML), ["own"], heldout(QUESTIONS[:6]), chats)
    assert [subject.values for subject in scored.subjects] == [subject.values for subject in given.subjects]
    with pytest.raises(SettingsError, match="own and other were trained with different chat templates"):
        evaluate(plain, ["own", "other"], heldout(QUESTIONS[:6]), chats)


def test_without_bos_the_first_token_is_scored_after_the_end_token(tmp_path: Path) -> None:
    base = load_base(str(make_tiny("gpt2", tmp_path / "base", bos=False)), quantization="none", dtype="float32")
    item = text_items(PASSAGES[:1], "text", base.model, base.tokenizer)[0]
    text = f"{PASSAGES[0].title}\n{PASSAGES[0].text}"
    assert item.tokens == len(text.encode())
    assert item.input_ids[0] in (base.tokenizer.bos_token_id, base.tokenizer.eos_token_id)
    assert list(item.input_ids[1:]) == base.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_typed_tags_are_read_and_not_scored(base: Base) -> None:
    record = Passage("n1", "p1", "custom", "Seen by [NAME] on [DATE-2], afebrile.")
    (item,) = text_items([record], "text", base.model, base.tokenizer)
    scored = [item.input_ids[place] for place in range(item.first, len(item.input_ids)) if place not in item.unscored]
    assert base.tokenizer.decode(scored) == "Seen by on, afebrile."
    assert (item.tokens, item.size_bytes) == (len(scored), len("Seen by on, afebrile."))
    (bare,) = text_items([replace(record, text="Seen by on, afebrile.")], "text", base.model, base.tokenizer)
    whole = score_text(base.model, [(item.input_ids, item.first)], 64)[0]
    found = score_text(base.model, [(item.input_ids, item.first, item.unscored)], 64)[0]
    assert bare.tokens == item.tokens and found < whole


def test_the_base_is_free_of_adapters_afterwards(home: Path, base: Base) -> None:
    ids = torch.tensor([base.tokenizer("fever")["input_ids"]])
    with torch.no_grad():
        before = base.model(input_ids=ids).logits
    evaluate(base, ["one"], heldout(PASSAGES), options(home, samples=0))
    with torch.no_grad():
        assert torch.equal(base.model(input_ids=ids).logits, before)
    detach(attach(base, "two", home / "store"))


def test_groups_and_draw_are_kept(home: Path, base: Base) -> None:
    chosen = options(home, samples=0, max_items=10, seed=5)
    found = evaluate(base, ["one"], heldout(PASSAGES), chosen)
    again = evaluate(base, ["one"], heldout(PASSAGES), chosen)
    assert [item.uid for item in found.items] == [item.uid for item in again.items]
    assert len(found.items) == 10
    assert found.groups == len({item.group for item in found.items}) < 10


def test_samples_are_written_by_base_and_adapter(home: Path, base: Base) -> None:
    text = evaluate(base, ["one"], heldout(PASSAGES), options(home, samples=2))
    assert [set(sample.outputs) for sample in text.samples] == [{"base", "one"}] * 2
    assert text.samples[1].prompt == "Study 1\ncough aspirin of the was given"
    assert text.samples[1].reference == "naïve"
    again = evaluate(base, ["one"], heldout(PASSAGES), options(home, samples=2))
    assert again.samples == text.samples


def test_credentialed_text_is_never_shown(home: Path, base: Base, tmp_path: Path) -> None:
    found = evaluate(base, ["one", "secret"], heldout(PASSAGES), options(home))
    assert found.access == "credentialed"
    assert found.samples == ()
    write_report([found], tmp_path, title="Report")
    for path in tmp_path.iterdir():
        assert "aspirin" not in path.read_text()


@pytest.mark.parametrize(
    "hidden",
    [
        HeldOutRecords(tuple(PASSAGES), access="credentialed", source="custom"),
        HeldOutRecords(tuple(PASSAGES), access="open", source="mimic4_note"),
        HeldOutRecords(tuple(replace(one, source="mimic3") for one in PASSAGES), access="open", source="custom"),
        HeldOutRecords(tuple(PASSAGES), "open", "custom", training=(replace(PASSAGES[0], uid="t", source="mimic3"),)),
    ],
    ids=["class given", "class of the source", "class of the records", "class of what is learned from"],
)
def test_no_way_to_make_or_cut_credentialed_records_shows_a_sample(
    home: Path, base: Base, hidden: HeldOutRecords
) -> None:
    for records in (hidden, hidden.with_records(hidden.records[:4]), hidden.draw(3, seed=1)):
        assert records.access == "credentialed"
        found = evaluate(base, ["one"], records, options(home, samples=2, bootstrap_samples=20, max_items=3))
        assert found.access == "credentialed" and found.samples == ()
        assert all(subject.written == () for subject in found.subjects)
    assert WORDS[2] not in repr(hidden)


def test_records_that_lost_their_access_class_are_refused(home: Path, base: Base) -> None:
    hidden = HeldOutRecords(tuple(PASSAGES), access="credentialed", source="custom")
    for lost in (list(hidden), hidden.records, hidden.records[:3]):
        with pytest.raises(SettingsError, match="carries no access class"):
            evaluate(base, ["one"], lost, options(home))  # pyright: ignore[reportArgumentType]
        with pytest.raises(SettingsError, match="carries no access class"):
            evaluate_taggers(["one"], lost, options(home))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError):
        hidden[:3]  # pyright: ignore[reportIndexIssue]
    with pytest.raises(FrozenInstanceError):
        hidden.access = "open"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("opened", [False, True], ids=["by name", "already open"])
def test_an_evaluation_reads_each_card_once(
    home: Path, base: Base, opened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapters = open_adapters(["one", "two"], home / "store") if opened else ["one", "two"]
    reads: list[str] = []
    read_bytes = Path.read_bytes

    def counted(path: Path) -> bytes:
        reads.append(f"{path.parent.name}/{path.name}")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    evaluate(base, adapters, heldout(PASSAGES), options(home, samples=0, bootstrap_samples=20))
    cards = [name for name in reads if name.endswith("/card.json")]
    assert cards == ([] if opened else ["one/card.json", "two/card.json"])


def test_an_adapter_of_another_base_is_refused(home: Path) -> None:
    other = load_base(str(home / "other"), quantization="none", dtype="float32")
    with pytest.raises(BaseMismatchError):
        evaluate(other, ["one"], heldout(PASSAGES), options(home))


def test_an_answer_that_is_no_option_is_named_by_uid(home: Path, base: Base) -> None:
    strange = Question("q77", "q77", "pubmedqa", "Is it?", "perhaps", ("text",), ("yes", "no"))
    with pytest.raises(DataError, match="q77"):
        evaluate(base, ["one"], heldout([strange]), options(home, "pubmedqa"))


def test_one_uid_twice_is_refused(home: Path, base: Base) -> None:
    with pytest.raises(DataError, match="more than once, the first is p0"):
        evaluate(base, ["one"], heldout([*PASSAGES, PASSAGES[0]]), options(home))


def test_a_base_alone_is_scored(home: Path, base: Base) -> None:
    found = evaluate(base, [], heldout(PASSAGES), options(home, samples=0, bootstrap_samples=50))
    (subject,) = found.subjects
    assert (subject.adapter, subject.changes) == (None, {})
    assert subject.values["bits_per_byte"].value > 0


def test_sections_of_a_text_are_scored_on_their_own_tokens(home: Path, base: Base) -> None:
    parts = (Section("fever and cough", "Aim", "OBJECTIVE"), Section("aspirin helped", None, "RESULTS"))
    whole = "Aim: fever and cough\naspirin helped"
    records = [Passage(f"s{n}", f"s{n}", "custom", whole, title=f"On {n}", sections=parts) for n in range(12)]
    found = evaluate(base, [], heldout(records), options(home, samples=0, bootstrap_samples=50))
    got = found.subjects[0].values
    sums = {"nll_objective": 0.0, "nll_results": 0.0}
    for record in records:
        text = f"{record.title}\n{whole}"
        ids = base.tokenizer(text)["input_ids"]  # BOS, then a token a byte
        for name, part in zip(sums, parts, strict=True):
            start = 1 + text.index(part.text)
            sums[name] -= log_probability(base.model, ids[: start + len(part.text)], start)
    for name, part in zip(sums, parts, strict=True):
        assert got[name].value == pytest.approx(sums[name] / (12 * len(part.text)), abs=1e-4)


def test_metrics_of_the_users_own_are_scored_with_intervals(home: Path, base: Base) -> None:
    def yes_share(predictions: list[str], references: list[str]) -> dict[str, float]:
        return {"yes": sum(one == "yes" for one in predictions) / len(predictions)}

    found = evaluate(
        base,
        ["one"],
        heldout(QUESTIONS),
        options(
            home,
            "pubmedqa",
            samples=0,
            bootstrap_samples=50,
            metrics={"own:yes_share": yes_share},
            lower_is_better=["yes"],
        ),
    )
    for subject in found.subjects:
        share = sum(one == "yes" for one in subject.answers.predicted) / 24
        assert subject.custom["yes"].value == pytest.approx(share)
    assert found.subjects[1].custom["yes"].difference_interval is not None
    with pytest.raises(SettingsError, match="no answers for a metric"):
        evaluate(base, ["one"], heldout(PASSAGES), options(home, metrics={"own:yes_share": yes_share}))


def test_solved_examples_come_from_training_and_written_answers_may_be_invalid(home: Path, base: Base) -> None:
    found = evaluate(
        base,
        ["one"],
        heldout(QUESTIONS[:12], training=tuple(QUESTIONS[12:])),
        options(
            home,
            "pubmedqa",
            scoring="written_choice",
            samples=0,
            bootstrap_samples=50,
            prompt_options=PromptOptions(shots=2),
        ),
    )
    base_values = found.subjects[0].values
    assert base_values["invalid_rate"].value > 0.5, "a random model writes no option"
    assert base_values["accuracy"].value <= 1 - base_values["invalid_rate"].value
    assert found.prompt_options["shots"] == 2
    with pytest.raises(SettingsError, match="shots does nothing"):
        evaluate(base, ["one"], heldout(PASSAGES), options(home, prompt_options=PromptOptions(shots=1)))


def test_no_records_is_an_error(home: Path, base: Base) -> None:
    with pytest.raises(DataError, match="no held-out records"):
        evaluate(base, ["one"], heldout([]), options(home))


def test_scores_go_into_the_card_and_the_adapter_stays_intact(home: Path, base: Base) -> None:
    found = evaluate(base, ["two"], heldout(PASSAGES), options(home, samples=0))
    record_scores(found, home / "store")
    record_scores(found, home / "store")
    card = read_card(home / "store/two")
    entry = card.scores["custom/test/text"]
    assert entry["n"] == 24
    assert entry["template"] == "text"
    assert entry["measures"]["bits_per_byte"]["value"] == found.subjects[1].values["bits_per_byte"].value
    assert entry["lora_med"] == found.versions["lora-med"]
    assert verify(home / "store/two").intact
    json.dumps(card.as_json(), allow_nan=False)


def test_swaps_change_and_restore(home: Path, base: Base) -> None:
    swaps = check_swaps(load_many(base, ["one", "two"], home / "store"), ["one", "two"])
    assert [(swap.adapter, swap.changed, swap.restored) for swap in swaps] == [
        ("one", True, True),
        ("two", True, True),
    ]

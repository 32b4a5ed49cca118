"""Training on tags: the loss is torch's over tagged tokens, the adapter learns, is published, and reads in PEFT."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForTokenClassification

from lora_med.adapters.algebra.compose import compose
from lora_med.adapters.runtime.attach import attach, attach_new
from lora_med.adapters.runtime.open_tagger import open_tagger
from lora_med.adapters.store.card import DataFacts, read_card
from lora_med.adapters.store.store import publish
from lora_med.adapters.store.verify import verify
from lora_med.cli.main import run
from lora_med.config.schema import LoraSettings, TrainSettings
from lora_med.data.record import Annotated, Pair, Span
from lora_med.errors import BaseMismatchError, LoraMedError, PreflightError, SettingsError
from lora_med.evaluation.scorers.tag_answers import answer_tags, score_tags, tag_items
from lora_med.merge.merge import merge_adapter
from lora_med.models.base import Base, load_base
from lora_med.models.tagging import load_tagger
from lora_med.training.tag_trainer import TagTrainer, read_tagged
from tests.tiny import make_tiny, make_tiny_encoder

LABELS = ("O", "B-Disease", "I-Disease")
LORA = LoraSettings(r=4, lora_dropout=0.0)
FACTS = DataFacts(source="s", license="MIT", access="open")


def study(number: int) -> Annotated:
    """The disease is written in capitals, which a random model can learn to see."""
    text = f"w{number % 7} has GOUT or x{number % 5}"
    start = text.index("GOUT")
    return Annotated(str(number), str(number), "s", text, (Span(start, start + 4, "Disease", "GOUT"),))


RECORDS = [study(number) for number in range(32)]


@pytest.fixture(scope="module", params=["llama", "gpt2", "bert"])
def folder(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp(request.param)
    return make_tiny_encoder(place) if request.param == "bert" else make_tiny(request.param, place)


def settings(output: Path, **changes: Any) -> TrainSettings:
    values = {"max_steps": 30, "per_device_train_batch_size": 16, "learning_rate": 2e-2, "max_length": 64}
    return TrainSettings(output_dir=str(output), **{**values, "logging_steps": 1, **changes})


def trained(folder: Path, output: Path, **changes: Any) -> tuple[Base, Any, TagTrainer]:
    train = settings(output, **changes)
    base = load_tagger(str(folder), LABELS, dtype="float32")
    rows, held_out = read_tagged(RECORDS, base, train).rows, read_tagged(RECORDS[:4], base, train).rows
    model = attach_new(base, LORA, seed=1)
    trainer = TagTrainer(model, base, train, train=rows, validation=held_out)
    trainer.train()
    return base, model, trainer


@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": True}, {"cache_frozen": True}], ids=str)
def test_texts_end_to_end_train_the_adapter_of_padded_rows(tmp_path: Path, changes: dict[str, Any]) -> None:
    """The records differ in length, and the first token of a text has a tag like any other."""
    place = make_tiny("llama", tmp_path / "base", bos=False)
    records = [
        Annotated(str(number), str(number), "s", f"GOUT {'x ' * number}", (Span(0, 4, "Disease", "GOUT"),))
        for number in range(8)
    ]
    found = []
    for attention in ("sdpa", "auto"):
        base = load_tagger(str(place), LABELS, dtype="float32", attention=attention, head_dropout=0.0)
        own = {} if attention == "sdpa" and "cache_frozen" in changes else changes
        train = settings(tmp_path / attention, max_steps=6, per_device_train_batch_size=4, learning_rate=1e-2, **own)
        lora = LORA.model_copy(update={"layers_to_transform": [1]}) if "cache_frozen" in changes else LORA
        model = attach_new(base, lora, seed=1)
        rows = read_tagged(records, base, train).rows
        TagTrainer(model, base, train, train=rows, validation=rows).train()
        found.append((logged(tmp_path / attention), [one for one in model.parameters() if one.requires_grad]))
    padded, flat = found
    for one, other in zip(padded[0], flat[0], strict=True):
        losses = {name: value for name, value in one.items() if name in ("loss", "eval_loss")}
        assert losses and {name: other[name] for name in losses} == pytest.approx(losses, rel=1e-4)
    for weight, expected in zip(flat[1], padded[1], strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-3, atol=2e-5)


def logged(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def test_an_adapter_learns_to_tag_and_comes_back_from_the_store_and_in_peft(folder: Path, tmp_path: Path) -> None:
    base, model, trainer = trained(folder, tmp_path / "run", max_steps=80, learning_rate=1e-2)
    first = logged(tmp_path / "run")[0]
    assert first["eval_loss"] == pytest.approx(math.log(3), abs=1e-5)  # three tags, equally likely
    assert score_tags(model, base, RECORDS, 64)["micro_f1"] > 0.95
    publish(model, base=base, name="tags", store=tmp_path, template="tags", data=FACTS, settings={},
            scores=trainer.scores())  # fmt: skip
    card = read_card(tmp_path / "tags")
    assert tuple(card.labels) == LABELS
    ids = torch.tensor([base.tokenizer(RECORDS[0].text)["input_ids"]])
    with torch.inference_mode():
        expected = model.eval()(input_ids=ids).logits
        opened, again = open_tagger("tags", tmp_path, base=str(folder), dtype="float32")
        torch.testing.assert_close(again(input_ids=ids).logits, expected, rtol=0, atol=0)
        bare = AutoModelForTokenClassification.from_pretrained(folder, num_labels=3, dtype=torch.float32)
        theirs = PeftModel.from_pretrained(bare, tmp_path / "tags").eval()
        torch.testing.assert_close(theirs(input_ids=ids).logits, expected, rtol=1e-5, atol=1e-5)
    items = tag_items(RECORDS, opened.tokenizer, 64)
    together = answer_tags(again, opened.tokenizer, items, LABELS)
    assert together == [answer_tags(again, opened.tokenizer, [item], LABELS)[0] for item in items]
    assert verify(tmp_path / "tags", base=str(folder)).intact


def test_loss_and_gradient_are_torchs_over_the_tagged_tokens(folder: Path, tmp_path: Path) -> None:
    base, model, trainer = trained(folder, tmp_path / "run", max_steps=2)
    rows = read_tagged(RECORDS[:3], base, trainer.settings).rows
    batch = trainer.collator(
        [{"input_ids": row.input_ids, "labels": list(row.tags), "seq_lengths": [len(row.tags)]} for row in rows]
    )
    model.eval()
    found = trainer.compute_loss(model, dict(batch))
    alone = []
    for row in rows:
        logits = model(input_ids=torch.tensor([row.input_ids])).logits[0].log_softmax(-1)
        alone += [-logits[place, tag] for place, tag in enumerate(row.tags) if tag != -100]
    torch.testing.assert_close(found, torch.stack(alone).mean(), rtol=1e-5, atol=1e-6)
    assert len(alone) == sum(len(record.text.replace(" ", "")) for record in RECORDS[:3])
    wanted = torch.autograd.grad(torch.stack(alone).mean(), [p for p in model.parameters() if p.requires_grad])
    ours = torch.autograd.grad(found, [p for p in model.parameters() if p.requires_grad])
    for one, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_first_token_of_a_row_counts_where_no_bos_is_before_it(tmp_path: Path) -> None:
    folder = make_tiny("llama", tmp_path / "base", bos=False)
    base = load_tagger(str(folder), LABELS, dtype="float32")
    train = settings(tmp_path / "run", max_steps=1)
    rows = read_tagged(RECORDS, base, train).rows
    trainer = TagTrainer(attach_new(base, LORA, seed=1), base, train, train=rows)
    assert all(row.tags[0] == 0 for row in rows)
    batch = trainer.collator(
        [{"input_ids": row.input_ids, "labels": list(row.tags), "seq_lengths": [len(row.tags)]} for row in rows]
    )
    alike = pytest.approx(math.log(3), abs=1e-5)  # nothing is learned yet, so the mean over all tagged tokens is this
    assert float(trainer.compute_loss(trainer.model, dict(batch)).detach()) == alike
    trainer.train()
    assert logged(tmp_path / "run")[0]["loss"] == alike


def test_a_run_that_was_cut_off_goes_on_with_its_head(tmp_path: Path) -> None:
    folder = make_tiny("llama", tmp_path / "base")
    _, whole, _ = trained(folder, tmp_path / "whole", max_steps=4, save_steps=2, eval_steps=2)
    (tmp_path / "cut").mkdir()
    for name in ("checkpoint-2", "metrics.jsonl"):
        (tmp_path / "whole" / name).rename(tmp_path / "cut" / name)
    _, resumed, trainer = trained(folder, tmp_path / "cut", max_steps=4, save_steps=2, eval_steps=2)
    assert trainer.state.global_step == 4
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert any("modules_to_save" in name and p.any() for name, p in resumed.named_parameters())


def test_a_tagger_goes_on_from_a_tagger_of_the_same_labels_only(tmp_path: Path) -> None:
    folder = make_tiny("llama", tmp_path / "base")
    base, model, _ = trained(folder, tmp_path / "run", max_steps=2)
    publish(model, base=base, name="tags", store=tmp_path, template="tags", data=FACTS, settings={})
    further = LORA.model_copy(update={"continue_from": "tags"})
    started = attach_new(load_tagger(str(folder), LABELS, dtype="float32"), further, seed=2, store=tmp_path)
    head = started.get_base_model().score.modules_to_save["default"]
    torch.testing.assert_close(head.weight, model.get_base_model().score.modules_to_save["default"].weight)
    other = load_tagger(str(folder), ("O", "B-Gene", "I-Gene"), dtype="float32")
    with pytest.raises(BaseMismatchError, match="tags tokens as O, B-Disease, I-Disease, but the base has a head for"):
        attach_new(other, further, seed=2, store=tmp_path)
    with pytest.raises(BaseMismatchError, match="is loaded to generate text"):
        attach(load_base(str(folder), quantization="none", dtype="float32"), "tags", tmp_path)


def test_what_cannot_be_tagged_is_refused(tmp_path: Path) -> None:
    folder = make_tiny("llama", tmp_path / "base")
    tagger = load_tagger(str(folder), LABELS, dtype="float32")
    writer = load_base(str(folder), quantization="none", dtype="float32")
    train = settings(tmp_path)
    cases: list[tuple[Any, Base, TrainSettings, type[LoraMedError], str]] = [
        (RECORDS, writer, train, SettingsError, "no head for tags"),
        (RECORDS, tagger, settings(tmp_path, packing=True), SettingsError, "packed"),
        (iter(RECORDS), tagger, train, SettingsError, "streamed"),
        ([Pair("p", "p", "s", "in", "out")], tagger, train, SettingsError, "annotated texts"),
        ([], tagger, train, PreflightError, "0 rows"),
    ]
    for records, base, chosen, error, what in cases:
        with pytest.raises(error, match=what):
            read_tagged(records, base, chosen)
    assert score_tags(None, tagger, [], 64) == {}


def test_a_tagger_is_neither_merged_nor_composed(tmp_path: Path) -> None:
    folder = make_tiny("llama", tmp_path / "base")
    base, model, _ = trained(folder, tmp_path / "run", max_steps=2)
    publish(model, base=base, name="tags", store=tmp_path, template="tags", data=FACTS, settings={})
    with pytest.raises(SettingsError, match="tags tokens"):
        merge_adapter("tags", tmp_path / "merged", store=tmp_path, base=str(folder))
    with pytest.raises(SettingsError, match="tags tokens"):
        compose("sum", [("tags", 1.0)], store=tmp_path, base=str(folder))
    assert not (tmp_path / "merged").exists()
    assert not (tmp_path / "sum").exists()


def test_a_tagger_is_scored_by_the_command_beside_a_base_that_tags_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_tiny("llama", tmp_path / "base")
    base, model, _ = trained(folder, tmp_path / "run")
    publish(model, base=base, name="tags", store=tmp_path / "store", template="tags", data=FACTS, settings={})
    lines = [f"{n}|t|Aspirin for fever {n}.\n{n}|a|None.\n{n}\t0\t7\tAspirin\tChemical\tD1\n\n" for n in range(12)]
    (tmp_path / "CDR_TestSet.PubTator.txt").write_text("".join(lines))
    named = ["--adapter", "tags", "--base", str(folder), "--store", str(tmp_path / "store"), "--json"]
    more = ["--task", f"bc5cdr:{tmp_path / 'CDR_TestSet.PubTator.txt'}", "--bootstrap-samples", "50"]
    assert run(["eval", *named, *more, "--out", str(tmp_path / "out"), "data.near_duplicate_similarity=1"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["evaluations"]
    assert (entry["scoring"], entry["template"], entry["items"]) == ("entities", "tags", 12)
    first, second = entry["subjects"]
    assert first["values"]["micro_f1"]["value"] == 0
    assert second["adapter"] == "tags" and "micro_f1" in second["changes"]
    assert "invalid_json_rate" not in second["values"]
    assert "bc5cdr/test/tags" in read_card(tmp_path / "store/tags").scores

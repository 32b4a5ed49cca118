"""Learning from preferences: TRL's loss, a reference that is equal before the first step, and none of TRL's traps."""

from __future__ import annotations

import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from lora_med.adapters.runtime.attach import attach_new
from lora_med.config.schema import LoraSettings
from lora_med.errors import DataError, PreflightError, SettingsError
from lora_med.models.base import load_base
from lora_med.training.run.callbacks import read_metrics
from lora_med.training.step.fast_layers import fast_layers
from lora_med.training.step.preference_loss import COUNTS
from tests.tiny import make_tiny
from tests.training.fsdp_ranks import run_sharded_ranks
from tests.training.pairs import make_preference_trainer, pair_rows, preference, rows_of
from tests.training.support import fork, make_base, run_ranks, wait, weights

LOG_2 = math.log(2)
BETA = 0.1


def first_batch(trainer: Any) -> dict[str, Any]:
    return next(iter(trainer.batches(trainer.rows.rows, 4, seed=None)))


def move_adapter(trainer: Any, seed: int = 1) -> None:
    """Give the adapter random weights, as if it had learned something."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)


def log_probability(model: Any, ids: list[int], first: int) -> torch.Tensor:
    """The log-probability of the tokens from `first` on, of one document alone, from the model's own logits."""
    logits = model(input_ids=torch.tensor([ids])).logits[0, first - 1 : -1]
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(ids[first:])[:, None]).sum()


def by_hand(trainer: Any, base: Any, numbers: range) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The mean loss of some pairs in float64, and its gradients; the reference is the base with its adapters off."""
    kind, model = pair_rows(base), trainer.model.double()
    losses = []
    for pair in kind.pairs([preference(number) for number in numbers], kind.no_facts()):
        first, sides = len(pair.prompt), (pair.chosen.input_ids, pair.rejected.input_ids)
        policy = [log_probability(model, ids, first) for ids in sides]
        with torch.no_grad(), model.disable_adapter():
            reference = [log_probability(model, ids, first) for ids in sides]
        logits = BETA * ((policy[0] - reference[0]) - (policy[1] - reference[1]))
        losses.append(torch.log1p(torch.exp(-logits)))  # -log sigmoid, written out
    loss = torch.stack(losses).mean()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return loss, list(torch.autograd.grad(loss, trained))


def test_loss_and_gradients_are_those_of_the_formula_in_float64(tmp_path: Path) -> None:
    base = make_base()
    trainer = make_preference_trainer(tmp_path, base=base)
    move_adapter(trainer)
    with fast_layers(trainer.model, trainer.args, trainer.settings):
        loss = trainer.compute_loss(trainer.model.train(), first_batch(trainer))
        loss.backward()
    gradients = [parameter.grad.clone() for parameter in trainer.model.parameters() if parameter.requires_grad]
    expected, expected_gradients = by_hand(trainer, base, range(4))
    assert abs(float(loss) - LOG_2) > 0.01
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    for found, right in zip(gradients, expected_gradients, strict=True):
        assert torch.allclose(found.double(), right, rtol=1e-3, atol=1e-6)


def trl_trainer(folder: Path, base: Any) -> Any:
    """TRL's own trainer on the same four pairs, with the same new adapter."""
    model = attach_new(base, LoraSettings(r=4, lora_alpha=8, lora_dropout=0.0), seed=0)
    records = [preference(number) for number in range(4)]
    rows = [{"prompt": each.input, "chosen": each.output, "rejected": each.rejected} for each in records]
    config = DPOConfig(
        output_dir=str(folder), beta=BETA, use_cpu=True, bf16=False, report_to=[], gradient_checkpointing=False
    )
    return DPOTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=base.tokenizer)


def test_loss_and_gradients_are_those_of_trl_s_trainer(tmp_path: Path) -> None:
    ours = make_preference_trainer(tmp_path / "ours")
    theirs = trl_trainer(tmp_path / "theirs", make_base())
    values = ours.weights()
    move_adapter(ours)
    moved = ours.weights()
    for name, parameter in theirs.model.named_parameters():
        if name in moved:
            assert torch.equal(parameter, values[name]), "both start from the same adapter"
            parameter.data = moved[name].clone()
    batch = theirs.data_collator([theirs.train_dataset[number] for number in range(4)])
    expected = theirs.compute_loss(theirs.model.train(), batch)
    expected.backward()
    loss = ours.compute_loss(ours.model.train(), first_batch(ours))
    loss.backward()
    assert abs(float(loss) - LOG_2) > 0.01
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    gradients = {name: parameter.grad for name, parameter in theirs.model.named_parameters() if name in moved}
    for name, parameter in ours.model.named_parameters():
        if name in moved:
            assert torch.allclose(parameter.grad, gradients[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padded_batches_and_the_models_own_logits_give_the_same_loss(tmp_path: Path, attention: str) -> None:
    losses = []
    for kind, fallback in (("lora_med_sdpa", None), (attention, None), (attention, "to compare")):
        trainer = make_preference_trainer(tmp_path, base=make_base(attention=kind))
        trainer.fallback = fallback
        move_adapter(trainer)
        losses.append(float(trainer.compute_loss(trainer.model.train(), first_batch(trainer))))
    assert max(losses) - min(losses) < 1e-5


@pytest.mark.parametrize("quantization", ["none", "4bit"])
def test_before_the_first_step_policy_and_reference_are_equal_bit_by_bit(tmp_path: Path, quantization: Any) -> None:
    """TRL's margin on a 4-bit base is 1e-3 there, because it rounds the adapter to bfloat16."""
    base = load_base(str(make_tiny("llama", tmp_path / "base")), quantization=quantization, dtype="float32")
    trainer = make_preference_trainer(tmp_path / "run", base=base, max_steps=1, eval_steps=1)
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    assert {parameter.dtype for parameter in trained} == {torch.float32}
    rewards = trainer.rewards(trainer.model.train(), first_batch(trainer))
    assert rewards.margins.tolist() == [0.0] * 4
    trainer.train()
    start = next(line for line in read_metrics(tmp_path / "run") if "eval_loss" in line)
    assert start["step"] == 0
    assert start["eval_loss"] == pytest.approx(LOG_2, abs=1e-7)
    assert (start["eval_preference_accuracy"], start["eval_ties"], start["eval_pairs"]) == (0.5, 6, 6)
    first = next(line for line in read_metrics(tmp_path / "run") if "loss" in line)
    assert first["loss"] == pytest.approx(LOG_2, abs=1e-4)


def test_dropout_of_the_base_is_off_so_that_nothing_is_preferred_by_chance(tmp_path: Path) -> None:
    base = make_base("gpt2")
    for module in base.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    trainer = make_preference_trainer(tmp_path, base=base)
    assert trainer.rewards(trainer.model.train(), first_batch(trainer)).margins.tolist() == [0.0] * 4


def test_an_adapter_that_is_trained_further_is_its_own_reference(tmp_path: Path) -> None:
    base = make_base()
    model = attach_new(base, LoraSettings(r=4, lora_alpha=8, lora_dropout=0.0), seed=0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1
    trainer = make_preference_trainer(tmp_path, base=base, model=model)
    batch = first_batch(trainer)
    assert trainer.rewards(model, batch).margins.tolist() == [0.0] * 4
    before = weights(trainer)
    move_adapter(trainer)
    moved = weights(trainer)
    assert trainer.rewards(model, batch).margins.abs().min() > 0
    assert torch.equal(weights(trainer), moved) and not torch.equal(moved, before)


def test_a_checkpoint_holds_one_adapter(tmp_path: Path) -> None:
    """TRL writes a second one into `ref/`."""
    trainer = make_preference_trainer(tmp_path, max_steps=2, eval_steps=1)
    trainer.train()
    assert list(trainer.model.peft_config) == ["default"]
    assert not list(tmp_path.rglob("ref"))
    assert len(list(tmp_path.glob("checkpoint-2/*.safetensors"))) == 1


def test_a_run_learns_to_prefer_and_reports_it_with_an_interval(tmp_path: Path) -> None:
    trainer = make_preference_trainer(tmp_path, num_train_epochs=4, eval_steps=6)
    trainer.train()
    scores = trainer.scores()
    validation, preferences = scores["validation"], scores["preferences (validation)"]
    assert validation["start"] == pytest.approx(LOG_2) and validation["verdict"] == "better"
    assert preferences["preference_accuracy"] == 1.0 and preferences["verdict"] == "better"
    assert preferences["interval"] == [pytest.approx(0.6097, abs=1e-4), 1.0]  # Wilson's, 6 of 6
    assert preferences["reward_margin"] > 0 and preferences["reference"] == "the base"
    assert {"chosen", "rejected", "before", "after", "shorter_than_explained"} <= preferences["lengths"].keys()


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        size = 4 // int(os.environ.get("WORLD_SIZE", "1"))
        trainer = make_preference_trainer(folder, per_device_train_batch_size=size)
        trainer.train()
        scores = trainer.scores()
        if os.environ.get("RANK", "0") == "0":
            torch.save((weights(trainer), scores["preferences (validation)"]["reward_margin"]), folder / "final.pt")

    alone, both = tmp_path / "alone", tmp_path / "both"
    alone.mkdir()
    assert wait(fork(lambda: work(alone), alone / "error.txt")) == 0, (alone / "error.txt").read_text()
    assert run_ranks(2, lambda: work(both), both) == [0, 0], [path.read_text() for path in both.glob("error*")]
    (one, margin), (two, other) = (torch.load(folder / "final.pt") for folder in (alone, both))
    assert torch.allclose(one, two, atol=1e-4)
    assert margin == pytest.approx(other, abs=1e-3)


def test_a_base_in_shards_is_refused_by_name(tmp_path: Path) -> None:
    codes = run_sharded_ranks(2, lambda: make_preference_trainer(tmp_path / "run"), tmp_path)
    assert codes == [SettingsError.exit_code] * 2
    assert "method dpo does not train a model in shards" in (tmp_path / "error-0.txt").read_text()


def train(folder: Path) -> None:
    trainer = make_preference_trainer(folder, num_train_epochs=4, save_steps=1, eval_steps=3)
    trainer.train()
    torch.save(weights(trainer), folder / "final.pt")


def test_a_run_that_is_killed_resumes_bit_identical(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    assert wait(fork(lambda: train(whole), whole / "error.txt")) == 0, (whole / "error.txt").read_text()
    for step in (2, 7):
        child = fork(lambda: train(killed), killed / "error.txt")
        while not (killed / f"checkpoint-{step}" / "COMMIT.json").exists():
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        assert wait(child) == -signal.SIGKILL
    assert wait(fork(lambda: train(killed), killed / "error.txt")) == 0, (killed / "error.txt").read_text()
    assert torch.equal(torch.load(whole / "final.pt"), torch.load(killed / "final.pt"))
    lines = [
        [{name: line[name] for name in line if name.startswith(("eval_p", "eval_l", "loss", "step"))} for line in one]
        for one in (read_metrics(whole), read_metrics(killed))
    ]
    assert lines[0] == lines[1]


def test_accumulated_batches_train_what_one_batch_does(tmp_path: Path) -> None:
    """The mean is over the pairs of the step, although answers differ in length and the last step is short."""
    train = [preference(number) for number in range(10)]
    finals, losses = [], []
    for size, accumulated in ((4, 1), (2, 2)):
        trainer = make_preference_trainer(
            tmp_path / str(size),
            train=train,
            validation=[],
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulated,
        )
        trainer.train()
        finals.append(weights(trainer))
        losses.append([line["loss"] for line in read_metrics(tmp_path / str(size)) if "loss" in line])
    assert torch.allclose(*finals, atol=1e-5)
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[0][0] == pytest.approx(LOG_2, abs=1e-4)


def test_recomputed_activations_change_nothing(tmp_path: Path) -> None:
    finals = []
    for number, recomputed in enumerate((False, True)):
        trainer = make_preference_trainer(tmp_path / str(number), gradient_checkpointing=recomputed, max_steps=3)
        trainer.train()
        finals.append(weights(trainer))
    assert torch.allclose(*finals, atol=1e-5)


# ---- Rows ----


def test_a_row_holds_both_answers_after_the_same_prompt() -> None:
    base = make_base()
    rows, held_out = rows_of([preference(0)], base)
    row: Any = rows.rows[0]
    first, second = row["seq_lengths"]
    prompt = list(held_out.prompts[0])
    assert row["input_ids"][: len(prompt)] == row["input_ids"][first : first + len(prompt)] == prompt
    assert base.tokenizer.decode(row["input_ids"][len(prompt) : first - 1]) == " Remedy 0 helps."
    assert sum(label != -100 for label in row["labels"]) == first + second - 2 * len(prompt)


def test_the_counts_of_a_batch_are_those_of_its_answers(tmp_path: Path) -> None:
    for attention in ("lora_med_sdpa", "eager"):
        trainer = make_preference_trainer(tmp_path, base=make_base(attention=attention))
        counts = first_batch(trainer)[COUNTS]
        letters = [len(text) + 1 for n in range(4) for text in (preference(n).output, preference(n).rejected)]
        assert counts == letters  # one token a letter, and the end


def test_a_long_side_is_refused_by_uid_or_dropped_with_its_pair_and_counted() -> None:
    base = make_base()
    records = [preference(0), preference(1, rejected=" no" * 60), preference(2)]
    kind = pair_rows(base)
    _, facts = kind.block(records)
    with pytest.raises(PreflightError, match=r"1 of 3 pairs have a side longer than max_length 128.*uid p1"):
        kind.conclude(facts, "training")
    kind = pair_rows(base, too_long="drop")
    documents, facts = kind.block(records)
    assert [document.uid for document in documents] == ["p0", "p0", "p2", "p2"]
    conclusion = kind.conclude(facts, "training")
    assert (conclusion.report["pairs"], conclusion.report["rows"], conclusion.report["rows_dropped"]) == (3, 2, 1)
    assert conclusion.report["uids_dropped"] == ["p1"]
    assert conclusion.warnings == ["training: 1 pairs are longer than 128 tokens and left out: uid p1"]


def test_blocks_add_up_to_the_whole_and_pairs_that_contradict_are_counted() -> None:
    base = make_base()
    swapped = preference(1, uid="p9", output=preference(1).rejected, rejected=preference(1).output)
    records = [preference(0), preference(1), swapped, preference(2)]
    kind = pair_rows(base)
    _, complete = kind.block(records)
    _, first = kind.block(records[:2])
    first.merge(kind.block(records[2:])[1])
    assert kind.conclude(complete, "training") == kind.conclude(first, "training")
    report = kind.conclude(complete, "training").report
    assert report["contradicted"] == 1
    assert report["mean_chosen_tokens"] == pytest.approx(
        sum(len(each.output) + 1 for each in records) / 4
    )  # one token a letter, and the end


def test_the_prompt_ends_where_an_answer_begins_also_with_a_tag_that_is_not_trained() -> None:
    kind = pair_rows(base := make_base())
    tagged = preference(0, output="[NAME] takes aspirin.", rejected="[DATE] was fine.")
    (pair,) = kind.pairs([tagged], kind.no_facts())
    assert base.tokenizer.decode(pair.prompt[1:]).startswith(tagged.input)
    assert not any(pair.chosen.trained[: len(pair.prompt)]) and True in pair.chosen.trained


def test_a_record_without_a_rejected_answer_is_refused() -> None:
    with pytest.raises(DataError, match="record p0 has no rejected answer"):
        pair_rows(make_base()).block([preference(0, rejected="")])

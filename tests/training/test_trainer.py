"""The trainer: exact, in step over processes, and honest about what it does."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from lora_med.errors import DataError, DiskError, DivergedError, IntegrityError, OutputError, SettingsError
from lora_med.models.attention import per_document as attention
from lora_med.training.run.callbacks import read_metrics
from lora_med.training.run.checkpoints import newest
from lora_med.training.step import fast_layers as layers
from lora_med.training.step.fast_layers import fast_layers
from lora_med.training.step.loss import labeled_positions
from tests.training.support import documents, make_base, make_trainer, run_ranks, weights


def curve(folder: Path) -> list[tuple[int, float]]:
    """`(step, loss)` of every training and validation line."""
    return [(line["step"], line.get("loss", line.get("eval_loss"))) for line in read_metrics(folder)]


def first_loss(trainer: Any) -> float:
    """The loss of the first batch, without a step."""
    batch = next(iter(trainer.get_train_dataloader()))
    return trainer.compute_loss(trainer.model.eval(), batch).item()


def test_the_loss_is_taken_at_the_positions_it_is_given(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, dropout=0.0)
    batch = next(iter(trainer.get_train_dataloader()))
    places = labeled_positions(batch["labels"])
    whole = trainer.compute_loss(trainer.model.eval(), dict(batch)).item()
    halves = [
        trainer.compute_loss(trainer.model, {**batch, "nll_positions": part}).item() for part in places.tensor_split(2)
    ]
    assert min(halves) > 0.2 * whole
    assert sum(halves) == pytest.approx(whole, rel=1e-5)


class Reads(TorchDispatchMode):
    """Names the operations by which the host asks what is in a tensor: on a GPU it would wait there."""

    names = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "_unique2", "repeat_interleave")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        name = function.overloadpacket.__name__
        places = arguments[1] if name in ("index", "index_put_") else ()
        asks = name in self.names or any(one is not None and one.dtype == torch.bool for one in places)
        self.found += [name] if asks else []
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("packing", [True, False])
def test_a_step_reads_nothing_back_before_its_gradient_is_judged(tmp_path: Path, packing: bool) -> None:
    trainer = make_trainer(tmp_path, dropout=0.0, packing=packing, validation=[])
    # Before it, the batch is on the host.
    batch = trainer.with_label_positions(next(iter(trainer.get_train_dataloader())))
    with fast_layers(trainer.model, trainer.args, trainer.settings), Reads() as step:
        loss = trainer.compute_loss(trainer.model.train(), batch)
        loss.backward()
    trainer.guard.losses.append(loss.detach())
    with Reads() as judgement:
        trainer._get_grad_norm(trainer.model)
        trainer.callback_handler.on_pre_optimizer_step(trainer.args, trainer.state, trainer.control)
    assert step.found == []
    assert judgement.found == ["_local_scalar_dense"] * 2  # the loss and the norm


def test_a_run_lowers_the_loss_and_leaves_its_traces(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.train()
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6, 8, 10, 12, 14, 16]
    validation = [line["eval_loss"] for line in lines if "eval_loss" in line]
    assert [line["step"] for line in lines if "eval_loss" in line] == [0, 8, 16]
    assert validation[-1] < validation[0]
    assert {"learning_rate", "grad_norm", "tokens_per_second", "epoch"} <= lines[1].keys()
    assert all(line["tokens_per_second"] > 0 for line in lines if "loss" in line)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    saved = newest(tmp_path)
    assert saved is not None
    assert saved.finished
    assert trainer.scores()["validation"]["eval_loss"] == min(validation[1:])


def test_trained_weights_and_optimizer_state_are_float32_and_the_base_is_frozen(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_steps=1, validation=[])
    trainer.train()
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    state = trainer.optimizer.state_dict()["state"].values()
    assert {parameter.dtype for parameter in trained} == {torch.float32}
    assert {one["exp_avg"].dtype for one in state} == {torch.float32}
    frozen = [name for name, parameter in trainer.model.named_parameters() if not parameter.requires_grad]
    assert not any("lora_" in name for name in frozen)


def test_trl_does_not_get_to_round_the_adapter_of_a_four_bit_base(tmp_path: Path) -> None:
    expected = make_trainer(tmp_path).weights()
    base = make_base()
    base.model.is_loaded_in_4bit = True  # where TRL looks before it rounds to bfloat16
    found = make_trainer(tmp_path, base=base).weights()
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_flat_packed_and_padded_batches_have_the_same_loss(tmp_path: Path, attention: str) -> None:
    train = documents(8)
    losses = [
        first_loss(make_trainer(tmp_path, base=make_base(attention=kind), train=train, packing=packing, **sizes))
        for kind, packing, sizes in (
            ("lora_med_sdpa", False, {"per_device_train_batch_size": 8}),
            ("lora_med_sdpa", True, {"per_device_train_batch_size": 8}),
            (attention, False, {"per_device_train_batch_size": 8}),
        )
    ]
    assert max(losses) - min(losses) < 1e-6


def test_the_standard_path_gives_the_same_run(tmp_path: Path) -> None:
    ours = make_trainer(tmp_path / "ours", dropout=0.0)
    assert ours.fallback is None
    ours.train()
    standard = make_trainer(tmp_path / "standard", dropout=0.0)
    standard.fallback = "to compare"
    standard.train()
    for (step, found), (other_step, expected) in zip(
        curve(tmp_path / "ours"), curve(tmp_path / "standard"), strict=True
    ):
        assert step == other_step
        assert abs(found - expected) < 1e-5


def test_a_model_that_caps_its_logits_falls_back_and_says_why(tmp_path: Path, caplog: Any) -> None:
    base = make_base()
    base.model.config.final_logit_softcapping = 5.0
    with caplog.at_level("INFO"):
        trainer = make_trainer(tmp_path, base=base)
    assert "final_logit_softcapping" in caplog.text
    assert trainer.fallback is not None


def test_a_compact_loss_that_is_not_the_models_own_is_found_before_the_first_step(tmp_path: Path) -> None:
    base = make_base()
    head = base.model.lm_head
    trainer = make_trainer(tmp_path, base=base, max_steps=1)
    # A head that does more than its weight says, as an unknown family might.
    head.register_forward_hook(lambda module, inputs, output: output * 0.5)
    assert trainer.fallback is None
    trainer.train()
    assert trainer.fallback == "the one-pass loss is not the model's own"


def test_an_attention_that_mixes_documents_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.model.get_base_model().set_attn_implementation("sdpa")  # our batches say the offsets, which it ignores
    with pytest.raises(SettingsError, match="see each other"):
        trainer.train()


def test_validation_weighs_tokens_not_batches(tmp_path: Path) -> None:
    held_out = [*documents(3, shortest=1, longest=2), *documents(2, seed=1, shortest=60, longest=80)]
    found = [
        make_trainer(tmp_path, validation=held_out, per_device_eval_batch_size=size).evaluate()["eval_loss"]
        for size in (1, 2, 5)
    ]
    assert max(found) - min(found) < 1e-6
    model = make_trainer(tmp_path).model.eval()
    total, count = 0.0, 0
    for document in held_out:
        ids = torch.tensor([document.input_ids])
        labels = torch.tensor(
            [token if trained else -100 for token, trained in zip(document.input_ids, document.trained, strict=True)]
        )
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1]
        total += float(torch.nn.functional.cross_entropy(logits, labels[1:], ignore_index=-100, reduction="sum"))
        count += int((labels[1:] != -100).sum())
    assert abs(found[0] - total / count) < 1e-6


@pytest.mark.parametrize("accumulation", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_two_processes_give_the_curve_of_one_at_equal_global_batch(tmp_path: Path, accumulation: int) -> None:
    common = {"train": documents(27), "dropout": 0.0, "num_train_epochs": 2, "logging_steps": 1, "eval_steps": 3}
    one = make_trainer(
        tmp_path / "one", per_device_train_batch_size=4, gradient_accumulation_steps=accumulation, **common
    )
    one.train()

    def work() -> None:
        make_trainer(
            tmp_path / "two", per_device_train_batch_size=2, gradient_accumulation_steps=accumulation, **common
        ).train()

    assert run_ranks(2, work, tmp_path / "two") == [0, 0]
    expected, found = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert len(expected) > 8
    for (step, loss), (other_step, other) in zip(expected, found, strict=True):
        assert step == other_step
        assert abs(loss - other) < 1e-4


def test_accumulated_batches_are_one_batch(tmp_path: Path) -> None:
    train = documents(27)
    curves = []
    for size, accumulation in ((4, 1), (2, 2), (1, 4)):
        folder = tmp_path / str(size)
        make_trainer(
            folder,
            train=train,
            dropout=0.0,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            max_steps=9,
        ).train()
        curves.append([loss for _, loss in curve(folder)])
    for other in curves[1:]:
        assert max(abs(a - b) for a, b in zip(curves[0], other, strict=True)) < 1e-5


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_other_families_train(tmp_path: Path, family: str) -> None:
    trainer = make_trainer(tmp_path, base=make_base(family), max_steps=8, logging_steps=1)
    trainer.train()
    losses = [line["loss"] for line in read_metrics(tmp_path) if "loss" in line]
    assert sum(losses[-3:]) < sum(losses[:3])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_are_refused_where_documents_would_see_each_other(tmp_path: Path, attention: str) -> None:
    with pytest.raises(SettingsError, match="see each other") as refused:
        make_trainer(tmp_path, base=make_base(attention=attention), packing=True)
    assert refused.value.where == "train.packing"


def test_gradient_checkpointing_changes_no_number(tmp_path: Path) -> None:
    found = []
    for name, on in (("off", False), ("on", True)):
        trainer = make_trainer(tmp_path / name, gradient_checkpointing=on, max_steps=4)
        trainer.train()
        found.append(weights(trainer))
    assert torch.allclose(found[0], found[1], atol=1e-7)


@pytest.mark.parametrize("recomputed", [True, False])
def test_large_tensors_are_returned_where_layers_are_recomputed(
    tmp_path: Path, recomputed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[bool] = []
    monkeypatch.setattr(layers, "large_tensors_returned", lambda: entered.append(True) or nullcontext())
    trainer = make_trainer(tmp_path, gradient_checkpointing=recomputed)
    with fast_layers(trainer.model, trainer.args, trainer.settings):
        assert entered == [True] * recomputed


def test_the_first_nan_stops_the_run_before_the_step_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, save_steps=2, eval_steps=2, logging_steps=1)
    layer = next(module for module in trainer.model.modules() if isinstance(module, LoraLayer))
    calls = {"count": 0}

    def poison(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        calls["count"] += module.training
        return output * float("nan") if calls["count"] > 5 else output

    layer.register_forward_hook(poison)
    with pytest.raises(DivergedError) as caught:
        trainer.train()
    assert caught.value.exit_code == 78
    assert "at step 6" in caught.value.what
    assert "checkpoint-4" in str(caught.value.fix)
    saved = newest(tmp_path)
    assert saved is not None
    assert saved.step == 4
    assert bool(torch.isfinite(weights(trainer)).all())
    assert read_metrics(tmp_path)[-1]["step"] == 5


def test_a_nan_on_one_process_stops_both(tmp_path: Path) -> None:
    def work() -> None:
        import torch.distributed as dist

        trainer = make_trainer(tmp_path, max_steps=6, logging_steps=1)
        step = trainer.training_step

        def poisoned(*arguments: Any, **options: Any) -> torch.Tensor:
            loss = step(*arguments, **options)
            if dist.get_rank() == 1 and trainer.state.global_step == 3:
                trainer.guard.losses[-1] = loss * float("inf")
            return loss

        trainer.training_step = poisoned
        trainer.train()

    assert run_ranks(2, work, tmp_path) == [78, 78]
    assert [line["step"] for line in read_metrics(tmp_path) if "loss" in line] == [1, 2, 3]


def test_training_stops_when_validation_no_longer_improves_and_the_best_adapter_is_left(tmp_path: Path) -> None:
    trainer = make_trainer(
        tmp_path,
        train=documents(8),
        validation=documents(8, seed=5),
        learning_rate=0.2,
        lr_scheduler_type="constant",
        num_train_epochs=30,
        eval_steps=2,
        early_stopping_patience=3,
    )
    trainer.train()
    scores = {line["step"]: line["eval_loss"] for line in read_metrics(tmp_path) if line.get("eval_loss")}
    best = min((loss, step) for step, loss in scores.items() if step)[1]
    assert trainer.state.global_step == best + 2 * 3 < 60
    assert abs(trainer.evaluate()["eval_loss"] - scores[best]) < 1e-6
    expected = {"eval_loss": scores[best], "step": best, "start": scores[0], "verdict": "better"}
    assert trainer.scores() == {"validation": expected}
    again = make_trainer(
        tmp_path,
        train=documents(8),
        validation=documents(8, seed=5),
        learning_rate=0.2,
        lr_scheduler_type="constant",
        num_train_epochs=30,
        eval_steps=2,
        early_stopping_patience=3,
    )
    assert again.train() is None  # the run had ended; nothing is trained again
    assert torch.equal(weights(again), weights(trainer))
    assert again.scores() == trainer.scores()


def test_a_best_checkpoint_that_was_changed_is_no_result(tmp_path: Path) -> None:
    """It is older than the last one, and still finite and of the right shape."""
    options: dict[str, Any] = {"train": documents(8), "validation": documents(8, seed=5), "learning_rate": 0.2}
    options |= {"lr_scheduler_type": "constant", "num_train_epochs": 30, "eval_steps": 2, "early_stopping_patience": 3}
    trainer = make_trainer(tmp_path, **options)
    trainer.train()
    assert trainer.state.best_global_step < trainer.state.global_step
    best = tmp_path / f"checkpoint-{trainer.state.best_global_step}" / "adapter_model.safetensors"
    save_file({name: one + 1 for name, one in load_file(best).items()}, best, {"format": "pt"})
    with pytest.raises(IntegrityError, match=best.parent.name):
        make_trainer(tmp_path, **options).train()
    with pytest.raises(IntegrityError, match=best.parent.name):
        trainer.load_best()


def test_a_changed_run_is_refused_and_the_message_names_each_field(tmp_path: Path) -> None:
    make_trainer(tmp_path, max_steps=2).train()
    changed = make_trainer(tmp_path, max_steps=2, identity={"lora.r": 8}, train=documents(29))
    with pytest.raises(SettingsError) as caught:
        changed.train()
    assert "lora.r: 4 then, 8 now" in caught.value.what
    assert "training rows" in caught.value.what


def test_never_resume_refuses_a_used_folder(tmp_path: Path) -> None:
    make_trainer(tmp_path, max_steps=2).train()
    with pytest.raises(OutputError, match="resume is never"):
        make_trainer(tmp_path, max_steps=2, resume="never").train()


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 rows"):
        make_trainer(tmp_path, train=[])


def test_a_streamed_corpus_trains_for_max_steps(tmp_path: Path) -> None:
    class Again:
        def __iter__(self) -> Any:
            return iter(documents(10))

    trainer = make_trainer(tmp_path, train=Again(), max_steps=6, packing=True, eval_steps=3)
    trainer.train()
    assert [line["step"] for line in read_metrics(tmp_path) if "eval_loss" in line] == [0, 3, 6]
    with pytest.raises(SettingsError, match="no known length"):
        make_trainer(tmp_path, train=Again())


def test_a_checkpoint_holds_no_pickled_arguments_and_no_tokenizer(tmp_path: Path) -> None:
    make_trainer(tmp_path, max_steps=1).train()
    names = {path.name for path in (tmp_path / "checkpoint-1").iterdir()}
    assert names == {
        "COMMIT.json",
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.pt",
        "rng_state.pth",
        "scheduler.pt",
        "trainer_state.json",
    }
    assert json.loads((tmp_path / "checkpoint-1" / "COMMIT.json").read_text())["identity"]["lora.r"] == 4


@pytest.mark.parametrize(
    ("name", "traces"), [("tensorboard", "run/**/events.out.tfevents.*"), ("trackio", "trackio/*.db")]
)
def test_a_tracker_on_request_keeps_its_numbers_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, traces: str
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip(name)
    make_trainer(tmp_path / "run", report_to=name, max_steps=2, logging_steps=1).train()
    assert list(tmp_path.glob(traces))


def test_a_window_makes_no_mask_of_the_whole_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_base("mistral")
    base.model.config.sliding_window = 30
    for layer in base.model.model.layers:
        layer.self_attn.sliding_window = 30
    made = []
    monkeypatch.setattr(attention, "sdpa_mask", lambda **options: made.append(options["kv_length"]))
    trainer = make_trainer(tmp_path, base=base, max_steps=2)
    assert max(sum(row) for row in trainer.train_dataset["seq_lengths"]) > 30
    trainer.train()
    assert not [tokens for tokens in made if tokens > 21]  # the probe's two documents, before the first step


def test_a_disk_that_is_full_at_a_checkpoint_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    trainer = make_trainer(tmp_path, max_steps=2, save_steps=1)
    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(DiskError) as told:
        trainer.train()
    assert told.value.where == str(tmp_path / "checkpoint-1")
    assert newest(tmp_path) is None

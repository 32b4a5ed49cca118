"""What a run needs is told before it starts: the bytes that are kept, those of the weights, the batch that fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_med.adapters.runtime.attach import attach_new
from lora_med.adapters.tensors.method import method_for
from lora_med.cli.main import run
from lora_med.config.schema import LoraSettings, TrainSettings
from lora_med.errors import SettingsError
from lora_med.models import base as base_module
from lora_med.models import weight_loading
from lora_med.models.base import load_base
from lora_med.models.memory import experts_in_full, weight_bytes
from lora_med.models.skeleton import skeleton
from lora_med.models.structure.backbone import backbone
from lora_med.training.planner import run_memory as plan
from lora_med.training.planner.activations import id_of, saved_bytes
from lora_med.training.planner.run_memory import Shape, fit_batch, largest_batch, measure
from lora_med.training.rows.batches import Collator, make_rows
from lora_med.training.rows.training_rows import row_lengths
from lora_med.training.step.fused_lora import fused_lora
from tests.tiny import FAMILIES, make_tiny
from tests.tiny_families import make_family
from tests.training.support import documents, make_base, make_trainer, weights
from tests.training.test_shared_prefix_rows import questions


def shape_of(folder: Path, *, lora: LoraSettings | None = None, dtype: str = "float32", **options: Any) -> Shape:
    bare = skeleton(folder)
    config = method_for(bare, lora or LoraSettings()).peft_config(bare, inference=False)
    return Shape(folder, config, options.pop("quantization", "none"), True, dtype, "lora_med_sdpa", **options)


def really_kept(folder: Path, lora: LoraSettings, *, dtype: str, checkpointing: bool) -> tuple[list[int], int]:
    """Lengths of some documents, and the bytes autograd keeps of a forward pass over them."""
    base = load_base(str(folder), quantization="none", dtype=dtype)
    model = attach_new(base, lora, seed=0)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.get_base_model().disable_input_require_grads()
    model.train()
    given = documents(3, shortest=20)
    rows = make_rows(given, 64, packing=False)
    batch = Collator(0, flat=True, unmasked=True)([rows[number] for number in range(3)])
    batch.pop("labels")
    own = {id_of(one) for one in [*model.parameters(), *model.buffers()]}
    held: dict[int, Any] = {}

    def look(tensor: torch.Tensor) -> torch.Tensor:
        if id_of(tensor) not in own:
            held[id_of(tensor)] = tensor.untyped_storage()
        return tensor

    with fused_lora(model), torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor):
        last = backbone(model.get_base_model())(**batch, use_cache=False).last_hidden_state
    assert last.requires_grad
    return [len(one.input_ids) for one in given], sum(one.nbytes() for one in held.values())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_bytes_counted_are_those_autograd_keeps(tmp_path: Path, family: str, checkpointing: bool) -> None:
    folder = make_tiny(family, tmp_path)
    lora = LoraSettings(r=4, lora_dropout=0.05)
    lengths, expected = really_kept(folder, lora, dtype="float32", checkpointing=checkpointing)
    bare = skeleton(folder)
    found = saved_bytes(
        folder,
        method_for(bare, lora).peft_config(bare, inference=False),
        dtype="float32",
        attention="lora_med_sdpa",
        batches=[lengths],
        checkpointing=checkpointing,
    )[0]
    # Positions, offsets and masks are integers that a real batch brings along and the counted one makes itself.
    assert abs(found - expected) <= 0.02 * expected + 16 * sum(lengths)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("experts", [False, True])
@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3", "llama4_text"])
def test_the_bytes_counted_for_a_mixture_are_those_autograd_keeps(
    tmp_path: Path, family: str, experts: bool, dtype: str
) -> None:
    """With adapted experts that is a copy of their weights too, which PEFT folds in each pass."""
    folder = make_family(family, tmp_path / family)
    lora = LoraSettings(r=4, lora_dropout=0.0, target_experts=experts)
    lengths, expected = really_kept(folder, lora, dtype=dtype, checkpointing=False)
    bare = skeleton(folder)
    config = method_for(bare, lora).peft_config(bare, inference=False)
    options: dict[str, Any] = {"dtype": dtype, "attention": "lora_med_sdpa", "checkpointing": False}
    counted = saved_bytes(folder, config, batches=[lengths], **options)[0]
    assert abs(counted - expected) <= 0.02 * expected + 16 * sum(lengths)


def test_adapted_experts_add_a_gradient_of_one_layer_and_their_own_numbers(tmp_path: Path) -> None:
    folder = make_family("mixtral", tmp_path / "mixtral")
    needs = {
        experts: measure(shape_of(folder, lora=LoraSettings(r=4, lora_dropout=0.0, target_experts=experts)))
        for experts in (False, True)
    }
    plain, adapted = (needs[experts]([60], 20, False) for experts in (False, True))
    # 2 layers of 4 experts of rank 4: gate and up have 64 inputs and 256 outputs, down has 128 and 64; in float32
    assert adapted.adapters - plain.adapters == 4 * 2 * 4 * 4 * ((64 + 256) + (128 + 64))
    folded, gradient = 2 * 4 * (256 * 64 + 64 * 128), 4 * 256 * 64
    # besides, the products of adapted experts keep their inputs
    assert adapted.activations - plain.activations >= 4 * (folded + gradient)


def test_privacy_adds_a_gradient_for_each_row_of_a_batch(tmp_path: Path) -> None:
    folder = make_tiny(FAMILIES[0], tmp_path)
    plain, private = (measure(shape_of(folder, private=private))([60, 50, 40], 20, False) for private in (False, True))
    assert private.gradients_of_patients == 3 * plain.gradients > 0
    assert private.total == plain.total + 3 * plain.gradients


@pytest.mark.parametrize(("quantization", "bits"), [("4bit", "4"), ("8bit", "8")])
def test_experts_stay_in_16_bits_and_the_log_says_so_before_loading(
    tmp_path: Path, quantization: str, bits: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_family("mixtral", tmp_path / "mixtral")
    before: list[str] = []
    load = weight_loading.load_weights
    monkeypatch.setattr(
        weight_loading, "load_weights", lambda *rest, **more: (before.extend(caplog.messages), load(*rest, **more))[1]
    )
    monkeypatch.setattr(base_module, "load_weights", weight_loading.load_weights)
    with caplog.at_level("WARNING"):
        model = load_base(str(folder), quantization=quantization, dtype="bfloat16", keep_quantized=False).model
    experts = [one for name, one in model.named_parameters() if ".experts." in name]
    assert {one.dtype for one in experts} == {torch.bfloat16}
    held = sum(one.numel() * one.element_size() for one in experts)
    total = weight_bytes(skeleton(folder), quantization=quantization, double_quant=True, dtype="bfloat16").total
    said = next(line for line in before if "the routed experts" in line)
    assert "stay in 16 bits" in said and f"takes in {bits} bits" in said
    assert f"{held / 1e9:.3g} GB of the {total / 1e9:.3g} GB" in said
    bare = skeleton(folder)
    assert experts_in_full(bare, quantization="none", double_quant=True, dtype="bfloat16") is None
    llama = skeleton(make_tiny("llama", tmp_path))
    assert experts_in_full(llama, quantization="4bit", double_quant=True, dtype="bfloat16") is None


def test_a_plan_says_what_the_experts_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_family("mixtral", tmp_path / "mixtral")
    settings = [f"model.base={folder}", "lora.target_experts=true", "train.max_length=64", "model.dtype=float32"]
    assert run(["plan", *settings, "--no-time", "--no-read-data"]) == 0
    assert "experts      the routed experts (0.000197 billion weights in 4 tensors) stay in 32 bits" in (
        capsys.readouterr().out
    )
    assert run(["plan", *settings, "--no-time", "--no-read-data", "--json", "model.load_in_4bit=false"]) == 0
    assert json.loads(capsys.readouterr().out)["experts_in_full"] is None


@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma", "mixtral", "qwen2_moe", "llama4_text"])
def test_the_weights_are_as_large_as_they_are_loaded(tmp_path: Path, family: str, quantization: str) -> None:
    folder = make_tiny(family, tmp_path) if family in FAMILIES else make_family(family, tmp_path / family)
    told = weight_bytes(skeleton(folder), quantization=quantization, double_quant=False, dtype="float32")
    model = load_base(str(folder), quantization=quantization, double_quant=False, dtype="float32").model
    held = sum(one.numel() * one.element_size() for one in model.parameters())
    assert told.full + told.quantized == held
    states = [one.quant_state for one in model.parameters() if hasattr(one, "quant_state")]
    if quantization == "4bit":
        assert told.constants == sum(state.absmax.numel() * 4 for state in states)


def test_the_curve_gives_what_counting_gives(tmp_path: Path) -> None:
    """GPT-2's attention drops weights, and so keeps them: the bytes grow with the square of a document's length."""
    folder = make_tiny("gpt2", tmp_path)
    bare = skeleton(folder)
    bare.config.attn_pdrop = 0.1
    bare.config.save_pretrained(folder)
    shape = shape_of(folder)
    lengths = [190, 70, 33]
    counted = saved_bytes(
        folder, shape.config, dtype="float32", attention="lora_med_sdpa", batches=[[9], lengths], checkpointing=False
    )[1]
    assert measure(shape)(lengths, 10, False).activations == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize(("dtype", "beside"), [("float32", plan.FLOAT32), ("bfloat16", plan.ROUNDED)])
def test_each_number_format_takes_what_was_measured_in_it(tmp_path: Path, dtype: str, beside: plan.Overhead) -> None:
    shape = shape_of(make_tiny("llama", tmp_path), dtype=dtype)
    need, lengths = measure(shape), [60, 40]
    kept, recomputed = need(lengths, 20, False), need(lengths, 20, True)
    assert kept.libraries == recomputed.libraries == beside.libraries
    assert kept.holes == int(beside.holes * (kept.activations + kept.loss))
    layers = skeleton(shape.folder).config.num_hidden_layers
    between = recomputed.activations - int(beside.recomputed * kept.activations / layers)
    expected = int(beside.between * between) + int(beside.holes * (recomputed.activations + recomputed.loss))
    assert recomputed.holes == expected


def test_a_trained_number_takes_four_bytes_as_many_for_its_gradient_and_twice_that_in_adamw(tmp_path: Path) -> None:
    need = measure(shape_of(make_tiny("llama", tmp_path)))([60], 20, False)
    assert need.adapters > 0
    assert (need.gradients, need.optimizer) == (need.adapters, 2 * need.adapters)


@pytest.mark.parametrize("returns", [True, False])
def test_a_plan_counts_on_large_tensors_being_returned_only_where_they_are(
    tmp_path: Path, returns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "returns_large_tensors", lambda: returns)
    shape = shape_of(make_tiny("llama", tmp_path))
    need, layers = measure(shape), skeleton(shape.folder).config.num_hidden_layers

    def between(rows: int, held: float) -> float:
        """Bytes kept between layers, if one holds so many layers' worth while it is recomputed."""
        lengths = [256] * rows
        return need(lengths, 1, True).activations - held * need(lengths, 1, False).activations / layers

    beside = plan.FLOAT32
    small, large = between(64, beside.recomputed), between(1024, beside.returned if returns else beside.recomputed)
    assert large == pytest.approx(16 * small, rel=0.01)


def test_of_large_tensors_fewer_layers_are_held_and_more_rows_never_need_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The widest tensor of a layer, 128 numbers a token, has the 16 MiB that are returned from 32,768 tokens on."""
    monkeypatch.setattr(plan, "returns_large_tensors", lambda: True)
    need = measure(shape_of(make_tiny("llama", tmp_path)))
    found = [need([256] * rows, 1, True) for rows in (64, 127, 128, 129, 200, 256, 1024)]
    assert [one.total for one in found] == sorted(one.total for one in found)
    beside = plan.FLOAT32
    assert beside.layers_in_memory(16 << 20, True) == beside.layers_in_memory(1 << 30, False) == beside.recomputed
    assert beside.layers_in_memory(20 << 20, True) == pytest.approx(0.8 * beside.recomputed)
    assert beside.layers_in_memory(1 << 30, True) == beside.returned


def test_the_largest_batch_that_fits_is_taken_and_the_rows_of_a_step_stay(tmp_path: Path) -> None:
    shape = shape_of(make_tiny("llama", tmp_path))
    settings = TrainSettings(per_device_train_batch_size=12, gradient_accumulation_steps=1)
    lengths = [200] * 12
    need = measure(shape)

    def total(rows: int) -> int:
        return need(largest_batch(lengths, rows), 100 * rows, False).total

    def fitted(free: float) -> tuple[int, int]:
        changed, _ = fit_batch(settings, lengths, 0.5, need, int(free))
        assert not changed.gradient_checkpointing
        return changed.per_device_train_batch_size, changed.gradient_accumulation_steps

    assert fitted(total(12) / plan.USABLE + 2) == (12, 1)
    assert fitted(total(12) / plan.USABLE - 2) == (6, 2)
    assert fitted(total(4) / plan.USABLE + 2) == (4, 3)
    assert fitted(total(1) / plan.USABLE + 2) == (1, 12)


def test_where_nothing_fits_layers_are_recomputed_and_then_it_is_refused(tmp_path: Path) -> None:
    shape = shape_of(make_tiny("llama", tmp_path, layers=10))
    settings = TrainSettings(per_device_train_batch_size=1)
    need = measure(shape)
    plainly, recomputed = need([200], 200, False).total, need([200], 200, True).total
    assert recomputed < plainly
    changed, choices = fit_batch(settings, [200], 1.0, need, int((plainly - 2) / plan.USABLE))
    assert changed.gradient_checkpointing
    assert "no batch fits without" in str(choices[1])
    with pytest.raises(SettingsError, match="longest row"):
        fit_batch(settings, [200], 1.0, need, int(recomputed / plan.USABLE) - 2)


def test_an_automatic_batch_trains_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"dropout": 0.0, "max_steps": 4, "per_device_train_batch_size": 8}
    whole = make_trainer(tmp_path / "whole", **options)
    whole.train()
    folder = make_tiny("llama", tmp_path / "base")
    base = make_base()
    object.__setattr__(base, "folder", folder)
    need = measure(shape_of(folder, lora=LoraSettings(r=4, lora_alpha=8, lora_dropout=0.0)))
    lengths = [len(one.input_ids) for one in documents(30)]
    half, whole_batch = (need(largest_batch(lengths, rows), 0, False).total for rows in (4, 8))
    room = (half + whole_batch) / 2 / plan.USABLE
    monkeypatch.setattr(plan, "free_memory", lambda device: int(room))
    fitted = make_trainer(tmp_path / "auto", base=base, batch="auto", **options)
    size, turns = fitted.args.per_device_train_batch_size, fitted.args.gradient_accumulation_steps
    assert size < 8
    assert size * turns == 8
    fitted.train()
    assert float((weights(fitted) - weights(whole)).abs().max()) < 2e-5


def test_the_batch_is_chosen_for_the_base_as_it_was_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A base that was quantized in this run has left memory behind."""
    asked = []
    monkeypatch.setattr(plan, "measure", lambda shape: asked.append(shape) or measure(shape))
    folder = make_tiny("llama", tmp_path)
    for options in ({"quantization": "4bit", "double_quant": False}, {"quantization": "none"}):
        base = load_base(str(folder), dtype="float32", **options)
        model = attach_new(base, LoraSettings(r=4), seed=0)
        plan.fit_to_memory(TrainSettings(max_length=64), model, base, documents(4))
    assert [(shape.quantizes, shape.double_quant) for shape in asked] == [(True, False), (False, True)]


def test_rows_are_counted_as_they_are_trained() -> None:
    given = questions(2, 3)
    lengths = [len(one.input_ids) for one in given]
    settings = TrainSettings(max_length=256, per_device_train_batch_size=2, gradient_accumulation_steps=3)
    assert row_lengths(given, settings)[0] == lengths
    for changed in ({"packing": True}, {"share_context": True}):
        rows = row_lengths(given, settings.model_copy(update=changed))[0]
        assert len(rows) < len(given)
        assert max(rows) > max(lengths)  # a row of several documents needs more than the longest of them
    assert row_lengths(None, settings) == ([256] * 6, 1.0)  # every row that one batch could hold


def test_several_processes_do_not_each_choose_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingsError, match="each of several processes"):
        make_trainer(tmp_path, batch="auto")


def test_the_command_prints_bytes_phases_and_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "rows.jsonl"
    rows = [{"uid": f"u{number}", "prompt": "Is it so?", "completion": "Yes, it is."} for number in range(40)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ["data.source=custom", f"data.paths=[{data}]", "data.near_duplicate_similarity=0"]
    settings += ["data.columns={uid: uid, prompt: prompt, completion: completion}"]
    assert run(["plan", *settings, "train.num_train_epochs=2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["fits"]
    assert report["steps"] == 2 * report["steps_an_epoch"]
    time = report["time"]
    assert time["seconds"] == pytest.approx(2 * report["tokens_an_epoch"] / time["tokens_per_second"], rel=0.05)
    told = report["as_set"]
    assert told["phases"]["end of a forward pass"] == sum(told["bytes"].values())
    assert run(["plan", "--no-read-data", "--no-time", "model.base=micro"]) == 0
    told = capsys.readouterr().out
    assert "libraries" in told
    assert "time" not in told
    assert run(["plan", "--no-read-data", "model.base=micro", "train.max_length=4096"]) == 0
    assert "time         not measured: a document of 4,096 tokens is longer" in capsys.readouterr().out

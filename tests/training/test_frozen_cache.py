"""With adapters on the upper layers, what lies below is computed once a row, and training goes the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lora_med.adapters.runtime.attach import attach_new
from lora_med.config.schema import LoraSettings, TrainSettings
from lora_med.errors import SettingsError
from lora_med.training.step.frozen_cache import FrozenRows, lowest_adapted, why_not_cached
from lora_med.training.trainer import AdapterTrainer
from tests.training.support import documents, make_base, weights

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "gpt2")


def upper(output_dir: Path, family: str = "llama", *, lora: dict[str, Any] | None = None, **settings: Any) -> Any:
    """A trainer of the upper two of four layers, three epochs over 12 documents."""
    base = make_base(family, layers=4, attention=settings.pop("attention", "lora_med_sdpa"))
    chosen = LoraSettings(**{"r": 4, "lora_dropout": 0.1, "layers_to_transform": [2, 3], **(lora or {})})
    values = {"num_train_epochs": 3, "learning_rate": 1e-2, "logging_steps": 1, "max_length": 128, **settings}
    model = attach_new(base, chosen, seed=0)
    train = TrainSettings(output_dir=str(output_dir), **values)
    return AdapterTrainer(model, base, train, train=documents(12), validation=documents(4, seed=9))


def calls(trainer: Any) -> list[int]:
    """Counts the calls of the lowest layer's attention while training; filled as it trains."""
    model = trainer.model.get_base_model()
    layers, _ = lowest_adapted(model)
    count = [0]

    def seen(module: Any, *_: Any) -> None:
        count[0] += torch.is_grad_enabled()

    attention = next(module for name, module in layers[0].named_children() if "attn" in name)
    attention.register_forward_hook(seen)
    return count


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_weights_are_those_of_training_without(tmp_path: Path, family: str, packing: bool) -> None:
    plain = upper(tmp_path / "plain", family, packing=packing)
    plain.train()
    kept = upper(tmp_path / "kept", family, packing=packing, cache_frozen=True)
    below = calls(kept)
    kept.train()
    assert float((weights(kept) - weights(plain)).abs().max()) < 1e-4
    assert kept.state.best_metric == pytest.approx(plain.state.best_metric, rel=1e-4)
    assert below[0] == kept.state.max_steps // 3  # in the first of three epochs alone


@pytest.mark.parametrize("how", ["recomputed", "fallback", "accumulated"])
def test_however_the_loss_is_taken(tmp_path: Path, how: str) -> None:
    """With layers recomputed in the backward pass, by TRL's loss, and over several batches a step."""
    options: dict[str, Any] = {"gradient_checkpointing": how == "recomputed"}
    options |= {"gradient_accumulation_steps": 2} if how == "accumulated" else {}
    asked = "by this test" if how == "fallback" else None
    plain = upper(tmp_path / "plain", **options)
    plain.fallback = asked
    plain.train()
    kept = upper(tmp_path / "kept", cache_frozen=True, **options)  # made here: it seeds the dropout
    kept.fallback = asked
    below = calls(kept)
    kept.train()
    assert float((weights(kept) - weights(plain)).abs().max()) < 1e-4
    assert len(kept.frozen.cached) == 12
    assert below[0] <= kept.state.max_steps * options.get("gradient_accumulation_steps", 1) // 3


@pytest.mark.parametrize("adapted", [None, [2, 3]])
def test_no_layer_below_the_adapters_is_recomputed(tmp_path: Path, adapted: list[int] | None) -> None:
    """The gradient ends at the lowest adapter, also where transformers would let it run to the embedding."""
    lora = {"layers_to_transform": adapted}
    plain = upper(tmp_path / "plain", lora=lora)
    plain.train()
    trainer = upper(tmp_path / "less", lora=lora, gradient_checkpointing=True)
    layers = trainer.model.get_base_model().model.layers
    count = [0] * len(layers)

    def seen(number: int) -> None:
        count[number] += torch.is_grad_enabled()

    for number, layer in enumerate(layers):
        layer.self_attn.register_forward_hook(lambda *_, number=number: seen(number))
    trainer.train()
    once, twice = trainer.state.max_steps, 2 * trainer.state.max_steps
    assert count == ([once, once, twice, twice] if adapted else [twice] * 4)
    assert float((weights(trainer) - weights(plain)).abs().max()) < 1e-6
    assert "enable_input_require_grads" not in trainer.model.get_base_model().__dict__


def test_without_free_memory_every_row_is_computed_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_med.models.memory.free_memory", lambda device: 4 * 3000 + 500)
    monkeypatch.setattr("lora_med.models.memory.held_memory", lambda device: 500)
    trainer = upper(tmp_path, cache_frozen=True)
    below = calls(trainer)
    trainer.train()
    assert len(trainer.frozen.cached) < 12
    assert sum(one.nbytes for one in trainer.frozen.cached.values()) <= 3000
    assert below[0] > trainer.state.max_steps // 3


def test_the_layers_are_as_before_when_a_step_fails() -> None:
    base = make_base(layers=3)
    model = attach_new(base, LoraSettings(r=2, layers_to_transform=[2]), seed=0).train()
    inner = model.get_base_model()
    kept = FrozenRows(inner.model.layers[:2], 1 << 20)
    kept.cached[0] = torch.zeros(5, 64)
    with pytest.raises(ValueError), kept.around([(0, 5)]):
        assert "forward" in inner.model.layers[0].__dict__
        raise ValueError
    assert all("forward" not in layer.__dict__ for layer in inner.model.layers)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"lora": {"layers_to_transform": None}}, "lowest layer is adapted"),
        ({"attention": "sdpa"}, "padded"),
        ({"trainer_args": {"neftune_noise_alpha": 5}}, "noise"),
    ],
)
def test_where_nothing_can_be_cached_it_is_refused(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        upper(tmp_path, cache_frozen=True, **options)


def test_a_base_that_drops_values_by_chance_is_refused() -> None:
    base = make_base("gpt2", layers=3)
    model = attach_new(base, LoraSettings(r=2, layers_to_transform=[2]), seed=0).get_base_model()
    assert why_not_cached(model) is None
    model.transformer.h[0].mlp.dropout.p = 0.1
    assert "at random" in str(why_not_cached(model))


@pytest.mark.parametrize("name", ["dropout", "hidden_dropout_prob", "residual_dropout", "embd_pdrop"])
def test_a_base_that_says_it_drops_values_is_refused(name: str) -> None:
    """Many families drop by a function, which no module tells of."""
    base = make_base(layers=3)
    model = attach_new(base, LoraSettings(r=2, layers_to_transform=[2]), seed=0).get_base_model()
    for quiet in ({name: 0.0}, {"classifier_dropout": 0.1}, {"summary_first_dropout": 0.1}):
        model.config.update(quiet)
        assert why_not_cached(model) is None
    model.config.update({name: 0.1})
    assert f"{name} is 0.1" in str(why_not_cached(model))


@pytest.mark.parametrize("field", ["gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"])
def test_reentrant_recomputing_gets_the_gradient_it_needs(tmp_path: Path, field: str) -> None:
    plain = upper(tmp_path / "plain", lora={"lora_dropout": 0.0})
    if not hasattr(plain.args, field):
        pytest.skip(f"this version of transformers has no {field}")
    plain.train()
    asked = {"gradient_checkpointing": True, "trainer_args": {field: {"use_reentrant": True}}}
    trainer = upper(tmp_path / "reentrant", lora={"lora_dropout": 0.0}, **asked)
    trainer.train()
    assert float((weights(trainer) - weights(plain)).abs().max()) < 1e-6

"""The private step: each patient's gradient is that of a loop and clipped, and noise is all that is added."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.preference_trainer import without_dropout
from lora_med.training.private import private_trainer
from lora_med.training.private.noise_key import NoiseKey
from lora_med.training.private.patient_gradients import clipped, receiving, span_gradients
from lora_med.training.step.fused_lora import fused_lora
from tests.tiny import make_tiny, make_tiny_encoder
from tests.training.private.private_runs import PATIENTS, make_private, tagging
from tests.training.support import documents, make_base

KEY = NoiseKey(b"k" * 32)


def move(trainer: Any) -> None:
    """B of LoRA and a head start at zero, which would hide half of a gradient."""
    generator = torch.Generator().manual_seed(1)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.05


def all_gradients(trainer: Any, rows_a_pass: int, *, fused: bool = True) -> list[torch.Tensor]:
    """The gradient of every patient, shape (patients, numbers) for each parameter."""
    parameters = [one for one in trainer.model.parameters() if one.requires_grad]
    trainer.rows_a_pass = rows_a_pass
    loader = trainer.get_train_dataloader()
    batch = loader.collate_fn(loader.dataset.__getitems__(list(range(len(trainer.patients)))))
    assert any(len(passes[0].spans) > 1 for passes in batch["groups"]) == (rows_a_pass > 1)
    backward = partial(trainer._backward, trainer.model, [])
    trainer.model.train()
    with fused_lora(trainer.model) if fused else nullcontext(()) as groups:
        spans = span_gradients(trainer.model, groups)
        with receiving(spans, groups):
            each = [spans.of_group(passes, backward, parameters) for passes in batch["groups"]]
    one_patient = sum(4 * one.numel() for one in parameters)
    for group, passes in zip(each, batch["groups"], strict=True):  # `lora-med plan` counts on it
        assert sum(one.nbytes for one in group) == len(passes[0].spans) * one_patient
    return [torch.cat(of_parameter).flatten(1) for of_parameter in zip(*each, strict=True)]


def by_a_loop(trainer: Any, train: list[Tokens]) -> list[torch.Tensor]:
    """The same by the definition, row by row and by the model's own logits: no layer of ours is in the way."""
    parameters = [one for one in trainer.model.parameters() if one.requires_grad]
    patients = list(dict.fromkeys(trainer.patients))
    found: list[list[torch.Tensor]] = []
    for patient in patients:
        own = [row for row, whose in zip(train, trainer.patients, strict=True) if whose == patient]
        losses = []
        for row in own:
            ids = torch.tensor([row.input_ids])
            logits = trainer.model(input_ids=ids, use_cache=False).logits[0].float()
            targets = torch.tensor(
                [target if trained else -100 for target, trained in zip(row.targets, row.trained, strict=True)]
            )
            shift = 0 if hasattr(row, "tags") else 1
            losses.append(
                torch.nn.functional.cross_entropy(
                    logits[: len(ids[0]) - shift], targets[shift:], ignore_index=-100, reduction="mean"
                )
            )
        gradients = torch.autograd.grad(torch.stack(losses).mean(), parameters)
        found.append([gradient.flatten() for gradient in gradients])
    return [torch.stack(of_parameter) for of_parameter in zip(*found, strict=True)]


def check_same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert float((one - other).norm()) <= 2e-5 * float(other.norm()) + 1e-9


@pytest.mark.parametrize("attention", ["lora_med_sdpa", "sdpa"])
def test_the_gradients_of_text_are_those_of_a_loop(tmp_path: Path, attention: str) -> None:
    train = documents(len(PATIENTS), longest=25)
    trainer = make_private(tmp_path, base=make_base(attention=attention), train=train, dropout=0.0)
    move(trainer)
    expected = by_a_loop(trainer, train)
    for rows in (1, 2, 6):
        check_same(all_gradients(trainer, rows), expected)
    check_same(all_gradients(trainer, 6, fused=False), expected)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_the_gradients_of_tags_and_of_their_head_are_those_of_a_loop(tmp_path: Path, family: str) -> None:
    folder = make_tiny_encoder(tmp_path / "base") if family == "bert" else make_tiny(family, tmp_path / "base")
    inputs = tagging(folder, tmp_path)
    trainer = make_private(tmp_path / "run", dropout=0.0, **inputs)
    assert len(trainer.patients) == len(inputs["train"])
    move(trainer)
    without_dropout(trainer.model)
    expected = by_a_loop(trainer, inputs["train"])
    for rows in (1, 6):
        check_same(all_gradients(trainer, rows), expected)


def test_the_gradients_in_4_bits_are_equal_together_and_alone(tmp_path: Path) -> None:
    from lora_med.models.base import load_base

    base = load_base(str(make_tiny("llama", tmp_path / "base")), quantization="4bit", dtype="float32")
    trainer = make_private(tmp_path / "run", base=base, dropout=0.0)
    move(trainer)
    check_same(all_gradients(trainer, 6), all_gradients(trainer, 1))


def test_a_clipped_gradient_has_the_norm_at_most_and_a_short_one_is_unchanged() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(3, 4, 5, generator=generator), torch.randn(3, 7, generator=generator)]
    for each in gradients:
        each[0] *= 1e-3
        each[2] = 0
    for patient in range(3):
        sums = clipped([each[patient : patient + 1] for each in gradients], 0.5)
        norm = float(torch.cat([one.flatten() for one in sums]).double().norm())
        before = float(torch.cat([each[patient].flatten() for each in gradients]).double().norm())
        assert norm == pytest.approx(min(before, 0.5), rel=1e-6)
    total = clipped(gradients, 0.5)
    parts = [clipped([each[patient : patient + 1] for each in gradients], 0.5) for patient in range(3)]
    for number, one in enumerate(total):
        torch.testing.assert_close(one, sum(part[number] for part in parts))


def sums_of(trainer: Any, patients: list[int]) -> torch.Tensor:
    """The sum of clipped gradients of a step with these patients, with no noise."""
    trainer.mechanism = replace(trainer.mechanism, noise_multiplier=0.0)
    rows = [number for number, patient in enumerate(trainer.patients) if patient in patients]
    with fused_lora(trainer.model) as trainer.groups:
        loader = trainer.get_train_dataloader()
        trainer.training_step(trainer.model, loader.collate_fn(loader.dataset.__getitems__(rows)))
    gradients = [one.grad.flatten() for one in trainer.model.parameters() if one.requires_grad]
    return torch.cat(gradients) * trainer.mechanism.expected


def test_one_patient_more_changes_the_sum_by_the_clip_at_most(tmp_path: Path) -> None:
    trainer = make_private(tmp_path, dropout=0.0, clip=0.05)
    move(trainer)
    everyone = sorted(set(PATIENTS))
    whole = sums_of(trainer, everyone)
    for patient in (0, 1, 5, 15):
        without = sums_of(trainer, [each for each in everyone if each != patient])
        change = float((whole - without).double().norm())
        assert 0 < change <= 0.05 * (1 + 1e-4)  # the two sums are rounded to float32
    assert float(sums_of(trainer, []).norm()) == 0


def test_every_step_of_a_run_is_clipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []

    def watched(gradients: Any, clip: float) -> Any:
        for patient in range(len(gradients[0])):
            own = clipped([each[patient : patient + 1] for each in gradients], clip)
            norms.append(float(torch.cat([one.flatten() for one in own]).double().norm()) / clip)
        return clipped(gradients, clip)

    monkeypatch.setattr(private_trainer, "clipped", watched)
    trainer = make_private(tmp_path, learning_rate=5e-2, num_train_epochs=4, clip=0.02)
    trainer.train()
    assert trainer.state.global_step == 16 and len(norms) > 30
    assert max(norms) <= 1 + 1e-6 and max(norms) > 0.999


def test_an_empty_draw_is_a_step_of_noise_of_the_right_size(tmp_path: Path) -> None:
    trainer = make_private(tmp_path)
    trainer.key = KEY
    with fused_lora(trainer.model) as trainer.groups:
        loader = trainer.get_train_dataloader()
        loss = trainer.training_step(trainer.model, loader.collate_fn([]))
    assert float(loss) == 0
    noise = torch.cat([one.grad.flatten() for one in trainer.model.parameters() if one.requires_grad]).double()
    scale = trainer.mechanism.noise_multiplier * 0.1 / 4  # clip 0.1, four patients expected
    count = len(noise)
    assert abs(float(noise.mean())) < 3 * scale / count**0.5
    assert abs(float(noise.var()) / scale**2 - 1) < 3 * (2 / count) ** 0.5


def test_dropout_of_a_step_does_not_follow_from_the_seed(tmp_path: Path) -> None:
    trainer = make_private(tmp_path, dropout=0.5, clip=1e6)
    move(trainer)
    sums = []
    for secret in (b"a", b"a", b"b"):
        torch.manual_seed(42)
        trainer.key = NoiseKey(secret * 32)
        sums.append(sums_of(trainer, [0, 1, 2]))
    assert torch.equal(sums[0], sums[1]) and not torch.equal(sums[0], sums[2])


def test_the_gradient_of_a_patient_is_the_same_whoever_else_is_drawn(tmp_path: Path) -> None:
    trainer = make_private(tmp_path, dropout=0.0, clip=1e6)
    move(trainer)
    alone, others, together = (sums_of(trainer, drawn) for drawn in ([5], [4, 6], [4, 5, 6]))
    assert float((together - others - alone).norm()) <= 1e-5 * float(together.norm())

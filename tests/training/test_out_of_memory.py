"""A batch that does not fit is taken in parts: the same rows a step, the same gradient, the same weights."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_med.errors import SettingsError
from lora_med.training.rows.batches import Collator, make_rows
from lora_med.training.rows.shared_prefix_rows import join_shared_prefixes
from lora_med.training.step.out_of_memory import is_one_document, out_of_memory, split_batch
from lora_med.training.trainer import AdapterTrainer
from tests.training.support import documents, make_base, make_trainer, weights
from tests.training.test_shared_prefix_rows import questions

OPTIONS: dict[str, Any] = {"dropout": 0.0, "max_steps": 5, "per_device_train_batch_size": 4}


def narrow(trainer: AdapterTrainer, tokens: int, *, backward: bool = False) -> AdapterTrainer:
    """Make the first layer's forward, or backward, pass run out of memory on more than so many tokens."""
    layer = trainer.model.get_base_model().model.layers[0]

    def refuse(count: int) -> None:
        if count > tokens:
            raise torch.OutOfMemoryError("no memory in this test")

    if backward:
        layer.register_full_backward_hook(lambda module, inward, outward: refuse(outward[0].shape[:2].numel()))
    else:
        layer.register_forward_pre_hook(
            lambda module, inputs: refuse(inputs[0].shape[:2].numel()) if torch.is_grad_enabled() else None
        )
    return trainer


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_parts_give_the_weights_of_the_whole(tmp_path: Path, backward: bool, accumulation: int) -> None:
    """In the backward pass the upper layers have added their gradients already when the memory runs out."""
    options = {**OPTIONS, "gradient_accumulation_steps": accumulation, "train": documents(40)}
    whole = make_trainer(tmp_path / "whole", **options)
    whole.train()
    parted = narrow(make_trainer(tmp_path / "parted", **options), 60, backward=backward)
    parted.train()
    assert parted.micro_batches.count > 1
    assert parted.state.global_step == whole.state.global_step == 5
    assert float((weights(parted) - weights(whole)).abs().max()) < 2e-6
    found = [line["loss"] for line in parted.state.log_history if "loss" in line]
    assert found == pytest.approx([line["loss"] for line in whole.state.log_history if "loss" in line], rel=1e-5)


def test_no_output_of_the_pass_that_failed_is_held(tmp_path: Path) -> None:
    """Key and value wait while the query is normed; where that runs out of memory, they must not wait for ever."""
    trainer = make_trainer(tmp_path, **OPTIONS)
    layer = trainer.model.get_base_model().model.layers[0].self_attn
    held = []

    def refuse(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        if torch.is_grad_enabled() and inputs[0].shape[:2].numel() > 60:
            raise torch.OutOfMemoryError("no memory in this test")
        if torch.is_grad_enabled():
            held.append(sum(bool(group.waiting) for group in trainer.groups))

    layer.k_proj.register_forward_pre_hook(refuse)
    trainer.model.get_base_model().model.embed_tokens.register_forward_pre_hook(
        lambda *_: held.append(-sum(bool(group.waiting) for group in trainer.groups))
    )
    trainer.train()
    assert trainer.micro_batches.count > 1
    assert max(held) == 1
    assert min(held) == 0  # at the beginning of a pass nothing waits


def test_padded_batches_are_cut_too(tmp_path: Path) -> None:
    whole = make_trainer(tmp_path / "whole", base=make_base(attention="sdpa"), **OPTIONS)
    whole.train()
    parted = narrow(make_trainer(tmp_path / "parted", base=make_base(attention="sdpa"), **OPTIONS), 90)
    parted.train()
    assert parted.micro_batches.count > 1
    assert float((weights(parted) - weights(whole)).abs().max()) < 2e-6


def test_one_document_that_does_not_fit_is_named_and_no_step_is_taken(tmp_path: Path) -> None:
    trainer = narrow(make_trainer(tmp_path, **OPTIONS), 4)
    with pytest.raises(SettingsError, match="one document of"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_other_errors_are_not_taken_for_it(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, **OPTIONS)

    def fail(*_: Any) -> None:
        if torch.is_grad_enabled():
            raise RuntimeError("shapes do not match")

    trainer.model.get_base_model().model.layers[0].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="shapes"):
        trainer.train()
    assert trainer.micro_batches.count == 1


def test_it_is_said_once_and_every_later_batch_comes_in_parts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = narrow(make_trainer(tmp_path, **OPTIONS), 100)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    said = [record.getMessage() for record in caplog.records if "out of memory" in record.getMessage()]
    assert said == [
        f"out of memory: from here on each batch is split into {parts} micro-batches"
        for parts in (2, 4, 8)[: len(said)]
    ]


def test_torchs_own_refusal_on_a_cpu_is_known() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 55, dtype=torch.uint8)
    assert out_of_memory(refused.value)
    assert not out_of_memory(RuntimeError("another"))


@pytest.mark.parametrize("parts", [2, 3, 8, 50])
def test_a_cut_batch_holds_every_document_once(parts: int) -> None:
    rows = make_rows(join_shared_prefixes([*questions(2, 3), *documents(5)], 128), 128, packing=True)
    batch = Collator(0, flat=True, unmasked=True)([rows[number] for number in range(len(rows))])
    pieces = split_batch(batch, parts)
    assert 1 < len(pieces) <= parts
    for name in ("input_ids", "labels", "position_ids"):
        assert torch.equal(torch.cat([piece[name] for piece in pieces], 1), batch[name])
    assert [one for piece in pieces for one in piece["document_lengths"]] == batch["document_lengths"]
    for piece in pieces:
        assert piece["cu_seq_lens_q"].tolist()[-1] == piece["input_ids"].shape[1]
        assert len(piece["cu_seq_lens_q"]) == len(piece["document_lengths"]) + 1
    assert max(piece["input_ids"].shape[1] for piece in pieces) < batch["input_ids"].shape[1]


def test_a_batch_is_cut_where_its_tokens_are_halved() -> None:
    batch = {
        "input_ids": torch.arange(10)[None],
        "labels": torch.arange(10)[None],
        "attention_mask": torch.ones(1, 10),
        "document_lengths": [(1,), (2,), (3,), (4,)],
    }
    assert [piece["document_lengths"] for piece in split_batch(batch, 2)] == [[(1,), (2,), (3,)], [(4,)]]


@pytest.mark.parametrize("sizes", [(50, 51), (1, 100), (100, 1, 1), (100, 100, 100, 400)])
def test_two_parts_are_two_wherever_there_are_two_documents(sizes: tuple[int, ...]) -> None:
    batch = {"input_ids": torch.zeros(1, sum(sizes)), "labels": torch.zeros(1, sum(sizes))}
    pieces = split_batch({**batch, "document_lengths": [(size,) for size in sizes]}, 2)
    assert len(pieces) == 2
    assert split_batch({**batch, "document_lengths": [(size,) for size in sizes]}, sum(sizes))[-1][
        "document_lengths"
    ] == [(sizes[-1],)]


def test_a_batch_of_flash_attention_is_cut_by_its_offsets() -> None:
    rows = make_rows(documents(6), 128, packing=False)
    batch = Collator(0, flat=True, unmasked=False)([rows[number] for number in range(6)])
    assert "document_lengths" not in batch
    pieces = split_batch(batch, 3)
    assert len(pieces) == 3
    assert all(piece.keys() == batch.keys() for piece in pieces)
    assert torch.equal(torch.cat([piece["input_ids"] for piece in pieces], 1), batch["input_ids"])
    assert not is_one_document(batch)
    assert all(is_one_document(piece) for piece in split_batch(batch, batch["input_ids"].numel()))


def test_a_document_longer_than_all_others_is_taken_by_itself(tmp_path: Path) -> None:
    given = sorted(documents(2, shortest=38, longest=60), key=lambda one: len(one.input_ids))
    options: dict[str, Any] = {"dropout": 0.0, "max_steps": 2, "per_device_train_batch_size": 2, "train": given}
    whole = make_trainer(tmp_path / "whole", **options)
    whole.train()
    parted = narrow(make_trainer(tmp_path / "parted", **options), max(len(one.input_ids) for one in given))
    parted.train()
    assert parted.micro_batches.count == 2
    assert float((weights(parted) - weights(whole)).abs().max()) < 2e-6

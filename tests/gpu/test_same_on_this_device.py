"""What has to be equal is equal on the device at hand: a GPU if `LORA_MED_TEST_GPU=1` lets the tests see one.

These tests take everything through the public loading functions, so that the product chooses the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_med.adapters.runtime.swap import load_many, use
from lora_med.evaluation.likelihood.log_probabilities import score_options
from lora_med.merge.merge import merge_adapter
from lora_med.models.base import Base, load_base
from lora_med.models.generation import greedy
from lora_med.training.step.fast_layers import fast_layers
from lora_med.training.trainer import AdapterTrainer
from tests.evaluation.published import publish_random
from tests.tiny import make_tiny
from tests.training.support import documents, make_trainer
from tests.training.test_shared_prefix_rows import questions

pytestmark = pytest.mark.gpu
QUANTIZATIONS = ["none", "4bit"]
NAMES = ("first", "second")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and a store with two adapters; read only."""
    folder = tmp_path_factory.mktemp("gpu")
    make_tiny("llama", folder / "base")
    for seed, name in enumerate(NAMES):
        publish_random(folder / "base", name, folder / "store", seed=seed + 1)
    return folder


def open_base(home: Path, quantization: str = "none") -> Base:
    return load_base(str(home / "base"), quantization=quantization, dtype="float32")


def trainer_on(base: Base, folder: Path, train: list[Any], **settings: Any) -> AdapterTrainer:
    """A trainer whose adapter is not zero, and the same for the same base."""
    trainer = make_trainer(folder, base=base, train=train, validation=[], dropout=0.0, **settings)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in sorted(trainer.model.named_parameters()):
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) / 10)
    return trainer


def batches(trainer: AdapterTrainer) -> Iterator[dict[str, Any]]:
    for batch in trainer.get_train_dataloader():
        yield trainer._prepare_inputs(trainer.with_label_positions(batch))


def loss_and_gradient(trainer: AdapterTrainer, *, fused: bool = True) -> tuple[float, torch.Tensor]:
    """The summed loss of all rows and its gradient."""
    model: Any = trainer.model.train()
    model.zero_grad()
    total = 0.0
    with fast_layers(model, trainer.args, trainer.settings) if fused else nullcontext():
        for batch in batches(trainer):
            loss = trainer.compute_loss(model, batch, num_items_in_batch=torch.tensor(1))
            loss.backward()
            total += float(loss.detach())
    return total, torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])


def assert_same(one: tuple[float, torch.Tensor], other: tuple[float, torch.Tensor]) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    assert float(other[1].norm()) > 0
    assert float((one[1] - other[1]).norm()) < 1e-4 * float(other[1].norm())


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_packed_documents_train_as_separate_ones(home: Path, tmp_path: Path, quantization: str) -> None:
    separate, packed = (
        trainer_on(open_base(home, quantization), tmp_path / str(packing), documents(12), packing=packing)
        for packing in (False, True)
    )
    assert_same(loss_and_gradient(packed), loss_and_gradient(separate))


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_shared_prefix_trains_as_each_document_alone(home: Path, tmp_path: Path, quantization: str) -> None:
    rows = questions(2, 4)
    separate, shared = (
        trainer_on(open_base(home, quantization), tmp_path / str(share), rows, share_context=share)
        for share in (False, True)
    )
    assert len(shared.rows.rows) < len(separate.rows.rows)
    assert_same(loss_and_gradient(shared), loss_and_gradient(separate))


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_fused_adapters_have_pefts_gradients_and_an_evaluation_changes_none(
    home: Path, tmp_path: Path, quantization: str
) -> None:
    trainer = trainer_on(open_base(home, quantization), tmp_path, documents(8))
    expected = loss_and_gradient(trainer, fused=False)
    assert_same(loss_and_gradient(trainer), expected)
    with torch.no_grad():
        model: Any = trainer.model.eval()
        model(input_ids=torch.tensor([[1, 50, 60]], device=trainer.args.device))
    assert_same(loss_and_gradient(trainer), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("packing", [False, True])
def test_the_host_waits_for_nothing_in_a_pass(home: Path, tmp_path: Path, packing: bool) -> None:
    trainer = trainer_on(open_base(home), tmp_path, documents(8), packing=packing)
    loss_and_gradient(trainer)  # the first pass chooses kernels and builds what is kept
    (batch, *_) = list(batches(trainer))
    model: Any = trainer.model
    with fast_layers(model, trainer.args, trainer.settings):
        torch.cuda.set_sync_debug_mode("error")
        try:
            trainer.compute_loss(model, batch).backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_each_row_of_a_mixed_batch_is_answered_by_its_own_adapter(home: Path, quantization: str) -> None:
    base = open_base(home, quantization)
    ids = torch.randint(5, 260, (3, 12), generator=torch.Generator().manual_seed(0)).to(base.model.device)
    with load_many(base, NAMES, home / "store") as pool, torch.inference_mode():
        alone = []
        for name in (None, *NAMES):
            with use(pool, name) as model:
                alone.append(model(input_ids=ids).logits)
        with use(pool, [None, *NAMES]) as model:
            mixed = model(input_ids=ids).logits
    for row, logits in enumerate(alone):
        assert torch.allclose(mixed[row], logits[row], atol=1e-4)
    assert not torch.allclose(mixed[1], alone[0][1], atol=1e-2)


def test_a_merge_is_proved(home: Path, tmp_path: Path) -> None:
    merge = merge_adapter("first", tmp_path / "out", base=str(home / "base"), store=home / "store")
    probe = merge.certificate["probe"]
    assert probe["mean_kl"] < 1e-6 < probe["adapter_effect_kl"]


def test_scores_and_answers_are_those_of_one_prompt_at_a_time(home: Path) -> None:
    base = open_base(home)
    prompts = [tuple(range(5, 5 + length)) for length in (3, 20, 11, 40)]
    items = [(prompt, ((50, 51), (60,))) for prompt in prompts]
    together = score_options(base.model, items, 256)
    assert [score_options(base.model, [item], 256)[0] for item in items] == [pytest.approx(row) for row in together]
    written = greedy(base.model, base.tokenizer, prompts, max_new_tokens=8)
    assert written == [greedy(base.model, base.tokenizer, [prompt], max_new_tokens=8)[0] for prompt in prompts]

"""Weights in shards: the loss reads the whole head, and the adapter is saved and loaded whole.

accelerate runs DDP where FSDP is asked for on a CPU, so the sharding itself is torch's, on two gloo processes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lora_med.adapters.runtime.attach import attach_new
from lora_med.config.data_settings import DataSettings
from lora_med.config.schema import EvaluateSettings, LoraSettings
from lora_med.data.corpus import open_corpus
from lora_med.evaluation.eval_during_training import validation_task
from lora_med.models.base import load_base
from lora_med.training.rows.batches import Share
from lora_med.training.run.adapter_files import load_adapter, save_adapter, trainable_weights
from lora_med.training.step.loss import add_compact_loss
from lora_med.training.step.task_eval import all_answers, undisturbed
from tests.tiny_families import make_family
from tests.training.support import make_base, run_ranks

QA = Path(__file__).parents[2] / "lora_med" / "assets" / "sample" / "qa_sample.json"
LORA = LoraSettings(r=4, lora_dropout=0.0)


def test_a_sharded_model_has_the_loss_gradient_and_files_of_a_whole_one(tmp_path: Path) -> None:
    ids = torch.randint(5, 264, (2, 24), generator=torch.Generator().manual_seed(0))
    whole = attach_new(make_base(), LORA, seed=0)
    add_compact_loss(whole.get_base_model())
    loss = whole(input_ids=ids, nll_labels=ids)
    loss.backward()
    expected = trainable_weights(whole)
    gradients = {name: value.grad for name, value in whole.named_parameters() if value.requires_grad}
    save_adapter(whole, tmp_path / "whole", expected)

    def work() -> None:
        from torch.distributed import get_rank, init_process_group
        from torch.distributed.fsdp import fully_shard
        from torch.distributed.tensor import DTensor

        init_process_group("gloo")
        model = attach_new(make_base(), LORA, seed=0)
        inner = model.get_base_model()
        add_compact_loss(inner)
        for layer in inner.model.layers:
            fully_shard(layer)
        fully_shard(model)
        assert isinstance(inner.lm_head.weight, DTensor)
        found = model(input_ids=ids, nll_labels=ids)
        found.backward()
        assert abs(found.item() - loss.item()) < 1e-4
        for name, value in model.named_parameters():
            if value.requires_grad:
                assert isinstance(value.grad, DTensor)
                assert torch.allclose(value.grad.full_tensor(), gradients[name], atol=1e-5)
        gathered = trainable_weights(model)
        assert all(torch.equal(gathered[name], expected[name]) for name in expected)
        if get_rank() == 0:
            save_adapter(model, tmp_path / "sharded", gathered)
        changed = tmp_path / "changed"
        doubled = {name: 2 * value + 1 for name, value in gathered.items()}
        save_adapter(model, changed / str(get_rank()), doubled)
        load_adapter(model, changed / str(get_rank()))
        again = trainable_weights(model)
        assert all(torch.equal(again[name], doubled[name]) for name in doubled)

    codes = run_ranks(2, work, tmp_path)
    assert codes == [0, 0], (tmp_path / "error-0.txt").read_text()
    name = "adapter_model.safetensors"
    assert (tmp_path / "sharded" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_adapted_experts_in_shards_have_the_loss_and_gradients_of_a_whole_model(tmp_path: Path) -> None:
    folder = make_family("mixtral", tmp_path / "mixtral")
    ids = torch.randint(5, 264, (2, 24), generator=torch.Generator().manual_seed(0))

    def make() -> Any:
        base = load_base(str(folder), quantization="none", dtype="float32")
        model = attach_new(base, LoraSettings(r=4, target_experts=True), seed=0)
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.data = torch.randn(value.shape, generator=torch.Generator().manual_seed(1)) * 0.05
        add_compact_loss(model.get_base_model())
        return model

    whole = make()
    loss = whole(input_ids=ids, nll_labels=ids)
    loss.backward()
    gradients = {name: value.grad for name, value in whole.named_parameters() if value.requires_grad}
    expected = trainable_weights(whole)

    def work() -> None:
        from torch.distributed import init_process_group
        from torch.distributed.fsdp import fully_shard

        init_process_group("gloo")
        model = make()
        for layer in model.get_base_model().model.layers:
            fully_shard(layer)
        fully_shard(model)
        sharded_loss = model(input_ids=ids, nll_labels=ids)
        sharded_loss.backward()
        assert abs(sharded_loss.item() - loss.item()) < 1e-4
        for name, value in model.named_parameters():
            if value.requires_grad:
                assert torch.allclose(value.grad.full_tensor(), gradients[name], atol=1e-5), name
        gathered = trainable_weights(model)
        assert all(torch.equal(gathered[name], expected[name]) for name in expected)

    assert run_ranks(2, work, tmp_path) == [0, 0], (tmp_path / "error-0.txt").read_text()


def test_a_sharded_model_has_the_scores_of_a_whole_one_and_trains_on(tmp_path: Path) -> None:
    corpus = open_corpus(DataSettings(source="pubmedqa", paths=[str(QA)], validation_share=0.3, test_share=0.3))
    told = validation_task(EvaluateSettings(eval_steps=1, max_eval_samples=5), corpus, make_base(context=4096), seed=0)
    assert told is not None
    ids = torch.randint(5, 264, (2, 24), generator=torch.Generator().manual_seed(0))
    whole = attach_new(make_base(context=4096), LORA, seed=0)
    expected = told.answers(whole.get_base_model().eval(), range(told.items))
    add_compact_loss(whole.get_base_model())
    whole(input_ids=ids, nll_labels=ids).backward()
    gradients = {name: value.grad for name, value in whole.named_parameters() if value.requires_grad}

    def work() -> None:
        from torch.distributed import get_rank, init_process_group
        from torch.distributed.fsdp import fully_shard

        init_process_group("gloo")
        model = attach_new(make_base(context=4096), LORA, seed=0)
        inner = model.get_base_model()
        add_compact_loss(inner)
        for layer in inner.model.layers:
            fully_shard(layer)
        fully_shard(model)
        with undisturbed(model):
            found = all_answers(told, model, Share(get_rank(), 2), sharded=True)
        assert torch.allclose(torch.tensor(found), torch.tensor(expected), atol=1e-3)
        model(input_ids=ids, nll_labels=ids).backward()
        for name, value in model.named_parameters():
            if value.requires_grad:
                assert torch.allclose(value.grad.full_tensor(), gradients[name], atol=1e-5)

    codes = run_ranks(2, work, tmp_path)
    assert codes == [0, 0], (tmp_path / "error-0.txt").read_text()

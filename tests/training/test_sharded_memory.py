"""The plan of a sharded run against the bytes of shards, constants, adapter and optimizer that two processes hold."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.tensor import DTensor

from lora_med.adapters.runtime.attach import attach_new
from lora_med.adapters.tensors.method import method_for
from lora_med.cli.main import run
from lora_med.config.schema import LoraSettings, TrainSettings
from lora_med.models.base import load_base
from lora_med.models.skeleton import skeleton
from lora_med.training.planner.run_memory import Shape, measure
from lora_med.training.planner.sharded_memory import gathered_bytes, loading_bytes, shared_needs
from lora_med.training.trainer import AdapterTrainer
from tests.tiny import make_tiny
from tests.training.fsdp_ranks import run_sharded_ranks
from tests.training.support import documents

LORA = LoraSettings(r=4, lora_dropout=0.0)


def shape_of(folder: Path, quantization: str) -> Shape:
    bare = skeleton(folder)
    config = method_for(bare, LORA).peft_config(bare, inference=False)
    return Shape(folder, config, quantization, False, "float32", "lora_med_sdpa")


def held(value: Any) -> int:
    local = value.to_local() if isinstance(value, DTensor) else value
    return local.numel() * local.element_size()


def bytes_of_a_rank(folder: Path, quantization: str, out: Path) -> None:
    """Train for a step in shards, and write the bytes that this process holds afterwards."""
    base = load_base(str(folder), quantization=quantization, double_quant=False, dtype="float32")
    settings = TrainSettings(output_dir=str(out / "run"), max_steps=1, max_length=128)
    trainer = AdapterTrainer(attach_new(base, LORA, seed=0), base, settings, train=documents(8))
    trainer.train()
    trainer.model_wrapped.reshard()
    parameters = list(trainer.model_wrapped.parameters())
    layers = [layer for layer in trainer.model.modules() if getattr(layer, "quant_state", None) is not None]
    states = {id(layer.quant_state): layer.quant_state for layer in layers}
    optimizer: Any = trainer.optimizer
    moments = [value for state in optimizer.state.values() for value in state.values() if value.numel() > 1]
    found = {
        "weights": sum(held(value) for value in parameters if not value.requires_grad),
        "adapters": sum(held(value) for value in parameters if value.requires_grad),
        "optimizer": sum(map(held, moments)),
        "quantization_constants": sum(held(state.absmax) for state in states.values()),
    }
    (out / f"held-{os.environ['RANK']}.json").write_text(json.dumps(found))


@pytest.mark.parametrize("quantization", ["none", "4bit"])
def test_each_process_holds_the_bytes_that_are_planned(tmp_path: Path, quantization: str) -> None:
    folder = make_tiny("llama", tmp_path)
    codes = run_sharded_ranks(2, lambda: bytes_of_a_rank(folder, quantization, tmp_path), tmp_path)
    assert codes == [0, 0], (tmp_path / "error-0.txt").read_text()
    shape = shape_of(folder, quantization)
    need = shared_needs(shape, measure(shape), 2)([60], 20, False)
    for rank in range(2):
        found = json.loads((tmp_path / f"held-{rank}.json").read_text())
        for name, size in found.items():
            assert size == pytest.approx(getattr(need, name), rel=0.01), (rank, name)


def test_a_shard_is_a_share_of_weights_adapter_and_optimizer_and_of_nothing_else(tmp_path: Path) -> None:
    shape = shape_of(make_tiny("llama", tmp_path), "4bit")
    alone = measure(shape)([60], 20, False)
    need = shared_needs(shape, measure(shape), 4)([60], 20, False)
    for name in ("weights", "adapters", "gradients", "optimizer"):
        assert getattr(need, name) == -(-getattr(alone, name) // 4)
    for name in ("libraries", "quantization_constants", "activations", "loss", "holes"):
        assert getattr(need, name) == getattr(alone, name)
    assert need.gathered == gathered_bytes(shape)


def test_gathered_are_the_head_and_a_layer_or_the_head_twice_while_it_arrives(tmp_path: Path) -> None:
    folder = make_tiny("llama", tmp_path)
    bare = skeleton(folder)
    head = bare.lm_head.weight.numel() * 4
    layer = sum(value.numel() for value in bare.model.layers[0].parameters()) * 4
    assert gathered_bytes(shape_of(folder, "none")) == pytest.approx(max(2 * head, head + 3 * layer), rel=0.01)


def test_before_its_shards_a_process_holds_the_whole_base(tmp_path: Path) -> None:
    folder = make_tiny("llama", tmp_path)
    shape = shape_of(folder, "none")
    weights = sum(value.numel() for value in skeleton(folder).parameters()) * 4
    assert loading_bytes(shape) == measure(shape)([60], 20, False).libraries + weights


def test_the_command_plans_for_each_process(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["plan", "--no-read-data", "--memory", "64", "model.base=micro", "--json"]
    assert run(options) == 0
    alone = json.loads(capsys.readouterr().out)
    assert (alone["processes"], alone["sharded"], alone["host_bytes_while_loading"]) == (1, False, None)
    assert run([*options, "--processes", "4", "--sharded"]) == 0
    sharded = json.loads(capsys.readouterr().out)
    assert sharded["as_set"]["bytes"]["weights"] == -(-alone["as_set"]["bytes"]["weights"] // 4)
    assert sharded["host_bytes_while_loading"] > alone["as_set"]["bytes"]["libraries"]
    assert sharded["free_bytes"] == alone["free_bytes"] // 4  # on a CPU they share the memory
    assert "left_out" in sharded["time"]
    assert run([*options[:-1], "--processes", "2", "--sharded"]) == 0
    assert "in each of 2 processes" in capsys.readouterr().out


def test_one_process_has_no_shards(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--no-read-data", "--sharded", "model.base=micro"]) == 2
    assert "--processes N" in capsys.readouterr().err

"""What training takes from transformers and TRL by name is there, and is called; else it says so before it trains."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback
from trl.trainer.sft_trainer import SFTTrainer

from lora_med.errors import DependencyMissingError, StoppedError
from lora_med.training.run.checkpoint_saving import CheckpointingTrainer
from lora_med.training.stack_check import EVENTS, OVERRIDDEN, WORKING, check_stack
from lora_med.training.trainer import AdapterTrainer
from tests.training.support import make_trainer


def test_the_table_names_every_private_method_that_is_overridden() -> None:
    own = {name for cls in (AdapterTrainer, CheckpointingTrainer) for name in vars(cls) if name.startswith("_")}
    private = {name for name in own if hasattr(SFTTrainer, name) and not name.startswith("__")}
    assert private - {"_abc_impl"} == set(OVERRIDDEN)
    assert len(OVERRIDDEN) <= 4


def test_the_table_names_every_event_that_is_used(tmp_path: Path) -> None:
    callbacks = make_trainer(tmp_path).callback_handler.callbacks
    ours = [type(callback) for callback in callbacks if type(callback).__module__.startswith("lora_med.")]
    used = {name for cls in ours for name in vars(cls) if name.startswith("on_")}
    assert used | {"on_train_begin"} == set(EVENTS)


def count_calls(trainer: AdapterTrainer, calls: Counter[str]) -> AdapterTrainer:
    """Count each overridden method of one trainer, as transformers calls it."""

    def counted(name: str, method: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            calls[name] += 1
            return method(*arguments, **options)

        return call

    for name in OVERRIDDEN:
        setattr(trainer, name, counted(name, getattr(trainer, name)))
    return trainer


def test_each_overridden_method_is_called_in_two_steps(tmp_path: Path) -> None:
    calls: Counter[str] = Counter()
    options: dict[str, Any] = {"max_steps": 2, "save_steps": 1, "logging_steps": 1}
    trainer = count_calls(make_trainer(tmp_path, **options), calls)
    trainer.guard.stop_request.requested = True
    with pytest.raises(StoppedError):
        trainer.train()
    assert calls == {"_get_grad_norm": 1, "_save_checkpoint": 1, "_save": 1}
    count_calls(make_trainer(tmp_path, **options), calls).train()
    assert calls == {"_get_grad_norm": 2, "_save_checkpoint": 2, "_save": 2, "_load_from_checkpoint": 1}


@pytest.mark.parametrize("name", [*OVERRIDDEN, *EVENTS])
def test_an_absent_name_is_a_missing_dependency_with_the_versions_that_work(name: str) -> None:
    known = {key: lambda: None for key in [*OVERRIDDEN, *EVENTS] if key != name}
    renamed = type("Renamed", (), known)
    with pytest.raises(DependencyMissingError, match=name) as caught:
        check_stack(renamed, renamed)
    assert caught.value.exit_code == 69
    assert "transformers>=5" in str(caught.value.fix)
    check_stack(SFTTrainer, TrainerCallback)


def test_a_trainer_is_not_built_on_classes_that_lack_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(TrainerCallback, "on_pre_optimizer_step")
    with pytest.raises(DependencyMissingError, match="the stop before a bad step"):
        check_stack()


def test_a_step_without_a_reported_norm_is_not_taken(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_steps=2)
    trainer._get_grad_norm = lambda *_, **__: 0.0  # as if transformers no longer called ours
    with pytest.raises(DependencyMissingError, match="without reporting a gradient norm"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_the_versions_that_work_are_those_of_the_package() -> None:
    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    bounds = dict(re.fullmatch(r"([\w-]+)(.*)", line).groups() for line in pyproject["project"]["dependencies"])  # type: ignore[union-attr]
    assert {name: bounds[name] for name in WORKING} == WORKING

"""The settings become the SFTConfig that is meant; what lora_med decides cannot be undone from the side."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from trl.trainer.sft_config import SFTConfig

from lora_med.config.schema import TrainSettings
from lora_med.errors import DependencyMissingError, OutputError, SettingsError
from lora_med.training.arguments import Schedule, best_metric, check_tracker, training_arguments
from lora_med.training.settings_check import check_training


def arguments(tmp_path: Path, schedule: Schedule | None = None, **values: Any) -> Any:
    settings = TrainSettings(output_dir=str(tmp_path), **values)
    return training_arguments(settings, schedule or Schedule(10, validates=True), dtype="float32")


def test_the_defaults_that_are_wrong_for_us_are_overridden(tmp_path: Path) -> None:
    found = arguments(tmp_path)
    assert found.learning_rate == 2e-4
    assert found.lr_scheduler_type == "cosine"
    assert found.get_warmup_steps(100) == 3
    assert found.gradient_checkpointing is False
    assert (found.bf16, found.fp16, found.use_cpu) == (False, False, True)
    assert found.logging_nan_inf_filter is False
    assert (found.max_length, found.packing) == (None, False)
    assert found.dataset_kwargs == {"skip_prepare_dataset": True}
    assert found.save_total_limit is None
    assert found.load_best_model_at_end is False
    assert found.report_to == []
    assert found.push_to_hub is False


def test_one_process_takes_one_gpu_however_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SFTConfig, "n_gpu", property(lambda self: 4))
    assert arguments(tmp_path)._n_gpu == 1  # what transformers' own property reads


@pytest.mark.parametrize(
    ("values", "schedule", "total", "every", "saves"),
    [
        ({"num_train_epochs": 3}, Schedule(10, True), 30, 10, 10),
        ({"num_train_epochs": 0.5}, Schedule(10, True), 5, 5, 5),
        ({"max_steps": 7}, Schedule(10, True), 7, 7, 7),
        ({"eval_steps": 4}, Schedule(10, True), 30, 4, 4),
        ({"eval_steps": 4, "save_steps": 2}, Schedule(10, True), 30, 4, 2),
        ({"max_steps": 100}, Schedule(None, True), 100, 25, 25),
    ],
)
def test_validation_and_checkpoints_come_once_an_epoch_unless_set(
    tmp_path: Path, values: dict[str, Any], schedule: Schedule, total: int, every: int, saves: int
) -> None:
    found = arguments(tmp_path, schedule, **values)
    assert (found.max_steps, found.eval_steps, found.save_steps) == (total, every, saves)


def test_without_validation_rows_nothing_is_evaluated(tmp_path: Path) -> None:
    found = arguments(tmp_path, Schedule(10, validates=False))
    assert found.eval_strategy == "no"
    assert found.metric_for_best_model is None


def test_a_stream_needs_max_steps(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no known length"):
        arguments(tmp_path, Schedule(None, validates=True))


def test_other_fields_pass_through(tmp_path: Path) -> None:
    found = arguments(tmp_path, trainer_args={"adam_beta2": 0.95, "optim": "adamw_torch"})
    assert found.adam_beta2 == 0.95
    assert found.optim == "adamw_torch"


def test_wrong_names_are_refused_all_at_once_with_the_near_one(tmp_path: Path) -> None:
    extra = {"adam_beta_2": 0.9, "learning_rate": 1.0, "label_smoothing_factor": 0.1, "save_strategy": "no"}
    with pytest.raises(SettingsError) as caught:
        arguments(tmp_path, trainer_args=extra)
    assert "did you mean 'adam_beta2'?" in caught.value.what
    assert "`learning_rate` has its own setting: train.learning_rate" in caught.value.what
    assert "`label_smoothing_factor` cannot be set: the one-pass loss does not smooth" in caught.value.what
    assert "`save_strategy` is set by lora_med" in caught.value.what


def test_a_value_that_transformers_refuses_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cosin"):
        arguments(tmp_path, lr_scheduler_type="cosin")


def test_the_metric_is_known_before_training() -> None:
    assert best_metric(TrainSettings(metric_for_best_model="loss")) == "eval_loss"
    with pytest.raises(SettingsError, match="did you mean 'eval_loss'"):
        best_metric(TrainSettings(metric_for_best_model="eval_los"))


@pytest.mark.parametrize("name", ["trackio", "tensorboard"])
def test_a_missing_tracker_is_named_with_its_pip_command(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        with pytest.raises(DependencyMissingError, match=name) as caught:
            check_tracker(name)
        assert caught.value.fix == 'pip install "lora-med[track]"'
    else:
        check_tracker(name)
    check_tracker("none")


def test_the_settings_are_checked_by_themselves(tmp_path: Path) -> None:
    check_training(TrainSettings(output_dir=str(tmp_path), resume="never"))
    with pytest.raises(SettingsError, match="did you mean 'adam_beta"):
        check_training(TrainSettings(trainer_args={"adam_beta": 0.9}))
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "COMMIT.json").write_text("{}")
    with pytest.raises(OutputError, match="checkpoint-3"):
        check_training(TrainSettings(output_dir=str(tmp_path), resume="never"))

"""train.privacy: what it may not be combined with is refused by name, and half a section is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_med.config.parse import parse
from lora_med.config.schema import Settings
from lora_med.errors import SettingsError
from lora_med.training.private.private_run import check_private

ON = "train.privacy.epsilon=8"
REFUSED = {
    "train.method dpo": ["train.method=dpo"],
    "train.packing": ["train.packing=true"],
    "train.share_context": ["train.share_context=true"],
    "train.cache_frozen": ["train.cache_frozen=true"],
    "train.gradient_checkpointing": ["train.gradient_checkpointing=true"],
    "train.batch auto": ["train.batch=auto"],
    "train.max_grad_norm": ["train.max_grad_norm=2"],
    "train.lr_scheduler_type reduce_lr_on_plateau": ["train.lr_scheduler_type=reduce_lr_on_plateau"],
    "train.trainer_args neftune_noise_alpha": ["train.trainer_args={neftune_noise_alpha: 5}"],
    "train.trainer_args fsdp": ["train.trainer_args={fsdp: full_shard}"],
    "data.streaming": ["data.streaming=true", "train.max_steps=5"],
    "data.mix": ["data.mix=[{source: pubmedqa, paths: [a]}]"],
    "data.max_records 5": ["data.max_records=5"],
    "model.load_in_8bit": ["model.load_in_4bit=false", "model.load_in_8bit=true"],
    "model.dtype float16": ["model.dtype=float16"],
    "lora.use_dora": ["lora.use_dora=true"],
    "lora.target_experts": ["lora.target_experts=true"],
    "lora.trainable_tokens": ["lora.trainable_tokens=[<note>]"],
    "lora.init_lora_weights eva": ["lora.init_lora_weights=eva"],
    "lora.continue_from": ["lora.continue_from=other"],
    "train.eval_steps 5": ["train.eval_steps=5"],
    "train.early_stopping_patience 2": ["train.early_stopping_patience=2"],
    "evaluate.eval_steps 5": ["evaluate.eval_steps=5", "evaluate.load_best_model_at_end=false"],
}


@pytest.mark.parametrize("named", REFUSED)
def test_what_privacy_cannot_be_combined_with_is_refused_by_name(named: str) -> None:
    parse(None, REFUSED[named])
    with pytest.raises(SettingsError) as raised:
        parse(None, [ON, *REFUSED[named]])
    assert named in raised.value.what and raised.value.exit_code == 2


def test_all_that_is_wrong_is_named_together() -> None:
    with pytest.raises(SettingsError) as raised:
        parse(None, [ON, "train.packing=true", "lora.use_dora=true"])
    assert "train.packing true" in raised.value.what and "lora.use_dora true" in raised.value.what


def test_what_a_lora_config_changed_later_is_checked_too() -> None:
    settings = parse(None, [ON])
    changed = settings.model_copy(update={"lora": settings.lora.model_copy(update={"use_dora": True})})
    with pytest.raises(SettingsError, match=r"lora\.use_dora"):
        check_private(changed)


def test_a_section_without_its_budget_is_an_error_and_never_a_run_without_privacy(tmp_path: Path) -> None:
    for number, text in enumerate(("train:\n  privacy:\n", "train:\n  privacy: {delta: 1.0e-6}\n")):
        file = tmp_path / f"{number}.yaml"
        file.write_text(text)
        with pytest.raises(SettingsError, match=r"`train.privacy` lacks the key `epsilon`"):
            parse(file)
    file.write_text("train:\n  privacy: null\n")
    assert parse(file).train.privacy is None


def test_a_misspelt_key_and_a_wrong_value_are_named() -> None:
    with pytest.raises(SettingsError, match=r"unknown key `train.privacy.epsilonn`: did you mean .*epsilon"):
        parse(None, [ON, "train.privacy.epsilonn=3"])
    for value in ("epsilon=0", "delta=1", "delta=0", "clip=0", "epsilon=inf"):
        with pytest.raises(SettingsError, match=f"train.privacy.{value.partition('=')[0]}"):
            parse(None, [ON, f"train.privacy.{value}"])
    with pytest.raises(SettingsError, match="unit"):
        parse(None, [ON, "train.privacy.unit=record"])


def test_without_the_section_nothing_is_checked() -> None:
    assert Settings().train.privacy is None
    check_private(Settings())

"""attach refuses whatever does not belong: another base, changed files, tensors that do not fit."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_med.adapters.runtime.attach import attach, attach_new, detach
from lora_med.adapters.store.card import CARD
from lora_med.adapters.store.store import CONFIG, WEIGHTS
from lora_med.adapters.tensors.method import method_for
from lora_med.adapters.tensors.same_shape import refuse_other_shape
from lora_med.config.schema import LoraSettings
from lora_med.errors import BaseMismatchError, InputMissingError, IntegrityError, SettingsError
from lora_med.files import read_json, sha256_file
from lora_med.models.base import Base, load_base
from lora_med.models.fingerprint import fingerprint
from tests.adapters.conftest import logits, put, train
from tests.tiny import make_tiny

KEY = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"


def rehash(folder: Path) -> None:
    """Make the card agree with the files as they are, as whoever changed them could."""
    card = json.loads((folder / CARD).read_text())
    card["files"] = {name: sha256_file(folder / name) for name in card["files"]}
    (folder / CARD).write_text(json.dumps(card))


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS)
    rehash(folder)


def test_another_base_of_equal_shape_is_refused_with_both_fingerprints(twin: Path, base: Base, shelf: Path) -> None:
    other = load_base(str(twin), quantization="none")
    with pytest.raises(BaseMismatchError) as caught:
        attach(other, "abstracts", shelf)
    assert caught.value.exit_code == 76
    assert base.fingerprint.weights[:16] in str(caught.value)
    assert other.fingerprint.weights[:16] in str(caught.value)
    assert "llama" in (caught.value.fix or "")
    assert "tokenizer" not in caught.value.what


def test_another_template_is_another_base(llama: Path, shelf: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llama, tmp_path / "copy"))
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    with pytest.raises(BaseMismatchError, match="template"):
        attach(load_base(str(folder), quantization="none"), "abstracts", shelf)


def test_the_refusal_names_the_folder_of_the_right_base(shelf: Path, llama: Path, twin: Path) -> None:
    with pytest.raises(BaseMismatchError) as caught:
        attach(load_base(str(twin), quantization="none"), "abstracts", shelf)
    named = Path(str(caught.value.fix).rpartition("as in ")[2])
    assert fingerprint(named) == fingerprint(llama)


def test_a_base_with_half_the_layers_is_refused(shelf: Path, tmp_path: Path) -> None:
    half = load_base(str(make_tiny("llama", tmp_path / "half", layers=1)), quantization="none")
    with pytest.raises(BaseMismatchError):
        attach(half, "abstracts", shelf)


def test_a_base_with_half_the_layers_does_not_take_half_the_tensors(store: Path, tmp_path: Path) -> None:
    half = load_base(str(make_tiny("llama", tmp_path / "half", layers=1)), quantization="none")
    card = json.loads((store / "abstracts" / CARD).read_text())
    card["base"]["fingerprint"]["weights"] = half.fingerprint.weights
    (store / "abstracts" / CARD).write_text(json.dumps(card))
    with pytest.raises(IntegrityError, match="14 unexpected"):
        attach(half, "abstracts", store)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_one_flipped_bit_in_a_file_is_found(base: Base, store: Path, name: str) -> None:
    path = store / "abstracts" / name
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=f"{name} is not the file that was published"):
        attach(base, "abstracts", store)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda tensors: tensors.pop(KEY), "1 missing, such as .*layers.1.self_attn.q_proj.lora_B"),
        (lambda tensors: tensors.update({"lm_head.weight": torch.ones(2)}), "1 unexpected, such as lm_head.weight"),
        (lambda tensors: tensors.update({KEY: torch.ones(64, 8)}), r"1 of another shape.*\(64, 8\), wanted \(64, 4\)"),
        (lambda tensors: tensors[KEY][3].fill_(float("nan")), "1 with NaN or infinity"),
        (lambda tensors: tensors[KEY][3].fill_(float("inf")), "1 with NaN or infinity"),
        (lambda tensors: tensors.update({KEY: torch.ones(64, 4, dtype=torch.int8)}), "not floating-point"),
    ],
    ids=["missing", "unexpected", "misshaped", "nan", "infinite", "integers"],
)
def test_a_tensor_that_does_not_fit_is_refused(
    base: Base, store: Path, edit: Callable[[dict[str, Any]], None], said: str
) -> None:
    change(store / "abstracts", edit)
    with pytest.raises(IntegrityError, match=said):
        attach(base, "abstracts", store)
    assert not hasattr(base.model, "peft_config")


def test_an_adapter_that_changes_nothing_is_named(base: Base, store: Path, caplog: pytest.LogCaptureFixture) -> None:
    def silence(tensors: dict[str, Any]) -> None:
        for name, tensor in tensors.items():
            if ".lora_B." in name:
                tensor.zero_()

    change(store / "abstracts", silence)
    bare = logits(base.model)
    with caplog.at_level(logging.WARNING, logger="lora_med"):
        model = attach(base, "abstracts", store)
    assert "changes nothing" in caplog.text
    assert torch.equal(logits(model), bare)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"modules_to_save": ["lm_head"]}, "1 missing"),
        ({"bias": "all"}, "bias"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices"),
        ({"r": 0}, "rank 0"),
        ({"target_modules": ".*"}, "target_modules"),
        ({"target_modules": ["zzz_proj"]}, "layers that the base does not have"),
        ({"layers_to_transform": [5]}, "layers that the base does not have"),
        ({"exclude_modules": ["q_proj"]}, "exclude_modules"),
    ],
)
def test_a_configuration_that_is_not_plain_lora_is_refused(
    base: Base, store: Path, changes: dict[str, Any], said: str
) -> None:
    path = store / "abstracts" / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    rehash(store / "abstracts")
    with pytest.raises(IntegrityError, match=said):
        attach(base, "abstracts", store)


def test_the_base_that_the_adapters_files_name_is_never_loaded(base: Base, store: Path) -> None:
    path = store / "abstracts" / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "/etc/passwd"}))
    rehash(store / "abstracts")
    assert attach(base, "abstracts", store).get_base_model() is base.model


@pytest.mark.parametrize("name", ["/etc/passwd", "../abstracts", ".", "", "Abstracts", "a" * 65, "a/b", "-x", "train"])
def test_a_hostile_name_reaches_nothing(base: Base, shelf: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="cannot name an adapter"):
        attach(base, name, shelf)


def test_a_misspelt_adapter_names_the_near_one(base: Base, shelf: Path) -> None:
    with pytest.raises(InputMissingError, match="did you mean 'abstracts'"):
        attach(base, "abstract", shelf)


def test_a_second_adapter_needs_to_be_added_on_purpose(base: Base, shelf: Path) -> None:
    bare = logits(base.model)
    model = attach(base, "abstracts", shelf)
    alone = logits(model)
    with pytest.raises(SettingsError, match="already has adapters"):
        attach(base, "questions", shelf)
    with pytest.raises(SettingsError, match="already attached"):
        attach(base, "abstracts", shelf, onto=model)
    detach(model)
    assert torch.equal(logits(base.model), bare)
    assert torch.equal(logits(attach(base, "abstracts", shelf)), alone)


def test_attached_weights_are_frozen(base: Base, shelf: Path) -> None:
    model = attach(base, "abstracts", shelf)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_training_goes_on_from_a_published_adapter(base: Base, llama: Path, shelf: Path, tmp_path: Path) -> None:
    trained = logits(attach(load_base(str(llama), quantization="none"), "abstracts", shelf))
    model = attach_new(base, LoraSettings(r=4, continue_from="abstracts"), seed=1, store=shelf)
    assert torch.equal(logits(model.eval()), trained)
    assert any(parameter.requires_grad for parameter in model.parameters())
    put(model, base, "further", tmp_path)


@pytest.mark.parametrize(
    ("lora", "field"),
    [
        ({"r": 8}, "lora.r: abstracts has 4, the settings have 8"),
        ({"r": 4, "lora_alpha": 8}, "lora.lora_alpha"),
        ({"r": 4, "use_rslora": True}, "lora.use_rslora"),
        ({"r": 4, "target_modules": ["q_proj"]}, "lora.target_modules"),
        ({"r": 4, "init_lora_weights": "gaussian"}, "lora.init_lora_weights"),
    ],
)
def test_going_on_in_another_shape_is_refused(base: Base, shelf: Path, lora: dict[str, Any], field: str) -> None:
    with pytest.raises(SettingsError, match=field):
        attach_new(base, LoraSettings(continue_from="abstracts", **lora), seed=1, store=shelf)


@pytest.mark.parametrize(
    "more", [{"lora_bias": True}, {"modules_to_save": ("norm",)}, {"trainable_token_indices": {"embed_tokens": [3]}}]
)
def test_going_on_from_more_than_updates_of_layers_is_refused(base: Base, more: dict[str, Any]) -> None:
    wanted = method_for(base.model, LoraSettings(r=4))
    refuse_other_shape(wanted, wanted, "abstracts")
    with pytest.raises(SettingsError, match=next(iter(more))):
        refuse_other_shape(wanted, replace(wanted, **more), "abstracts")


def test_going_on_from_another_bases_adapter_is_refused(twin: Path, shelf: Path) -> None:
    with pytest.raises(BaseMismatchError):
        attach_new(
            load_base(str(twin), quantization="none"), LoraSettings(r=4, continue_from="abstracts"), seed=1, store=shelf
        )


def test_dora_on_an_8bit_base_is_refused_when_attaching_too(llama: Path, shelf: Path) -> None:
    with pytest.raises(SettingsError, match="DoRA"):
        attach(load_base(str(llama), quantization="8bit"), "dora", shelf)


def test_an_adapter_from_a_4bit_base_attaches_to_the_full_one(llama: Path, base: Base, tmp_path: Path) -> None:
    small = load_base(str(llama), quantization="4bit")
    trained = train(small, store=tmp_path)
    put(trained, small, "small", tmp_path)
    bare = logits(base.model)
    attached = attach(base, "small", tmp_path)
    learned, taken = (
        [weight for name, weight in model.named_parameters() if ".lora_B." in name] for model in (trained, attached)
    )
    assert len(learned) == len(taken) > 0 and all(map(torch.equal, learned, taken))
    assert not torch.equal(logits(attached), bare)


@pytest.mark.parametrize(
    "changes",
    [
        {"lora_alpha": float("nan")},
        {"lora_alpha": 10**400},
        {"alpha_pattern": {"q_proj": float("inf")}},
        {"alpha_pattern": {"(": 1.0}},
        {"lora_dropout": float("nan")},
    ],
    ids=str,
)
def test_a_scale_that_is_no_number_is_refused_though_the_card_vouches_for_it(
    changes: dict[str, Any], store: Path, base: Base
) -> None:
    folder = store / "abstracts"
    config = read_json(folder / "adapter_config.json")
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
    card = read_json(folder / "card.json")
    card["files"]["adapter_config.json"] = sha256_file(folder / "adapter_config.json")
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(IntegrityError, match="cannot be used"):
        attach(base, "abstracts", store)

"""A model object as a base: what equals its files is taken, anything else is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_med.errors import InputMissingError, IntegrityError, SettingsError
from lora_med.models.base import load_base
from tests.tiny import FAMILIES, make_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("object"))


def opened(folder: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "qwen2"])
def test_an_object_has_the_identity_and_the_logits_of_its_folder(family: str, tmp_path: Path) -> None:
    place = make_tiny(family, tmp_path)
    model, tokenizer = opened(place)
    ids = torch.tensor([[1, 40, 41, 42]])
    with torch.no_grad():
        before = model(input_ids=ids).logits
    base = load_base(model, tokenizer=tokenizer)
    by_name = load_base(str(place), quantization="none", dtype="float32")
    assert base.fingerprint == by_name.fingerprint
    assert base.folder == place
    assert (base.quantization, base.dtype, base.attention) == ("none", "float32", by_name.attention)
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    torch.testing.assert_close(base.model(input_ids=ids).logits, before)


def test_a_tokenizer_that_transformers_replaced_is_refused(tmp_path: Path) -> None:
    """AutoTokenizer gives a model of type qwen2 Qwen's own words, whatever tokenizer.json holds."""
    model, tokenizer = opened(make_tiny("qwen2", tmp_path))
    with pytest.raises(IntegrityError, match="the tokenizer in memory"):
        load_base(model, tokenizer=tokenizer)


def test_an_object_in_another_number_format_is_still_that_base(folder: Path) -> None:
    model, tokenizer = opened(folder)
    base = load_base(model.to(torch.bfloat16), tokenizer=tokenizer)
    assert base.dtype == "bfloat16"
    assert base.fingerprint == load_base(str(folder), quantization="none").fingerprint


def test_a_pad_token_that_was_set_does_not_matter(folder: Path) -> None:
    model, tokenizer = opened(folder)
    tokenizer.pad_token = tokenizer.eos_token
    base = load_base(model, tokenizer=tokenizer)
    assert base.tokenizer.pad_token_id == load_base(str(folder), quantization="none").tokenizer.pad_token_id


def test_one_changed_weight_is_refused_by_name(folder: Path) -> None:
    model, tokenizer = opened(folder)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-3
    with pytest.raises(IntegrityError, match=r"layers\.0\.mlp\.up_proj\.weight"):
        load_base(model, tokenizer=tokenizer)


def test_an_added_token_is_refused(folder: Path) -> None:
    model, tokenizer = opened(folder)
    tokenizer.add_tokens(["<aspirin>"])
    with pytest.raises(IntegrityError, match="tokenizer"):
        load_base(model, tokenizer=tokenizer)


def test_another_chat_template_is_refused(folder: Path) -> None:
    model, tokenizer = opened(folder)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(IntegrityError, match="chat template"):
        load_base(model, tokenizer=tokenizer)


def test_an_object_without_files_is_saved_where_asked(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = opened(folder)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-3
    base = load_base(model, tokenizer=tokenizer, save_to=tmp_path / "mine")
    again = load_base(str(tmp_path / "mine"), quantization="none")
    assert base.fingerprint == again.fingerprint
    assert base.fingerprint.weights != load_base(str(folder), quantization="none").fingerprint.weights


def test_an_object_that_names_no_folder_says_how_to_save_it(folder: Path) -> None:
    model, tokenizer = opened(folder)
    model.name_or_path = model.config._name_or_path = ""
    with pytest.raises(InputMissingError, match="save_to"):
        load_base(model, tokenizer=tokenizer)


def test_what_is_no_base_is_refused(folder: Path) -> None:
    model, tokenizer = opened(folder)
    with pytest.raises(SettingsError, match="needs its tokenizer"):
        load_base(model)
    with pytest.raises(SettingsError, match="cannot be a int"):
        load_base(3, tokenizer=tokenizer)
    with pytest.raises(SettingsError, match="float32, not in bfloat16"):
        load_base(model, tokenizer=tokenizer, dtype="bfloat16")
    with pytest.raises(SettingsError, match="not quantized in memory"):
        load_base(model, tokenizer=tokenizer, quantization="8bit")
    with pytest.raises(SettingsError, match="has its own tokenizer"):
        load_base(str(folder), tokenizer=tokenizer)

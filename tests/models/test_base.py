"""load_base: families, refusals, and choices with their reasons."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lora_med.errors import InputMissingError, IntegrityError, SettingsError
from lora_med.models.base import load_base
from lora_med.models.files.resolve import display_name, resolve_base
from lora_med.models.generation import stop_ids
from lora_med.models.precision import best_dtype
from tests.tiny import make_tiny, make_tokenizer


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("llama"))


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "copy"))


def edit(path: Path, **changes: object) -> None:
    values = json.loads(path.read_text())
    values.update(changes)
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def test_the_base_is_frozen_and_in_eval_mode(llama: Path) -> None:
    base = load_base(str(llama), quantization="none")
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert stop_ids(base.model, base.tokenizer) == [2, 4]


def test_every_automatic_choice_says_why(llama: Path) -> None:
    base = load_base(str(llama), quantization="none")
    assert {choice.what for choice in base.choices} == {"dtype", "attention"}
    assert all(choice.why for choice in base.choices)
    assert base.dtype == best_dtype("cpu").value


@pytest.mark.parametrize(
    ("abilities", "dtype", "word"),
    [
        ({"avx512_bf16": True}, "bfloat16", "AVX512-BF16"),
        ({"amx_bf16": True, "avx512_bf16": True}, "bfloat16", "AMX"),
        ({"avx512_f": True, "avx512_bf16": False}, "float32", "no AVX512-BF16"),
    ],
)
def test_a_cpu_computes_in_bfloat16_only_if_it_can(
    monkeypatch: pytest.MonkeyPatch, abilities: dict[str, bool], dtype: str, word: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities, raising=False)
    choice = best_dtype("cpu")
    assert choice.value == dtype
    assert word in choice.why


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")])
def test_a_gpu_computes_in_bfloat16_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert best_dtype("cuda").value == dtype


def test_a_folder_with_pickles_only_is_refused_with_the_conversion(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputMissingError, match="can run code") as caught:
        load_base(str(folder))
    assert "save_pretrained" in (caught.value.fix or "")


def test_a_missing_base_names_the_ways_to_get_it() -> None:
    with pytest.raises(InputMissingError, match="offline") as caught:
        load_base("nobody/has-this-model")
    assert "hf download nobody/has-this-model" in (caught.value.fix or "")
    with pytest.raises(InputMissingError, match="no Hub id"):
        load_base("/no/such/folder/at/all")


def test_a_weight_that_is_absent_is_refused_where_transformers_makes_one_up(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(IntegrityError, match="1 weights are absent"):
        load_base(str(folder), quantization="none")


def test_a_weight_of_another_shape_is_refused(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path)
    edit(folder / "config.json", intermediate_size=96)
    with pytest.raises(IntegrityError):
        load_base(str(folder), quantization="none")


def test_code_that_comes_with_a_model_is_never_run(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path)
    edit(
        folder / "config.json",
        model_type="homemade",
        auto_map={"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"},
    )
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(SettingsError, match="needs its own code"):
        load_base(str(folder))
    assert not (tmp_path / "ran").exists()


def test_an_adapter_folder_is_no_base(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(SettingsError, match="holds an adapter"):
        load_base(str(folder))


def test_an_encoder_is_refused_as_a_base(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path)
    edit(folder / "config.json", model_type="vit", architectures=["ViTModel"])
    with pytest.raises(SettingsError, match="not a causal language model"):
        load_base(str(folder))


def test_a_revision_of_a_local_folder_is_refused(llama: Path) -> None:
    with pytest.raises(SettingsError, match="local folder"):
        resolve_base(str(llama), "main")


@pytest.mark.parametrize("base", ["my--model", "a..b", "x" * 300, "~nobody_of_that_name/llama"])
def test_what_can_be_neither_a_folder_nor_a_hub_id_is_not_here(base: str) -> None:
    with pytest.raises(InputMissingError, match="no folder"):
        resolve_base(base)


def test_a_vocabulary_larger_than_the_embedding_is_refused(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["zzz"] = 264
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(IntegrityError, match="ids up to 264, the embedding 264 rows"):
        load_base(str(folder), quantization="none")


@pytest.mark.parametrize(
    ("options", "near"),
    [
        ({"quantization": "4-bit"}, "4bit"),
        ({"dtype": "bfloat"}, "bfloat16"),
        ({"attention": "spda"}, "sdpa"),
        ({"quant_type": "nf5"}, "nf4"),
    ],
)
def test_a_misspelt_choice_names_the_near_one(llama: Path, options: dict[str, str], near: str) -> None:
    with pytest.raises(SettingsError, match=f"did you mean '{near}'"):
        load_base(str(llama), **options)  # type: ignore[arg-type]


def test_cards_name_a_local_base_without_its_folders(llama: Path) -> None:
    assert display_name(str(llama)) == llama.name
    assert display_name("micro") == "micro"
    assert display_name("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"


def test_a_model_without_sdpa_is_loaded_with_eager_attention(tmp_path: Path) -> None:
    config = transformers.Gemma2Config(
        vocab_size=264, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, head_dim=16
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    base = load_base(str(tmp_path), quantization="none")
    assert base.attention == base.model.config._attn_implementation == "eager"
    assert "no SDPA" in str(next(choice for choice in base.choices if choice.what == "attention"))
    with pytest.raises(SettingsError, match="no SDPA") as refused:
        load_base(str(tmp_path), quantization="none", attention="sdpa")
    assert "eager" in str(refused.value.fix)

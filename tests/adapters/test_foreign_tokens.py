"""Adapters of PEFT that trained new tokens: adopted with the tokens' names, or without them and with a remark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from lora_med.adapters.foreign.import_peft import adopt
from lora_med.adapters.runtime.attach import attach
from lora_med.errors import IntegrityError, SettingsError
from lora_med.merge.merge import merge_adapter
from lora_med.models.base import load_base
from tests.tiny import make_tiny


def peft_adapter(folder: Path, *, tokens: list[str], names: bool = True) -> tuple[Path, Path, torch.Tensor]:
    """A base, an adapter that PEFT alone trained on new tokens of it, and its logits."""
    base = make_tiny("llama", folder / "base", tie=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(tokens)
    bare: Any = transformers.AutoModelForCausalLM.from_pretrained(base)
    if len(tokenizer) > bare.get_input_embeddings().num_embeddings:
        bare.resize_token_embeddings(len(tokenizer))
    ids = tokenizer.convert_tokens_to_ids(tokens)
    model: Any = get_peft_model(bare, LoraConfig(target_modules=["q_proj"], trainable_token_indices=ids))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data + 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder / "peft", save_embedding_layers=False)
    if names:
        tokenizer.save_pretrained(folder / "peft")
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.tensor([[1, 50, *ids, 60]])).logits
    return base, folder / "peft", logits


@pytest.mark.parametrize("tokens", [["<note>", "<plan>"], ["<a>", "<b>", "<c>", "<d>", "<e>"]], ids=["free", "grown"])
def test_new_tokens_of_peft_come_with_their_names_and_rows(tokens: list[str], tmp_path: Path) -> None:
    base, adapter, expected = peft_adapter(tmp_path, tokens=tokens)
    adopted = adopt(adapter, base=str(base), name="mine", store=tmp_path / "store")
    assert adopted.card.tokens == {token: 261 + number for number, token in enumerate(tokens)}
    loaded = load_base(str(base), quantization="none", dtype="float32")
    model = attach(loaded, "mine", tmp_path / "store")
    ids = [1, 50, *adopted.card.tokens.values(), 60]
    assert loaded.tokenizer(tokens[0], add_special_tokens=False)["input_ids"] == [261]
    with torch.no_grad():
        assert torch.allclose(model(input_ids=torch.tensor([ids])).logits, expected, atol=1e-5)
    merged = merge_adapter("mine", tmp_path / "merged", base=str(base), store=tmp_path / "store")
    assert merged.certificate["probe"]["mean_kl"] < 1e-9


def test_tokens_without_a_name_are_remarked_on_where_the_base_has_rows_for_them(tmp_path: Path) -> None:
    base, adapter, _ = peft_adapter(tmp_path, tokens=["<note>"], names=False)
    adopted = adopt(adapter, base=str(base), name="mine", store=tmp_path / "store")
    assert adopted.card.tokens == {}
    assert any("[261] have no name" in remark for remark in adopted.remarks)


def test_tokens_without_a_name_or_a_row_are_refused(tmp_path: Path) -> None:
    base, adapter, _ = peft_adapter(tmp_path, tokens=["<a>", "<b>", "<c>", "<d>"], names=False)
    with pytest.raises(IntegrityError, match="token 264 was trained"):
        adopt(adapter, base=str(base), name="mine", store=tmp_path / "store")


def test_a_name_with_another_id_than_the_base_gives_is_refused(tmp_path: Path) -> None:
    base, adapter, _ = peft_adapter(tmp_path, tokens=["<note>"], names=False)
    (adapter / "added_tokens.json").write_text(json.dumps({"<other>": 262, "<note>": 261}))
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["trainable_token_indices"] = [262]
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(SettingsError, match="'<other>' was trained as id 262, and would be id 261 here"):
        adopt(adapter, base=str(base), name="mine", store=tmp_path / "store")

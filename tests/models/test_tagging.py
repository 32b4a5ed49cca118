"""Bases with a head for tags: every family and an encoder, the head zero, the rest the base's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lora_med.errors import IntegrityError, SettingsError
from lora_med.models.attention.row_logits import row_logits
from lora_med.models.base import load_base
from lora_med.models.structure.linear_layers import linear_layers
from lora_med.models.tagging import load_tagger, tag_head
from tests.tiny import FAMILIES, make_tagger, make_tiny, make_tiny_encoder

LABELS = ("O", "B-Disease", "I-Disease")
IDS = torch.tensor([[1, 50, 60, 70, 80]])
PADDED = ("gpt2", "bert")  # the one passes no lengths on to its attention, the other sees both sides


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize("family", [*FAMILIES, "bert"])
def test_every_tag_is_equally_likely_before_training(family: str, tmp_path: Path) -> None:
    folder = make_tiny_encoder(tmp_path) if family == "bert" else make_tiny(family, tmp_path)
    base = load_tagger(str(folder), LABELS, dtype="float32")
    logits = base.model(input_ids=IDS).logits
    assert logits.shape == (1, 5, 3)
    assert not logits.any()
    assert base.labels == LABELS
    assert base.attention == ("sdpa" if family in PADDED else "lora_med_sdpa")
    assert base.tokenizer.pad_token_id is not None
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    head = tag_head(base.model)
    assert head in ("score", "classifier")
    assert head not in {one.leaf for one in linear_layers(base.model)}  # it is trained whole, and gets no update


def test_identity_and_hidden_states_are_those_of_the_language_model(llama: Path) -> None:
    tagger = load_tagger(str(llama), LABELS, dtype="float32")
    base = load_base(str(llama), quantization="none", dtype="float32", attention="sdpa")
    assert tagger.fingerprint == base.fingerprint
    assert base.labels == () and tag_head(base.model) is None
    torch.testing.assert_close(
        tagger.model.model(input_ids=IDS).last_hidden_state, base.model.model(input_ids=IDS).last_hidden_state
    )


def test_an_encoder_sees_both_sides_and_a_decoder_one(llama: Path, tmp_path: Path) -> None:
    other = IDS.clone()
    other[0, -1] = 90
    for folder, both in ((llama, False), (make_tiny_encoder(tmp_path), True)):
        trunk = load_tagger(str(folder), LABELS, dtype="float32").model.base_model
        change = (trunk(input_ids=IDS).last_hidden_state - trunk(input_ids=other).last_hidden_state)[0, 0].abs().max()
        assert bool(change > 1e-6) is both


def test_a_head_of_other_tags_is_replaced_and_torn_weights_are_refused(tmp_path: Path) -> None:
    folder = make_tagger("llama", tmp_path / "five", labels=5)
    logits = load_tagger(str(folder), LABELS, dtype="float32").model(input_ids=IDS).logits
    assert logits.shape == (1, 5, 3) and not logits.any()
    deeper = make_tiny("llama", tmp_path / "torn")
    config = deeper / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(IntegrityError, match="absent"):
        load_tagger(str(deeper), LABELS)


def test_the_head_stays_in_float32_on_a_quantized_base_in_bfloat16(llama: Path) -> None:
    base = load_tagger(str(llama), LABELS, quantization="4bit", dtype="bfloat16")
    assert base.model.score.weight.dtype == torch.float32
    assert type(base.model.model.layers[0].self_attn.q_proj).__name__ == "Linear4bit"
    assert base.model(input_ids=IDS).logits.dtype == torch.float32


@pytest.mark.parametrize("family", PADDED)
def test_attention_that_packs_is_refused_where_the_classifier_passes_on_no_lengths(family: str, tmp_path: Path) -> None:
    folder = make_tiny_encoder(tmp_path) if family == "bert" else make_tiny(family, tmp_path)
    with pytest.raises(SettingsError, match="lora_med_sdpa"):
        load_tagger(str(folder), LABELS, attention="lora_med_sdpa")


def test_a_model_without_a_token_classifier_is_refused(tmp_path: Path) -> None:
    folder: Any = make_tiny("llama", tmp_path)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"model_type": "llama"', '"model_type": "mamba"'))
    with pytest.raises(SettingsError, match="no token classifier of model type 'mamba'"):
        load_tagger(str(folder), LABELS)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_the_heads_dropout_is_the_one_that_was_set(family: str, tmp_path: Path) -> None:
    folder = make_tiny_encoder(tmp_path) if family == "bert" else make_tiny(family, tmp_path)
    for share in (0.0, 0.5):
        model = load_tagger(str(folder), LABELS, dtype="float32", head_dropout=share).model
        head = model.get_submodule(str(tag_head(model)))
        head.weight.data.fill_(1.0)
        model.train()
        model.base_model.eval()
        assert torch.equal(model(input_ids=IDS).logits, model(input_ids=IDS).logits) == (share == 0.0)


@pytest.mark.parametrize("attention", ["auto", "sdpa"])
def test_rows_of_one_pass_have_the_logits_that_each_has_alone(llama: Path, attention: str) -> None:
    model: Any = load_tagger(str(llama), LABELS, dtype="float32", attention=attention).model
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(0))
    rows = [[1, 50, 60, 70, 80], [1, 50], [1, 90, 60]]
    for row, logits in zip(rows, row_logits(model, rows, 0), strict=True):
        torch.testing.assert_close(logits, model(input_ids=torch.tensor([row])).logits[0], rtol=1e-4, atol=1e-5)

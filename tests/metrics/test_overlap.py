"""Likeness to references: values by hand, and BERTScore on a tiny encoder."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from lora_med.errors import DataError, DependencyMissingError, InputMissingError, SettingsError
from lora_med.metrics.overlap import bert_scores, overlaps, read_encoder


def test_rouge_and_chrf_of_a_sentence_by_hand() -> None:
    """Shared words 3 of 4 and 4 (aspirin for fever); pairs 1 of 3 (for fever); longest in order 3."""
    pytest.importorskip("rouge_score")
    pytest.importorskip("sacrebleu")
    same, other = overlaps(
        ["aspirin for fever", "aspirin now for fever"], ["aspirin for fever", "aspirin twice for fever"]
    )
    assert (same.rouge_1, same.rouge_2, same.rouge_l, same.chrf) == (1.0, 1.0, 1.0, 1.0)
    assert other.rouge_1 == pytest.approx(3 / 4)
    assert other.rouge_2 == pytest.approx(1 / 3)
    assert other.rouge_l == pytest.approx(3 / 4)
    assert 0.4 < other.chrf < 0.9
    (nothing,) = overlaps([""], ["aspirin"])
    assert (nothing.rouge_1, nothing.chrf) == (0.0, 0.0)


def test_lists_of_unequal_length_are_refused() -> None:
    with pytest.raises(DataError, match="2 outputs and 1 references"):
        overlaps(["a", "b"], ["a"])


def test_a_missing_package_is_named_with_its_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    with pytest.raises(DependencyMissingError, match="rouge-score") as caught:
        overlaps(["a"], ["a"])
    assert "lora-med[eval]" in str(caught.value)


def test_bertscore_of_equal_texts_is_one_and_needs_a_local_model(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "aspirin", "fever", "for", "cough"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    config = BertConfig(
        vocab_size=9, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=8,
    )  # fmt: skip
    BertModel(config).save_pretrained(tmp_path)
    long = "aspirin for fever " * 10
    same, other, cut = bert_scores(
        ["aspirin for fever", "cough", long], ["aspirin for fever", "aspirin for fever", long],
        read_encoder(f"{tmp_path}:2"), max_tokens=8,
    )  # fmt: skip
    assert same == pytest.approx(1.0, abs=1e-5)
    assert other < same
    assert cut == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(SettingsError, match="no layer 3"):
        bert_scores(["a"], ["a"], read_encoder(f"{tmp_path}:3"))
    with pytest.raises(InputMissingError):
        read_encoder(f"{tmp_path / 'nowhere'}:1")
    with pytest.raises(SettingsError, match="no layer in"):
        read_encoder(str(tmp_path))

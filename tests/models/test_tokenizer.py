"""Tokenizers: the file wins over a class, and pad is not the end of text."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from lora_med.errors import IntegrityError
from lora_med.files import read_json, write_json
from lora_med.models.tokenizer import choose_pad, load_tokenizer
from tests.tiny import make_tiny, make_tokenizer


def test_a_class_that_adds_words_loses_to_the_file(tmp_path: Path) -> None:
    folder = make_tiny("qwen2", tmp_path / "qwen2")
    assert len(AutoTokenizer.from_pretrained(folder)) == 262  # transformers' own class adds <|endoftext|>
    tokenizer, choices = load_tokenizer(folder)
    assert len(tokenizer) == 261
    assert tokenizer("a").input_ids == make_tokenizer()("a").input_ids
    assert [choice.what for choice in choices] == ["tokenizer"]


def test_which_tokenizer_is_right_is_cached_until_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = make_tiny("qwen2", tmp_path / "qwen2")
    _, choices = load_tokenizer(folder)
    assert load_tokenizer(folder)[1] == choices
    (memory,) = (tmp_path / "cache").rglob("tokenizer_classes/*.json")
    (kind,) = read_json(memory)
    write_json(memory, {kind: "False"})
    assert len(load_tokenizer(folder)[0]) == 262
    for odd in ({kind: "no"}, {"another class": "False"}, []):
        write_json(memory, odd)
        assert len(load_tokenizer(folder)[0]) == 261
    write_json(memory, {kind: "False"})
    (folder / "tokenizer_config.json").touch()
    assert len(load_tokenizer(folder)[0]) == 261


def test_a_pad_that_is_not_the_end_does_not_change() -> None:
    tokenizer = make_tokenizer()
    assert choose_pad(tokenizer, {2, 4}, 264) is None
    assert tokenizer.pad_token == "<|pad|>"


def test_a_free_pad_token_is_found_in_the_vocabulary() -> None:
    tokenizer = make_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    choice = choose_pad(tokenizer, {2, 4}, 264)
    assert choice is not None
    assert (choice.value, tokenizer.pad_token_id) == ("<|pad|>", 0)


def test_without_a_free_token_the_end_pads_and_the_choice_says_so() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE(vocab={"<|endoftext|>": 0, "a": 1}, merges=[]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>")
    choice = choose_pad(tokenizer, {0}, 2)
    assert choice is not None
    assert "masked" in choice.why
    assert tokenizer.pad_token_id == 0
    assert len(tokenizer) == 2


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = make_tiny("llama", tmp_path / "llama")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(IntegrityError, match="tokenizer"):
        load_tokenizer(folder)

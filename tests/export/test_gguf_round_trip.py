"""A model that llama.cpp's converter wrote as GGUF is read back the same; its tokenizer gives llama.cpp's ids."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_med.errors import LoraMedError
from lora_med.export.gguf.converter import convert_model, find_converter
from lora_med.export.gguf.llama_server import loaded
from lora_med.export.gguf.pretokenizer import HARD, probes_for, write_stub
from lora_med.merge.proof.logits import PROBES
from lora_med.models.files.gguf_base import gguf_folder
from lora_med.models.files.gguf_header import read_gguf_header
from lora_med.models.files.gguf_tokenizer import CUTS, build_tokenizer
from tests.export.engines import engine_config, merging_tokenizer
from tests.models.gguf_files import write_gguf

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")
sentencepiece: Any = pytest.importorskip("sentencepiece")


def converter_is_here() -> bool:
    with contextlib.suppress(LoraMedError):
        return bool(find_converter())
    return False


needs_converter = pytest.mark.skipif(not converter_is_here(), reason="run `lora-med export setup` first")
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
# transformers' own loader loses what each of these changes.
CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "biases": ("llama", {"attention_bias": True}),
    "llama3": ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, **LLAMA3}}),
    "linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}}),
    "yarn": (
        "qwen3",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "qwen3": ("qwen3", {}),
    "gpt2": ("gpt2", {}),
    "gemma3": ("gemma3", {}),
}


def whole_model(config: Any) -> Any:
    """A random model with every vector away from its default."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            is_vector = any(part in name for part in ("norm", "ln_", "bias"))
            weight.copy_(weight + 0.1 * torch.randn_like(weight) if is_vector else weight * 4)
    return model.eval()


@pytest.mark.slow
@needs_converter
@pytest.mark.parametrize("case", CHANGES)
def test_what_the_converter_wrote_is_read_back_with_equal_logits(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    family, changes = CHANGES[case]
    pattern = {"pattern": None} if family == "gpt2" else {}
    tokenizer = merging_tokenizer(**pattern)
    config = engine_config(family, len(tokenizer))
    for key, value in changes.items():
        setattr(config, key, value)
    original = whole_model(config)
    original.save_pretrained(tmp_path / "original")
    tokenizer.save_pretrained(tmp_path / "original")
    file = tmp_path / "model.gguf"
    convert_model(find_converter(), tmp_path / "original", file, pre="gpt-2" if family == "gpt2" else "llama-bpe")
    folder = gguf_folder(file)
    ids = torch.arange(5, 240)[None] % len(tokenizer)
    with torch.no_grad():
        wanted = original(ids).logits
        read = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(ids).logits
    assert float((wanted - read).abs().max()) < 1e-4
    again = AutoTokenizer.from_pretrained(folder)
    assert all(again(text)["input_ids"] == tokenizer(text)["input_ids"] for text in probes_for(tokenizer))
    assert again.chat_template == tokenizer.chat_template


def differing(file: Path, folder: Path) -> list[str]:
    """The probes that llama.cpp and our tokenizer of the same file cut differently."""
    tokenizer = build_tokenizer(read_gguf_header(file))
    stub = folder / "stub.gguf"
    write_stub(file, stub, None)
    with loaded(stub, context=64, threads=1) as server:
        return [text for text in probes_for(tokenizer) if server.tokens(text) != tokenizer(text)["input_ids"]]


@pytest.fixture(scope="module")
def crossing() -> dict[str, Any]:
    """A vocabulary whose merges cross digits, letters, spaces and marks, so that every rule of cutting shows."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        special_tokens=["<unk>", "<s>", "</s>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([*HARD, *PROBES] * 4, trainer)
    model = json.loads(inner.to_str())["model"]
    words = sorted(model["vocab"], key=model["vocab"].get)
    return {
        "general.architecture": "llama",
        "llama.context_length": 64,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.token_type": [2, 3, 3, 3] + [1] * (len(words) - 4),
        "tokenizer.ggml.merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CUTS))
def test_each_pre_tokenizer_gives_llama_cpps_ids(name: str, crossing: dict[str, Any], tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "words.gguf", {**crossing, "tokenizer.ggml.pre": name})
    assert differing(file, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("prefix", [True, False, None])
def test_a_sentencepiece_vocabulary_gives_llama_cpps_ids(prefix: bool | None, tmp_path: Path) -> None:
    written = io.BytesIO()
    texts = [text.replace("\n", " ") for text in [*HARD, *PROBES] * 6 if text.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=written,
        vocab_size=900,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    numbers = range(pieces.get_piece_size())
    values: dict[str, Any] = {
        "general.architecture": "llama",
        "llama.context_length": 64,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [pieces.id_to_piece(number) for number in numbers],
        "tokenizer.ggml.scores": [float(pieces.get_score(number)) for number in numbers],
        "tokenizer.ggml.token_type": [
            2 if pieces.is_unknown(n) else 3 if pieces.is_control(n) else 6 if pieces.is_byte(n) else 1 for n in numbers
        ],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    if prefix is not None:
        values["tokenizer.ggml.add_space_prefix"] = prefix
    assert differing(write_gguf(tmp_path / "pieces.gguf", values), tmp_path) == []

"""The pre-tokenizer of llama.cpp that agrees with a tokenizer: chosen by trial, never assumed.

llama.cpp identifies tokenizers by a hash of one text. It does not know one trained from scratch. A wrong name splits
numbers, contractions or spaces differently, without an error. So each name is tried on a file with the vocabulary and a
model whose matrices are zero. The first name that gives the same tokens for every probe is used. If there is none, the
export is refused.
"""

from __future__ import annotations

import importlib
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lora_med.errors import IntegrityError, SettingsError
from lora_med.export.gguf.llama_server import loaded
from lora_med.export.gguf.number_types import PRE_TOKENIZER, copy_metadata
from lora_med.merge.proof.logits import PROBES
from lora_med.models.tokens.numbering import trained_words

# At least two of today's pre-tokenizers split each of these strings differently.
HARD = (
    "Na+ 140 mmol/L, K+ 4.5; HbA1c 7.25 % (53 mmol/mol) on 2024-03-31 at 08:05",
    "I'm, you've, SHE'LL, we'Re, d'Angelo's, O’Neill’s 'quoted' ''twice''",
    "  two leading spaces,\tone tab,\t\ttwo, trailing   ",
    "line\nline\n\nparagraph\r\nwindows\r\n\r\n \n mixed \t\n",
    "3 33 333 3333 33333 333333 3333333 1,234,567.89 0x1F 1e-05 ½ ² ₃ ٣ १२",
    "camelCaseWordsIL2RA p53Δ TNF-α/β β-lactam ≥10 µg·kg⁻¹ 37°C ±2σ",
    "------======~~~~~____....!!!!???? (([{}])) <<>> /* */ // \\\\ ``` $x^2$ @user #tag",
    "naïve façade Straße İstanbul ǅ Ω ﬁ",
    "糖尿病患者の血糖値は 126 mg/dL です。高血压，心脏病。당뇨병 환자",
    "сахарный диабет — болезнь; قياس ضغط الدم 120/80؛ רפואה पेट दर्द",
    "😀🚀 👩‍⚕️ 👍🏽 🇫🇷 ✅",
    "non\u00a0breaking\u2009thin\u3000wide\u200bzero\ufeff",
    "a\u00ad\u2011b — – ‐ …",
    "https://example.org/a?b=c&d=%20#e name.surname@example.org",
    "A" * 40 + " " * 17 + "b" * 3 + "\n" * 5,
    "",
    " ",
    "\n",
)
# Tokenizers that normalize (NFC) join these; llama.cpp does not for BPE. Reported, not refused.
DECOMPOSED = ("cafe\u0301 u\u0308ber A\u030angstro\u0308m", "\u1112\u1161\u11ab")
# llama.cpp's names with different rules; the commonest families come first.
NAMES = (
    *("llama-bpe", "gpt-2", "qwen2", "smollm", "gpt-4o", "deepseek-llm", "deepseek-coder", "deepseek-v3", "tekken"),
    *("qwen35", "gemma4", "falcon", "falcon3", "starcoder", "mpt", "olmo", "dbrx", "stablelm2", "refact", "command-r"),
    *("phi-2", "poro-chat", "bloom", "viking", "chatglm-bpe", "glm4", "jais", "exaone", "exaone4", "exaone-moe"),
    *(
        "codeshell",
        "smaug-bpe",
        "roberta-bpe",
        "modern-bert",
        "llama4",
        "pixtral",
        "seed-coder",
        "superbpe",
        "trillion",
    ),
    *("bailingmoe", "kimi-k2", "hunyuan", "hunyuan-dense", "lfm2", "minimax-m2", "youtu", "afmoe", "minerva-7b"),
    *("megrez", "chameleon", "gpt3-finnish", "tiny_aya", "mellum", "solar-open", "falcon-h1", "joyai-llm", "default"),
)
logger = logging.getLogger(__name__)


def probes_for(tokenizer: Any) -> list[str]:
    """The texts that both must tokenize identically: hard ones, medical ones, control and trained tokens, words."""
    words = [tokenizer.decode([number]) for number in range(0, len(tokenizer), max(1, len(tokenizer) // 400))]
    shown = [word for word in words if word and "\ufffd" not in word and word not in tokenizer.all_special_tokens]
    marked = "before" + " middle ".join(tokenizer.all_special_tokens) + "after"
    spaced = [" ".join(shown[start : start + 20]) for start in range(0, len(shown), 20)]
    typed = [f"{PROBES[1]} {token}x{token}\n{token} {PROBES[2]}" for token in trained_words(tokenizer)]
    return [*HARD, *PROBES, *spaced, *("".join(shown[start::40]) for start in range(0, 40, 10)), marked, *typed]


def choose_pre_tokenizer(tokenizer: Any, vocabulary: Path, name_by_hash: str | None) -> str | None:
    """llama.cpp's name for the pre-tokenizer of `tokenizer`; None if its kind of vocabulary has none.

    Args:
        vocabulary: a GGUF of the tokenizer, without weights.
        name_by_hash: the name that the converter knows by the tokenizer's hash; it must agree as well.

    Raises:
        SettingsError: llama.cpp cannot read the vocabulary, or its tokens differ under every name.
    """
    kind = tokenizer_kind(vocabulary)
    probes = probes_for(tokenizer)
    expected = [tokenizer(text)["input_ids"] for text in probes]
    names = [name_by_hash] if name_by_hash else [*NAMES] if kind == "gpt2" else [None]
    agreed = first_that_agrees(names, lambda name: _cut(vocabulary, name, probes), expected)
    if not agreed:
        tried = f"under its own name {name_by_hash!r}" if name_by_hash else f"tried under {len(names)} of its names"
        raise SettingsError(
            f"llama.cpp's tokens differ from this tokenizer's, {tried} (kind {kind!r})",
            where="the base's tokenizer",
            fix="lora-med merge writes a Hugging Face folder, which needs no llama.cpp",
        )
    return agreed[0]


def first_that_agrees(
    names: Sequence[str | None], cut: Callable[[str | None], list[list[int]] | None], expected: list[list[int]]
) -> tuple[str | None] | None:
    """The first name under which `cut` gives the expected ids, in a tuple because None is a name too; or None."""
    for name in names:
        if cut(name) == expected:
            return (name,)
    return None


def tokenizer_kind(vocabulary: Path) -> str:
    """llama.cpp's term for the kind of vocabulary: `gpt2` is BPE, `llama` is SentencePiece."""
    gguf: Any = importlib.import_module("gguf")

    field = gguf.GGUFReader(vocabulary).get_field("tokenizer.ggml.model")
    if field is None:
        raise IntegrityError("the converter wrote no vocabulary", where=vocabulary.name)
    return field.contents()


def _cut(vocabulary: Path, name: str | None, probes: Sequence[str]) -> list[list[int]] | None:
    """llama.cpp's tokens of the probes under the pre-tokenizer `name`, or None if it does not know the name."""
    with tempfile.TemporaryDirectory() as scratch:
        stub = Path(scratch) / "vocabulary.gguf"
        write_stub(vocabulary, stub, name)
        try:
            with loaded(stub, context=64) as server:
                return [server.tokens(text) for text in probes]
        except IntegrityError:
            logger.info("llama.cpp cannot read the vocabulary under the name %s", name)
            return None


def write_stub(vocabulary: Path, target: Path, name: str | None) -> None:
    """Write the smallest model that llama.cpp loads with this vocabulary: one layer, every matrix zero."""
    gguf: Any = importlib.import_module("gguf")
    import numpy

    reader = gguf.GGUFReader(vocabulary)
    words = reader.get_field("tokenizer.ggml.tokens")
    if words is None:
        raise IntegrityError("the converter wrote no vocabulary", where=vocabulary.name)
    width, count = 32, len(words.contents())
    writer = gguf.GGUFWriter(target, arch="llama")
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(width)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(count)
    copy_metadata(reader, writer, {PRE_TOKENIZER: name} if name else {}, only="tokenizer.")
    matrix = numpy.zeros((width, width), dtype=numpy.float32)
    writer.add_tensor("token_embd.weight", numpy.zeros((count, width), dtype=numpy.float16))
    writer.add_tensor("output_norm.weight", numpy.ones(width, dtype=numpy.float32))
    for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{part}.weight", matrix)
    for part in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{part}.weight", numpy.ones(width, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

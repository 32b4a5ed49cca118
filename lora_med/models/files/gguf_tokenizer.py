"""The tokenizer of a GGUF file, with llama.cpp's rules: the same ids as llama.cpp gives for the same file.

transformers builds one too, but it cuts text by GPT-2's rule where it does not know the name of the pre-tokenizer (such
as SmolLM2's), and it forgets that Llama 3 takes a whole word from the vocabulary before it merges. So the tokenizer is
built here from the file's words, merges and scores. A name of a pre-tokenizer that is not in the table is refused.
"""

from __future__ import annotations

import logging
from typing import Any

from lora_med.errors import IntegrityError, SettingsError
from lora_med.models.files.gguf_header import Header

logger = logging.getLogger(__name__)
NAMED_TEMPLATE = "tokenizer.chat_template."
SPACE = "\u2581"  # SentencePiece's mark of a space
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
_END = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
# llama.cpp has no classes of upper and lower case here: any letter but a-z, then any letter but A-Z, and no marks.
_LOWER = r"[^\r\n\p{L}\p{N}]?(?:(?=\p{L})[^a-z])*(?:(?=\p{L})[^A-Z])+"
_UPPER = r"[^\r\n\p{L}\p{N}]?(?:(?=\p{L})[^a-z])+(?:(?=\p{L})[^A-Z])*"
_SLASH_END = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# The expressions that cut a text, one after the other.
_GPT2 = (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",)
_DIGITS = (r"\p{N}", *_GPT2)
_LLAMA3 = (rf"{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_END}",)
_QWEN2 = (rf"{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_END}",)
_TEKKEN = (rf"{_LOWER}|{_UPPER}|\p{{N}}|{_SLASH_END}",)
_GPT4O = (rf"{_LOWER}{_SHORT}?|{_UPPER}{_SHORT}?|\p{{N}}{{1,3}}|{_SLASH_END}",)
CUTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("gpt-2", "mpt", "olmo", "jais", "phi-2"), _GPT2),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"), _DIGITS),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"), _LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2"), _QWEN2),
    "tekken": _TEKKEN,
    "gpt-4o": _GPT4O,
}
WHOLE_WORDS_FIRST = ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "tekken")  # a BOS is their default too
ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def check_tokenizer(header: Header) -> None:
    """Refuse a tokenizer that this module cannot build exactly.

    Raises:
        SettingsError: its kind, or the name of its pre-tokenizer, is not in the tables.
        IntegrityError: it has no words, or their lists contradict each other.
    """
    kind, where = _get(header, "model"), str(header.file)
    if kind not in ("gpt2", "llama"):
        raise SettingsError(
            f"the GGUF file's tokenizer is of kind {kind!r}; read are gpt2 (BPE) and llama (SentencePiece BPE)",
            where=where,
            fix="use the model's original folder (config.json and safetensors) as model.base",
        )
    name = _get(header, "pre")
    if kind == "gpt2" and name not in CUTS:
        raise SettingsError(
            f"the GGUF file's pre-tokenizer is {name!r}, whose rules lora_med does not know; known: "
            f"{', '.join(sorted(CUTS))}",
            where=where,
            fix="use the model's original folder (config.json and safetensors) as model.base",
        )
    words, kinds = _words(header), _get(header, "token_type", [])
    if kinds and len(kinds) != len(words):
        raise IntegrityError(f"{len(words)} words, but {len(kinds)} kinds of words", where=where)
    if len(set(words)) != len(words):
        raise IntegrityError(f"{len(words) - len(set(words))} words occur twice in the vocabulary", where=where)
    if kind == "gpt2" and not isinstance(_get(header, "merges"), list):
        raise IntegrityError("a BPE tokenizer without merges", where=where, fix="convert the model again")
    if kind == "llama" and len(_get(header, "scores", [])) != len(words):
        raise IntegrityError("a SentencePiece tokenizer without a score for each word", where=where)


def build_tokenizer(header: Header) -> Any:
    """The tokenizer as transformers' fast one, with its special tokens, chat template and context length.

    Raises:
        SettingsError, IntegrityError: as `check_tokenizer`; also if a merge names a word that is not there.
    """
    from tokenizers import AddedToken, processors
    from transformers import PreTrainedTokenizerFast

    check_tokenizer(header)
    words = _words(header)
    try:
        inner = _byte_level(header, words) if _get(header, "model") == "gpt2" else _sentence_piece(header, words)
    except Exception as error:  # the Rust library raises bare Exception
        raise IntegrityError(
            f"the vocabulary and its merges do not fit together ({str(error)[:80]})",
            where=str(header.file),
            fix="convert the model again",
        ) from error
    kinds = _get(header, "token_type") or [NORMAL] * len(words)
    for word, kind in zip(words, kinds, strict=True):
        token = AddedToken(word, normalized=False, special=kind != USER_DEFINED)
        if kind in (CONTROL, UNKNOWN) and word:
            inner.add_special_tokens([token])
        elif kind == USER_DEFINED and word:
            inner.add_tokens([token])
    roles = {role: words[number] for role, key in ROLES.items() if (number := _role(header, key, words)) is not None}
    begin = [roles["bos_token"]] if _adds(header, "bos") and "bos_token" in roles else []
    end = [roles["eos_token"]] if _adds(header, "eos") and "eos_token" in roles else []
    if begin or end:
        single, ids = " ".join([*begin, "$A", *end]), {word: words.index(word) for word in [*begin, *end]}
        inner.post_processor = processors.TemplateProcessing(
            single=single, pair=f"{single} {single.replace('$A', '$B')}", special_tokens=list(ids.items())
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=header.own("context_length"),
        clean_up_tokenization_spaces=False,
        **roles,
    )
    if len(tokenizer) != len(words):
        raise IntegrityError(f"{len(words)} words became {len(tokenizer)}", where=str(header.file))
    template = header.values.get("tokenizer.chat_template")
    if isinstance(template, str) and template:
        tokenizer.chat_template = template
    named = sorted(key.removeprefix(NAMED_TEMPLATE) for key in header.values if key.startswith(NAMED_TEMPLATE))
    if named:
        logger.warning(
            "%s has further chat templates (%s), which are not used; model.chat_template=FILE takes the text of one",
            header.file.name,
            ", ".join(named),
        )
    return tokenizer


def _byte_level(header: Header, words: list[str]) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    name = _get(header, "pre")
    inner = Tokenizer(
        models.BPE(
            vocab={word: number for number, word in enumerate(words)},
            merges=[tuple(merge.split(" ", 1)) for merge in _get(header, "merges")],
            ignore_merges=name in WHOLE_WORDS_FIRST,
        )
    )
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in CUTS[name]]
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    inner.decoder = decoders.ByteLevel()
    return inner


def _sentence_piece(header: Header, words: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers

    unknown = _role(header, "unknown", words)
    inner = Tokenizer(
        models.BPE(
            vocab={word: number for number, word in enumerate(words)},
            merges=_merges_by_score(header, words),
            unk_token=words[unknown if unknown is not None else 0],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = _get(header, "add_space_prefix", True)
    marked = normalizers.Replace(" ", SPACE)
    inner.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), marked]) if prefix else marked
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    inner.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return inner


def _merges_by_score(header: Header, words: list[str]) -> list[tuple[str, str]]:
    """Every pair of words that makes a word, the highest score of the result first: SentencePiece's order."""
    kinds = _get(header, "token_type") or [NORMAL] * len(words)
    scores = dict(zip(words, _get(header, "scores"), strict=True))
    parts = {word for word, kind in zip(words, kinds, strict=True) if kind == NORMAL}
    pairs = [
        (-scores[word], number, word[:cut], word[cut:])
        for number, word in enumerate(words)
        if word in parts
        for cut in range(1, len(word))
        if word[:cut] in parts and word[cut:] in parts
    ]
    return [(left, right) for _, _, left, right in sorted(pairs)]


def _get(header: Header, key: str, default: Any = None) -> Any:
    return header.values.get(f"tokenizer.ggml.{key}", default)


def _words(header: Header) -> list[str]:
    words = _get(header, "tokens")
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise IntegrityError("the GGUF file has no vocabulary", where=str(header.file), fix="convert the model again")
    return words


def _role(header: Header, key: str, words: list[str]) -> int | None:
    number = _get(header, f"{key}_token_id")
    if number is None or (type(number) is int and number == 0xFFFFFFFF):
        return None
    if type(number) is not int or not 0 <= number < len(words):
        raise IntegrityError(
            f"{key}_token_id is {number!r}, the vocabulary has {len(words)} words", where=str(header.file)
        )
    return number


def _adds(header: Header, key: str) -> bool:
    """Whether llama.cpp adds BOS or EOS to a text, by the file's flag or by its default for this kind."""
    flag = _get(header, f"add_{key}_token")
    if flag is not None:
        return bool(flag)
    return key == "bos" and (_get(header, "model") == "llama" or _get(header, "pre") in WHOLE_WORDS_FIRST)

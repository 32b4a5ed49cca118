"""The tokenizer of a base: the one its files describe, with a pad token that is not the end of text."""

from __future__ import annotations

import copy
import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lora_med.errors import IntegrityError
from lora_med.models.files.file_cache import cache_file_for, cached_value
from lora_med.models.limits.budget import name_template
from lora_med.models.limits.rendering import limit_templates
from lora_med.models.precision import Choice

PAD = re.compile(r"pad", re.IGNORECASE)
SPARE = re.compile(r"reserved|unused|placeholder|extra_id|dummy", re.IGNORECASE)
CLASSES = "tokenizer_classes"  # cache folder for the result of these probes; use a new name if the rule changes
PROBES = (
    "The patient (67 y/o) was given 12.5 mg of metoprolol b.i.d.; BP 140/90 mmHg.",
    "  two  spaces,\ttab\nnew line\n\n  indented",
    "don't can't I'LL 1234567 3.14e-5 0x1F",
    "β-adrenoceptor µg naïve Ménière's 高血压 مريض 🙂",
    "p<0.001; 95% CI [1.2-3.4] α=0.05 CO2/H2O --- ___ ===",
)


def load_tokenizer(folder: Path, *, needs_eos: bool = True) -> tuple[Any, list[Choice]]:
    """The tokenizer in `folder` and the choices made; an encoder needs no end-of-text token (`needs_eos` False).

    For some model types transformers builds a tokenizer class with its own splitting rules around the vocabulary.
    If that class encodes text differently from tokenizer.json, the file wins, because every other runtime reads the
    file. The comparison takes as long as loading a tokenizer, so its result is cached until a file or version changes.

    Raises:
        IntegrityError: there is no tokenizer, it cannot be read, or it has no end-of-text token.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    limit_templates()
    choices = []
    # The cache key describes the files before they are read.
    cache_file = _class_cache_file(folder) if (folder / "tokenizer.json").is_file() else None
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if cache_file is not None and _class_differs(tokenizer, folder, cache_file):
            why = f"{type(tokenizer).__name__}, which transformers uses for this model type, tokenizes differently"
            choices.append(Choice("tokenizer", "tokenizer.json as it is", why))
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the libraries raise bare Exception, KeyError, OSError and more for a bad file
        raise IntegrityError(
            f"the tokenizer cannot be read ({type(error).__name__})", where=str(folder), fix="copy it again"
        ) from error
    _name_templates(tokenizer, folder)
    if needs_eos and tokenizer.eos_token_id is None:
        raise IntegrityError(
            "the tokenizer has no end-of-text token", where=str(folder), fix="set eos_token in tokenizer_config.json"
        )
    return tokenizer, choices


def _name_templates(tokenizer: Any, folder: Path) -> None:
    """Remember the files of the chat templates, which errors in a rendering name."""
    templates = tokenizer.chat_template
    file = folder / "chat_template.jinja"
    for text in templates.values() if isinstance(templates, dict) else [templates]:
        name_template(text, str(file if file.is_file() else folder / "tokenizer_config.json"))


def with_template(tokenizer: Any, text: str) -> Any:
    """A tokenizer that is the same but for its chat template."""
    other = copy.copy(tokenizer)
    other.chat_template = text
    return other


def _class_cache_file(folder: Path) -> Path:
    """The cache file that records which classes are right for the tokenizer in `folder`, keyed by its files."""
    kinds = (".json", ".txt", ".model", ".jinja")
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in kinds)
    return cache_file_for(files, CLASSES, *(path.name for path in files), *map(version, ("transformers", "tokenizers")))


def _class_differs(tokenizer: Any, folder: Path, cache_file: Path) -> bool:
    """Whether the class of `tokenizer` differs from tokenizer.json; read from `cache_file`, else computed now."""
    class_name = f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}"

    def compute() -> str:
        return str(_encodes_differently(tokenizer, folder))

    differs = cached_value(class_name, cache_file, compute)
    if differs not in ("True", "False"):
        differs = cached_value(class_name, cache_file, compute, fresh=True)
    return differs == "True"


def _encodes_differently(tokenizer: Any, folder: Path) -> bool:
    """Whether the class changes or adds words that no file names, or encodes a probe differently from the file."""
    from tokenizers import Tokenizer

    stored = Tokenizer.from_file(str(folder / "tokenizer.json"))
    words, stored_words = tokenizer.get_vocab(), stored.get_vocab(with_added_tokens=True)
    config_files = [folder / "tokenizer_config.json", folder / "added_tokens.json"]
    config_text = "".join(path.read_text(encoding="utf-8") for path in config_files if path.is_file())
    if any(words.get(word) != number for word, number in stored_words.items()):
        return True
    if any(json.dumps(word) not in config_text for word in words.keys() - stored_words.keys()):
        return True
    return any(
        tokenizer.encode(text, add_special_tokens=False) != stored.encode(text, add_special_tokens=False).ids
        for text in PROBES
    )


def choose_pad(tokenizer: Any, ends: set[int], rows: int) -> Choice | None:
    """Set a pad token from the tokenizer's vocabulary that is not in `ends`; None if it already has one.

    The vocabulary never grows: ids stay below `rows`, the rows of the embedding. If no token is free, the end of text
    pads. That is harmless because our trainer masks by length and not by id.
    """
    current = tokenizer.pad_token_id
    if current is not None and current not in ends and current < rows:
        return None
    why = "the tokenizer names no pad token" if current is None else "its pad token also ends text"
    special = [str(token) for _, token in sorted(tokenizer.added_tokens_decoder.items())]
    candidates = [token for token in special if PAD.search(token)] + [token for token in special if SPARE.search(token)]
    if tokenizer.unk_token is not None:
        candidates.append(tokenizer.unk_token)
    for token in candidates:
        number = tokenizer.convert_tokens_to_ids(token)
        if number is not None and number not in ends and number < rows:
            tokenizer.pad_token = token
            return Choice("pad token", token, f"{why}, and this one is free")
    tokenizer.pad_token = tokenizer.eos_token
    return Choice("pad token", tokenizer.eos_token, f"{why}, and the vocabulary has none free; padding is masked")

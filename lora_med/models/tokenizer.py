"""The tokenizer of a base: the one its files describe, with a pad token that is not the end of text."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lora_med.errors import IntegrityError
from lora_med.models.files.file_cache import memory_for, remembered
from lora_med.models.precision import Choice

PAD = re.compile(r"pad", re.IGNORECASE)
SPARE = re.compile(r"reserved|unused|placeholder|extra_id|dummy", re.IGNORECASE)
CLASSES = "tokenizer_classes"  # the memory of what is found with these probes; another name where the rule changes
PROBES = (
    "The patient (67 y/o) was given 12.5 mg of metoprolol b.i.d.; BP 140/90 mmHg.",
    "  two  spaces,\ttab\nnew line\n\n  indented",
    "don't can't I'LL 1234567 3.14e-5 0x1F",
    "β-adrenoceptor µg naïve Ménière's 高血压 مريض 🙂",
    "p<0.001; 95% CI [1.2-3.4] α=0.05 CO2/H2O --- ___ ===",
)


def load_tokenizer(folder: Path, *, ends: bool = True) -> tuple[Any, list[Choice]]:
    """The tokenizer in `folder` and the choices made on the way; an encoder's needs no end of text (`ends` False).

    For some model types transformers builds a tokenizer class with its own splitting rules around the vocabulary.
    Where that encodes text otherwise than tokenizer.json says, the file wins: every other runtime reads the file. To
    compare them takes as long as to load one, so what was found is remembered until a file or a version changes.

    Raises:
        IntegrityError: no tokenizer there, or none that can be read, or one without an end-of-text token.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    choices = []
    # By the files as they are before they are read.
    memory = _memory(folder) if (folder / "tokenizer.json").is_file() else None
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if memory is not None and _loses(tokenizer, folder, memory):
            why = f"{type(tokenizer).__name__}, which transformers takes for this model type, is another tokenizer"
            choices.append(Choice("tokenizer", "tokenizer.json as it stands", why))
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the libraries raise bare Exception, KeyError, OSError and more for a bad file
        raise IntegrityError(
            f"the tokenizer cannot be read ({type(error).__name__})", where=str(folder), fix="copy it again"
        ) from error
    if ends and tokenizer.eos_token_id is None:
        raise IntegrityError(
            "the tokenizer has no end-of-text token", where=str(folder), fix="set eos_token in tokenizer_config.json"
        )
    return tokenizer, choices


def _memory(folder: Path) -> Path:
    """Where it is remembered which classes are right for the tokenizer in `folder`, by all that may tell of it."""
    kinds = (".json", ".txt", ".model", ".jinja")
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in kinds)
    return memory_for(files, CLASSES, *(path.name for path in files), *map(version, ("transformers", "tokenizers")))


def _loses(tokenizer: Any, folder: Path, memory: Path) -> bool:
    """Whether the class of `tokenizer` is not what tokenizer.json says, as `memory` has it or found now."""
    kind = f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}"

    def find() -> str:
        return str(_is_another(tokenizer, folder))

    found = remembered(kind, memory, find)
    if found not in ("True", "False"):
        found = remembered(kind, memory, find, fresh=True)
    return found == "True"


def _is_another(tokenizer: Any, folder: Path) -> bool:
    """Whether the class changed or added words that no file names, or encodes a probe otherwise than the file."""
    from tokenizers import Tokenizer

    stored = Tokenizer.from_file(str(folder / "tokenizer.json"))
    words, truth = tokenizer.get_vocab(), stored.get_vocab(with_added_tokens=True)
    others = [folder / "tokenizer_config.json", folder / "added_tokens.json"]
    named = "".join(path.read_text(encoding="utf-8") for path in others if path.is_file())
    if any(words.get(word) != number for word, number in truth.items()):
        return True
    if any(json.dumps(word) not in named for word in words.keys() - truth.keys()):
        return True
    return any(
        tokenizer.encode(text, add_special_tokens=False) != stored.encode(text, add_special_tokens=False).ids
        for text in PROBES
    )


def choose_pad(tokenizer: Any, ends: set[int], rows: int) -> Choice | None:
    """Give the tokenizer a pad token other than those in `ends`, from its own vocabulary; None if it has one already.

    The vocabulary never grows, so `rows` (of the embedding) bounds the ids. If nothing is free, the end of text pads:
    harmless as long as the trainer masks by length and not by id, which ours does.
    """
    current = tokenizer.pad_token_id
    if current is not None and current not in ends and current < rows:
        return None
    why = "the tokenizer names no pad token" if current is None else "its pad token also ends text"
    special = [str(token) for _, token in sorted(tokenizer.added_tokens_decoder.items())]
    named = [token for token in special if PAD.search(token)] + [token for token in special if SPARE.search(token)]
    if tokenizer.unk_token is not None:
        named.append(tokenizer.unk_token)
    for token in named:
        number = tokenizer.convert_tokens_to_ids(token)
        if number is not None and number not in ends and number < rows:
            tokenizer.pad_token = token
            return Choice("pad token", token, f"{why}, and this one is free")
    tokenizer.pad_token = tokenizer.eos_token
    return Choice("pad token", tokenizer.eos_token, f"{why}, and the vocabulary has none free; padding is masked")

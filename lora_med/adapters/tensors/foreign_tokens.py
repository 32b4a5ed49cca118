"""The names of tokens that an adapter made elsewhere trained, from the tokenizer's files in its folder.

The files are read as JSON; no tokenizer is built from them. A name counts only if the base's tokenizer gives it the id
of the training.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lora_med.files import read_json
from lora_med.models.fingerprint import TOKENIZER_CONFIG
from lora_med.models.tokenizer import load_tokenizer
from lora_med.models.tokens.numbering import check_numbers
from lora_med.models.tokens.tokenizer_files import ADDED, FAST


def new_tokens(ids: Iterable[int], folder: Path, base: Path) -> tuple[dict[str, int], list[str]]:
    """The tokens among `ids` that the base's tokenizer does not have, by name, and remarks on those without one.

    Raises:
        SettingsError: the base's tokenizer would give a token another id.
    """
    wanted = sorted(set(ids))
    if not wanted:
        return {}, []
    tokenizer, _ = load_tokenizer(base, needs_eos=False)
    known = set(tokenizer.get_vocab().values())
    unknown = [number for number in wanted if number not in known]
    names = _names(folder)
    tokens = {names[number]: number for number in unknown if number in names}
    if tokens:
        check_numbers(tokenizer, tokens)
    nameless = [number for number in unknown if number not in names]
    remarks = [f"the trained tokens {nameless} have no name: no file in its folder gives one"] if nameless else []
    return tokens, remarks


def _names(folder: Path) -> dict[int, str]:
    """Id -> text of the added tokens, by any of the files that list them."""
    names: dict[int, str] = {}
    for file in (FAST, TOKENIZER_CONFIG, ADDED):
        content = read_json(folder / file) if (folder / file).is_file() else {}
        if not isinstance(content, dict):
            continue
        for number, token in _entries(file, content):
            if isinstance(token, str) and token.strip() and str(number).isdecimal():
                names.setdefault(int(number), token)
    return names


def _entries(file: str, content: dict[str, Any]) -> list[tuple[Any, Any]]:
    if file == FAST:
        listed = content.get("added_tokens")
        entries = listed if isinstance(listed, list) else []
        return [(entry.get("id"), entry.get("content")) for entry in entries if isinstance(entry, dict)]
    if file == ADDED:
        return [(number, token) for token, number in content.items()]
    decoder = content.get("added_tokens_decoder")
    entries = decoder.items() if isinstance(decoder, dict) else ()
    return [(number, entry.get("content")) for number, entry in entries if isinstance(entry, dict)]

"""Write trained tokens into the tokenizer's files of a model folder, and change nothing else in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_med.errors import IntegrityError
from lora_med.files import read_json, write_json
from lora_med.models.fingerprint import TOKENIZER_CONFIG
from lora_med.models.tokenizer import load_tokenizer
from lora_med.models.tokens.numbering import TRAINED, check_numbers, new_among

FAST = "tokenizer.json"
ADDED = "added_tokens.json"  # read for a SentencePiece model, which has no place for more words


def write_tokens(folder: Path, ids: Mapping[str, int]) -> None:
    """Add the tokens, by name and id, to the tokenizer in `folder`.

    Raises:
        IntegrityError: the tokenizer that is then read from the folder is not the one of the training.
    """
    base, _ = load_tokenizer(folder, needs_eos=False)
    wanted = check_numbers(base, ids)
    new = {token: ids[token] for token in sorted(new_among(base, ids), key=lambda token: ids[token])}
    if not (folder / FAST).is_file():
        wanted.save_pretrained(folder)
    else:
        content = read_json(folder / FAST)
        content["added_tokens"] = [*content.get("added_tokens", []), *({"id": n, **_flags(t)} for t, n in new.items())]
        write_json(folder / FAST, content)
        settings = read_json(folder / TOKENIZER_CONFIG) if (folder / TOKENIZER_CONFIG).is_file() else {}
        if "added_tokens_decoder" in settings:
            settings["added_tokens_decoder"] |= {str(number): _flags(token) for token, number in new.items()}
        write_json(folder / TOKENIZER_CONFIG, {**settings, TRAINED: list(wanted.init_kwargs[TRAINED])})
        if (folder / "tokenizer.model").is_file():
            known = read_json(folder / ADDED) if (folder / ADDED).is_file() else {}
            write_json(folder / ADDED, {**known, **new})
    written, _ = load_tokenizer(folder, needs_eos=False)
    if written.get_vocab() != wanted.get_vocab() or any(
        written(f"a {token} b")["input_ids"] != wanted(f"a {token} b")["input_ids"] for token in ids
    ):
        raise IntegrityError("the written tokenizer does not have the trained tokens", where=str(folder))


def _flags(token: str) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"content": token, **plain}

"""Mean negative log-likelihood of held-out texts: it helps a user choose what to merge onto."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lora_med.errors import DataError, InputMissingError

MOST_TEXTS = 200
MOST_TOKENS = 1024  # of one text


@dataclass(frozen=True)
class HeldOut:
    """Texts to score a merge on, and their file's name; only their number and scores are saved."""

    name: str
    texts: tuple[str, ...]


def read_heldout(path: Path) -> HeldOut:
    """The first non-blank lines of a text file, one text each.

    Raises:
        InputMissingError: no such file.
        DataError: it is not UTF-8, or has no text.
    """
    if not path.is_file():
        raise InputMissingError(
            f"no file {path.name!r}", where=str(path.parent), fix="name a text file, one text a line"
        )
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8 text", where=str(path), fix="save it as UTF-8") from error
    texts = tuple(line for line in lines if line)[:MOST_TEXTS]
    if not texts:
        raise DataError("no text", where=str(path), fix="write one text a line")
    return HeldOut(path.name, texts)


def heldout_nll(run: Callable[..., Any], tokenizer: Any, texts: Sequence[str], device: torch.device) -> float:
    """Sum of nll over sum of tokens, in nats; each text is cut at 1,024 tokens."""
    total, count = 0.0, 0
    with torch.inference_mode():
        for text in texts:
            ids = torch.tensor([tokenizer(text)["input_ids"][:MOST_TOKENS]], device=device)
            if ids.shape[1] < 2:
                continue
            logits = run(input_ids=ids, use_cache=False).logits[0, :-1].float()
            total += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
            count += ids.shape[1] - 1
    return total / max(1, count)

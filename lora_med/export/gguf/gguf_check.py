"""Proof of a GGUF: llama.cpp's outputs compared with PyTorch's, on the same token ids.

Three comparisons are made: the tokens of texts, the prompts of the chat template, and the log-probabilities of the 10
likeliest tokens at every position of the probe texts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lora_med.errors import IntegrityError, LoraMedError
from lora_med.export.gguf.llama_server import LlamaServer, Scored
from lora_med.export.gguf.pretokenizer import DECOMPOSED, probes_for

TOLERANCE = 1e-2  # of a log-probability, in float32 throughout
# The largest change of the mean nll (nats a token) by rounding; a larger one is refused. On micro: f16 1e-4,
# bf16 7e-4, q8_0 2e-3, q4_0 7e-3. A wrong block layout costs nats.
MOST_NLL_CHANGE = {
    "f32": 0.01,
    "f16": 0.01,
    "bf16": 0.02,
    "q8_0": 0.05,
    "q5_1": 0.2,
    "q5_0": 0.2,
    "q4_1": 0.5,
    "q4_0": 0.5,
}
CHATS = (
    [{"role": "user", "content": "What is metformin for?"}],
    [
        {"role": "user", "content": "Is 140/90 mmHg high?"},
        {"role": "assistant", "content": "It is where hypertension begins."},
        {"role": "user", "content": "And 120/80?"},
    ],
    [{"role": "system", "content": "Answer in one sentence."}, {"role": "user", "content": "What is HbA1c?"}],
)


@dataclass(frozen=True)
class Reference:
    """PyTorch's log-probabilities at every position of each row: (tokens, vocabulary), and the rows themselves."""

    rows: list[list[int]]
    log_probabilities: list[torch.Tensor]

    @property
    def nlls(self) -> list[float]:
        """The nll of every token but each row's first, in nats."""
        return [
            -float(table[position, row[position + 1]])
            for row, table in zip(self.rows, self.log_probabilities, strict=True)
            for position in range(len(row) - 1)
        ]

    @property
    def nll(self) -> float:
        """The mean of `nlls`."""
        return math.fsum(self.nlls) / len(self.nlls)


@dataclass(frozen=True)
class Agreement:
    """llama.cpp's log-probabilities compared with PyTorch's, over all positions of the probes; in nats.

    `largest_difference` is over its 10 likeliest tokens at every position, `mean_difference` over the given tokens.
    `same_first_choice` is the share of positions whose likeliest token is the same.
    """

    positions: int
    largest_difference: float
    mean_difference: float
    same_first_choice: float
    nll: float
    our_nll: float

    @property
    def nll_change(self) -> float:
        """The increase of nll by the file, in nats a token; negative is a gain."""
        return self.nll - self.our_nll


def make_reference(rows: Sequence[Sequence[int]], logits: Sequence[torch.Tensor]) -> Reference:
    """The reference of the comparison, from PyTorch's logits (tokens, vocabulary) of each row."""
    return Reference(
        [list(row) for row in rows], [torch.log_softmax(row_logits.double(), -1).float() for row_logits in logits]
    )


def agreement(scored: Sequence[Scored], reference: Reference) -> Agreement:
    """The agreement of llama.cpp with the reference.

    Raises:
        IntegrityError: its output is not finite, or contains a token outside the vocabulary.
    """
    worst, same = 0.0, 0
    nlls: list[float] = []
    for row, table in zip(scored, reference.log_probabilities, strict=True):
        nlls += row.nll
        for position, top in enumerate(row.top):
            if max(top) >= table.shape[1]:
                raise IntegrityError(f"llama.cpp returns token {max(top)}; the model has {table.shape[1]} tokens")
            worst = max(worst, *(abs(value - float(table[position, number])) for number, value in top.items()))
            same += max(top, key=lambda number: top[number]) == int(table[position].argmax())
    differences = [abs(theirs - ours) for theirs, ours in zip(nlls, reference.nlls, strict=True)]
    mean = math.fsum(nlls) / len(nlls)
    if not math.isfinite(mean) or not math.isfinite(worst):
        raise IntegrityError("llama.cpp's log-probabilities are not finite", fix="export f32, and report this")
    return Agreement(len(nlls), worst, math.fsum(differences) / len(differences), same / len(nlls), mean, reference.nll)


def check_exact(what: str, measured: Agreement, tolerance: float = TOLERANCE) -> None:
    """Refuse a float32 file whose outputs differ from PyTorch's.

    Raises:
        IntegrityError: with the difference and the tolerance.
    """
    if measured.largest_difference > tolerance:
        raise IntegrityError(
            f"llama.cpp does not answer as {what}: a log-probability among its 10 likeliest differs by "
            f"{measured.largest_difference:.3g} from PyTorch's; allowed is {tolerance:.3g}",
            where=f"{measured.positions} positions; mean nll {measured.nll:.4f}, PyTorch's {measured.our_nll:.4f}",
            fix="nothing was written; a newer llama.cpp (LLAMA_CPP_DIR) may convert this kind of model",
        )


def check_rounded(name: str, measured: Agreement) -> None:
    """Refuse a rounded file that changes the nll more than its format explains.

    Raises:
        IntegrityError: with the change in nll and the limit.
    """
    limit = MOST_NLL_CHANGE[name]
    if abs(measured.nll_change) > limit:
        raise IntegrityError(
            f"{name} changes the mean nll by {measured.nll_change:+.4f} nats a token; allowed is at most {limit}",
            where=f"{measured.positions} positions; nothing was written",
            fix="export a wider type, such as q8_0 or f16",
        )


def check_tokens(server: LlamaServer, tokenizer: Any) -> dict[str, int]:
    """Compare the tokens of texts; returns how many were compared, and how many decomposed ones differ.

    Raises:
        IntegrityError: the tokens of a text differ (the message has counts, and no text).
    """
    probes = probes_for(tokenizer)
    wrong = [index for index, text in enumerate(probes) if server.tokens(text) != tokenizer(text)["input_ids"]]
    if wrong:
        raise IntegrityError(
            f"llama.cpp tokenizes {len(wrong)} of {len(probes)} texts differently, such as probe {wrong[0]}",
            fix="nothing was written; a newer llama.cpp (LLAMA_CPP_DIR) may support this tokenizer",
        )
    differ = sum(server.tokens(text) != tokenizer(text)["input_ids"] for text in DECOMPOSED)
    return {"texts": len(probes), "decomposed_texts": len(DECOMPOSED), "decomposed_texts_that_differ": differ}


def check_template(server: LlamaServer, tokenizer: Any) -> int | None:
    """Compare chat prompts, as token ids; returns how many, or None where the base has no chat template.

    Raises:
        IntegrityError: llama.cpp's prompt for the same turns differs.
    """
    if not tokenizer.chat_template:
        return None
    compared = 0
    for messages in CHATS:
        ours = rendered(tokenizer, messages)
        if ours is None:
            continue
        theirs = server.tokens(server.prompt(messages))
        if theirs != tokenizer(ours, add_special_tokens=False)["input_ids"]:
            raise IntegrityError(
                f"llama.cpp's prompt for a dialogue of {len(messages)} turns differs from the base's chat template",
                fix="nothing was written; use a chat template that llama.cpp renders identically",
            )
        compared += 1
    return compared


def rendered(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> str | None:
    """The chat prompt of the base's own template, or None if it refuses such turns (sometimes a system turn)."""
    try:
        return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    except LoraMedError:  # it exceeds the limits
        raise
    except Exception:  # a template is a program of its own and may raise anything
        return None

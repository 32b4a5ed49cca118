"""What one pass over a text shows of each token: its log-probability, what was to be expected, and the first choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lora_med.evaluation.likelihood.log_probabilities import ScoredRow, log_probability, read_rows


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """Of each token in a row: its log-probability in nats, and whether it is the model's first choice.

    `means` and `deviations` are those of the log-probability over the vocabulary, as the model predicts it there.
    """

    log_probabilities: NDArray[np.float64]
    means: NDArray[np.float64]
    deviations: NDArray[np.float64]
    is_first: NDArray[np.bool_]


def token_statistics(model: Any, rows: Sequence[ScoredRow]) -> list[TokenStatistics]:
    """The statistics of the tokens of each row, in the order of its `tokens`; computed in fp32 from the logits.

    Raises:
        DivergedError: the model returns values that are not finite.
    """
    return [
        TokenStatistics(values[:, 0], values[:, 1], values[:, 2], values[:, 3] > 0)
        for values in read_rows(model, rows, _read)
    ]


def _read(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    logs = logits - logits.logsumexp(1, keepdim=True)
    shares = logs.exp()
    mean = (shares * logs).sum(1)
    variance = (shares * (logs - mean[:, None]).square()).sum(1)
    is_first = (logits.argmax(1) == tokens).float()
    return torch.stack([log_probability(logits, tokens), mean, variance.sqrt(), is_first], 1)

"""The blind attack: guessing members from the words of their texts alone, without any model.

If it does better than chance, members and outsiders differ by themselves, and no attack on the model can be told from
that difference (Das, Zhang and Tramer 2024).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import expit

WORD = re.compile(r"\w+")
MOST_WORDS = 5000
LEAST_TEXTS = 2  # in which a word occurs
SHRINKAGE = 1.0  # of the weights, relative to the sum of the losses


def blind_scores(texts: Sequence[str], is_member: NDArray[np.bool_], fits: NDArray[np.bool_]) -> NDArray[np.float64]:
    """For each text how much its words look like a member's, learned from the texts that `fits` selects.

    A logistic regression on whether a word occurs, its weights shrunk. The same input gives the same scores.
    """
    bags = [set(WORD.findall(text.lower())) for text in texts]
    chosen = [bag for bag, learns in zip(bags, fits, strict=True) if learns]
    counts = Counter(word for bag in chosen for word in sorted(bag))
    frequent = sorted((word for word, count in counts.items() if count >= LEAST_TEXTS), key=lambda w: (-counts[w], w))
    columns = {word: column for column, word in enumerate(frequent[:MOST_WORDS])}
    rows = _matrix(bags, columns)
    fitted = rows[np.flatnonzero(fits)]
    signs = np.where(is_member[fits], 1.0, -1.0)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margins = signs * (fitted @ weights[1:] + weights[0])
        slopes = -signs * expit(-margins)
        value = float(np.logaddexp(0, -margins).sum() + SHRINKAGE / 2 * weights[1:] @ weights[1:])
        return value, np.concatenate([[slopes.sum()], fitted.T @ slopes + SHRINKAGE * weights[1:]])

    weights = minimize(loss, np.zeros(len(columns) + 1), jac=True, method="L-BFGS-B").x
    return np.asarray(rows @ weights[1:] + weights[0], dtype=np.float64)


def _matrix(bags: Sequence[set[str]], columns: dict[str, int]) -> csr_matrix:
    """A row for each text, scaled to length one, with an entry for each known word in it."""
    indices = [sorted(columns[word] for word in bag if word in columns) for bag in bags]
    ends = np.cumsum([0, *map(len, indices)])
    lengths = np.repeat([1 / np.sqrt(max(1, len(own))) for own in indices], list(map(len, indices)))
    flat = np.array([column for own in indices for column in own], dtype=np.int64)
    return csr_matrix((lengths, flat, ends), shape=(len(bags), len(columns)))

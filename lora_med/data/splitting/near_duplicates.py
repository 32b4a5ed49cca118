"""Near-duplicates: texts that share most of their runs of three words, found among many by MinHash.

Signatures of 128 numbers (rensa's MinHash) estimate the Jaccard similarity of two texts' sets of runs. Bands of four
select the pairs to compare (Broder 1997; Leskovec et al., Mining of Massive Datasets, chapter 3). At a similarity of
0.8 all but one pair in ten million is compared. The standard deviation of the estimate is 0.035. So nearly half of the
pairs just above the threshold are estimated below it, and one in three hundred of the pairs at 0.9.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice, pairwise

import numpy as np
from numpy.typing import NDArray

from lora_med.data.splitting.ngrams import MULTIPLIER, ngrams, word_hashes
from lora_med.data.splitting.union_find import Links

SHINGLE_WORDS = 3
PERMUTATIONS = 128
BAND = 4  # numbers that must agree for a pair to be looked at
SEED = 42
BATCH = 64  # texts digested at once: from 256 on, rensa starts threads, and a fork of a process with threads may hang
HASHES = 1 << 15  # at most so many hashes digested at once: from twice as many on, it starts them too
ALL_PAIRS = 50  # of a band's bucket up to this size; of a larger one each with the first and with the one before

Signatures = NDArray[np.uint32]


def signatures(texts: Iterable[str]) -> Signatures:
    """A signature for each text; shape `(texts, 128)`."""
    source = iter(texts)
    batches = [_batch(batch) for batch in iter(lambda: list(islice(source, BATCH)), [])]
    return np.concatenate(batches) if batches else np.empty((0, PERMUTATIONS), np.uint32)


def _batch(texts: list[str]) -> Signatures:
    runs = [_runs(text) for text in texts]
    if sum(map(len, runs)) <= HASHES:
        return _digests(runs)
    pieces = [[run[start : start + HASHES] for start in range(0, len(run), HASHES)] for run in runs]
    return np.stack([np.concatenate([_digests([piece]) for piece in run]).min(axis=0) for run in pieces])


def _digests(runs: list[NDArray[np.uint64]]) -> Signatures:
    from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue]

    offsets = np.concatenate([[0], np.cumsum([len(run) for run in runs])]).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(runs), offsets, PERMUTATIONS, SEED)
    return np.array(matrix.to_rows(), np.uint32)


def _runs(text: str) -> NDArray[np.uint64]:
    words = word_hashes(text)
    return np.unique(ngrams(words, min(SHINGLE_WORDS, len(words)) or 1)) if len(words) else np.zeros(1, np.uint64)


def clusters(text_signatures: Signatures, similarity: float) -> list[list[int]]:
    """Indices of texts that belong together, two or more each: linked, directly or through others, by `similarity`."""
    links: Links[int] = Links()
    for text, other in _candidates(text_signatures):
        if (
            links.leader(text) != links.leader(other)
            and np.count_nonzero(text_signatures[text] == text_signatures[other]) >= similarity * PERMUTATIONS
        ):
            links.join(text, other)
    return links.sets()


def band_keys(text_signatures: Signatures, band: int) -> NDArray[np.uint64]:
    """One number for each text, the same where the four numbers from `band` on are."""
    keys = np.zeros(len(text_signatures), np.uint64)
    for column in range(band, band + BAND):
        keys = keys * MULTIPLIER + text_signatures[:, column].astype(np.uint64) + np.uint64(1)
    return keys


def _candidates(text_signatures: Signatures) -> Iterator[tuple[int, int]]:
    for band in range(0, PERMUTATIONS, BAND):
        keys = band_keys(text_signatures, band)
        order = np.argsort(keys, kind="stable")
        edges = np.flatnonzero(np.diff(keys[order])) + 1
        for start, end in pairwise([0, *edges.tolist(), len(order)]):
            if end - start > 1:
                yield from _pairs(order[start:end].tolist())


def _pairs(bucket: list[int]) -> Iterator[tuple[int, int]]:
    if len(bucket) <= ALL_PAIRS:
        for rank, text in enumerate(bucket):
            for other in bucket[rank + 1 :]:
                yield text, other
    else:
        yield from pairwise(bucket)
        for other in bucket[2:]:
            yield bucket[0], other

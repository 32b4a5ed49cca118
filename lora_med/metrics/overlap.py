"""Similarity of a generated text to its reference: ROUGE-1, -2 and -L, chrF, and on request BERTScore.

From rouge-score (Google's, with its stemmer) and sacrebleu, in the extra `eval`. They count shared words or
letters: none measures whether a statement is true. See faithfulness.py for that.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.errors import DataError, DependencyMissingError, InputMissingError, SettingsError

ROUGE = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True, slots=True)
class Overlap:
    """F-measures of ROUGE and chrF of one text against its reference, each from 0 to 1."""

    rouge_1: float
    rouge_2: float
    rouge_l: float
    chrf: float


def overlaps(outputs: Sequence[str], references: Sequence[str]) -> list[Overlap]:
    """One `Overlap` for each output.

    Raises:
        DataError: the lists differ in length.
        DependencyMissingError: rouge-score or sacrebleu is not installed.
    """
    if len(outputs) != len(references):
        raise DataError(f"{len(outputs)} outputs and {len(references)} references cannot be compared")
    rouge: Any = _needed("rouge_score.rouge_scorer", "rouge-score").RougeScorer(list(ROUGE), use_stemmer=True)
    chrf: Any = _needed("sacrebleu.metrics", "sacrebleu").CHRF()
    scores = []
    for output, reference in zip(outputs, references, strict=True):
        scored = rouge.score(reference, output)
        unigrams, bigrams, longest = (float(scored[name].fmeasure) for name in ROUGE)
        scores.append(Overlap(unigrams, bigrams, longest, chrf.sentence_score(output, [reference]).score / 100))
    return scores


@dataclass(frozen=True)
class Encoder:
    """What BERTScore compares by: the folder of an encoder with its tokenizer, and the layer, counted from 1."""

    folder: str
    layer: int


def read_encoder(text: str) -> Encoder:
    """The encoder of `FOLDER:LAYER`.

    Raises:
        SettingsError: no layer is named; the layer that agrees best with human judgement differs between models.
        InputMissingError: there is no such folder.
    """
    folder, _, layer = text.rpartition(":")
    if not folder or not layer.isdigit() or int(layer) < 1:
        fix = "FOLDER:LAYER, such as models/roberta-large:17; the layer counts from 1"
        raise SettingsError(f"no layer in {text!r}", where="--bertscore", fix=fix)
    if not Path(folder).is_dir():
        raise InputMissingError("no model for BERTScore there", where=folder, fix="a folder with an encoder")
    return Encoder(folder, int(layer))


def bert_scores(
    outputs: Sequence[str], references: Sequence[str], encoder: Encoder, *, max_tokens: int = 512
) -> list[float]:
    """F of BERTScore (Zhang et al. 2020) for each output, from a local model's hidden states; greedy, without weights.

    Args:
        encoder: whose hidden states are compared; nothing is fetched.
        max_tokens: longer texts are cut here: a tokenizer that knows no limit of its own would overrun the model's.

    Raises:
        SettingsError: the model has no such layer.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(encoder.folder, local_files_only=True)
    model: Any = AutoModel.from_pretrained(encoder.folder, local_files_only=True).eval()
    layers = model.config.num_hidden_layers
    if encoder.layer > layers:
        what = f"no layer {encoder.layer}: {encoder.folder} has {layers}"
        raise SettingsError(what, where="--bertscore", fix="FOLDER:LAYER")

    def states(text: str) -> Any:
        ids = tokenizer(text, truncation=True, max_length=max_tokens, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**ids, output_hidden_states=True).hidden_states[encoder.layer][0]
        special = tokenizer.get_special_tokens_mask(ids["input_ids"][0].tolist(), already_has_special_tokens=True)
        text_states = hidden[torch.tensor(special) == 0]
        return torch.nn.functional.normalize(text_states.float(), dim=-1)

    scores = []
    for output, reference in zip(outputs, references, strict=True):
        output_states, reference_states = states(output), states(reference)
        if not len(output_states) or not len(reference_states):
            scores.append(0.0)
            continue
        similarities = output_states @ reference_states.T
        precision, recall = float(similarities.max(1).values.mean()), float(similarities.max(0).values.mean())
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return scores


def _needed(module: str, package: str) -> Any:
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        raise DependencyMissingError(
            f"scores of written texts need {package}, which is not installed", fix='pip install "lora-med[eval]"'
        )
    return importlib.import_module(module)

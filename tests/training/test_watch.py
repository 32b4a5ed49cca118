"""A task scored while training: the steps do not notice it, and the adapter of its best score is the one that is left."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lora_med.config.schema import DataSettings, EvaluateSettings
from lora_med.data.corpus import Corpus, open_corpus
from lora_med.errors import DivergedError, SettingsError
from lora_med.evaluation.watch import Watch, watch
from lora_med.models.base import Base, load_base
from lora_med.training.callbacks import read_metrics
from lora_med.training.trainer import AdapterTrainer
from tests.tiny import make_tiny
from tests.training.support import documents, fork, make_base, make_trainer, run_ranks, wait, weights

SAMPLE = Path(__file__).parents[2] / "lora_med" / "assets" / "sample"
QA, TEXT = SAMPLE / "qa_sample.json", SAMPLE / "pubmed_sample.xml.gz"


def corpus_of(task: str) -> Corpus:
    source, path = ("pubmedqa", QA) if task == "choice" else ("pubmed", TEXT)
    return open_corpus(DataSettings(source=source, paths=[str(path)], validation_share=0.3, test_share=0.3))


def make_watch(base: Base, task: str = "choice", **settings: Any) -> Watch:
    values = {"eval_steps": 3, "max_eval_samples": 12, **settings}
    found = watch(EvaluateSettings(**values), corpus_of(task), base, seed=1)
    assert found is not None
    return found


def losses(trainer: AdapterTrainer) -> list[tuple[int, float, float]]:
    return [
        (line["step"], line["loss"], line["grad_norm"])
        for line in read_metrics(trainer.output_dir)
        if "loss" in line
    ]


@dataclass
class Told:
    """A watch whose scores are told beforehand, one for each time it is asked; it draws random numbers on the way."""

    told: Sequence[float]
    metric: str = "score"
    lower_is_better: bool = False
    every: int = 2
    chooses: bool = True
    items: int = 3
    digest: str = "the same items"
    asked: list[torch.Tensor] = field(default_factory=list)

    def answers(self, model: Any, places: Sequence[int]) -> list[float]:
        assert not any(module.training for module in model.modules())
        random.random(), np.random.rand(), torch.rand(1)
        self.asked.append(torch.cat([one.detach().flatten() for one in model.parameters() if one.requires_grad]))
        return [float(place) for place in places]

    def scores(self, answers: Sequence[float]) -> dict[str, float]:
        assert list(answers) == [0.0, 1.0, 2.0]
        return {"score": self.told[len(self.asked) - 1]}


CASES: dict[str, dict[str, Any]] = {
    "padded": {},
    "packed": {"packing": True},
    "checkpointed": {"gradient_checkpointing": True},
    "accumulated": {"gradient_accumulation_steps": 2},
}


@pytest.mark.parametrize("task", ["choice", "text"])
@pytest.mark.parametrize("case", CASES)
def test_losses_and_weights_are_to_the_bit_those_of_a_run_without_scores(
    case: str, task: str, tmp_path: Path
) -> None:
    settings = {"logging_steps": 1, "num_train_epochs": 1, **CASES[case]}
    plain = make_trainer(tmp_path / "plain", base=make_base(context=4096), **settings)
    plain.train()
    base = make_base(context=4096)
    watched = make_trainer(tmp_path / "watched", base=base, watch=make_watch(base, task, eval_steps=1), **settings)
    watched.train()
    assert losses(watched) == losses(plain)
    best = watched.state.best_global_step
    assert best

"""What the tests of private training share: a tiny trainer with patients who have several rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lora_med.adapters.runtime.attach import attach_new
from lora_med.config.privacy_settings import PrivacySettings
from lora_med.config.schema import LoraSettings, TrainSettings
from lora_med.data.record import Annotated, Span
from lora_med.models.base import Base
from lora_med.models.tagging import load_tagger
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.tag_trainer import read_tagged
from tests.training.support import documents, make_base

LABELS = ("O", "B-Disease", "I-Disease")
PATIENTS = (0, 1, 1, 2, 3, 4, 5, 5, 5, 6, 7, 8, 9, 9, 10, 11, 12, 13, 14, 15)  # of 20 rows


def make_private(
    folder: Path,
    *,
    base: Base | None = None,
    train: Sequence[Tokens] | None = None,
    patients: Sequence[int] = PATIENTS,
    dropout: float = 0.1,
    epsilon: float = 1.0,  # the search for the noise takes longer for larger ones
    clip: float = 0.1,
    tags: bool = False,
    **settings: Any,
) -> Any:
    """A private trainer of a rank-4 adapter on 16 patients with 20 rows, 4 patients a step, 8 steps."""
    pytest.importorskip("opacus")
    from lora_med.training.private.private_trainer import PrivateTagTrainer, PrivateTrainer

    base = base or make_base()
    lora = LoraSettings(
        r=4, lora_alpha=8, lora_dropout=dropout, task_type="TOKEN_CLS" if tags else "CAUSAL_LM", head_dropout=dropout
    )
    values = {
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        "max_length": 128,
        "logging_steps": 2,
        "privacy": PrivacySettings(epsilon=epsilon, delta=1e-2, clip=clip),
        **settings,
    }
    return (PrivateTagTrainer if tags else PrivateTrainer)(
        attach_new(base, lora, seed=0),
        base,
        TrainSettings(output_dir=str(folder), **values),
        train=documents(len(patients)) if train is None else train,
        patients=patients,
        identity={"lora.r": 4},
    )


def tagging(folder: Path, output: Path) -> dict[str, Any]:
    """A tagger's base and tagged rows of the same patients, as `make_private` takes them."""
    records = []
    for number in range(len(PATIENTS)):
        text = f"w{number % 7} has GOUT or x{number % 5}" + " and so on" * (number % 4)
        start = text.index("GOUT")
        records.append(Annotated(str(number), str(number), "s", text, (Span(start, start + 4, "Disease", "GOUT"),)))
    base = load_tagger(str(folder), LABELS, dtype="float32", head_dropout=0.0)
    rows = read_tagged(records, base, TrainSettings(output_dir=str(output), max_length=128)).rows
    return {"base": base, "train": rows, "tags": True}

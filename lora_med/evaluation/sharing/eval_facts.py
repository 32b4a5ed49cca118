"""What makes the results of an evaluation: equal in all its processes, and unchanged where one is continued."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple
from typing import Any

from lora_med.adapters.store.base_data import strictest_with_base
from lora_med.adapters.store.published import AdapterFiles
from lora_med.data.heldout_records import HeldOutRecords
from lora_med.data.record import Record
from lora_med.evaluation.eval_options import EvalOptions
from lora_med.evaluation.runner import OPEN
from lora_med.models.base import Base
from lora_med.models.precision import device_kind
from lora_med.run import versions


def eval_facts(
    base: Base | None,
    adapters: Sequence[AdapterFiles],
    tasks: Mapping[str, HeldOutRecords],
    options: EvalOptions,
) -> dict[str, Any]:
    """Name -> JSON value of all that decides what a model gives for the items; nothing here is text of an item.

    What only the statistics read is left out: resamples, metrics, and the scores that a card has received.

    Args:
        tasks: how each task is worded and scored, and its records.
        base: the loaded base; None for adapters that tag tokens, whose cards say which base each loads.
    """
    facts: dict[str, Any] = {"device": device_kind()}
    if base is not None:
        facts |= {f"base (SHA-256 of its {name})": value for name, value in asdict(base.fingerprint).items()}
        facts |= {"dtype": base.dtype, "quantization": base.quantization, "attention": base.attention}
    for adapter in adapters:
        card = {name: value for name, value in adapter.card.as_json().items() if name != "scores"}
        facts[f"adapter {adapter.name} (SHA-256 of its card without scores)"] = _sha256(
            [json.dumps(card, sort_keys=True)]
        )
    facts |= {"max_items": options.max_items, "seed": options.seed, **asdict(options.prompt_options)}
    for task, heldout in tasks.items():
        for name in ("records", "training", "validation"):
            facts[f"{task}, {name} (SHA-256)"] = _digest(getattr(heldout, name))
    return facts | {f"version of {name}": version for name, version in versions().items()}


def is_open(adapters: Sequence[AdapterFiles], opened: Sequence[HeldOutRecords], base: Base | None) -> bool:
    """Whether everybody may read what a model writes about the items; `base` as in `eval_facts`."""
    classes = [*(heldout.access for heldout in opened), *(adapter.card.data.access for adapter in adapters)]
    return strictest_with_base(classes, *([] if base is None else [base.name, base.folder])) == OPEN


def _digest(records: Iterable[Record]) -> str:
    return _sha256(repr(astuple(record)) for record in records)


def _sha256(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()

"""Scores in the adapter's card: the measurements stay with the adapter."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lora_med.adapters.store.card import CARD, read_card
from lora_med.adapters.store.store import find_adapter
from lora_med.evaluation.results import Evaluation, Subject
from lora_med.evaluation.tasks import scoring_of
from lora_med.files import write_json
from lora_med.prompts.templates.templates import TEMPLATES


def record_scores(evaluation: Evaluation, store: Path | str = "adapters") -> list[Path]:
    """Write each adapter's scores into its card.json, atomically, under `entry_name`; returns the cards.

    A later evaluation of the same name replaces the entry. Only the card changes: its hashes are those of the
    files beside it. A killed process leaves the old card or the new one.

    Raises:
        InputMissingError: an adapter is no longer in the store.
    """
    written = []
    for subject in evaluation.subjects[1:]:
        folder = find_adapter(subject.name, store)
        card = read_card(folder)
        key = entry_name(evaluation)
        scored = replace(card, scores={**card.scores, key: card_entry(evaluation, subject)})
        written.append(write_json(folder / CARD, scored.as_json()))
    return written


def entry_name(evaluation: Evaluation) -> str:
    """`source/split/template`, and a suffix for another kind of scoring or prompt options such as solved examples."""
    has_default_scoring = evaluation.template not in TEMPLATES or evaluation.scoring == scoring_of(evaluation.template)
    options = [f"{name}={value}" for name, value in evaluation.prompt_options.items() if value]
    suffix = "+".join([*([] if has_default_scoring else [evaluation.scoring]), *options])
    return f"{evaluation.source}/{evaluation.split}/{evaluation.template}" + (f"/{suffix}" if suffix else "")


def card_entry(evaluation: Evaluation, subject: Subject) -> dict[str, Any]:
    """The card's entry of one evaluation: what was measured, on what, and against the base."""
    base = evaluation.subjects[0]
    fitted = None if subject.confidence is None else subject.confidence.fitted
    return {
        "scoring": evaluation.scoring,
        **{name: value for name, value in evaluation.prompt_options.items() if value},
        "source": evaluation.source,
        "split": evaluation.split,
        "template": evaluation.template,
        "n": len(evaluation.items),
        "published": evaluation.published,
        "left_out": dict(evaluation.left_out),
        "groups": evaluation.groups,
        "quantization": evaluation.base["quantization"],
        "dtype": evaluation.base["dtype"],
        "lora_med": evaluation.versions.get("lora-med", ""),
        "created": evaluation.created,
        "calibration": None if fitted is None else asdict(fitted),
        "measures": {
            name: {
                "value": value.value,
                "low": value.interval.low,
                "high": value.interval.high,
                "base": base.values[name].value,
                "change": asdict(subject.changes[name]),
            }
            for name, value in subject.values.items()
        },
        "metrics": {name: asdict(scored) for name, scored in subject.custom.items()},
    }

"""lora_med: medical text in, a small adapter you can trust out.

The public door. Each name is imported from its module when first used, so `import lora_med` costs almost nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "AdapterPool": "lora_med.adapters.runtime.pool",
    "Base": "lora_med.models.base",
    "EvalOptions": "lora_med.evaluation.eval_options",
    "Evaluation": "lora_med.evaluation.results",
    "HeldOutRecords": "lora_med.data.heldout_records",
    "LoraMedError": "lora_med.errors",
    "Merge": "lora_med.merge.merge",
    "Settings": "lora_med.config.schema",
    "adopt": "lora_med.adapters.foreign.import_peft",
    "attach": "lora_med.adapters.runtime.attach",
    "check_swaps": "lora_med.evaluation.swap_check",
    "compose": "lora_med.adapters.algebra.compose",
    "detach": "lora_med.adapters.runtime.attach",
    "evaluate": "lora_med.evaluation.runner",
    "find_adapter": "lora_med.adapters.store.store",
    "generate_rows": "lora_med.adapters.runtime.swap",
    "load_base": "lora_med.models.base",
    "load_many": "lora_med.adapters.runtime.swap",
    "load_metric": "lora_med.metrics.custom_metric",
    "load_tagger": "lora_med.models.tagging",
    "merge_adapter": "lora_med.merge.merge",
    "open_corpus": "lora_med.data.corpus",
    "open_data": "lora_med.workflows.train",
    "open_heldout": "lora_med.data.corpus",
    "open_published": "lora_med.adapters.store.published",
    "open_tagger": "lora_med.adapters.runtime.open_tagger",
    "parse": "lora_med.config.parse",
    "prepare_environment": "lora_med.run",
    "read_card": "lora_med.adapters.store.card",
    "record_scores": "lora_med.evaluation.record_scores",
    "run_recipe": "lora_med.cli.recipe",
    "score_tags": "lora_med.evaluation.scorers.tag_answers",
    "train": "lora_med.workflows.train",
    "use": "lora_med.adapters.runtime.swap",
    "write_report": "lora_med.evaluation.report.write_report",
}

if TYPE_CHECKING:
    from lora_med.adapters.algebra.compose import compose as compose
    from lora_med.adapters.foreign.import_peft import adopt as adopt
    from lora_med.adapters.runtime.attach import attach as attach
    from lora_med.adapters.runtime.attach import detach as detach
    from lora_med.adapters.runtime.open_tagger import open_tagger as open_tagger
    from lora_med.adapters.runtime.pool import AdapterPool as AdapterPool
    from lora_med.adapters.runtime.swap import generate_rows as generate_rows
    from lora_med.adapters.runtime.swap import load_many as load_many
    from lora_med.adapters.runtime.swap import use as use
    from lora_med.adapters.store.card import read_card as read_card
    from lora_med.adapters.store.published import open_published as open_published
    from lora_med.adapters.store.store import find_adapter as find_adapter
    from lora_med.cli.recipe import run_recipe as run_recipe
    from lora_med.config.parse import parse as parse
    from lora_med.config.schema import Settings as Settings
    from lora_med.data.corpus import open_corpus as open_corpus
    from lora_med.data.corpus import open_heldout as open_heldout
    from lora_med.data.heldout_records import HeldOutRecords as HeldOutRecords
    from lora_med.errors import LoraMedError as LoraMedError
    from lora_med.evaluation.eval_options import EvalOptions as EvalOptions
    from lora_med.evaluation.record_scores import record_scores as record_scores
    from lora_med.evaluation.report.write_report import write_report as write_report
    from lora_med.evaluation.results import Evaluation as Evaluation
    from lora_med.evaluation.runner import evaluate as evaluate
    from lora_med.evaluation.scorers.tag_answers import score_tags as score_tags
    from lora_med.evaluation.swap_check import check_swaps as check_swaps
    from lora_med.merge.merge import Merge as Merge
    from lora_med.merge.merge import merge_adapter as merge_adapter
    from lora_med.metrics.custom_metric import load_metric as load_metric
    from lora_med.models.base import Base as Base
    from lora_med.models.base import load_base as load_base
    from lora_med.models.tagging import load_tagger as load_tagger
    from lora_med.run import prepare_environment as prepare_environment
    from lora_med.workflows.train import open_data as open_data
    from lora_med.workflows.train import train as train

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'lora_med' has no public name {name!r}; known: {', '.join(__all__)}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

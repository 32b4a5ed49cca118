"""lora_med: medical text in, a small adapter you can trust out.

The public door. Each name is loaded from its room when first used, so `import lora_med` costs almost nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "AdapterPool": "lora_med.adapters.runtime.pool",
    "AdapterTrainer": "lora_med.training.trainer",
    "Base": "lora_med.models.base",
    "Corpus": "lora_med.data.corpus",
    "DataFacts": "lora_med.adapters.store.card",
    "Evaluation": "lora_med.evaluation.results",
    "LoraMedError": "lora_med.errors",
    "Merge": "lora_med.merge.merge",
    "Settings": "lora_med.config.schema",
    "TagTrainer": "lora_med.training.tag_trainer",
    "adopt": "lora_med.adapters.store.import_peft",
    "attach": "lora_med.adapters.runtime.attach",
    "attach_new": "lora_med.adapters.runtime.attach",
    "check_free": "lora_med.adapters.store.store",
    "check_swaps": "lora_med.evaluation.swap_check",
    "check_training": "lora_med.training.settings_check",
    "check_validation_task": "lora_med.evaluation.eval_during_training",
    "chunk": "lora_med.prompts.fit",
    "compose": "lora_med.adapters.algebra.compose",
    "data_facts": "lora_med.workflows.run_identity",
    "data_key": "lora_med.training.rows.token_cache",
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
    "open_heldout": "lora_med.data.corpus",
    "open_tagger": "lora_med.evaluation.scorers.tag_answers",
    "parse": "lora_med.config.parse",
    "preflight": "lora_med.training.rows.preflight",
    "prepare_environment": "lora_med.run",
    "publish": "lora_med.adapters.store.store",
    "read_card": "lora_med.adapters.store.card",
    "read_documents": "lora_med.training.rows.documents",
    "read_tagged": "lora_med.training.tag_trainer",
    "record_scores": "lora_med.evaluation.cards",
    "render": "lora_med.prompts.render",
    "run_identity": "lora_med.workflows.run_identity",
    "run_recipe": "lora_med.cli.recipe",
    "score_tags": "lora_med.evaluation.scorers.tag_answers",
    "start_run": "lora_med.run",
    "tag_labels": "lora_med.prompts.entity_tags",
    "tokenize_rows": "lora_med.prompts.tokens",
    "use": "lora_med.adapters.runtime.swap",
    "validation_task": "lora_med.evaluation.eval_during_training",
    "write_report": "lora_med.evaluation.report.write_report",
}

if TYPE_CHECKING:
    from lora_med.adapters.algebra.compose import compose as compose
    from lora_med.adapters.runtime.attach import attach as attach
    from lora_med.adapters.runtime.attach import attach_new as attach_new
    from lora_med.adapters.runtime.attach import detach as detach
    from lora_med.adapters.runtime.pool import AdapterPool as AdapterPool
    from lora_med.adapters.runtime.swap import generate_rows as generate_rows
    from lora_med.adapters.runtime.swap import load_many as load_many
    from lora_med.adapters.runtime.swap import use as use
    from lora_med.adapters.store.card import DataFacts as DataFacts
    from lora_med.adapters.store.card import read_card as read_card
    from lora_med.adapters.store.import_peft import adopt as adopt
    from lora_med.adapters.store.store import check_free as check_free
    from lora_med.adapters.store.store import find_adapter as find_adapter
    from lora_med.adapters.store.store import publish as publish
    from lora_med.cli.recipe import run_recipe as run_recipe
    from lora_med.config.parse import parse as parse
    from lora_med.config.schema import Settings as Settings
    from lora_med.data.corpus import Corpus as Corpus
    from lora_med.data.corpus import open_corpus as open_corpus
    from lora_med.data.corpus import open_heldout as open_heldout
    from lora_med.errors import LoraMedError as LoraMedError
    from lora_med.evaluation.cards import record_scores as record_scores
    from lora_med.evaluation.eval_during_training import check_validation_task as check_validation_task
    from lora_med.evaluation.eval_during_training import validation_task as validation_task
    from lora_med.evaluation.report.write_report import write_report as write_report
    from lora_med.evaluation.results import Evaluation as Evaluation
    from lora_med.evaluation.runner import evaluate as evaluate
    from lora_med.evaluation.scorers.tag_answers import open_tagger as open_tagger
    from lora_med.evaluation.scorers.tag_answers import score_tags as score_tags
    from lora_med.evaluation.swap_check import check_swaps as check_swaps
    from lora_med.merge.merge import Merge as Merge
    from lora_med.merge.merge import merge_adapter as merge_adapter
    from lora_med.metrics.custom_metric import load_metric as load_metric
    from lora_med.models.base import Base as Base
    from lora_med.models.base import load_base as load_base
    from lora_med.models.tagging import load_tagger as load_tagger
    from lora_med.prompts.entity_tags import tag_labels as tag_labels
    from lora_med.prompts.fit import chunk as chunk
    from lora_med.prompts.render import render as render
    from lora_med.prompts.tokens import tokenize_rows as tokenize_rows
    from lora_med.run import prepare_environment as prepare_environment
    from lora_med.run import start_run as start_run
    from lora_med.training.rows.documents import read_documents as read_documents
    from lora_med.training.rows.preflight import preflight as preflight
    from lora_med.training.rows.token_cache import data_key as data_key
    from lora_med.training.settings_check import check_training as check_training
    from lora_med.training.tag_trainer import TagTrainer as TagTrainer
    from lora_med.training.tag_trainer import read_tagged as read_tagged
    from lora_med.training.trainer import AdapterTrainer as AdapterTrainer
    from lora_med.workflows.run_identity import data_facts as data_facts
    from lora_med.workflows.run_identity import run_identity as run_identity

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'lora_med' has no public name {name!r}; there are: {', '.join(__all__)}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

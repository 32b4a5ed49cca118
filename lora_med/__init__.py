"""lora_med: medical text in, a small adapter you can trust out.

The public door. Each name is loaded from its room when first used, so `import lora_med` costs almost nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "AdapterTrainer": "lora_med.training.trainer",
    "Bank": "lora_med.adapters.bank",
    "Base": "lora_med.models.base",
    "Corpus": "lora_med.data.corpus",
    "DataFacts": "lora_med.adapters.card",
    "Evaluation": "lora_med.evaluation.results",
    "LoraMedError": "lora_med.errors",
    "Merge": "lora_med.merge.merging",
    "Settings": "lora_med.config.schema",
    "TagTrainer": "lora_med.training.tagging",
    "adopt": "lora_med.adapters.adopt",
    "attach": "lora_med.adapters.attach",
    "attach_new": "lora_med.adapters.attach",
    "check_free": "lora_med.adapters.store",
    "check_swaps": "lora_med.evaluation.swaps",
    "check_training": "lora_med.training.check",
    "check_watch": "lora_med.evaluation.watch",
    "chunk": "lora_med.prompts.fit",
    "compose": "lora_med.adapters.compose",
    "data_facts": "lora_med.training.identity",
    "data_key": "lora_med.training.prepared",
    "detach": "lora_med.adapters.attach",
    "evaluate": "lora_med.evaluation.runner",
    "find_adapter": "lora_med.adapters.store",
    "generate_rows": "lora_med.adapters.swap",
    "load_base": "lora_med.models.base",
    "load_many": "lora_med.adapters.swap",
    "load_metric": "lora_med.metrics.custom",
    "load_tagger": "lora_med.models.tagging",
    "merge_adapter": "lora_med.merge.merging",
    "open_corpus": "lora_med.data.corpus",
    "open_heldout": "lora_med.data.corpus",
    "open_tagger": "lora_med.evaluation.tags",
    "parse": "lora_med.config.parse",
    "preflight": "lora_med.training.preflight",
    "prepare_environment": "lora_med.run",
    "publish": "lora_med.adapters.store",
    "read_card": "lora_med.adapters.card",
    "read_documents": "lora_med.training.documents",
    "read_tagged": "lora_med.training.tagging",
    "record_scores": "lora_med.evaluation.cards",
    "render": "lora_med.prompts.render",
    "run_identity": "lora_med.training.identity",
    "run_recipe": "lora_med.cli.recipe",
    "score_tags": "lora_med.evaluation.tags",
    "start_run": "lora_med.run",
    "tag_labels": "lora_med.prompts.tags",
    "tokenise_rows": "lora_med.prompts.tokens",
    "use": "lora_med.adapters.swap",
    "watch": "lora_med.evaluation.watch",
    "write_notes": "lora_med.data.synthetic.notes",
    "write_probe": "lora_med.data.synthetic.probe",
    "write_report": "lora_med.evaluation.report",
    "write_sample": "lora_med.data.synthetic.corpus",
}

if TYPE_CHECKING:
    from lora_med.adapters.adopt import adopt as adopt
    from lora_med.adapters.attach import attach as attach
    from lora_med.adapters.attach import attach_new as attach_new
    from lora_med.adapters.attach import detach as detach
    from lora_med.adapters.bank import Bank as Bank
    from lora_med.adapters.card import DataFacts as DataFacts
    from lora_med.adapters.card import read_card as read_card
    from lora_med.adapters.compose import compose as compose
    from lora_med.adapters.store import check_free as check_free
    from lora_med.adapters.store import find_adapter as find_adapter
    from lora_med.adapters.store import publish as publish
    from lora_med.adapters.swap import generate_rows as generate_rows
    from lora_med.adapters.swap import load_many as load_many
    from lora_med.adapters.swap import use as use
    from lora_med.cli.recipe import run_recipe as run_recipe
    from lora_med.config.parse import parse as parse
    from lora_med.config.schema import Settings as Settings
    from lora_med.data.corpus import Corpus as Corpus
    from lora_med.data.corpus import open_corpus as open_corpus
    from lora_med.data.corpus import open_heldout as open_heldout
    from lora_med.data.synthetic.corpus import write_sample as write_sample
    from lora_med.data.synthetic.notes import write_notes as write_notes
    from lora_med.data.synthetic.probe import write_probe as write_probe
    from lora_med.errors import LoraMedError as LoraMedError
    from lora_med.evaluation.cards import record_scores as record_scores
    from lora_med.evaluation.report import write_report as write_report
    from lora_med.evaluation.results import Evaluation as Evaluation
    from lora_med.evaluation.runner import evaluate as evaluate
    from lora_med.evaluation.swaps import check_swaps as check_swaps
    from lora_med.evaluation.tags import open_tagger as open_tagger
    from lora_med.evaluation.tags import score_tags as score_tags
    from lora_med.evaluation.watch import check_watch as check_watch
    from lora_med.evaluation.watch import watch as watch
    from lora_med.merge.merging import Merge as Merge
    from lora_med.merge.merging import merge_adapter as merge_adapter
    from lora_med.metrics.custom import load_metric as load_metric
    from lora_med.models.base import Base as Base
    from lora_med.models.base import load_base as load_base
    from lora_med.models.tagging import load_tagger as load_tagger
    from lora_med.prompts.fit import chunk as chunk
    from lora_med.prompts.render import render as render
    from lora_med.prompts.tags import tag_labels as tag_labels
    from lora_med.prompts.tokens import tokenise_rows as tokenise_rows
    from lora_med.run import prepare_environment as prepare_environment
    from lora_med.run import start_run as start_run
    from lora_med.training.check import check_training as check_training
    from lora_med.training.documents import read_documents as read_documents
    from lora_med.training.identity import data_facts as data_facts
    from lora_med.training.identity import run_identity as run_identity
    from lora_med.training.preflight import preflight as preflight
    from lora_med.training.prepared import data_key as data_key
    from lora_med.training.tagging import TagTrainer as TagTrainer
    from lora_med.training.tagging import read_tagged as read_tagged
    from lora_med.training.trainer import AdapterTrainer as AdapterTrainer

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'lora_med' has no public name {name!r}; there are: {', '.join(__all__)}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

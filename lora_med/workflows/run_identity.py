"""The identity of a run: the facts of its data for the card, and everything that makes two runs the same run."""

from __future__ import annotations

import hashlib
from typing import Any

from lora_med.adapters.store.card import DataFacts, read_card
from lora_med.adapters.store.store import WEIGHTS, find_adapter
from lora_med.config.schema import Settings
from lora_med.data.access import combined, require_stated
from lora_med.data.catalog import SOURCES
from lora_med.data.corpus import Corpus
from lora_med.data.record import shown_uid
from lora_med.models.base import Base
from lora_med.training.rows.documents import tokenizer_settings

# Settings that a resumed run may change: what is logged, saved or shown, and where.
MAY_CHANGE = {
    "train": {
        "output_dir",
        "logging_steps",
        "eval_steps",
        "save_steps",
        "save_total_limit",
        "early_stopping_patience",
        "per_device_eval_batch_size",
        "resume",
        "peer_timeout",
        "keep_tokenized",
        "tokenized_disk_gb",
        "report_to",
    },
    "data": {"paths", "streaming", "skip_bad", "test_files", "block_lists"},  # what they remove is visible in the rows
    "model": {"base", "revision", "dtype", "attn_implementation", "keep_quantized", "chat_template"},
}


def run_identity(
    settings: Settings, base: Base, data_hashes: dict[str, str], *, stream: str | None = None
) -> dict[str, Any]:
    """Dotted field -> JSON value of everything a resumed run must share with the run it continues.

    A base is identified by the hash of its weights, and data by the hash of its files. An adapter that is trained
    further is identified by the hash of its weights, and a chat template of the run's own by its hash. So a moved
    folder is the same run.

    Args:
        stream: for streamed data, whose rows the trainer cannot hash, the key that identifies them (`data_key`).
    """
    identity: dict[str, Any] = {}
    for section in ("model", "data", "lora", "train"):
        for name, value in (
            getattr(settings, section).model_dump(mode="json", exclude={"mix": {"__all__": {"paths"}}}).items()
        ):
            unset = name == "trainable_tokens" and not value  # checkpoints of earlier versions do not have these
            unset = unset or (name in ("method", "beta") and settings.train.method == "sft")
            unset = unset or (name == "privacy" and value is None)
            if name not in MAY_CHANGE.get(section, set()) and not unset:
                identity[f"{section}.{name}"] = value
    identity["model.base (SHA-256 of its weights)"] = base.fingerprint.weights
    identity["model.base (SHA-256 of its tokenizer)"] = base.fingerprint.tokenizer
    identity["model.dtype"] = base.dtype
    if base.chat_template is not None:
        identity["model.chat_template (SHA-256)"] = hashlib.sha256(base.chat_template.encode()).hexdigest()
    if settings.lora.continue_from is not None:
        parent = read_card(find_adapter(settings.lora.continue_from, settings.adapter.store))
        identity["lora.continue_from (SHA-256 of its weights)"] = parent.files[WEIGHTS]
    if stream is not None:
        identity["the streamed data (SHA-256 of settings, files and code)"] = stream
        identity["model.base (SHA-256 of what renders rows)"] = [base.fingerprint.template, tokenizer_settings(base)]
    for number, (name, digest) in enumerate(data_hashes.items(), 1):  # in the order of reading, which max_records cuts
        identity[f"data.paths ({number}. {name})"] = digest
    return identity


def data_facts(settings: Settings, corpus: Corpus) -> DataFacts:
    """Source, license, access class, hashes and counts of what the adapter learns from.

    The access class is the strictest of the source's, of `adapter.access`, and of the adapter that is trained further.

    Raises:
        SettingsError: nobody stated the access class of the data.
    """
    parent_data: DataFacts | None = None
    if settings.lora.continue_from is not None:
        parent_data = read_card(find_adapter(settings.lora.continue_from, settings.adapter.store)).data
    earlier = [*parent_data.earlier_sources, *parent_data.source.split("+")] if parent_data is not None else []
    known = combined([corpus.access, *([parent_data.access] if parent_data is not None else [])])
    access = require_stated(known, "+".join(name for name in corpus.templates if SOURCES[name].access is None))
    tally = corpus.tally
    return DataFacts(
        source="+".join(corpus.templates),
        license=settings.adapter.license or corpus.license,
        access=access,
        hashes=corpus.hashes,
        counts={
            "read": tally.read,
            "kept": tally.kept,
            "train": len(corpus.train),
            "validation": len(corpus.validation),
            **{f"dropped: {reason}": count for reason, count in tally.dropped.items()},
        },
        separation=[_shown(entry, access) for entry in corpus.decontamination],
        mixture=corpus.mixture,
        earlier_sources=list(dict.fromkeys(earlier)),
        columns=corpus.columns,
    )


def _shown(separation: dict[str, Any], access: str) -> dict[str, Any]:
    """What was removed or moved, with the uids that the class of access lets be shown."""
    removed = {reason: [shown_uid(uid, access) for uid in uids] for reason, uids in separation["removed_uids"].items()}
    return {**separation, "removed_uids": removed}

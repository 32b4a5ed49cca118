"""What the processes of a run compare before the first step, and what may differ between them, with the reason."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from lora_med.adapters.store.card import DataFacts
from lora_med.config.schema import Settings
from lora_med.data.access import strictest
from lora_med.data.corpus import Corpus
from lora_med.models.base import Base
from lora_med.processes.agreement import require_agreement
from lora_med.processes.peers import Peers
from lora_med.run import Run, versions

# Settings that may differ between the processes of one run -> why that changes nothing.
MAY_DIFFER = {
    "offline": "where files come from does not matter: their hashes are compared",
    "model.base": "a machine may have the base in a folder of its own; its fingerprint is compared",
    "model.revision": "the fingerprint is compared",
    "model.keep_quantized": "a cache on the disk of a machine",
    "model.dtype": "auto may be set on one machine; the number format chosen is compared",
    "model.attn_implementation": "the attention chosen is compared",
    "model.chat_template": "a path; the hash of the template is compared",
    "data.paths": "a machine may have the files in a folder of its own; their hashes are compared",
    "data.test_files": "paths; what they remove shows in the hash of the rows",
    "data.block_lists": "names or paths; what they remove shows in the hash of the rows",
    "data.mix": "the paths in it are left out, the rest is compared",
    "train.output_dir": "a machine may have a disk of its own; process 0 sends what a later step needs",
    "train.keep_tokenized": "a cache on the disk of a machine",
    "train.tokenized_disk_gb": "room on the disk of a machine",
    "train.report_to": "process 0 alone logs",
    "adapter.store": "process 0 alone publishes",
    "adapter.overwrite": "process 0 alone publishes",
}
MOST_FILES = 100  # whose hashes are shown where they differ
FIX = "give every process the same settings, data, base and versions, then run the same command on every machine"


def agree_on_data(peers: Peers | None, settings: Settings, corpus: Corpus, facts: DataFacts, run: Run) -> None:
    """Compare settings, versions and data, before the base is loaded; the run's files follow the strictest class.

    Raises:
        DisagreementError: the message names each field, both values, and who has which.
    """
    if peers is None:
        return
    run.restrict(strictest(peers.gather(facts.access)))
    hashes = list(corpus.hashes.items())
    files = {f"data file {number} (SHA-256)": f"{digest} {name}" for number, (name, digest) in enumerate(hashes, 1)}
    every = hashlib.sha256("".join(digest for _, digest in hashes).encode()).hexdigest()
    require_agreement(
        peers,
        {
            **settled(settings),
            **{f"version of {name}": number for name, number in compared_versions().items()},
            "access class of the data": facts.access,
            "data files (SHA-256 of all)": every,
            **{f"records {what}": facts.counts[what] for what in ("read", "kept", "train", "validation")},
        },
        details=files if len(files) <= MOST_FILES else {},
        fix=FIX,
    )


def agree_on_base(peers: Peers | None, settings: Settings, base: Base) -> None:
    """Compare the loaded base, and the settings as they are after it was looked at.

    Raises:
        DisagreementError: as `agree_on_data`.
    """
    if peers is None:
        return
    template = base.chat_template
    require_agreement(
        peers,
        {
            **settled(settings),
            **{f"base: {part} (SHA-256)": digest for part, digest in vars(base.fingerprint).items()},
            "base: quantization": base.quantization,
            "base: number format": base.dtype,
            "base: attention": base.attention,
            "base: chat template (SHA-256)": hashlib.sha256((template or "").encode()).hexdigest(),
        },
        fix=FIX,
    )


def agree_on_rows(peers: Peers | None, identity: Mapping[str, Any]) -> None:
    """Compare the identity of the run, the hash of its rows too: all that a resumed run would have to share.

    Raises:
        DisagreementError: as `agree_on_data`.
    """
    if peers is not None:
        names_of_files = "data.paths ("  # the files themselves were compared
        facts = {name: value for name, value in identity.items() if not name.startswith(names_of_files)}
        require_agreement(peers, facts, fix=FIX)


def settled(settings: Settings) -> dict[str, Any]:
    """Dotted name -> value of the settings that every process must share."""
    values: dict[str, Any] = {}
    for section, fields in settings.model_dump(mode="json", exclude={"offline"}).items():
        values |= {f"{section}.{name}": value for name, value in fields.items()}
    shared = {name: value for name, value in values.items() if name not in MAY_DIFFER}
    return {**shared, "data.mix": [source.model_dump(mode="json", exclude={"paths"}) for source in settings.data.mix]}


def compared_versions() -> dict[str, str]:
    """The versions of the stack; of Python's without the patch release, which changes no result."""
    return {name: number.rpartition(".")[0] if name == "python" else number for name, number in versions().items()}

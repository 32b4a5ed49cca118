"""The names of prepared rows in the run's own folder, and which of them stay there when the run ends.

The name depends on everything that decides the rows: the data's hashes, the removed records, template, lengths,
tokenizer, versions of the libraries, and the code that reads, renders and packs. A change of any of these gives another
name; only the newest few remain. Whoever has the tokenizer reads the full text from the rows, so those of credentialed
data are deleted when the run ends, unless the settings ask otherwise.
"""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from itertools import chain
from pathlib import Path

from lora_med.config.schema import Settings
from lora_med.data.corpus import Corpus
from lora_med.data.record import SHOWN_CLASSES
from lora_med.files import sweep
from lora_med.folders import sweep_folders
from lora_med.run import local_rank
from lora_med.training.preparation.row_files import FACTS, ROWS, SCRATCH

FOLDER = "prepared"
LOCK = ".lock"
EARLIER = ("*.npz", ".*.npz.*.tmp")  # what earlier versions of lora_med wrote
OURS = (*EARLIER, "*.arrow", ".*.arrow.*.tmp", f"*{FACTS}", f".*{FACTS}.*.tmp")
CODE = ("data", "prompts", "training/preparation", "training/rows")
LIBRARIES = ("transformers", "tokenizers", "rensa")
MAX_FILES = 8  # of training and validation, for some settings tried in one folder
PATH_FIELDS = {"paths", "test_files", "block_lists"}  # not in the key: the hashes of their files are


def data_key(settings: Settings, corpus: Corpus) -> str:
    """Identifies the data of a run: SHA-256 of its settings, hashes, separation and code."""
    libraries, code = code_and_libraries()
    data = settings.data.model_dump(mode="json", exclude={*PATH_FIELDS, "mix"})
    mix = [source.model_dump(mode="json", exclude=PATH_FIELDS) for source in settings.data.mix]
    content = [
        libraries,
        data,
        mix,
        list(corpus.hashes.items()),
        corpus.decontamination,
        corpus.templates,
        code,
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def code_and_libraries() -> tuple[dict[str, str], str]:
    """The versions of the libraries that decide tokens, and the SHA-256 of the code that reads and renders."""
    package = Path(__file__).parents[2]
    code = hashlib.sha256()
    for room in CODE:
        for path in sorted((package / room).rglob("*.py")):
            code.update(path.read_bytes())
    return {name: metadata.version(name) for name in LIBRARIES}, code.hexdigest()


def prepared_path(folder: Path, *dependencies: object) -> Path:
    """Where the rows that depend on these values are, without a suffix."""
    name = hashlib.sha256(json.dumps([str(value) for value in dependencies]).encode()).hexdigest()[:32]
    return folder / FOLDER / name


def keeps_tokenized(asked: bool | None, access: str) -> bool:
    """Whether tokenized rows may stay on disk: as the settings ask, else unless the data are credentialed."""
    return asked if asked is not None else access in SHOWN_CLASSES


def delete_cached(folder: Path) -> None:
    """Delete what runs prepared in this folder, and what an interrupted one left; the machine's first process alone."""
    cached = folder / FOLDER
    if local_rank() or not cached.is_dir():
        return
    for path in chain.from_iterable(map(cached.glob, OURS)):
        path.unlink(missing_ok=True)
    sweep(cached)
    sweep_folders(cached / SCRATCH)
    if not any(path.name != LOCK for path in cached.iterdir()):
        (cached / LOCK).unlink(missing_ok=True)
        cached.rmdir()


def delete_oldest(folder: Path) -> None:
    """Delete all but the rows that were used last in this folder; the machine's first process alone."""
    marks = sorted((folder / FOLDER).glob(f"*{FACTS}"), key=lambda path: path.stat().st_mtime)
    for marker in [] if local_rank() else marks[:-MAX_FILES]:
        marker.unlink(missing_ok=True)
        marker.with_name(marker.name.removesuffix(FACTS) + ROWS).unlink(missing_ok=True)

"""The names of prepared rows in the run's own folder, and which of them stay there when the run ends.

The name depends on everything that decides the rows: the data's hashes, the removed records, template, lengths,
tokenizer, versions of the libraries, and the code that reads, renders and packs. A change of any of these gives another
name; only the newest few remain. Whoever has the tokenizer reads the full text from the rows, so those of credentialed
data are deleted when the run ends, unless the settings ask otherwise.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lora_med.config.schema import Settings, TrainSettings
from lora_med.data.catalog import SOURCES
from lora_med.data.corpus import Corpus
from lora_med.data.record import SHOWN_CLASSES
from lora_med.files import sweep
from lora_med.folders import sweep_folders
from lora_med.processes.launch import local_rank
from lora_med.training.preparation.prepared_names import (
    CORPUS,
    FACTS,
    FOLDER,
    LOCK,
    ROWS,
    SCRATCH,
    VALIDATION,
    code_and_libraries,
)
from lora_med.training.preparation.preparer import Preparer

EARLIER = ("*.npz", ".*.npz.*.tmp")  # what earlier versions of lora_med wrote
OURS = (*EARLIER, "*.arrow", f"*{FACTS}", f"*{CORPUS}", f"*{VALIDATION}")
MAX_FILES = 8  # of training and validation, for some settings tried in one folder
PATH_FIELDS = {"paths", "test_files", "block_lists"}  # not in the key: the hashes of their files are


@contextmanager
def prepares_rows(train: TrainSettings) -> Iterator[Preparer]:
    """The process that prepares a run's data; at the end, what may not stay on disk is deleted, and so is what is old.

    The caller sets its `access` as soon as the class of the data is known. Until then nothing that was found in the
    data may stay.
    """
    folder, preparer = Path(train.output_dir), Preparer()
    try:
        yield preparer
    finally:
        preparer.close()
        if preparer.access is None:
            delete_found(folder)
        elif keeps_tokenized(train.keep_tokenized, preparer.access):
            delete_oldest(folder)
        else:
            delete_cached(folder)


def data_key(settings: Settings, corpus: Corpus) -> str:
    """Identifies the data of a run: SHA-256 of its settings, hashes, separation and code.

    Where files that nobody named were read too, the records are part of it.
    """
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
        *([_content(corpus)] if any(SOURCES[name].reads_beside for name in corpus.templates) else []),
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _content(corpus: Corpus) -> str:
    content = hashlib.sha256()
    for record in itertools.chain(corpus.train, corpus.validation):
        content.update(repr(record).encode("utf-8", "surrogatepass"))
    return content.hexdigest()


def prepared_path(folder: Path, *dependencies: object) -> Path:
    """Where the rows that depend on these values are, without a suffix."""
    name = hashlib.sha256(json.dumps([str(value) for value in dependencies]).encode()).hexdigest()[:32]
    return folder / FOLDER / name


def keeps_tokenized(asked: bool | None, access: str) -> bool:
    """Whether tokenized rows may stay on disk: as the settings ask, else unless the data are credentialed."""
    return asked if asked is not None else access in SHOWN_CLASSES


def delete_cached(folder: Path) -> None:
    """Delete what runs prepared in this folder, and what an interrupted one left; the machine's first process alone."""
    _delete(folder, OURS)


def delete_found(folder: Path) -> None:
    """Delete what was found in the data, but no rows; the machine's first process alone."""
    _delete(folder, (f"*{CORPUS}", f"*{VALIDATION}"))


def _delete(folder: Path, patterns: Sequence[str]) -> None:
    cached = folder / FOLDER
    if local_rank() or not cached.is_dir():
        return
    for path in itertools.chain.from_iterable(map(cached.glob, patterns)):
        path.unlink(missing_ok=True)
    sweep(cached)
    sweep_folders(cached / SCRATCH)
    if not any(path.name != LOCK for path in cached.iterdir()):
        (cached / LOCK).unlink(missing_ok=True)
        cached.rmdir()


def delete_oldest(folder: Path) -> None:
    """Delete all but what was prepared last in this folder; the machine's first process alone."""
    for marker_suffix, other in ((FACTS, ROWS), (CORPUS, VALIDATION)):
        marks = sorted((folder / FOLDER).glob(f"*{marker_suffix}"), key=lambda path: path.stat().st_mtime)
        for marker in [] if local_rank() else marks[:-MAX_FILES]:
            marker.unlink(missing_ok=True)
            marker.with_name(marker.name.removesuffix(marker_suffix) + other).unlink(missing_ok=True)

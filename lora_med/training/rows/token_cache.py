"""Tokenized documents kept in the run's own folder, so that the second run on the same data starts at once.

What is kept is known by all that it depends on: the data's hashes, what was taken out of them, template, lengths,
tokenizer, versions of the libraries, and the code that reads and renders. Another of these is another file; the newest
few are kept. A damaged file is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from collections.abc import Iterable
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from lora_med.config.schema import Settings
from lora_med.data.corpus import Corpus
from lora_med.files import atomic_stream
from lora_med.prompts.tokens import Tokens
from lora_med.run import rank

FOLDER = "prepared"
CODE = ("data", "prompts")
LIBRARIES = ("transformers", "tokenizers", "rensa")
KEPT = 8  # files: those of training and validation, of some settings tried in one folder
PLACES = {"paths", "test_files", "block_lists"}  # where data lie says nothing; their hashes are in the key
logger = logging.getLogger(__name__)


def data_key(settings: Settings, corpus: Corpus) -> str:
    """What tells the data of a run from any other: SHA-256 of its settings, hashes, separation and code."""
    package = Path(__file__).parents[2]
    code = hashlib.sha256()
    for room in CODE:
        for path in sorted((package / room).rglob("*.py")):
            code.update(path.read_bytes())
    data = settings.data.model_dump(mode="json", exclude={*PLACES, "mix"})
    mix = [one.model_dump(mode="json", exclude=PLACES) for one in settings.data.mix]
    libraries = {name: metadata.version(name) for name in LIBRARIES}
    known = [
        libraries,
        data,
        mix,
        list(corpus.hashes.items()),
        corpus.decontamination,
        corpus.templates,
        code.hexdigest(),
    ]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def prepared_path(folder: Path, *parts: object) -> Path:
    """The file of the documents that depend on `parts`."""
    name = hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:32]
    return folder / FOLDER / f"{name}.npz"


def save(path: Path, documents: Iterable[Tokens]) -> None:
    """Keep the documents, whole or not at all; only the first process writes.

    Raises:
        OutputError, DiskError: they cannot be written.
    """
    if rank():
        return
    held = list(documents)
    facts = [[one.uid, one.running, one.bos, list(one.breaks), one.too_long, one.lost, _runs(one)] for one in held]
    sizes = np.fromiter((len(one.input_ids) for one in held), np.int64, len(held))
    count = int(sizes.sum())
    ids = np.fromiter((number for one in held for number in one.input_ids), np.int32, count)
    text = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    with atomic_stream(path) as stream:
        np.savez(stream, sizes=sizes, ids=ids, facts=text)
    for old in sorted(path.parent.glob("*.npz"), key=lambda one: one.stat().st_mtime)[:-KEPT]:
        old.unlink(missing_ok=True)


def load(path: Path) -> list[Tokens] | None:
    """The documents that are kept there; None where there are none, or the file is damaged."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as kept:
            sizes, ids = kept["sizes"], kept["ids"].tolist()
            facts: list[Any] = json.loads(kept["facts"].tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("%s is damaged (%s): the documents are prepared again", path.name, type(error).__name__)
        return None
    found: list[Tokens] = []
    end = 0
    for size, (uid, running, bos, breaks, too_long, lost, runs) in zip(sizes.tolist(), facts, strict=True):
        start, end = end, end + size
        trained: list[bool] = []
        for number, length in enumerate(runs):
            trained += [number % 2 == 1] * length
        found.append(Tokens(uid, ids[start:end], trained, running, bos, tuple(breaks), too_long, lost))
    return found


def _runs(document: Tokens) -> list[int]:
    """Which tokens are trained, as lengths of stretches: not trained, trained, not trained, ..."""
    runs = [len(list(stretch)) for _, stretch in groupby(document.trained)]
    return [0, *runs] if document.trained[:1] == [True] else runs

"""Tokenized documents cached in the run's own folder, so that the second run on the same data starts at once.

The name of a cached file depends on everything that decides its content: the data's hashes, the removed records,
template, lengths, tokenizer, versions of the libraries, and the code that reads and renders. A change of any of these
gives another file; only the newest few remain. A damaged file is replaced. Whoever has the tokenizer reads the full
text from a file, so credentialed data are not cached unless the settings ask for it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from collections.abc import Iterable
from importlib import metadata
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np

from lora_med.config.schema import Settings
from lora_med.data.corpus import Corpus
from lora_med.data.record import SHOWN_CLASSES
from lora_med.files import atomic_stream
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.run import rank

FOLDER = "prepared"
CODE = ("data", "prompts")
LIBRARIES = ("transformers", "tokenizers", "rensa")
MAX_FILES = 8  # of training and validation, for some settings tried in one folder
PATH_FIELDS = {"paths", "test_files", "block_lists"}  # not in the key: the hashes of their files are
logger = logging.getLogger(__name__)


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
    """The file of the documents that depend on these values."""
    name = hashlib.sha256(json.dumps([str(value) for value in dependencies]).encode()).hexdigest()[:32]
    return folder / FOLDER / f"{name}.npz"


def save(path: Path, documents: Iterable[Tokens]) -> None:
    """Cache the documents, atomically; only rank 0 writes.

    Raises:
        OutputError, DiskError: they cannot be written.
    """
    if rank():
        return
    rows = list(documents)
    facts = [[row.uid, row.running, row.bos, list(row.breaks), row.too_long, row.lost, _runs(row)] for row in rows]
    sizes = np.fromiter((len(row.input_ids) for row in rows), np.int64, len(rows))
    count = int(sizes.sum())
    ids = np.fromiter((number for row in rows for number in row.input_ids), np.int32, count)
    text = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    with atomic_stream(path) as stream:
        np.savez(stream, sizes=sizes, ids=ids, facts=text)
    for old in sorted(path.parent.glob("*.npz"), key=lambda path: path.stat().st_mtime)[:-MAX_FILES]:
        old.unlink(missing_ok=True)


def keeps_tokenized(asked: bool | None, access: str) -> bool:
    """Whether tokenized rows may stay on disk: as the settings ask, else unless the data are credentialed."""
    return asked if asked is not None else access in SHOWN_CLASSES


def delete_cached(folder: Path) -> None:
    """Delete the cached documents of earlier runs in this folder, and what an interrupted one wrote; rank 0 alone."""
    cached = folder / FOLDER
    if rank() or not cached.is_dir():
        return
    for path in chain.from_iterable(map(cached.glob, ("*.npz", ".*.npz.*.tmp", "*.arrow", ".*.arrow.*.tmp"))):
        path.unlink(missing_ok=True)
    if not any(cached.iterdir()):
        cached.rmdir()


def load(path: Path) -> list[Tokens] | None:
    """The cached documents; None where there is no file, or it is damaged."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            sizes, ids = arrays["sizes"], arrays["ids"].tolist()
            facts: list[Any] = json.loads(arrays["facts"].tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("%s is damaged (%s): the documents are tokenized again", path.name, type(error).__name__)
        return None
    documents: list[Tokens] = []
    end = 0
    for size, (uid, running, bos, breaks, too_long, lost, runs) in zip(sizes.tolist(), facts, strict=True):
        start, end = end, end + size
        trained: list[bool] = []
        for number, length in enumerate(runs):
            trained += [number % 2 == 1] * length
        documents.append(Tokens(uid, ids[start:end], trained, running, bos, tuple(breaks), too_long, lost))
    return documents


def _runs(document: Tokens) -> list[int]:
    """Which tokens are trained, as run lengths: not trained, trained, not trained, ..."""
    runs = [len(list(run)) for _, run in groupby(document.trained)]
    return [0, *runs] if document.trained[:1] == [True] else runs

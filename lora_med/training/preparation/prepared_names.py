"""The names of what is prepared in a run's own folder; a file's name before them identifies what decided it."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

FOLDER = "prepared"
LOCK = ".lock"
ROWS, FACTS = ".rows.arrow", ".rows.json"  # of a split, and what a run must know of them
CORPUS, VALIDATION = ".corpus.json", ".corpus.jsonl"  # what was found in the data, and the records to validate on
SCRATCH = "tokens"  # a folder while rows are made
CODE = ("data", "prompts", "training/preparation", "training/rows")
LIBRARIES = ("transformers", "tokenizers", "rensa")


def code_and_libraries() -> tuple[dict[str, str], str]:
    """The versions of the libraries that decide tokens, and the SHA-256 of the code that reads and renders."""
    package = Path(__file__).parents[2]
    code = hashlib.sha256()
    for room in CODE:
        for path in sorted((package / room).rglob("*.py")):
            code.update(path.read_bytes())
    return {name: metadata.version(name) for name in LIBRARIES}, code.hexdigest()

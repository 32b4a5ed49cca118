"""A blind rating in the card and the README of a published adapter: both change in one step, or neither does."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_med.adapters.store.adapter_readme import with_blind_ratings
from lora_med.adapters.store.card import CARD
from lora_med.adapters.store.published import open_files
from lora_med.adapters.store.store import README
from lora_med.errors import IntegrityError
from lora_med.files import sha256_file, write_atomic, write_json
from lora_med.folders import replace_folder


def record_rating(folder: Path, key: str, entry: Mapping[str, Any]) -> Path:
    """Write a blind rating under `key` of the card's scores, and as a line of the README; returns the card's path.

    The folder is replaced as a whole, because the card holds the hash of the README. A repeated call changes nothing.

    Raises:
        InputMissingError: the folder holds no adapter.
        IntegrityError: a file is not the one that was published, so nothing is written.
        DiskError, OutputError: the folder cannot be replaced.
    """
    opened = open_files(folder)
    card = replace(opened.card, scores={**opened.card.scores, key: dict(entry)})
    try:
        text = opened.contents[README].decode("utf-8")
    except UnicodeDecodeError as error:
        raise IntegrityError(
            "the README is not UTF-8", where=str(folder / README), fix="publish the adapter again"
        ) from error
    readme = with_blind_ratings(text, card)
    if readme == text and card == opened.card:
        return folder / CARD

    def fill(temporary: Path) -> None:
        shutil.copytree(folder, temporary, dirs_exist_ok=True)
        write_atomic(temporary / README, readme)
        rated = replace(card, files={**card.files, README: sha256_file(temporary / README)})
        write_json(temporary / CARD, rated.as_json())
        for name in (README, CARD):
            (temporary / name).chmod((folder / name).stat().st_mode & 0o777)

    replace_folder(folder, fill)
    return folder / CARD

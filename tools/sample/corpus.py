"""The sample corpus: every file of it, made from a seed."""

from __future__ import annotations

import random
from pathlib import Path

from tools.sample.dialogues import write_dialogues
from tools.sample.entities import write_entities
from tools.sample.pubmed import write_pubmed
from tools.sample.questions import write_questions

SEED = 20
ARTICLES, QUESTIONS, DOCUMENTS, VISITS = 510, 600, 124, 150


def make_sample(seed: int = SEED) -> dict[str, bytes]:
    """File name -> content; the same seed gives the same bytes. Each file has its own stream of chance."""
    return {
        "pubmed_sample.xml.gz": write_pubmed(random.Random(f"pubmed {seed}"), ARTICLES),
        "qa_sample.json": write_questions(random.Random(f"questions {seed}"), QUESTIONS),
        "entities_sample.pubtator.txt": write_entities(random.Random(f"entities {seed}"), DOCUMENTS),
        "dialogues_sample.csv": write_dialogues(random.Random(f"dialogues {seed}"), VISITS),
    }


def write_sample(folder: Path | str, seed: int = SEED) -> list[Path]:
    """Write the sample corpus into `folder`; returns the files."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    made = {Path(folder) / name: content for name, content in make_sample(seed).items()}
    for path, content in made.items():
        path.write_bytes(content)
    return list(made)

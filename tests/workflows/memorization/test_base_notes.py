"""Who writes canaries: the generator of invented notes, or the base, which draws its text by a seed."""

from __future__ import annotations

import pytest

from lora_med.models.base import Base, load_base
from lora_med.workflows.memorization.base_notes import BATCH, write_notes
from tests.tiny import make_tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = make_tiny("llama", tmp_path_factory.mktemp("base"))
    return load_base(str(folder), quantization="none", dtype="float32")


def test_no_two_invented_patients_share_a_header(base: Base) -> None:
    notes = write_notes(500, "notes", base, seed=1)
    assert len({note.header for note in notes}) == len(notes) == 500
    assert all(mention in note.text for note in notes for mention in note.mentions)


def test_the_same_seed_writes_the_same_notes_and_another_writes_others(base: Base) -> None:
    for writer in ("notes", "base"):
        first, again, other = (write_notes(4, writer, base, seed=seed) for seed in (1, 1, 2))
        assert first == again
        assert all(one.body != another.body for one, another in zip(first, other, strict=True))


def test_the_base_writes_a_body_after_an_invented_header(base: Base) -> None:
    steps: list[tuple[int, int]] = []
    notes = write_notes(BATCH + 2, "base", base, seed=1, advance=lambda done, total: steps.append((done, total)))
    invented = write_notes(BATCH + 2, "notes", base, seed=1)
    assert [note.header for note in notes] == [note.header for note in invented]
    assert len({note.body for note in notes}) > BATCH - 5
    assert all(note.body.strip() for note in notes)
    assert steps == [(BATCH, BATCH + 2), (BATCH + 2, BATCH + 2)]

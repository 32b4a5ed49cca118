"""The coins of the canaries are tossed again, before the training, where words would tell members from the others."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from lora_med.audit.memorization.canaries import Canary, Shape, draw_canaries
from lora_med.audit.memorization.invented_notes import invent_note
from lora_med.audit.memorization.membership import Items, blind_area
from lora_med.data.record import Passage
from lora_med.workflows.memorization.audit_memorization import toss_fairly

SHAPE = Shape(Passage, "custom", "text")


def canaries(count: int) -> list[Canary]:
    rng = random.Random(1)
    return draw_canaries([invent_note(rng) for _ in range(count)], (1, 4), seed=3)


def is_chance(drawn: list[Canary]) -> bool:
    texts = tuple(f"{canary.note.header}\n{canary.note.body}" for canary in drawn)
    members = np.array([canary.is_member for canary in drawn])
    repeats = np.array([canary.repeats for canary in drawn])
    return blind_area(Items(tuple(c.uid for c in drawn), members, repeats, texts, {}), seed=5).is_chance


def test_a_fair_list_stays_as_it_is() -> None:
    drawn = canaries(300)
    assert is_chance(drawn)
    assert toss_fairly(drawn, SHAPE, seed=5) == drawn


def test_a_list_whose_words_tell_is_tossed_again_and_keeps_texts_and_repeats() -> None:
    unlucky = [
        replace(canary, is_member="gabapentin" in canary.note.body or n % 3 == 0)
        for n, canary in enumerate(canaries(300))
    ]
    assert not is_chance(unlucky)
    fair = toss_fairly(unlucky, SHAPE, seed=5)
    assert is_chance(fair)
    assert [(each.note, each.repeats) for each in fair] == [(each.note, each.repeats) for each in unlucky]
    assert toss_fairly(unlucky, SHAPE, seed=5) == fair

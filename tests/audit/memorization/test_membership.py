"""Membership attacks on made-up scores: thresholds of one half, read on the other; what may be said of how many."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from lora_med.audit.memorization.blind_attack import blind_scores
from lora_med.audit.memorization.membership import (
    ATTACKS,
    DIFFERENT_SETS,
    TIERS,
    Items,
    first_half,
    read_membership,
    threshold_at,
)

WORDS = [f"word{number}" for number in range(300)]


def items(
    count: int,
    *,
    seed: int = 0,
    shift: float = 0.0,
    repeats: tuple[int, ...] = (1,),
    tell: str = "",
    words_each: int = 40,
    **shifts: float,
) -> Items:
    """Items under a fair coin; `shift` moves the scores of members, `tell` is a word that most members' texts have."""
    rng, words = np.random.default_rng(seed), random.Random(seed)
    is_member = rng.random(count) < 0.5
    times = rng.permutation(np.resize(np.array(repeats), count))
    scores: dict[str, Any] = {}
    for name in ATTACKS:
        if name != "blind":
            scores[name] = rng.normal(size=count) + is_member * shifts.get(name, shift)
    texts = [" ".join(words.choices(WORDS, k=words_each)) for _ in range(count)]
    if tell:
        texts = [f"{text} {tell}" if member else text for text, member in zip(texts, is_member, strict=True)]
    return Items(tuple(f"p{number}" for number in range(count)), is_member, times, tuple(texts), scores)


def test_each_half_has_half_of_the_members_of_each_repeat_and_of_the_outsiders() -> None:
    held = items(900, repeats=(1, 4, 16))
    fixes = first_half(held, seed=1)
    for times in (1, 4, 16):
        members = held.is_member & (held.repeats == times)
        assert abs(int((members & fixes).sum()) - int((members & ~fixes).sum())) <= 1
    assert abs(int((~held.is_member & fixes).sum()) - int((~held.is_member & ~fixes).sum())) <= 1
    assert (first_half(held, seed=1) == fixes).all() and (first_half(held, seed=2) != fixes).any()


def test_where_nothing_was_learned_at_most_5_of_100_lists_prove_something() -> None:
    proved = [
        read_membership(items(160, seed=seed, words_each=4), seed=seed).tiers[-1].epsilon > 0 for seed in range(100)
    ]
    assert sum(proved) <= 5


def test_an_attack_that_separates_proves_nearly_the_ceiling() -> None:
    reading = read_membership(items(1300, reference_loss=20.0), seed=3)
    strongest = reading.tiers[-1]
    assert (strongest.tier, strongest.attack) == ("weights", "reference_loss")
    assert (strongest.hits, strongest.alarms) == (strongest.members, 0)
    assert strongest.epsilon == strongest.ceiling
    # About 325 members and 325 outsiders are read: ln(0.025^(1/325) / (1 - 0.025^(1/325))) = 4.47.
    assert 4.3 < strongest.ceiling < 4.6
    assert "epsilon is at least 4." in reading.verdict


def test_an_attacker_who_holds_less_is_not_given_what_another_holds() -> None:
    reading = read_membership(items(800, reference_loss=20.0, loss=1.5), seed=3)
    by_tier = {each.tier: each for each in reading.tiers}
    assert list(by_tier) == list(TIERS)
    assert by_tier["text"].epsilon == by_tier["answers"].epsilon == 0
    assert by_tier["log_probabilities"].attack == "loss"
    assert 0 < by_tier["log_probabilities"].epsilon < by_tier["weights"].epsilon


def test_the_repeats_that_give_most_are_chosen() -> None:
    held = items(1300, repeats=(1, 16))
    scores = np.where(held.is_member & (held.repeats == 16), 20.0, 0.0) + held.scores["loss"]
    held = Items(held.uids, held.is_member, held.repeats, held.texts, {**held.scores, "reference_loss": scores})
    strongest = read_membership(held, seed=0).tiers[-1]
    assert strongest.repeats == 16 and strongest.epsilon > 3


def test_what_differs_by_its_words_is_not_valid() -> None:
    reading = read_membership(items(400, reference_loss=20.0, tell="hospice"), seed=0)
    assert not reading.is_valid
    assert (reading.verdict, reading.epsilon) == (DIFFERENT_SETS, None)
    assert reading.as_json()["epsilon"] is None


def test_the_blind_attack_does_not_learn_from_the_texts_that_it_scores() -> None:
    """With as many words as texts it separates what it learned from, and is at chance on the others."""
    held = items(300)
    fits = np.arange(300) < 150
    scores = blind_scores(held.texts, held.is_member, fits)
    learned = scores[fits & held.is_member].mean() - scores[fits & ~held.is_member].mean()
    others = scores[~fits & held.is_member].mean() - scores[~fits & ~held.is_member].mean()
    assert learned > 5 * abs(others)


def test_fewer_than_300_outsiders_cannot_speak_of_one_percent() -> None:
    few = read_membership(items(1000, reference_loss=3.0), seed=0).attacks[-1]
    many = read_membership(items(1400, reference_loss=3.0), seed=0).attacks[-1]
    assert few.outsiders < 300 <= many.outsiders
    assert few.at_rates["1%"] == {"why_not": f"{few.outsiders} outsiders are read, and to speak of 1% takes 300"}
    assert many.at_rates["1%"]["tpr"]["value"] > 0.5
    assert "3000" in many.at_rates["0.1%"]["why_not"]


def test_a_threshold_lets_the_allowed_share_pass_and_no_more() -> None:
    outsiders = np.arange(1000.0)
    assert (outsiders > threshold_at(outsiders, 0.01)).sum() == 10
    assert (outsiders > threshold_at(outsiders, 0.001)).sum() == 1
    assert threshold_at(np.array([]), 0.01) == -np.inf


def test_the_tail_holds_members_alone_the_highest_first() -> None:
    held = items(1300)
    held.scores["reference_loss"][np.flatnonzero(held.is_member)[:3]] = [50.0, 70.0, 60.0]
    first = [held.uids[number] for number in np.flatnonzero(held.is_member)[[1, 2, 0]]]
    tail = read_membership(held, seed=0).tail
    assert [uid for uid, _ in tail][:3] == first
    assert {uid for uid, _ in tail} <= {uid for uid, member in zip(held.uids, held.is_member, strict=True) if member}


def test_too_few_items_are_not_enough() -> None:
    assert not items(30).enough()
    assert items(100).enough()


@pytest.mark.parametrize("name", ["loss", "min_k_plus_plus"])
def test_every_attack_is_read_alone_too(name: str) -> None:
    reading = read_membership(items(600, **{name: 2.0}), seed=0)
    areas = {each.attack: each.area.value for each in reading.attacks}
    assert areas.pop(name) > 0.88 > 0.65 > max(areas.values())


def test_an_attack_at_chance_is_not_read_where_it_was_chosen() -> None:
    """Scores that separate the first half completely, and the second not at all, prove nothing."""
    held = items(1200)
    fixes = first_half(held, seed=9)
    lucky = np.where(fixes & held.is_member, 20.0, 0.0) + held.scores["loss"]
    held = Items(held.uids, held.is_member, held.repeats, held.texts, {**held.scores, "reference_loss": lucky})
    strongest = read_membership(held, seed=9).tiers[-1]
    assert (strongest.attack, strongest.epsilon) == ("reference_loss", 0.0)

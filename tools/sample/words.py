"""The vocabulary of the sample corpus, and `say`: a sentence from a template with choices and facts."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

WORDS = Path(__file__).parent / "word_lists"
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)(?::([^/{}]*)/([^{}]*))?\}")
_ARTICLE = re.compile(r"\b([Aa]) (?=8|11\b|18\b)")  # an 83-year-old


@functools.cache
def load(name: str) -> Any:
    """The word list `name`, read once."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load((WORDS / f"{name}.yaml").read_text(encoding="utf-8"), loader)


def _filled(slot: re.Match[str], facts: Mapping[str, object]) -> str:
    name, singular, plural = slot.groups()
    value = str(facts[name])
    if singular is None:
        return value
    return plural if value in load("plurals") else singular


def say(rng: random.Random, template: str, facts: Mapping[str, object]) -> str:
    """One sentence: `[a|b]` is a choice (they nest), `{name}` a fact, `{name:was/were}` its verb.

    Raises:
        KeyError: the template names a fact that is not there.
    """
    while "[" in template:
        template = _CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), template)
    text = _SLOT.sub(lambda match: _filled(match, facts), template)
    text = re.sub(r"\s+([,.;:])", r"\1", re.sub(r"\s+", " ", text)).strip()
    text = _ARTICLE.sub(r"\1n ", text)
    sentences = re.split(r"(?<=[.?]) (?=[a-z])", text)
    return " ".join(sentence[:1].upper() + sentence[1:] for sentence in sentences)


def say_all(rng: random.Random, sentences: Sequence[Sequence[str]], facts: Mapping[str, object]) -> str:
    """One way of saying each sentence, joined; the empty way leaves it out."""
    texts = (say(rng, rng.choice(ways), facts) for ways in sentences)
    return " ".join(sentence for sentence in texts if sentence)

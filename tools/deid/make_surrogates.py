"""PYTHONHASHSEED=0 python -m tools.deid.make_surrogates: write the names that surrogates are drawn from.

First names that the lists of Faker give to women alone, to men alone, and to both; family names; names of places. A
name of one word in letters only. Needs Faker 40.63.0.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from faker import Faker  # pyright: ignore[reportMissingImports]

from tools.deid.slot_values import WORDS

TARGET = Path(__file__).parents[2] / "lora_med" / "assets" / "deid" / "surrogates.json"
DRAWS, MOST, SEED = 400, 1500, 5


def drawn(method: str) -> set[str]:
    """What a method of Faker gives in each locale: single words of letters, three to twelve long."""
    words: set[str] = set()
    for number, locale in enumerate(WORDS["locales"]):
        faker = Faker(locale)
        faker.seed_instance(SEED + number)
        words |= {getattr(faker, method)() for _ in range(DRAWS)}
    return {word for word in words if word.isalpha() and word.istitle() and 3 <= len(word) <= 12}


def main() -> None:
    rng = random.Random(SEED)
    women, men, family = drawn("first_name_female"), drawn("first_name_male"), drawn("last_name")
    lists = {
        "female": women - men - family,
        "male": men - women - family,
        "either": (women & men) - family,
        "family": family - women - men,
        "place": drawn("city") - women - men - family,
    }
    kept = {kind: sorted(rng.sample(sorted(words), min(MOST, len(words)))) for kind, words in lists.items()}
    TARGET.write_text(json.dumps(kept, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

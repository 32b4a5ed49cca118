"""The general probe: as its script writes it, balanced, and with one right ending each."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tools.sample.probe import DAYS, NUMBERS, PROBE, write_probe


def items() -> list[dict[str, Any]]:
    return [json.loads(line) for line in PROBE.read_text(encoding="utf-8").splitlines()]


def test_what_ships_is_what_the_script_writes(tmp_path: Path) -> None:
    assert write_probe(tmp_path / "again.jsonl").read_bytes() == PROBE.read_bytes()


def test_items_are_unique_and_every_position_is_right_equally_often() -> None:
    found = items()
    assert len({one["uid"] for one in found}) == len(found) == 355
    assert len({(one["question"], *sorted(one["options"])) for one in found}) == len(found)
    for subject in {one["subject"] for one in found}:
        own = [one for one in found if one["subject"] == subject]
        places = Counter(one["options"].index(one["answer"]) for one in own)
        assert max(places.values()) - min(places.values()) <= 1
        assert all(len(set(one["options"])) == len(one["options"]) for one in own)


def test_sums_and_days_are_right() -> None:
    for one in items():
        if one["subject"] == "arithmetic":
            first, _, second, _ = one["question"].casefold().split()
            assert NUMBERS.index(first) + NUMBERS.index(second) == NUMBERS.index(one["answer"].rstrip("."))
            assert sum(option == one["answer"] for option in one["options"]) == 1
        if one["question"].startswith("The day after"):
            before = one["question"].split()[3]
            assert DAYS[(DAYS.index(before) + 1) % 7] == one["answer"].rstrip(".")

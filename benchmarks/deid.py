"""python benchmarks/deid.py --out FOLDER [--model deid-micro] [--data ../shared/data]: what de-identification finds.

Two tests that share no wording with the training notes: 200 invented notes, and invented identifiers planted into texts
of MTS-Dialog and ACI-Bench (with --data; needs Faker). Each with the patterns alone and with the tagger beside them:
recall, precision and letters a second, with 95% intervals by the bootstrap over notes (over texts for the second test);
tables by type and by form; and the twenty identifiers that the tagger was surest were none. Writes deid.json, deid.md.
With --megabytes N it also de-identifies N MB of the notes that ship as records, as `lora-med data deidentify` does, and
writes KB a second, and a second of processor time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from lora_med.audit.deidentify import deidentified, gold_notes, load_finder  # noqa: E402
from lora_med.audit.identifiers import Finder  # noqa: E402
from lora_med.audit.tagger import SHIPPED, Tagger, load_tagger_of_identifiers, with_tagger  # noqa: E402
from lora_med.audit.word_tags import words_of  # noqa: E402
from lora_med.data.record import Annotated  # noqa: E402

INVENTED = ROOT / "tests" / "audit" / "invented_notes.jsonl"
SAMPLES, SEED, HARDEST, AROUND = 2000, 3, 20, 25


@dataclass(frozen=True)
class Outcome:
    """Of one note: each span with whether it was found, and how many replacements there were and hit none."""

    group: str
    spans: list[tuple[dict[str, Any], bool]]
    replaced: int
    beside: int


def outcomes(find: Finder, notes: list[dict[str, Any]]) -> tuple[list[Outcome], float]:
    """What a finder does with each note, and the letters it reads in a second of processor time."""
    results, started = [], time.process_time()
    for note in notes:
        text = note["text"]
        found = find(text)
        covered = {offset for identifier in found for offset in range(identifier.start, identifier.end)}
        marked = {offset for span in note["spans"] for offset in range(span["start"], span["end"])}
        beside = sum(marked.isdisjoint(range(identifier.start, identifier.end)) for identifier in found)
        spans = [
            (span, {place for place in range(span["start"], span["end"]) if text[place].isalnum()} <= covered)
            for span in note["spans"]
        ]
        results.append(Outcome(note.get("group", note["uid"]), spans, len(found), beside))
    return results, sum(len(note["text"]) for note in notes) / (time.process_time() - started)


def shares(results: list[Outcome]) -> dict[str, list[float]]:
    """Each measure with its 95% interval: groups of notes are drawn again, with replacement."""
    counts: defaultdict[str, np.ndarray] = defaultdict(lambda: np.zeros(6))
    for result in results:
        names = [found for span, found in result.spans if span["type"] == "NAME"]
        every = [found for _, found in result.spans]
        row = [sum(every), len(every), sum(names), len(names), result.replaced - result.beside, result.replaced]
        counts[result.group] += np.array(row)
    table = np.array(list(counts.values()))
    rng = np.random.default_rng(SEED)
    drawn = np.array([table[rng.integers(0, len(table), len(table))].sum(axis=0) for _ in range(SAMPLES)])
    whole = table.sum(axis=0)
    measures = {}
    for name, column in (("recall", 0), ("recall of names", 2), ("precision", 4)):
        low, high = np.nanquantile(drawn[:, column] / np.maximum(drawn[:, column + 1], 1), (0.025, 0.975))
        value = whole[column] / max(whole[column + 1], 1)
        measures[name] = [round(float(number), 3) for number in (value, low, high)]
    return measures


def by(results: list[Outcome], *keys: str) -> dict[str, list[int]]:
    """`[found, marked]` of each value of the keys of spans."""
    table: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for result in results:
        for span, found in result.spans:
            counts = table[" ".join(span[key] for key in keys)]
            counts[0] += found
            counts[1] += 1
    return dict(sorted(table.items()))


def hardest(results: list[Outcome], notes: list[dict[str, Any]], tagger: Tagger) -> list[dict[str, Any]]:
    """The missed identifiers whose likeliest word is furthest from a type, with some letters around each."""
    missed = []
    for result, note in zip(results, notes, strict=True):
        spans = [span for span, found in result.spans if not found]
        if not spans:
            continue
        text = note["text"]
        words = words_of(text)
        leads = [lead for lead, _ in tagger.read(text, words)]
        for span in spans:
            own = [
                lead for word, lead in zip(words, leads, strict=True) if word[0] < span["end"] > span["start"] < word[1]
            ]
            start, end = span["start"], span["end"]
            around = f"{text[max(0, start - AROUND) : start]}>{text[start:end]}<{text[end : end + AROUND]}"
            missed.append({"lead": round(max(own), 2), "type": span["type"], "form": span["form"], "text": around})
    return sorted(missed, key=lambda miss: miss["lead"])[:HARDEST]


def measured(notes: list[dict[str, Any]], tagger: Tagger) -> dict[str, Any]:
    """All figures on one test."""
    figures: dict[str, Any] = {"notes": len(notes)}
    results: list[Outcome] = []
    for name, find in (("patterns", load_finder()), ("with the tagger", with_tagger(load_finder(), tagger))):
        results, letters = outcomes(find, notes)
        figures[name] = shares(results) | {"kilobytes a second": round(letters / 1000, 1)}
        figures[name] |= {"by type": by(results, "type"), "by form": by(results, "type", "form")}
    return figures | {"hardest": hardest(results, notes, tagger)}


def speed(tagger: Tagger, megabytes: float) -> dict[str, float]:
    """KB a second and a second of processor time, of records of some KB each, with patterns, tagger and replacement."""
    find, notes = with_tagger(load_finder(), tagger), gold_notes()
    records = [Annotated(note["uid"], note["uid"], "custom", note["text"], ()) for note in notes]
    letters, limit = 0, megabytes * 1e6
    begun, spent = time.perf_counter(), time.process_time()
    for record in cycle(records):
        deidentified(record, find, b"a secret of this benchmark")
        letters += len(record.text)
        if letters >= limit:
            break
    seconds, processor = time.perf_counter() - begun, time.process_time() - spent
    return {
        "KB a second": round(letters / 1000 / seconds, 1),
        "KB a second of processor time": round(letters / 1000 / processor, 1),
        "threads": torch.get_num_threads(),
    }


def page(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = []
    for test, result in figures.items():
        if "notes" not in result:
            lines += [f"## {test}", "", *(f"- {name}: {value}" for name, value in result.items()), ""]
            continue
        lines += [f"## {test}: {result['notes']} notes", "", "| | patterns | with the tagger |", "|---|---|---|"]
        pair = [result["patterns"], result["with the tagger"]]
        for name in ("recall", "recall of names", "precision"):
            cells = [f"{value:.3f} ({low:.3f} to {high:.3f})" for value, low, high in (arm[name] for arm in pair)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append(
            f"| KB a second of processor time | {' | '.join(str(arm['kilobytes a second']) for arm in pair)} |"
        )
        for table in ("by type", "by form"):
            for key in pair[0][table]:
                cells = [
                    f"{found / marked:.2f} ({found} of {marked})" for found, marked in (a[table][key] for a in pair)
                ]
                lines.append(f"| {key} | {' | '.join(cells)} |")
        lines += ["", "Hardest misses:", ""]
        lines += [f"- {miss['type']} {miss['form']}, {miss['lead']}: {miss['text']!r}" for miss in result["hardest"]]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default=SHIPPED)
    parser.add_argument("--store", default="adapters")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--megabytes", type=float, default=0.0)
    options = parser.parse_args()
    tests = {"invented notes": [json.loads(line) for line in INVENTED.read_text(encoding="utf-8").splitlines()]}
    if options.data is not None:
        from tools.deid.planted import planted

        tests["planted in real texts"] = list(planted(options.data))
    tagger = load_tagger_of_identifiers(options.model, options.store)
    figures = {name: measured(notes, tagger) for name, notes in tests.items()}
    if options.megabytes:
        figures["speed"] = speed(tagger, options.megabytes)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "deid.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False), encoding="utf-8")
    (options.out / "deid.md").write_text(page(figures), encoding="utf-8")
    sys.stdout.write(page(figures))


if __name__ == "__main__":
    main()

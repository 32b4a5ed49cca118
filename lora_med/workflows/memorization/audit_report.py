"""The results of an audit as files: report.json to compute with, report.html and report.md to read.

report.json, `schema` "lora_med.memorization/1":

    adapter, weights (SHA-256), base, source, access, created, seconds, versions
    method          confidence, delta, seed, halves, attacks, verbatim and least (tokens), prefixes, template_patients
    canaries        null without a twin, else list_sha256, drawn, repeats, writer, members, and
      membership    members, outsiders, valid, verdict, epsilon (null where not valid), ceiling, blind_auc,
                    attacks[] (attack, tier, repeats (null: any), members, outsiders, auc, tpr_at -> tpr and fpr, or
                    why_not), tiers[] (tier, holds, attack, repeats, tpr, fpr, epsilon, ceiling)
      extraction[]  repeats, members[] and outsiders[]: given, tried, verbatim, not_by_the_base, not_a_template, share
    patients        in_training, held_out, membership (as above, or why_not), tail[] (group, score: nats per token
                    that the adapter added to the base's), and
      extraction    members[] and outsiders[] as above, found[]: uid, group, given, offset, tokens, sha256
    bound           most_epsilon, most_extracted, exceeded[]

Intervals have value, low, high, count and n. No text is in any of these files: uids and groups (hashed where the data
are credentialed), offsets in tokens, and hashes of texts.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_med.adapters.store.published import Published
from lora_med.adapters.store.store import WEIGHTS
from lora_med.audit.memorization.canaries import Canary
from lora_med.audit.memorization.exact_intervals import CONFIDENCE, rate
from lora_med.audit.memorization.extraction import (
    LEAST,
    PREFIXES,
    VERBATIM,
    Extract,
    SharedText,
    Written,
    counts,
    extracts,
    own_extracts,
    patients,
)
from lora_med.audit.memorization.membership import ATTACKS, LEAST_ITEMS, Reading
from lora_med.config.schema import Settings
from lora_med.data.record import shown_uid
from lora_med.evaluation.report.page import to_html, to_markdown
from lora_med.files import write_atomic, write_json
from lora_med.run import versions
from lora_med.workflows.memorization.audit_options import AuditOptions
from lora_med.workflows.memorization.audit_page import audit_page

SCHEMA = "lora_med.memorization/1"


@dataclass(frozen=True)
class Extraction:
    """What was written verbatim of members and of outsiders, and how many rows of each were tried."""

    members: tuple[Written, ...]
    outsiders: tuple[Written, ...]
    stretches: tuple[Extract, ...]
    repeats: Mapping[str, int]

    @classmethod
    def of(
        cls,
        written: Sequence[Written],
        shared: SharedText,
        others: int,
        members: Collection[str],
        repeats: Mapping[str, int],
    ) -> Extraction:
        """The extraction from rows, of which those of `members` were trained on."""
        inside = tuple(row for row in written if row.group in members)
        outside = tuple(row for row in written if row.group not in members)
        return cls(inside, outside, tuple(extracts(written, shared, others)), repeats)

    def of_rows(self, rows: Sequence[Written]) -> list[Extract]:
        """What was found in these rows."""
        groups = {row.group for row in rows}
        return [each for each in self.stretches if each.group in groups]

    def table(self) -> dict[str, Any]:
        """The counts of members and outsiders."""
        return {
            "members": counts(self.members, self.of_rows(self.members)),
            "outsiders": counts(self.outsiders, self.of_rows(self.outsiders)),
        }

    def tables_by_repeats(self) -> list[dict[str, Any]]:
        """The counts of members for each number of repeats, beside those of all outsiders."""
        outside = counts(self.outsiders, self.of_rows(self.outsiders))
        tables = []
        for times in sorted(set(self.repeats.values())):
            rows = [row for row in self.members if self.repeats[row.group] == times]
            tables.append({"repeats": times, "members": counts(rows, self.of_rows(rows)), "outsiders": outside})
        return tables

    @property
    def extracted(self) -> int:
        """How many members have text that neither the base nor a template explains."""
        return patients(self.of_rows(self.members))


@dataclass(frozen=True)
class CanaryResult:
    """The twin's: the sealed list, its reading, and what was written of the canaries."""

    sha256: str
    canaries: Sequence[Canary]
    reading: Reading
    extraction: Extraction


@dataclass(frozen=True)
class PatientResult:
    """The adapter's own: patients in training and held out; no reading where there are too few."""

    reading: Reading | None
    in_training: int
    held_out: int
    extraction: Extraction

    def why_not(self) -> str:
        """Why membership was not read."""
        return (
            f"{self.in_training} patients in training and {self.held_out} held out have rows, and it takes "
            f"{LEAST_ITEMS} of each"
        )


@dataclass(frozen=True)
class Result:
    """All that an audit found."""

    adapter: Published
    settings: Settings
    options: AuditOptions
    canaries: CanaryResult | None
    patients: PatientResult
    seconds: float

    def exceeded(self) -> list[str]:
        """In what the adapter exceeds the bound, in words."""
        most, allowed = self.options.most_epsilon, self.options.most_extracted
        lines = []
        readings = {
            "the canaries": self.canaries.reading if self.canaries else None,
            "the patients": self.patients.reading,
        }
        for whose, reading in readings.items():
            if reading is not None and reading.epsilon is not None and reading.epsilon > most:
                lines.append(f"epsilon of {whose} is at least {reading.epsilon:.2f}, and the bound is {most:g}")
        if self.patients.extraction.extracted > allowed:
            count = self.patients.extraction.extracted
            noun = "patient" if count == 1 else "patients"
            lines.append(f"text of {count} {noun} is written verbatim, and the bound is {allowed}")
        return lines

    def content(self, tokenizer: Any) -> dict[str, Any]:
        """The content of report.json."""
        card = self.adapter.card
        return {
            "schema": SCHEMA,
            "adapter": card.name,
            "weights": card.files[WEIGHTS],
            "base": card.base.name,
            "source": card.data.source,
            "access": card.data.access,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": self.seconds,
            "versions": versions(),
            "method": self._method(),
            "canaries": self._canaries(),
            "patients": self._patients(tokenizer),
            "bound": {
                "most_epsilon": self.options.most_epsilon,
                "most_extracted": self.options.most_extracted,
                "exceeded": self.exceeded(),
            },
        }

    def _method(self) -> dict[str, Any]:
        return {
            "confidence": CONFIDENCE,
            "delta": self.options.delta,
            "seed": self.options.seed,
            "halves": "thresholds, attack and repeats are chosen on one half and read on the other",
            "attacks": dict(ATTACKS),
            "verbatim": VERBATIM,
            "least": LEAST,
            "prefixes": list(PREFIXES),
            "template_patients": self.options.others,
        }

    def _canaries(self) -> dict[str, Any] | None:
        if self.canaries is None:
            return None
        drawn = self.canaries.canaries
        return {
            "list_sha256": self.canaries.sha256,
            "drawn": len(drawn),
            "repeats": list(self.options.repeats),
            "writer": self.options.writer,
            "members": sum(canary.is_member for canary in drawn),
            "membership": self.canaries.reading.as_json(),
            "extraction": self.canaries.extraction.tables_by_repeats(),
        }

    def _patients(self, tokenizer: Any) -> dict[str, Any]:
        access, own = self.adapter.card.data.access, self.patients
        reading = own.reading
        stretches = own_extracts(own.extraction.of_rows(own.extraction.members))
        return {
            "in_training": own.in_training,
            "held_out": own.held_out,
            "membership": {"why_not": own.why_not()} if reading is None else reading.as_json(),
            "tail": []
            if reading is None
            else [{"group": shown_uid(uid, access), "score": score} for uid, score in reading.tail],
            "extraction": {
                **own.extraction.table(),
                "extracted": own.extraction.extracted,
                "found": [
                    each.as_json(
                        shown_uid(each.uid, access),
                        shown_uid(each.group, access),
                        tokenizer.decode(list(each.tokens)),
                    )
                    for each in stretches
                ],
            },
        }

    def card_entry(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """The entry of card.json: figures, ceilings and method, and no uid."""
        canaries, own = content["canaries"], content["patients"]
        extraction = self.patients.extraction
        return {
            "schema": SCHEMA,
            "audited": content["created"],
            "weights": content["weights"],
            "method": content["method"],
            "canaries": None
            if canaries is None
            else {name: canaries[name] for name in ("list_sha256", "drawn", "repeats", "writer")}
            | _figures(canaries["membership"]),
            "patients": _figures(own["membership"]),
            "extracted": {
                "patients": extraction.extracted,
                "tried": own["in_training"],
                "outsiders": patients(extraction.of_rows(extraction.outsiders)),
                "outsiders_tried": own["held_out"],
                "share": rate(extraction.extracted, own["in_training"]).as_json(),
            },
            "bound": content["bound"],
            "accepted": [],
        }


def _figures(membership: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a reading for the card."""
    if "why_not" in membership:
        return {"why_not": membership["why_not"]}
    names = ("members", "outsiders", "valid", "verdict", "epsilon", "ceiling")
    tiers = {each["tier"]: each["epsilon"] for each in membership["tiers"]}
    return {name: membership[name] for name in names} | {"tiers": tiers if membership["valid"] else None}


def write_result(result: Result, tokenizer: Any) -> dict[str, Any]:
    """Write report.json, report.html and report.md; returns the content of the first."""
    content, folder = result.content(tokenizer), result.options.out
    private = content["access"] == "credentialed"
    readings = {
        "the canaries of the twin": result.canaries.reading if result.canaries else None,
        "the patients of the data": result.patients.reading,
    }
    page = audit_page(content, readings)
    write_atomic(folder / "report.html", to_html(page), private=private)
    write_atomic(folder / "report.md", to_markdown(page), private=private)
    write_json(folder / "report.json", content, private=private)
    return content

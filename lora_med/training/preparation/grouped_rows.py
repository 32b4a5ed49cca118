"""Rows of any kind with the group of the record that each comes from: the patients of training with privacy."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.preparation.row_kinds import Conclusion, RowKind


@dataclass
class GroupedFacts:
    """The facts of another kind of row, and a number for the group of each document."""

    inner: Any
    groups: array[int] = field(default_factory=lambda: array("q"))

    def merge(self, later: GroupedFacts) -> None:
        """Add the facts of the blocks that follow."""
        self.inner.merge(later.inner)
        self.groups.extend(later.groups)


@dataclass(frozen=True)
class GroupedRows:
    """The rows of `kind`, one document each, and their groups. A group is the same person in every source."""

    documents_a_row: ClassVar[int] = 1

    kind: RowKind

    @property
    def max_length(self) -> int:
        """The most tokens of a document."""
        return self.kind.max_length

    def marks(self) -> list[object]:
        """All that decides the rows beside their records and the tokenizer."""
        return ["by group", *self.kind.marks()]

    def no_facts(self) -> GroupedFacts:
        """The facts of no block."""
        return GroupedFacts(self.kind.no_facts())

    def block(self, records: Sequence[Any]) -> tuple[list[Tokens], GroupedFacts]:
        """The documents of a block and their facts; record by record where a uid is in two groups.

        Raises:
            LoraMedError: as the inner kind.
        """
        groups = {record.uid: record.group for record in records}
        if any(groups[record.uid] != record.group for record in records):
            return self._one_by_one(records)
        documents, inner = self.kind.block(records)
        return documents, GroupedFacts(inner, array("q", [_number(groups[each.uid]) for each in documents]))

    def _one_by_one(self, records: Sequence[Any]) -> tuple[list[Tokens], GroupedFacts]:
        documents: list[Tokens] = []
        facts = self.no_facts()
        for record in records:
            own, inner = self.kind.block([record])
            facts.merge(GroupedFacts(inner, array("q", [_number(record.group)] * len(own))))
            documents += own
        return documents, facts

    def conclude(self, facts: GroupedFacts, what: str) -> Conclusion:
        """The report on the rows, with the groups numbered from 0 in the order of the rows.

        Raises:
            PreflightError: as the inner kind.
        """
        concluded = self.kind.conclude(facts.inner, what)
        numbers: dict[int, int] = {}
        groups = [numbers.setdefault(group, len(numbers)) for group in facts.groups]
        return replace(concluded, report={**concluded.report, "patients": len(numbers)}, groups=groups)

    def log(self, report: Mapping[str, Any], warnings: Sequence[str], what: str) -> None:
        """Log what is known of the rows."""
        self.kind.log(report, warnings, what)


def _number(group: str) -> int:
    """A number of 63 bits for a group; two groups have one by chance alone, and would be protected as one person."""
    return int.from_bytes(hashlib.sha256(group.encode("utf-8", "surrogatepass")).digest()[:8], "little") >> 1

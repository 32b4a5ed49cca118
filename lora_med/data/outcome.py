"""The outcome of reading an item: a record, or a drop with its reason. So the counts always add up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, TypeVar

from lora_med.data.access import Access, access_of
from lora_med.data.in_memory import MemoryRows
from lora_med.data.record import Record
from lora_med.errors import DataError

Item = TypeVar("Item", covariant=True)
AnswerForm = Literal["text", "letter", "from_0", "from_1"]  # how a column gives the right option


@dataclass(frozen=True, slots=True)
class Drop:
    """An item left out. With an `error` it is bad, and stops the run unless bad items are skipped."""

    reason: str
    error: DataError | None = None


@dataclass(frozen=True, slots=True)
class PartDrop:
    """A part of a record that was left out, while the record is retained: an annotation that does not fit its text.

    `where` names the file and the record. The counts of records do not contain it; `Tally.parts_dropped` does. What
    needs words has them in `what`, for a warning.
    """

    reason: str
    where: str
    what: str = ""


Outcome = Record | Drop | PartDrop


@dataclass(frozen=True)
class Tally:
    """How many items were read and retained, and why others were dropped; `read == kept + sum(dropped.values())`.

    `parts_dropped` counts what was left out within retained records, such as annotations outside their text.
    `repeated` counts the retained records that have the content of an earlier one; training leaves them out.
    """

    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    parts_dropped: dict[str, int] = field(default_factory=dict)
    repeated: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.read + other.read,
            self.kept + other.kept,
            _sum(self.dropped, other.dropped),
            _sum(self.parts_dropped, other.parts_dropped),
            self.repeated + other.repeated,
        )

    def drop(self, reason: str, count: int) -> Tally:
        """The tally after `count` of the retained are dropped for `reason` too."""
        return self + Tally(0, -count, {reason: count}) if count else self

    def __str__(self) -> str:
        dropped, parts = _listed(self.dropped), _listed(self.parts_dropped)
        text = f"{self.read:,} read, {self.kept:,} kept" + (f"; dropped: {dropped}" if dropped else "")
        text += f"; left out within records: {parts}" if parts else ""
        verb = "repeats" if self.repeated == 1 else "repeat"
        return text + (f"; {self.repeated:,} {verb} the text of another: left out of training" if self.repeated else "")


def _sum(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    return {reason: first.get(reason, 0) + second.get(reason, 0) for reason in sorted({*first, *second})}


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.items()))


@dataclass(frozen=True)
class Again(Generic[Item]):
    """An iterable that starts from the beginning at each pass and holds nothing: it calls `make` for each pass."""

    make: Callable[[], Iterator[Item]]

    def __iter__(self) -> Iterator[Item]:
        return self.make()


@dataclass(frozen=True)
class HubSet:
    """A data set on the Hub: `owner/name`, its configuration if it has several, and the split to read."""

    name: str
    config: str | None
    split: str

    def __str__(self) -> str:
        return self.name + (f":{self.config}" if self.config else "")


Input = Path | HubSet | MemoryRows


@dataclass(frozen=True)
class TableFormat:
    """How a table is written, where its user says so; None: as the file itself shows.

    `encoding` names a character encoding, `delimiter` is the character between the cells of a CSV, `sheet` the name of
    a workbook's sheet or the key of a list in a JSON object.
    """

    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None


@dataclass
class ReadNotes:
    """What reading notices besides the records, over all passes.

    `access` collects the access classes of the sources that rows name: records that `data read` wrote from credentialed
    notes are credentialed when they are read back. `columns` maps each column that was used to the field it was used
    as; `unused_columns` holds the others, in the order of the file. `grouping` says what the group is, and `remarks`
    are further decisions, in sentences.
    """

    access: set[str] = field(default_factory=set)
    columns: dict[str, str] = field(default_factory=dict)
    unused_columns: dict[str, None] = field(default_factory=dict)
    grouping: str = ""
    remarks: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True)
class ReadOptions:
    """What a source may need besides its inputs; each uses what concerns it. `notes` is filled while reading.

    `stops_at_columns` is false where records are only compared with, so that no column's content or patient is lost.
    """

    columns: dict[str, str] = field(default_factory=dict)
    keep_retracted: bool = False
    streaming: bool = False
    labels: tuple[str, ...] = ()
    ignore_columns: tuple[str, ...] = ()
    answer_form: AnswerForm | None = None
    stops_at_columns: bool = True
    table: TableFormat = TableFormat()
    notes: ReadNotes = field(default_factory=ReadNotes)

    def access_of(self, own: str | None, stated: str | None) -> Access | None:
        """The class of what was read so far from a source with the class `own`, of which a user `stated` another."""
        return access_of(own, stated, self.notes.access)


def numbered_names(inputs: Iterable[Input]) -> dict[Input, str]:
    """The shortest name that identifies each input: the file's name, with folders only where names are equal.

    So no absolute path gets into identifiers and cards.
    """
    items = list(dict.fromkeys(inputs))
    names = {item: item.name if isinstance(item, Path) else str(item) for item in items}
    depth = 1
    while len(set(names.values())) < len(items) and depth < 64:
        depth += 1
        names = {item: "/".join(item.parts[-depth:]) if isinstance(item, Path) else str(item) for item in items}
    return names


def input_names(inputs: Iterable[Input]) -> dict[Input, str]:
    """The names in identifiers: `numbered_names`, with a gz named after its content."""
    names = numbered_names(inputs)
    bare = {item: name.removesuffix(".gz") for item, name in names.items()}
    return bare if len(set(bare.values())) == len(names) else names

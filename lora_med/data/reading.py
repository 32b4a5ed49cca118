"""From paths to records: find the inputs, read them, refuse or skip what is bad, drop duplicates, count everything."""

from __future__ import annotations

import glob
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from lora_med.config.near_names import nearest
from lora_med.data.access import strictest
from lora_med.data.catalog import read
from lora_med.data.in_memory import MemoryRows
from lora_med.data.outcome import Again, Drop, HubSet, Input, Outcome, PartDrop, ReadOptions, Tally
from lora_med.data.record import Annotated, Pair, Passage, Question, Record, shown_uid
from lora_med.data.source import Source
from lora_med.errors import DataError, InputMissingError, SettingsError

HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<config>[\w.-]+))?")

SAMPLE, SAMPLE_FOLDER = "sample:", Path(__file__).parents[1] / "assets" / "sample"  # files that ship, by name
MOST_NAMED = 3  # inputs in a message


def _inside(folder: Path, source: Source) -> list[Path]:
    ends = (*source.suffixes, *(f"{suffix}.gz" for suffix in source.suffixes))
    files = (path for path in folder.rglob("*") if path.is_file() and path.name.lower().endswith(ends))
    return sorted(path for path in files if not path.name.startswith("._"))  # what macOS adds beside each file


def _matches(pattern: str, source: Source, hub_split: str) -> list[Input]:
    path = SAMPLE_FOLDER / pattern.removeprefix(SAMPLE) if pattern.startswith(SAMPLE) else Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        return list(_inside(path, source))
    if glob.has_magic(pattern):
        names = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
        return [Path(name) for name in sorted(names) if Path(name).is_file()]
    hub = HUB_ID.fullmatch(pattern)
    if hub and source.reads_hub and not pattern.lower().endswith((*source.suffixes, ".gz")):
        return [HubSet(hub["name"], hub["config"], hub_split)]
    return []


def find_inputs(source: Source, patterns: Sequence[str], hub_split: str = "train") -> list[Input]:
    """The files and Hub data sets that `patterns` name, each once, in order; a pattern's matches are sorted by name.

    A folder means the files in it that the source reads. Hub ids are `owner/name` or `owner/name:configuration`.

    Raises:
        SettingsError: no pattern at all.
        InputMissingError: a pattern that nothing matches, with the near name beside it.
    """
    if not patterns:
        raise SettingsError(
            f"no input for the source {source.name!r}", where="data.paths", fix="name at least one file"
        )
    inputs: list[Input] = []
    for pattern in patterns:
        matched = _matches(pattern, source, hub_split)
        if not matched:
            raise _nothing(pattern, source)
        inputs += matched
    return list(dict.fromkeys(inputs))


def _nothing(pattern: str, source: Source) -> InputMissingError:
    path = Path(pattern).expanduser()
    if path.is_dir():
        what = f"the folder {pattern!r} holds no file that the source {source.name!r} reads"
        return InputMissingError(what, where="data.paths", fix=f"its names end in {', '.join(source.suffixes)}")
    if path.exists():
        return InputMissingError(f"{pattern!r} is no file", where="data.paths", fix="name a file or a folder")
    near = nearest(path.name, [item.name for item in path.parent.iterdir()]) if path.parent.is_dir() else None
    hint = f"; did you mean {str(path.parent / near)!r}?" if near else ""
    fix = "paths are relative to the working directory"
    if HUB_ID.fullmatch(pattern) and not source.reads_hub:
        fix += "; a Hub data set is read by data.source=custom, its columns named in data.columns"
    return InputMissingError(f"nothing matches {pattern!r}{hint}", where="data.paths", fix=fix)


def content(record: Record) -> int:
    """A 64-bit digest of the content of a record without its identifier: equal content, equal number."""
    if isinstance(record, Passage):
        parts: tuple[str, ...] = ("passage", record.title, record.text)
    elif isinstance(record, Question):
        parts = ("question", record.question, record.answer, *record.contexts, "", *record.options)
    elif isinstance(record, Pair):
        parts = ("pair", record.input, record.output, *(part for turn in record.history for part in turn))
    else:
        assert isinstance(record, Annotated)
        parts = ("annotated", record.text, *(f"{span.start} {span.end} {span.type}" for span in record.spans))
    return digest("\x1f".join(parts))


def digest(text: str) -> int:
    """A 64-bit digest of a text; memory for millions of them stays small."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big")


class Reading:
    """The records of some inputs, read again at each pass, with what is bad refused or skipped and counted.

    After a pass, `tally` holds its counts, `first` its first record and `sha256` the digest of all its records. A
    record with the content of an earlier one is dropped as `duplicate`. One with only the uid of an earlier one is bad.
    `where` names the inputs, and `access_of` gives the class of what was read so far, for that error.
    """

    def __init__(
        self,
        outcomes: Iterable[Outcome],
        where: str,
        *,
        skip_bad: bool = False,
        limit: int | None = None,
        access_of: Callable[[], str | None] = lambda: "open",
    ) -> None:
        self._outcomes = outcomes
        self._where = where
        self._skip_bad = skip_bad
        self._limit = limit
        self._access_of = access_of
        self.tally = Tally()
        self.first: Record | None = None
        self.sha256 = ""

    def __iter__(self) -> Iterator[Record]:
        count, dropped, parts_dropped, sha256 = 0, Counter[str](), Counter[str](), hashlib.sha256()
        self.first = None
        for outcome in _without_duplicates(self._outcomes, self._where, self._access_of):
            if isinstance(outcome, Drop):
                if outcome.error is not None and not self._skip_bad:
                    raise outcome.error
                dropped[outcome.reason] += 1
            elif isinstance(outcome, PartDrop):
                parts_dropped[outcome.reason] += 1
            else:
                self.first = self.first or outcome
                sha256.update(f"{outcome.uid}\x1f{content(outcome)}\n".encode())
                count += 1
                yield outcome
            if count == self._limit:
                break
        self.tally = Tally(
            count + dropped.total(), count, dict(sorted(dropped.items())), dict(sorted(parts_dropped.items()))
        )
        self.sha256 = sha256.hexdigest()


def _without_duplicates(
    outcomes: Iterable[Outcome], where: str, access_of: Callable[[], str | None]
) -> Iterator[Outcome]:
    contents, uids = set[int](), set[int]()
    for number, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, Drop | PartDrop):
            yield outcome
            continue
        content_hash, uid_hash = content(outcome), digest(outcome.uid)
        if content_hash in contents:
            yield Drop("duplicate")
        elif uid_hash in uids:
            error = DataError(
                f"two different records have the uid {shown_uid(outcome.uid, access_of())!r}",
                where=f"{where}, record {number:,}",
                fix="map data.columns.uid to a column that is unique, or leave it out",
            )
            yield Drop("duplicate_uid", error)
        else:
            contents.add(content_hash)
            uids.add(uid_hash)
            yield outcome


def read_records(
    source: Source,
    inputs: Sequence[Input],
    options: ReadOptions,
    *,
    skip_bad: bool = False,
    limit: int | None = None,
) -> Reading:
    """The records of `inputs`; nothing is read before the first pass over the result.

    Passing over it raises:
        DataError: bad input, naming file, line and what was expected (unless `skip_bad`).
        InputMissingError: a file that is not there, or a Hub data set that cannot be had.
    """
    if any(isinstance(item, MemoryRows) and item.holds_records for item in inputs):
        held = [item for item in inputs if isinstance(item, MemoryRows)]
        return Reading(Again(lambda: (record for item in held for record in item.records())), str(held[0]), limit=limit)
    where = ", ".join(map(str, inputs[:MOST_NAMED])) + ("" if len(inputs) <= MOST_NAMED else " and more")
    return Reading(
        read(source, inputs, options),
        where,
        skip_bad=skip_bad,
        limit=limit,
        access_of=lambda: strictest([source.access, options.met_access()]),
    )

"""From paths to records: find the inputs, read them, refuse or skip what is bad, drop duplicates, count everything."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path

from lora_med.config.near_names import nearest
from lora_med.data.catalog import read
from lora_med.data.formats.documents.unsupported_formats import counted_endings, unsupported_ending, unsupported_file
from lora_med.data.in_memory import MemoryRows
from lora_med.data.outcome import Again, Drop, HubSet, Input, Outcome, PartDrop, ReadOptions, Tally
from lora_med.data.record import Pair, Record, content, digest
from lora_med.data.source import Source
from lora_med.data.splitting.compact import DigestSet
from lora_med.errors import DataError, InputMissingError, LoraMedError, SettingsError

HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<config>[\w.-]+))?")

SAMPLE, SAMPLE_FOLDER = "sample:", Path(__file__).parents[1] / "assets" / "sample"  # files that ship, by name
MOST_NAMED = 3  # inputs in a message
SKIP_ADVICE = re.compile(r"(?:,? or )?(?:set )?data\.skip_bad=true(?: \(--skip-bad\))?")
NEVER_SKIPPED = {"bad_utf8"}  # reasons that are faults of the whole file, however many of its lines happen to be right
CHECK_SOURCE = "check source and file: lora-med data list shows what each reads"
LOOKED_AT, IN_A_ROW = 100, 10  # items after a bad one; so many bad ones and no good one are a fault of the whole file
MOST_SKIPPED = 0.1  # of all items, before a warning
logger = logging.getLogger(__name__)


def _inside(folder: Path, source: Source) -> list[Path]:
    """The files below a folder that the source reads; documents of a format that none reads are named in a warning."""
    files = [
        path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("._")
    ]  # macOS adds those
    matched = sorted(path for path in files if path.name.lower().endswith(_endings(source)))
    if matched and (left_out := counted_endings(set(files) - set(matched))):
        logger.warning("%s: not read, because no source reads their format: %s", folder, left_out)
    return matched


def _endings(source: Source) -> tuple[str, ...]:
    return (*source.suffixes, *(f"{suffix}.gz" for suffix in source.suffixes))


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
        fix = f"its names end in {', '.join(source.suffixes)}"
        files = [item for item in path.rglob("*") if item.is_file()]
        form = next(filter(None, map(unsupported_ending, (item.name for item in files))), None)
        if form is not None:
            what, fix = f"{what}, but {counted_endings(files)}", form.advice
        return InputMissingError(what, where="data.paths", fix=fix)
    if path.exists():
        return InputMissingError(f"{pattern!r} is no file", where="data.paths", fix="name a file or a folder")
    near = nearest(path.name, [item.name for item in path.parent.iterdir()]) if path.parent.is_dir() else None
    hint = f"; did you mean {str(path.parent / near)!r}?" if near else ""
    fix = "paths are relative to the working directory"
    if HUB_ID.fullmatch(pattern) and not source.reads_hub:
        fix += "; a Hub data set is read by data.source=custom, its columns named in data.columns"
    return InputMissingError(f"nothing matches {pattern!r}{hint}", where="data.paths", fix=fix)


class Reading:
    """The records of some inputs, read again at each pass, with what is bad refused or skipped and counted.

    After a pass, `tally` holds its counts, `kinds` the kinds of its records, `has_conversations` whether one was given
    in turns, `sha256` the digest of all its records, and `is_complete` says that no limit ended it. A record with the
    content of an earlier one is dropped as `duplicate`, unless `repeats` are retained, as they are in a published test
    set, which is scored whole. One with only the uid of an earlier one is bad. No record at all is an error, unless the
    inputs are one split of several and `may_be_empty`. `where` names the inputs, for errors.
    """

    def __init__(
        self,
        outcomes: Iterable[Outcome],
        where: str,
        *,
        skip_bad: bool = False,
        limit: int | None = None,
        repeats: bool = False,
        may_be_empty: bool = False,
    ) -> None:
        self._outcomes = outcomes
        self._where = where
        self._skip_bad = skip_bad
        self._limit = limit
        self._repeats = repeats
        self._may_be_empty = may_be_empty
        self._has_warned = False
        self.tally = Tally()
        self.kinds: set[type] = set()
        self.has_conversations = False
        self.sha256 = ""
        self.is_complete = False

    def __iter__(self) -> Iterator[Record]:
        """The records.

        Raises:
            DataError: a bad item, unless bad ones are skipped; or no record at all.
        """
        kept, skipped, dropped, parts_dropped = 0, Counter[str](), Counter[str](), Counter[str]()
        sha256, first_error = hashlib.sha256(), None
        self.kinds, self.has_conversations = set(), False
        outcomes = _unique(self._outcomes, self._where, repeats=self._repeats)
        for outcome in outcomes:
            if isinstance(outcome, Drop):
                if outcome.error is not None:
                    if not self._skip_bad:
                        raise _with_fitting_advice(outcome.reason, outcome.error, outcomes, is_first=not kept)
                    first_error = first_error or outcome.error
                    skipped[outcome.reason] += 1
                dropped[outcome.reason] += 1
            elif isinstance(outcome, PartDrop):
                parts_dropped[outcome.reason] += 1
            else:
                self.kinds.add(type(outcome))
                self.has_conversations |= isinstance(outcome, Pair) and outcome.is_conversation
                sha256.update(f"{outcome.uid}\x1f{content(outcome)}\n".encode())
                kept += 1
                yield outcome
            if kept == self._limit:
                break
        self.tally = Tally(
            kept + dropped.total(), kept, dict(sorted(dropped.items())), dict(sorted(parts_dropped.items()))
        )
        self.sha256 = sha256.hexdigest()
        self.is_complete = kept != self._limit
        if not kept and not self._may_be_empty:
            raise _nothing_kept(self.tally, self._where, first_error)
        if not self._has_warned:
            self._has_warned = _warned_of(skipped, self.tally.read, self._where)


def _unique(outcomes: Iterable[Outcome], where: str, *, repeats: bool) -> Iterator[Outcome]:
    """The outcomes with unique uids; a record with the content of an earlier one is dropped, or has a new uid."""
    contents, uids = DigestSet(), DigestSet()
    for number, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, Drop | PartDrop):
            yield outcome
            continue
        content_hash, uid_hash = content(outcome), digest(outcome.uid)
        is_repeated = content_hash in contents
        if is_repeated and not repeats:
            yield Drop("duplicate")
            continue
        if is_repeated and uid_hash in uids:
            outcome = replace(outcome, uid=_free_uid(outcome.uid, uids))
            uid_hash = digest(outcome.uid)
        elif uid_hash in uids:
            error = DataError(
                f"two different records have the uid {outcome.uid!r}",
                where=f"{where}, record {number:,}",
                fix="map data.columns.uid to a column that is unique, or leave it out",
            )
            yield Drop("duplicate_uid", error)
            continue
        contents.add(content_hash)
        uids.add(uid_hash)
        yield outcome


def _free_uid(uid: str, uids: DigestSet) -> str:
    """The uid of the next of several equal items of a published set: uid#2, uid#3."""
    return next(free for free in (f"{uid}#{number}" for number in count(2)) if digest(free) not in uids)


def _with_fitting_advice(reason: str, error: DataError, rest: Iterator[Outcome], *, is_first: bool) -> DataError:
    """The error, without the advice to skip where the fault is of the whole file; `rest` are the items after it.

    It is of the whole file by its reason, or if no item among the next ones is good, and none or many came before.
    """
    if not SKIP_ADVICE.search(error.fix or ""):
        return error
    following = 0
    with contextlib.suppress(LoraMedError):
        for outcome in islice(rest, LOOKED_AT):
            if not isinstance(outcome, PartDrop) and (not isinstance(outcome, Drop) or outcome.error is None):
                following = -1
                break
            following += isinstance(outcome, Drop)
    is_whole = following >= 0 and (is_first or following + 1 >= IN_A_ROW)
    if not is_whole and reason not in NEVER_SKIPPED:
        return error
    what = f"{error.what}; of the {following:,} items after it none can be read" if following > 0 else error.what
    fix = _without_skip_advice(error)
    if following > 0:
        fix += "; the whole file is written in another way: check its encoding, delimiter, columns and source"
    return type(error)(what, where=error.where, fix=fix.removeprefix("; ") or CHECK_SOURCE)


def _without_skip_advice(error: DataError) -> str:
    return SKIP_ADVICE.sub("", error.fix or "").strip(" ,;")


def _nothing_kept(tally: Tally, where: str, first: DataError | None) -> DataError:
    """The error of an input without a record: the counts by reason, and the first fault where there is one."""
    what = (
        f"no record was retained: {tally}" if tally.read else "the input holds nothing that this source reads: 0 read"
    )
    if first is not None:
        what += f"; the first fault, at {first.where}: {first.what}"
    fix = _without_skip_advice(first) if first is not None else ""
    return DataError(what, where=where, fix=fix or CHECK_SOURCE)


def _warned_of(skipped: Counter[str], read: int, where: str) -> bool:
    """Warn if bad items were skipped that are more than a tenth of all, with the share of each reason."""
    if skipped.total() <= MOST_SKIPPED * read:
        return False
    shares = ", ".join(f"{reason} {number / read:.1%}" for reason, number in sorted(skipped.items()))
    logger.warning("skip_bad left out %s of %s items of %s: %s", f"{skipped.total():,}", f"{read:,}", where, shares)
    return True


def read_records(
    source: Source,
    inputs: Sequence[Input],
    options: ReadOptions,
    *,
    skip_bad: bool = False,
    limit: int | None = None,
    repeats: bool = False,
    may_be_empty: bool = False,
) -> Reading:
    """The records of `inputs`; before the first pass over the result only the first bytes of each file are read.

    Passing over it raises:
        DataError: bad input, naming file, line and what was expected (unless `skip_bad`); or no record at all.
        InputMissingError: a file that is not there, or a Hub data set that cannot be had.
    """
    if any(isinstance(item, MemoryRows) and item.holds_records for item in inputs):
        held = [item for item in inputs if isinstance(item, MemoryRows)]
        records = Again(lambda: (record for item in held for record in item.records()))
        return Reading(records, str(held[0]), limit=limit, repeats=repeats, may_be_empty=may_be_empty)
    where = ", ".join(map(str, inputs[:MOST_NAMED])) + ("" if len(inputs) <= MOST_NAMED else " and more")
    return Reading(
        _outcomes(source, inputs, options),
        where,
        skip_bad=skip_bad,
        limit=limit,
        repeats=repeats,
        may_be_empty=may_be_empty,
    )


def _outcomes(source: Source, inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """What the source reads; a file of a format that none reads, such as a PDF, is a drop with its error instead."""
    forms = {item: unsupported_file(item, source.suffixes) for item in inputs if isinstance(item, Path)}
    refused = [Drop("unsupported_format", form.error(str(path))) for path, form in forms.items() if form is not None]
    outcomes = read(source, [item for item in inputs if not isinstance(item, Path) or forms[item] is None], options)
    return Again(lambda: chain(refused, outcomes)) if refused else outcomes

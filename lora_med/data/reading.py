"""From inputs to records: read them, refuse or skip what is bad, count everything, records with equal texts too."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from pathlib import Path
from typing import Literal

from lora_med.data.catalog import read
from lora_med.data.formats.documents.unsupported_formats import unsupported_file
from lora_med.data.in_memory import MemoryRows
from lora_med.data.outcome import Again, Drop, Input, Outcome, PartDrop, ReadOptions, Tally
from lora_med.data.record import Pair, Record, content, digest, shown_uid
from lora_med.data.source import Source
from lora_med.data.splitting.compact import DigestSet
from lora_med.errors import DataError, LoraMedError

# What becomes of a record with the content of an earlier one. `counted`: it is retained if it has a uid of its own.
# `dropped`: for training. `renamed`: for a published test set, which is scored whole; an equal uid gets a number.
Repeats = Literal["counted", "dropped", "renamed"]
MOST_NAMED = 3  # inputs in a message
SKIP_ADVICE = re.compile(r"(?:,? or )?(?:set )?data\.skip_bad=true(?: \(--skip-bad\))?")
NEVER_SKIPPED = {"bad_utf8"}  # reasons that are faults of the whole file, however many of its lines happen to be right
CHECK_SOURCE = "check source and file: lora-med data list shows what each reads"
LOOKED_AT, IN_A_ROW = 100, 10  # items after a bad one; so many bad ones and no good one are a fault of the whole file
MOST_SKIPPED = 0.1  # of all items, before a warning
logger = logging.getLogger(__name__)


class Reading:
    """The records of some inputs, read again at each pass, with what is bad refused or skipped and counted.

    After a pass, `tally` holds its counts, `kinds` the kinds of its records, `has_conversations` whether one was given
    in turns, `sha256` the digest of all its records, and `is_complete` says that no limit ended it. `repeats` says what
    becomes of a record with the content of an earlier one; what is dropped is a `duplicate`. One with only the uid of
    an earlier one is bad. No record at all is an error, unless the inputs are one split of several and `may_be_empty`.
    `where` names the inputs and `access_of` gives the class of what was read so far, for errors.
    """

    def __init__(
        self,
        outcomes: Iterable[Outcome],
        where: str,
        *,
        skip_bad: bool = False,
        limit: int | None = None,
        repeats: Repeats = "counted",
        may_be_empty: bool = False,
        access_of: Callable[[], str | None] = lambda: "open",
    ) -> None:
        self._outcomes = outcomes
        self._where = where
        self._skip_bad = skip_bad
        self._limit = limit
        self._repeats: Repeats = repeats
        self._may_be_empty = may_be_empty
        self._access_of = access_of
        self._has_warned = False
        self._explained: set[str] = set()
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
        kept, repeated, skipped, dropped, parts_dropped = 0, 0, Counter[str](), Counter[str](), Counter[str]()
        sha256, first_error = hashlib.sha256(), None
        self.kinds, self.has_conversations = set(), False
        outcomes = _unique(self._outcomes, self._where, self._access_of, self._repeats)
        for outcome in outcomes:
            if isinstance(outcome, Drop):
                if outcome.error is not None:
                    if not self._skip_bad:
                        raise with_fitting_advice(outcome.reason, outcome.error, outcomes, is_first=not kept)
                    first_error = first_error or outcome.error
                    skipped[outcome.reason] += 1
                dropped[outcome.reason] += 1
            elif isinstance(outcome, PartDrop):
                parts_dropped[outcome.reason] += 1
                self._warn_once(outcome)
            else:
                repeated += isinstance(outcome, _Repeated)
                record = outcome.record if isinstance(outcome, _Repeated) else outcome
                self.kinds.add(type(record))
                self.has_conversations |= isinstance(record, Pair) and record.is_conversation
                sha256.update(f"{record.uid}\x1f{content(record)}\n".encode())
                kept += 1
                yield record
            if kept == self._limit:
                break
        self.tally = Tally(
            kept + dropped.total(), kept, dict(sorted(dropped.items())), dict(sorted(parts_dropped.items())), repeated
        )
        self.sha256 = sha256.hexdigest()
        self.is_complete = kept != self._limit
        if not kept and not self._may_be_empty:
            raise nothing_kept(self.tally, self._where, first_error)
        if not self._has_warned:
            self._has_warned = warned_of(skipped, self.tally.read, self._where)

    def _warn_once(self, part: PartDrop) -> None:
        """Log the first part of each reason that needs words."""
        if part.what and part.reason not in self._explained:
            self._explained.add(part.reason)
            logger.warning("%s: %s; all such are counted as %s", part.where, part.what, part.reason)


@dataclass(frozen=True, slots=True)
class _Repeated:
    """A record with the content of an earlier one, retained under a uid of its own."""

    record: Record


def _unique(
    outcomes: Iterable[Outcome], where: str, access_of: Callable[[], str | None], repeats: Repeats
) -> Iterator[Outcome | _Repeated]:
    """The outcomes with unique uids; what becomes of a record with the content of an earlier one, `repeats` says."""
    contents, uids = DigestSet(), DigestSet()
    for number, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, Drop | PartDrop):
            yield outcome
            continue
        content_hash, uid_hash = content(outcome), digest(outcome.uid)
        is_repeated, has_known_uid = content_hash in contents, uid_hash in uids
        if is_repeated and (repeats == "dropped" or (repeats == "counted" and has_known_uid)):
            yield Drop("duplicate")
            continue
        if is_repeated and has_known_uid:
            outcome = replace(outcome, uid=_free_uid(outcome.uid, uids))
            uid_hash = digest(outcome.uid)
        elif has_known_uid:
            error = DataError(
                f"two different records have the uid {shown_uid(outcome.uid, access_of())!r}",
                where=f"{where}, record {number:,}",
                fix="map data.columns.uid to a column that is unique, or leave it out",
            )
            yield Drop("duplicate_uid", error)
            continue
        contents.add(content_hash)
        uids.add(uid_hash)
        yield _Repeated(outcome) if is_repeated and repeats == "counted" else outcome


def _free_uid(uid: str, uids: DigestSet) -> str:
    """The uid of the next of several equal items of a published set: uid#2, uid#3."""
    return next(free for free in (f"{uid}#{number}" for number in count(2)) if digest(free) not in uids)


def with_fitting_advice(reason: str, error: DataError, rest: Iterator[object], *, is_first: bool) -> DataError:
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


def nothing_kept(tally: Tally, where: str, first: DataError | None) -> DataError:
    """The error of an input without a record: the counts by reason, and the first fault where there is one."""
    what = (
        f"no record was retained: {tally}" if tally.read else "the input holds nothing that this source reads: 0 read"
    )
    if first is not None:
        what += f"; the first fault, at {first.where}: {first.what}"
    fix = _without_skip_advice(first) if first is not None else ""
    return DataError(what, where=where, fix=fix or CHECK_SOURCE)


def warned_of(skipped: Counter[str], read: int, where: str) -> bool:
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
    repeats: Repeats = "counted",
    may_be_empty: bool = False,
    access: str | None = None,
) -> Reading:
    """The records of `inputs`; before the first pass over the result only the first bytes of each file are read.

    `access` is the class that the user states; errors show uids as the class allows.

    Passing over it raises:
        DataError: bad input, naming file, line and what was expected (unless `skip_bad`); or no record at all.
        InputMissingError: a file that is not there, or a Hub data set that cannot be had.
    """
    if any(isinstance(item, MemoryRows) and item.holds_records for item in inputs):
        held = [item for item in inputs if isinstance(item, MemoryRows)]
        records = Again(lambda: (record for item in held for record in item.records()))
        return Reading(records, str(held[0]), limit=limit, repeats=repeats, may_be_empty=may_be_empty)
    return Reading(
        _outcomes(source, inputs, options),
        names_in_messages(inputs),
        skip_bad=skip_bad,
        limit=limit,
        repeats=repeats,
        may_be_empty=may_be_empty,
        access_of=lambda: options.access_of(source.access, access),
    )


def names_in_messages(inputs: Sequence[Input]) -> str:
    """The first inputs, for a message."""
    return ", ".join(map(str, inputs[:MOST_NAMED])) + ("" if len(inputs) <= MOST_NAMED else " and more")


def _outcomes(source: Source, inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """What the source reads; a file of a format that none reads, such as a PDF, is a drop with its error instead."""
    forms = {item: unsupported_file(item, source.suffixes) for item in inputs if isinstance(item, Path)}
    refused = [Drop("unsupported_format", form.error(str(path))) for path, form in forms.items() if form is not None]
    outcomes = read(source, [item for item in inputs if not isinstance(item, Path) or forms[item] is None], options)
    return Again(lambda: chain(refused, outcomes)) if refused else outcomes

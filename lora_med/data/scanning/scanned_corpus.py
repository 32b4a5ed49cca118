"""A streamed corpus whose files are scanned one by one: what is compared comes from the scans, texts from the files.

After the scan, one byte for each step of each file says in which split its record is, if in any. A pass over a split
reads only the files that have a record of it and remembers nothing of earlier ones.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lora_med.data.access import handled_as
from lora_med.data.catalog import find_source
from lora_med.data.formats.documents.unsupported_formats import unsupported_file
from lora_med.data.outcome import Again, Drop, Input, Outcome, ReadOptions, Tally
from lora_med.data.reading import names_in_messages, nothing_kept, warned_of, with_fitting_advice
from lora_med.data.record import SHOWN_CLASSES, Pair, Passage, Split
from lora_med.data.scanning.current_steps import CURRENT, DELETED, DUPLICATE, SUPERSEDED, states_of
from lora_med.data.scanning.record_streams import NONE, FilePart, Stream
from lora_med.data.scanning.scan_cache import FileScan, scan_files
from lora_med.data.scanning.scan_files import KINDS, RECORD, Scan
from lora_med.data.source import Source
from lora_med.data.splitting.leakage import HELD, Decontamination, Rules
from lora_med.data.splitting.scanned import TRAINING_ORDER, RecordDigest
from lora_med.folders import PrivateFolder

SCRATCH = "lora-med-scans"
REASONS = {SUPERSEDED: "superseded", DELETED: "deleted", DUPLICATE: "duplicate"}
FOLLOWING = Passage("", "", "", "")  # stands for a record where only its being one matters


def can_scan(source: Source, inputs: Sequence[Input], *, streaming: bool) -> bool:
    """Whether the inputs are a streamed corpus of files that can be scanned one by one."""
    return (
        streaming
        and source.scans_files
        and all(isinstance(item, Path) and unsupported_file(item, source.suffixes) is None for item in inputs)
    )


class ScannedReading:
    """The counts of a `Reading`, of files that were scanned, and its records without their texts.

    A record with the content of an earlier one is dropped, or with `counts_repeats` retained and counted.

    Raises:
        DataError: a bad item, unless bad ones are skipped; or no record at all.
    """

    is_complete = True
    sha256 = ""

    def __init__(
        self,
        source: str,
        inputs: Sequence[Input],
        options: ReadOptions,
        rules: Rules,
        *,
        skip_bad: bool,
        access: str | None,
        counts_repeats: bool = False,
        held: int = HELD,
    ) -> None:
        paths = [item for item in inputs if isinstance(item, Path)]
        self._source, self._options = source, options
        self._scratch = PrivateFolder(SCRATCH)
        caches = handled_as(options.access_of(find_source(source).access, access)) in SHOWN_CLASSES
        ordered = importlib.import_module(find_source(source).module).in_order(paths)
        self.files: list[FileScan] = scan_files(source, ordered, options, rules, self._scratch, caches=caches)
        self._scans = [Scan(file.scan) for file in self.files]
        self._states = states_of(self._scans, self._scratch.path / "steps", held)
        self._repeated = sum(int((states == DUPLICATE).sum()) for states in self._states) if counts_repeats else 0
        for states in self._states if counts_repeats else ():
            states[states == DUPLICATE] = CURRENT
        self._is_record = self._find_records()
        self.tally = self._count(skip_bad, names_in_messages(inputs))

    def _find_records(self) -> list[NDArray[np.bool_]]:
        kinds, turns, found = set[int](), False, list[NDArray[np.bool_]]()
        for scan, states in zip(self._scans, self._states, strict=True):
            chosen = states == CURRENT
            start = 0
            for steps, kind, is_turns in scan.columns("step", "kind", "turns"):
                own = chosen[start : start + len(steps)]
                own &= steps == RECORD
                kinds |= set(np.unique(kind[own]).tolist())
                turns |= bool(is_turns[own].any())
                start += len(steps)
            found.append(chosen)
        self.kinds: set[type] = {KINDS[number] for number in kinds}
        self.has_conversations = turns and Pair in self.kinds
        return found

    def _count(self, skip_bad: bool, where: str) -> Tally:
        dropped, skipped = Counter[str](), Counter[str]()
        kept, first_error = 0, None
        for number, (scan, states, records) in enumerate(zip(self._scans, self._states, self._is_record, strict=True)):
            for state, reason in REASONS.items():
                dropped[reason] += int((states == state).sum())
            for step, drop in scan.drops():
                if states[step] != CURRENT:
                    continue
                dropped[drop.reason] += 1
                if drop.error is not None:
                    if not skip_bad:
                        before = kept + int(records[:step].sum())
                        rest = self._outcomes(number, step + 1)
                        raise with_fitting_advice(drop.reason, drop.error, rest, is_first=not before)
                    first_error = first_error or drop.error
                    skipped[drop.reason] += 1
            kept += int(records.sum())
        reasons = {name: count for name, count in sorted(dropped.items()) if count}
        tally = Tally(kept + dropped.total(), kept, reasons, repeated=self._repeated)
        if not kept:
            raise nothing_kept(tally, where, first_error)
        warned_of(skipped, tally.read, where)
        return tally

    def _outcomes(self, file: int, step: int) -> Iterator[Outcome]:
        """What follows a step, for an error's advice: drops, and a stand-in for each record."""
        for number in range(file, len(self._scans)):
            drops = dict(self._scans[number].drops())
            for later in range(step if number == file else 0, len(self._states[number])):
                state = int(self._states[number][later])
                if state in REASONS:
                    yield Drop(REASONS[state])
                elif later in drops:
                    yield drops[later]
                elif self._is_record[number][later]:
                    yield FOLLOWING

    def digests(self) -> Iterator[RecordDigest]:
        """The records that stay, in the order of reading."""
        scans = zip(self._scans, self._is_record, strict=True)
        return chain.from_iterable(scan.digests(chosen) for scan, chosen in scans)

    def streams(
        self, split_of: Callable[[RecordDigest], Split], decontamination: Decontamination
    ) -> dict[Split, Stream]:
        """The records of each split, read file by file at each pass; the scans are no longer needed."""
        codes: list[NDArray[np.uint8]] = []
        for scan, chosen in zip(self._scans, self._is_record, strict=True):
            own = np.full(len(chosen), NONE, np.uint8)
            final = (decontamination.final_split(record, split_of(record)) for record in scan.digests(chosen))
            own[chosen] = [NONE if split is None else TRAINING_ORDER.index(split) for split in final]
            codes.append(own)
        self._scratch.cleanup()
        return {split: self._stream(split, codes, decontamination) for split in TRAINING_ORDER}

    def _stream(self, split: Split, codes: Sequence[NDArray[np.uint8]], decontamination: Decontamination) -> Stream:
        parts = tuple(
            FilePart(self._source, file.path, file.sha256, self._options, own, split, decontamination.access)
            for file, own in zip(self.files, codes, strict=True)
        )
        return Stream(Again(lambda: chain.from_iterable(parts)), decontamination.sizes[split], parts)

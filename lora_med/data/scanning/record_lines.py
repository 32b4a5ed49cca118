"""The records of many files as JSON lines, written by several processes: the bytes that one process writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_med.data.formats.jsonl import as_line
from lora_med.data.outcome import Input, ReadOptions, Tally
from lora_med.data.scanning.record_streams import FilePart
from lora_med.data.scanning.scan_cache import LEAST_BYTES
from lora_med.data.scanning.scanned_corpus import SCRATCH, ScannedReading, can_scan
from lora_med.data.scanning.workers import available_processes, in_order
from lora_med.data.source import Source
from lora_med.data.splitting.leakage import Decontamination, Rules
from lora_med.folders import PrivateFolder


def is_worth_processes(source: Source, inputs: Sequence[Input]) -> bool:
    """Whether several processes read the inputs faster than one: several files, enough bytes, more than one core."""
    if not can_scan(source, inputs, streaming=True) or len(inputs) < 2 or available_processes() < 2:
        return False
    return sum(path.stat().st_size for path in inputs if isinstance(path, Path) and path.is_file()) >= LEAST_BYTES


class RecordLines:
    """The lines of all records of `inputs`, a file of lines at a time, and their `tally`.

    Raises:
        DataError: bad input, as `Reading` raises it, before the first line.
    """

    def __init__(
        self, source: Source, inputs: Sequence[Input], options: ReadOptions, *, skip_bad: bool, access: str | None
    ) -> None:
        reading = ScannedReading(
            source.name, inputs, options, Rules(), skip_bad=skip_bad, access=access, counts_repeats=True
        )
        everything = Decontamination(Rules(), sizes={"train": reading.tally.kept, "validation": 0, "test": 0})
        self._parts = reading.streams(lambda _: "train", everything)["train"].parts
        self.tally: Tally = reading.tally

    def __iter__(self) -> Iterator[Path]:
        """Files of lines, in order, each for as long as it is the current one; no one else can read them."""
        scratch = PrivateFolder(SCRATCH)
        jobs = [_Job(part, scratch.path / f"{number}.jsonl") for number, part in enumerate(self._parts)]
        try:
            for path in in_order(_write_lines, jobs, available_processes()):
                yield path
                path.unlink()
        finally:
            scratch.cleanup()


@dataclass(frozen=True)
class _Job:
    part: FilePart
    lines: Path


def _write_lines(job: _Job) -> Path:
    with job.lines.open("wb") as stream:
        stream.writelines(map(as_line, job.part))
    return job.lines

"""The corpus of a run, opened once a machine: what was found is on disk, and a second start reads no record.

The files are hashed at each start. If they, the settings and the code that reads are those of an earlier start, its
counts, hashes and removals hold, and its lines of the log are repeated. Records are read again only where rows have to
be prepared. Validation records, which scores during training need, are beside the facts.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

from lora_med.config.data_settings import DataSettings
from lora_med.data.access import Access
from lora_med.data.catalog import SOURCES, find_source
from lora_med.data.corpus import Corpus, open_corpus
from lora_med.data.formats.find_inputs import find_inputs
from lora_med.data.outcome import Tally
from lora_med.data.record import Pair, Record
from lora_med.data.splitting.block_lists import block_list_file, shipped
from lora_med.data.splitting.overlap_with_tests import test_file
from lora_med.errors import LoraMedError
from lora_med.files import atomic_stream, sha256_file, write_atomic
from lora_med.prompts.entity_tags import tag_labels
from lora_med.training.preparation.once_a_machine import once_a_machine
from lora_med.training.preparation.prepared_names import CORPUS, FOLDER, LOCK, VALIDATION, code_and_libraries
from lora_med.training.preparation.preparer import Preparer, held, hold
from lora_med.training.preparation.record_json import read_records, write_records
from lora_med.training.preparation.row_files import RowFile, write_row_file

LEAST_BYTES = 4_000_000  # of files; below, starting a process takes longer than reading
PLAIN = ("template", "templates", "hashes", "license", "access")
PLAIN += ("split_description", "decontamination", "mixture", "columns")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opening:
    """What is to be opened, and where what is found goes. `path` has no suffix; `size` is that of the files."""

    settings: DataSettings
    access: Access | None
    path: Path
    size: int


class Door:
    """Where the records of an opened corpus are: nowhere yet, in this process, or in the one that prepares."""

    def __init__(self, opening: Opening, preparer: Preparer) -> None:
        self._opening, self._preparer = opening, preparer
        self._is_elsewhere = opening.size >= LEAST_BYTES
        self._own: dict[str, list[Record]] | None = None

    def open(self) -> None:
        """Read the records, in the process that prepares where there are many, and write what is found."""
        if self._is_elsewhere:
            self._preparer.ask(open_and_hold, self._opening)
        else:
            self._own = open_and_write(self._opening)

    def records(self, split: str) -> list[Record]:
        """The records of a split, in this process."""
        if split == "validation":
            with (
                suppress(OSError, ValueError, KeyError, TypeError),
                _file(self._opening.path, VALIDATION).open("rb") as lines,
            ):
                return list(read_records(lines))
        self._open_if_closed()
        return self._own[split] if self._own is not None else self._preparer.ask(held, split)

    def write_rows(self, split: str, file: RowFile) -> None:
        """Write the rows of a split where its records are."""
        self._open_if_closed()
        if self._own is not None:
            write_row_file(self._own[split], file, 1)
        else:
            self._preparer.write(split, file)

    def _open_if_closed(self) -> None:
        if self._own is None and not (self._is_elsewhere and self._preparer.is_running):
            self.open()


class OpenedRecords(Sequence[Record]):
    """The records of a split, of which only the number is known until one is asked for."""

    def __init__(self, split: str, count: int, door: Door, labels: tuple[str, ...] | None) -> None:
        self._split, self._count, self._door, self._labels = split, count, door, labels

    def __len__(self) -> int:
        return self._count

    @cached_property
    def _records(self) -> list[Record]:
        return self._door.records(self._split)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        return self._records[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def tag_labels(self) -> tuple[str, ...]:
        """The tags for the types of the records' mentions; as `tag_labels`."""
        return self._labels if self._labels is not None else tag_labels(self._records)

    def write_rows(self, file: RowFile) -> None:
        """Write the rows of these records where the records are."""
        self._door.write_rows(self._split, file)


def holds_preferences(corpus: Corpus) -> bool:
    """Whether records of the corpus have a rejected answer beside the chosen one."""
    if any("rejected" in entry["used"].values() for entry in corpus.columns):
        return True
    records = corpus.train
    in_memory = isinstance(records, Sequence) and not isinstance(records, OpenedRecords)
    return in_memory and any(isinstance(record, Pair) and bool(record.rejected) for record in records)


def open_once(settings: DataSettings, access: Access | None, output_dir: Path, preparer: Preparer) -> Corpus:
    """The training and validation records that `settings` name, as `open_corpus` gives them, opened once a machine.

    Args:
        access: the class of your own data, as `open_corpus` takes it.
        output_dir: the run's folder, where what is found goes.
        preparer: the process that reads the records, where there are many.

    Raises:
        LoraMedError: as `open_corpus`.
    """
    inputs = known_inputs(settings)
    if inputs is None:
        return open_corpus(settings, access=access)
    name = _name(settings, access, inputs)
    if name is None:
        return open_corpus(settings, access=access)
    folder = output_dir / FOLDER
    opening = Opening(settings, access, folder / name, sum(path.stat().st_size for path, _ in inputs))
    door, is_new = Door(opening, preparer), False

    def make() -> None:
        nonlocal is_new
        is_new = True
        door.open()

    facts = once_a_machine(folder / LOCK, "the data", lambda: _facts(opening.path), make)
    if not is_new:
        for name, level, message in facts["log"]:
            logging.getLogger(name).log(level, "%s", message)
        logger.info("the data are as at an earlier start: what was found then holds, and no record is read again")
    return _corpus(facts, door)


def known_inputs(settings: DataSettings) -> list[tuple[Path, str]] | None:
    """Each file that the settings name and its SHA-256; None where other things than these files decide the records."""
    if settings.streaming:
        return None
    with _unheard(find_inputs.__module__), suppress(LoraMedError):
        sources = [(find_source(each.source), each.paths, each.hub_split) for each in (settings, *settings.mix)]
        inputs = [item for source, paths, split in sources for item in find_inputs(source, paths, split)]
        if any(source.reads_beside for source, _, _ in sources) or not all(isinstance(item, Path) for item in inputs):
            return None
        return [(path, sha256_file(path)) for path in inputs if isinstance(path, Path)]
    return None


def _name(settings: DataSettings, access: Access | None, inputs: Sequence[tuple[Path, str]]) -> str | None:
    """The name of what is found in these files; None where another file that decides it cannot be read."""
    sources = [find_source(each.source) for each in (settings, *settings.mix)]
    beside = {path.parent / name for path, _ in inputs for source in sources for name in source.companion_files}
    with suppress(LoraMedError, OSError):
        lists = [
            block_list_file(name) for name in (shipped() if settings.block_lists is None else settings.block_lists)
        ]
        others = [*lists, *map(test_file, settings.test_files), *sorted(path for path in beside if path.is_file())]
        content = [
            code_and_libraries(),
            access,
            settings.model_dump(mode="json"),
            [(str(path), digest) for path, digest in inputs],
            [(str(path), sha256_file(path)) for path in others],
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
    return None


def open_and_write(opening: Opening) -> dict[str, list[Record]]:
    """Open the corpus, write what was found, and return the records of each split.

    Raises:
        LoraMedError: as `open_corpus`.
        DiskError, OutputError: it cannot be written.
    """
    with _noted() as log:
        corpus = open_corpus(opening.settings, access=opening.access)
    records = {"train": list(corpus.train), "validation": list(corpus.validation)}
    labels: tuple[str, ...] | None = None
    with suppress(LoraMedError):
        labels = tag_labels(records["train"])
    with atomic_stream(_file(opening.path, VALIDATION), private=True) as stream:
        write_records(stream, records["validation"])
    source = {"name": corpus.source.name, "access": corpus.source.access, "template": corpus.source.template}
    facts = {name: getattr(corpus, name) for name in PLAIN} | {
        "source": source,
        "files": [str(path) for path in corpus.files],
        "tally": asdict(corpus.tally),
        "counts": {split: len(held) for split, held in records.items()},
        "labels": labels,
        "log": log,
    }
    write_atomic(_file(opening.path, CORPUS), json.dumps(facts), private=True)
    return records


def open_and_hold(opening: Opening) -> None:
    """The same in the process that prepares, which holds the records for later requests."""
    for split, records in open_and_write(opening).items():
        hold(split, records)


def _facts(path: Path) -> dict[str, Any] | None:
    try:
        facts: dict[str, Any] = json.loads(_file(path, CORPUS).read_bytes())
    except (OSError, ValueError):
        return None
    return facts if _file(path, VALIDATION).is_file() else None


def _corpus(facts: dict[str, Any], door: Door) -> Corpus:
    about, counts = facts["source"], facts["counts"]
    labels = None if facts["labels"] is None else tuple(facts["labels"])
    return Corpus(
        **{name: facts[name] for name in PLAIN},
        source=replace(SOURCES[about["name"]], access=about["access"], template=about["template"]),
        files=tuple(map(Path, facts["files"])),
        tally=Tally(**facts["tally"]),
        train=OpenedRecords("train", counts["train"], door, labels),
        validation=OpenedRecords("validation", counts["validation"], door, None),
    )


def _file(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


class _Notes(logging.Handler):
    """Collects what is logged, for a second start to say again."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Note one line."""
        self.lines.append((record.name, record.levelno, record.getMessage()))


@contextmanager
def _noted() -> Iterator[list[tuple[str, int, str]]]:
    notes, package = _Notes(), logging.getLogger("lora_med")
    package.addHandler(notes)
    try:
        yield notes.lines
    finally:
        package.removeHandler(notes)


@contextmanager
def _unheard(name: str) -> Iterator[None]:
    """Without the log of a module whose work is done again."""
    module = logging.getLogger(name)
    module.disabled = True
    try:
        yield
    finally:
        module.disabled = False

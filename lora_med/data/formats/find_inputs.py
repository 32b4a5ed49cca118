"""The files and Hub data sets that paths, folders and patterns name, in the order in which they are read."""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from lora_med.config.near_names import nearest
from lora_med.data.formats.documents.unsupported_formats import counted_endings, unsupported_ending
from lora_med.data.outcome import HubSet, Input
from lora_med.data.source import Source
from lora_med.errors import InputMissingError, SettingsError

HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<config>[\w.-]+))?")
SAMPLE, SAMPLE_FOLDER = "sample:", Path(__file__).parents[2] / "assets" / "sample"  # files that ship, by name
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

"""Data sets of the Hugging Face Hub, row by row: from the local cache when offline; a remote script is never run.

The library keeps a copy of the data in its cache, which other users of the machine can read. Do not use it for data
under an agreement: keep those in your own files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lora_med.data.outcome import HubSet
from lora_med.errors import DataError, InputMissingError, LoraMedError, SettingsError


def rows(item: HubSet) -> Iterator[Mapping[str, Any]]:
    """The rows of a data set's split.

    Raises:
        InputMissingError: offline and not in the cache, or no such data set.
        SettingsError: it has several configurations, or no such split.
        DataError: it is a script repository, which datasets>=4 refuses to run.
    """
    yield from _table(item)


def features(item: HubSet) -> Mapping[str, Any]:
    """What the columns of a data set hold, as the library writes it: the names of classes are among it.

    Raises:
        InputMissingError, SettingsError, DataError: as `rows`.
    """
    return _table(item).features.to_dict()


def _table(item: HubSet) -> Any:
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(item.name, item.config, split=item.split)
    except (RuntimeError, OSError, ValueError) as error:  # connection and not-found errors are OSErrors
        raise _explained(error, item) from error


def _explained(error: Exception, item: HubSet) -> LoraMedError:
    kind, text = type(error).__name__, str(error)
    if "scripts are no longer supported" in text:
        return DataError(
            f"the data set {item.name!r} is a script, which datasets no longer runs",
            where="data.paths",
            fix="use a Parquet mirror of it, or download its files and give their paths",
        )
    if isinstance(error, ValueError) and "onfig" in text:
        return SettingsError(
            f"the data set {item.name!r} has several configurations, or not the one named",
            where="data.paths",
            fix=f"name one, as in {item.name}:CONFIGURATION; its page on the Hub lists them",
        )
    if isinstance(error, ValueError) and "split" in text:
        return SettingsError(
            f"the data set {item.name!r} has no split {item.split!r}",
            where="data.hub_split",
            fix="its page on the Hub lists its splits",
        )
    return InputMissingError(
        f"cannot load the data set {item.name!r} ({kind})",
        where="data.paths",
        fix="offline, it must be in the cache: run once with offline=false, or give a local file",
    )

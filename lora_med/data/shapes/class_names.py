"""The names of classes that a data set holds as numbers: in a Parquet file's metadata, or with a set of the Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_med.data.formats import hub
from lora_med.data.in_memory import MemoryRows
from lora_med.data.outcome import HubSet, Input
from lora_med.data.shapes.annotations import TAGS


def class_names(item: Input, columns: Sequence[str] = TAGS) -> tuple[str, ...]:
    """The names of the classes, in order, of the first of `columns` whose numbers have names; empty where none has.

    Raises:
        InputMissingError: a data set of the Hub that cannot be had.
    """
    if isinstance(item, MemoryRows):
        return ()
    features = hub.features(item) if isinstance(item, HubSet) else _parquet_features(item)
    return next((names for column in columns if (names := _names(features.get(column)))), ())


def _parquet_features(path: Path) -> Mapping[str, Any]:
    """What the library `datasets` wrote of the columns; empty for another file, or one that it did not write."""
    if not path.name.lower().endswith(".parquet"):
        return {}
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_schema(path).metadata or {}
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}  # the reader names a file that is no Parquet
    return features if isinstance(features, dict) else {}


def _names(feature: Any) -> tuple[str, ...]:
    """The names of a feature, or of the items of its list."""
    depth = 0
    while isinstance(feature, list | dict) and depth < 8:
        depth += 1
        if isinstance(feature, list):
            feature = feature[0] if feature else None
        elif isinstance(feature.get("names"), list) and all(isinstance(name, str) for name in feature["names"]):
            return tuple(feature["names"])
        else:
            feature = feature.get("feature")
    return ()

"""Access classes, and the rule that the strictest of what went in is that of what comes out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, cast, get_args

from lora_med.config.names import unknown
from lora_med.errors import SettingsError

Access = Literal["open", "registered", "credentialed"]
CLASSES: tuple[str, ...] = get_args(Access)  # from the freest to the strictest


def strictest(classes: Iterable[str | None]) -> Access:
    """The strictest of `classes`; None stands for nothing known and counts as open, and so does an empty list.

    Raises:
        SettingsError: a class that does not exist.
    """
    rank = 0
    for name in classes:
        if name is None:
            continue
        if name not in CLASSES:
            raise SettingsError(unknown("access class", name, CLASSES))
        rank = max(rank, CLASSES.index(name))
    return cast(Access, CLASSES[rank])

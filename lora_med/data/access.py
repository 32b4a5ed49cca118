"""Access classes, and the rule that an output has the strictest class of its inputs."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Literal, cast, get_args

from lora_med.config.near_names import unknown
from lora_med.errors import NotPermittedError, SettingsError

Access = Literal["open", "registered", "credentialed"]
LEAST_WORDS = 5
logger = logging.getLogger(__name__)
CLASSES: tuple[str, ...] = get_args(Access)  # from the least to the most restricted


def strictest(classes: Iterable[str | None]) -> Access:
    """The strictest of `classes`. None means unknown and counts as open, and so does an empty list.

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


def require_permission(access: str, what: str, permission: str | None) -> None:
    """Allow `what` on credentialed data only with a written permission, which is logged.

    Raises:
        NotPermittedError: the data are credentialed, and the permission is missing or too short.
    """
    if access != "credentialed":
        return
    words = (permission or "").split()
    if len(words) < LEAST_WORDS:
        raise NotPermittedError(
            f"{what} is not permitted: it is, or comes from, credentialed data",
            where="the data's access class",
            fix=f"if the data's agreement allows it, say who allows what, in {LEAST_WORDS} words or more: "
            '--permission "..."',
        )
    logger.warning("%s, although it is or comes from credentialed data; permission: %s", what, " ".join(words))

"""Access classes, the rule that an output has the strictest class of its inputs, and the question for a class.

Some sources are a format and not a data set, such as `custom`: nobody has classed what a user reads with them. Their
class is None until the user states one, and their rows are handled as credentialed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Literal, cast, get_args

from lora_med.config.near_names import unknown
from lora_med.errors import NotPermittedError, SettingsError

Access = Literal["open", "registered", "credentialed"]
CREDENTIALED: Access = "credentialed"
SETTING = "adapter.access"  # where settings state the class; commands that read files take `--access`
NOT_STATED = "access not stated, handled as credentialed"
LEAST_WORDS = 5
logger = logging.getLogger(__name__)
CLASSES: tuple[str, ...] = get_args(Access)  # from the least to the most restricted


def strictest(classes: Iterable[str]) -> Access:
    """The strictest of `classes`; open where there is none, so filter out no class that is merely unknown.

    Raises:
        SettingsError: a class that does not exist.
    """
    rank = 0
    for name in classes:
        if name not in CLASSES:
            raise SettingsError(unknown("access class", str(name), CLASSES))
        rank = max(rank, CLASSES.index(name))
    return cast(Access, CLASSES[rank])


def access_of(own: str | None, stated: str | None, met: Iterable[str] = ()) -> Access | None:
    """The class of what a source reads: the strictest of its own, the stated one, and those that its rows name.

    None where it has no class of its own and nobody stated one. Rows can only raise a class: what they name states
    none, unless it is the strictest.
    """
    named = strictest(met)
    known = [name for name in (own, stated) if name is not None]
    if known:
        return strictest([*known, named])
    return named if named == CREDENTIALED else None


def combined(classes: Iterable[str | None]) -> Access | None:
    """The class of sources together: the strictest; None where one has none, unless another is credentialed."""
    every = list(classes)
    known = strictest(name for name in every if name is not None)
    return None if None in every and known != CREDENTIALED else known


def handled_as(access: Access | None) -> Access:
    """The class that rows are handled as: until a class is stated, the strictest."""
    return CREDENTIALED if access is None else access


def question(source: str, flag: str) -> str:
    """The sentence that asks for the class of a source that has none; `flag` is the option or setting to state it."""
    return (
        f"the source {source!r} has no access class until you state one: {flag}open (anyone may read the data), "
        f"{flag}registered (those who registered for it) or {flag}credentialed (patients' records, and whatever is "
        "under an agreement)"
    )


def ask(source: str, flag: str) -> None:
    """Log the question for a class, and what holds until it is answered."""
    logger.warning("%s; until then its rows are handled as credentialed", question(source, flag))


def require_stated(access: Access | None, source: str) -> Access:
    """The class, where there is one.

    Raises:
        SettingsError: nobody stated it; the message is the question.
    """
    if access is None:
        answers = ", ".join(f"{SETTING}={name}" for name in CLASSES)
        raise SettingsError(question(source, f"{SETTING}="), where=SETTING, fix=f"one of {answers}")
    return access


def require_permission(access: str, what: str, permission: str | None) -> None:
    """Allow `what` on credentialed data only with a written permission, which is logged.

    Raises:
        NotPermittedError: the data are credentialed, and the permission is missing or too short.
    """
    if access != CREDENTIALED:
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

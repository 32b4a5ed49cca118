"""The bound of a memorization audit: who may still push or export an adapter that exceeds it, and where that is kept.

The entry `memorization` of card.json:

    schema, audited         `lora_med.memorization/1`, and the time
    weights                 SHA-256 of the adapter's weights that were audited
    method                  what was done, in names and numbers
    canaries                null without a twin run, else list_sha256, members, outsiders, valid, verdict, epsilon,
                            ceiling, and tiers: what the attacker holds -> epsilon
    patients                the same for the patients of the training data; why_not where they were not read
    extracted               patients, tried (of the training data), outsiders, outsiders_tried (a control)
    bound                   most_epsilon, most_extracted, exceeded[]: each excess in words
    inherited_from          of an adapter that was composed: the parents whose excesses it has
    accepted[]              action, by (who accepts the excess, in their words), time
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_med.adapters.store.card import CARD, Card, read_card
from lora_med.adapters.store.store import WEIGHTS
from lora_med.data.access import LEAST_WORDS
from lora_med.errors import IntegrityError, NotPermittedError
from lora_med.files import write_json
from lora_med.signatures import SIGNATURES

logger = logging.getLogger(__name__)
OPTION = "--accept-memorization"


def excesses(card: Card) -> list[str]:
    """In what the adapter exceeds the bound of its audit, in words; nothing where it was not audited."""
    return [str(line) for line in card.memorization["bound"]["exceeded"]] if card.memorization else []


def accept_excess(card: Card, action: str, accepted: str | None) -> dict[str, str] | None:
    """The record of who accepts that the adapter exceeds its bound; None where there is nothing to accept.

    Args:
        action: such as `pushing to your-name/notes`.
        accepted: who accepts it and why, in words.

    Raises:
        NotPermittedError: the bound is exceeded, and nobody accepts it.
    """
    lines = excesses(card)
    if not lines:
        return None
    words = (accepted or "").split()
    if len(words) < LEAST_WORDS:
        raise NotPermittedError(
            f"{action} is not permitted: {card.name!r} exceeds the bound of its memorization audit: {'; '.join(lines)}",
            where="card.json: memorization.bound",
            fix=f"train with fewer passes or with privacy, then audit again; or say who accepts it and why, in "
            f'{LEAST_WORDS} words or more: {OPTION} "..."',
        )
    logger.warning("%s, although the adapter exceeds its bound (%s): %s", action, "; ".join(lines), " ".join(words))
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"action": action, "by": " ".join(words), "time": when}


def record_acceptance(folder: Path, acceptance: dict[str, str]) -> None:
    """Add who accepted an excess to the adapter's card, atomically; the same words for the same action only once.

    Raises:
        IntegrityError: the card is changed, and the adapter's signature is of the card as it was.
    """
    card = read_card(folder)
    earlier = list(card.memorization.get("accepted", []))
    if any((each.get("action"), each.get("by")) == (acceptance["action"], acceptance["by"]) for each in earlier):
        return
    accepted = [*earlier, acceptance]
    write_json(folder / CARD, replace(card, memorization={**card.memorization, "accepted": accepted}).as_json())
    if (folder / SIGNATURES).is_file():
        raise IntegrityError(
            "the card now says who accepts the excess, so the adapter's signature no longer holds",
            where=str(folder / SIGNATURES),
            fix=f"remove {SIGNATURES}, sign the adapter again, then repeat this command with the same words",
        )


def record_audit(folder: Path, entry: dict[str, Any]) -> Path:
    """Write the result of an audit into the adapter's card, atomically; it takes the place of an earlier one.

    Raises:
        IntegrityError: the adapter was replaced since the audit began.
    """
    card = read_card(folder)
    if (folder / SIGNATURES).is_file():
        logger.warning("the card of %r changes, so its signature no longer holds: sign the adapter again", card.name)
    if entry["weights"] != card.files[WEIGHTS]:
        raise IntegrityError(
            f"{card.name!r} was replaced while it was audited: the figures are of SHA-256 {entry['weights'][:16]}, its "
            f"weights are {card.files[WEIGHTS][:16]} now",
            where=str(folder),
            fix="audit it again",
        )
    return write_json(folder / CARD, replace(card, memorization=entry).as_json())


def inherited(cards: Sequence[Card]) -> dict[str, Any]:
    """The entry of an adapter that is composed of these: an excess of a parent is its own, until it is audited."""
    by_parent = {card.name: excesses(card) for card in cards}
    if not any(by_parent.values()):
        return {}
    lines = [f"{name}: {line}" for name, own in by_parent.items() for line in own]
    return {"inherited_from": [name for name, own in by_parent.items() if own], "bound": {"exceeded": lines}}

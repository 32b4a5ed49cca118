"""What a run says at its end about validation, and whether an adapter that is worse than its start is published."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from lora_med.adapters.store.on_validation import OnValidation
from lora_med.config.schema import Settings
from lora_med.errors import WorseThanBaseError

logger = logging.getLogger(__name__)


def report_validation(scores: Mapping[str, Any], settings: Settings) -> None:
    """Log how the chosen adapter compares on validation with what its training began from.

    Raises:
        WorseThanBaseError: it is worse, and `adapter.publish_worse` does not ask for it.
    """
    comparison = OnValidation.of(scores)
    if comparison is None:
        return
    sentence = comparison.sentence(settings.lora.continue_from)
    if comparison.verdict != "worse":
        logger.info("%s", sentence)
        return
    if not settings.adapter.publish_worse:
        raise WorseThanBaseError(
            f"{sentence}; the adapter is not published",
            where=settings.train.output_dir,
            fix="a lower train.learning_rate in another train.output_dir, or adapter.publish_worse=true: the same "
            "command with it publishes this one without training again",
        )
    logger.warning("%s; it is published because adapter.publish_worse asks for it", sentence)

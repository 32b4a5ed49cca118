"""lora-med serve verify: which adapter's bytes gave a saved answer."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lora_med.cli.options import STORE, AsJson, Store
from lora_med.cli.terminal import print_text
from lora_med.errors import IntegrityError, LoraMedError
from lora_med.files import readable
from lora_med.run import prepare_environment

if TYPE_CHECKING:
    from lora_med.adapters.store.card import Card
    from lora_med.models.fingerprint import Fingerprint

logger = logging.getLogger(__name__)


def verify_response_command(
    response: Annotated[
        str, typer.Argument(metavar="RESPONSE", help="The saved body of an answer, whole or a stream; - reads stdin.")
    ],
    store: Store = STORE,
    base: Annotated[
        list[str] | None,
        typer.Option("--bare-base", metavar="BASE", help="A base whose own answers count too; repeat it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say which adapter in the store, with which base, gave a saved answer; exit 76 if none of them did.

    The adapters' files are hashed again. The text of the answer is not checked: the fingerprint is not a signature.
    """
    prepare_environment(offline=True)
    from lora_med.serving.answer_identity import read_response, sources_of

    if response == "-":
        content = sys.stdin.buffer.read()
    else:
        with readable(Path(response)):
            content = Path(response).read_bytes()
    answer = read_response(content, "stdin" if response == "-" else response)
    cards, skipped = _cards(store)
    sources = sources_of(answer.fingerprint, cards, _bases(cards, base or ()))
    if not sources:
        unread = f"; not read: {', '.join(skipped)}" if skipped else ""
        raise IntegrityError(
            f"no adapter of the store as it is now, and none of its bases, gives {answer.fingerprint}{unread}",
            where=response,
            fix="--store or --base with what was served; an adapter that was published again has other bytes",
        )
    named = [source for source in sources if answer.model in (source.adapter, source.base)]
    if not named:
        raise IntegrityError(
            f"the answer is named {answer.model!r}, but it came from {sources[0].adapter or sources[0].base!r}",
            where=response,
            fix="do not use the answer: ask again",
        )
    if as_json:
        print_text(json.dumps({"id": answer.id, "model": answer.model, **asdict(named[0])}))
        return
    given = f"adapter {named[0].adapter}, SHA-256 {named[0].adapter_sha256}," if named[0].adapter else "the bare base"
    print_text(f"{answer.id}: {given} on {named[0].base} ({named[0].quantization}, {named[0].dtype})")


def _cards(store: Path) -> tuple[list[Card], list[str]]:
    """The cards of the adapters whose files are as published, and the names of the others."""
    from lora_med.adapters.store.published import open_files
    from lora_med.adapters.store.store import list_adapters

    cards, skipped = [], []
    for name in list_adapters(store):
        try:
            cards.append(open_files(store / name).card)
        except LoraMedError as error:
            logger.warning("adapter %s is left out: %s", name, error.what)
            skipped.append(name)
    return cards, skipped


def _bases(cards: list[Card], named: list[str] | tuple[()]) -> list[tuple[str, Fingerprint]]:
    """The bases of the cards and those that are named, each once."""
    from lora_med.models.base import resolve_base
    from lora_med.models.files.resolve import display_name
    from lora_med.models.fingerprint import fingerprint

    bases = [(card.base.name, card.base.fingerprint) for card in cards]
    bases += [(display_name(name), fingerprint(resolve_base(name)[0])) for name in named]
    return list(dict.fromkeys(bases))

"""lora-med adapters check NAME | --config F: what another engine refuses of an adapter, before training it too."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lora_med.errors import InputMissingError, SettingsError
from lora_med.run import prepare_environment

if TYPE_CHECKING:
    from lora_med.export.compatibility import Shape

WORDS = {"adapter": "the adapter by itself", "merged": "the merged model"}


def check_command(
    target: Annotated[str, typer.Option(help="vllm, gguf, ollama or onnx")],
    name: Annotated[str | None, typer.Argument(help="the adapter's name in the store")] = None,
    config: Annotated[Path | None, typer.Option(help="instead of a name: the YAML of a run, before training")] = None,
    part: Annotated[
        str | None, typer.Option(help="adapter or merged; without it both are told, and either may pass")
    ] = None,
    base: Annotated[str | None, typer.Option(help="where the base lies, if not where card or YAML say")] = None,
    store: Annotated[Path, typer.Option(help="the folder that holds the adapters")] = Path("adapters"),
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """Tell what a target refuses of an adapter; exit 2 if it takes it neither way (or not as --part says)."""
    prepare_environment(offline=True)
    from lora_med.export.compatibility import PARTS, check

    if (name is None) == (config is None):
        raise SettingsError(
            "expected an adapter's name or --config, one of them", where="the command line", fix="name one adapter"
        )
    shape = _shape(name, config, base, store)
    found = {one: check(shape, target, one) for one in ([part] if part else PARTS)}
    refused = {one: any(finding.level == "refusal" for finding in findings) for one, findings in found.items()}
    if as_json:
        parts = {one: [asdict(finding) for finding in findings] for one, findings in found.items()}
        print(json.dumps({"target": target, "parts": parts, "taken": [one for one in found if not refused[one]]}))
    else:
        for one, findings in found.items():
            verdict = f"{target} {'refuses' if refused[one] else 'takes'} {WORDS[one]}"
            print(f"{verdict}:" if findings else verdict)
            for finding in findings:
                print(f"  {finding.level}: {finding.what}; {finding.fix}")
    if all(refused.values()):
        raise typer.Exit(SettingsError.exit_code)


def _shape(name: str | None, config: Path | None, base: str | None, store: Path) -> Shape:
    from lora_med.adapters.store.card import read_card
    from lora_med.adapters.store.store import find_adapter
    from lora_med.config.parse import parse
    from lora_med.export.compatibility import shape_of_card, shape_of_settings

    if config is not None:
        settings = parse(config)
        folder = _base_here(base or settings.model.base, settings.model.revision if base is None else None, base)
        return shape_of_settings(settings.lora, settings.model.quantization, folder)
    card = read_card(find_adapter(name or "", store))
    folder = _base_here(base or card.base.name, card.base.revision if base is None else None, base)
    return shape_of_card(card, folder)


def _base_here(name: str, revision: str | None, given: str | None) -> Path | None:
    """The base's folder if it is on this machine; a base that was given by hand must be."""
    from lora_med.models.files.resolve import resolve_base

    try:
        return resolve_base(name, revision, here_only=True)[0]
    except InputMissingError:
        if given is not None:
            raise
        return None

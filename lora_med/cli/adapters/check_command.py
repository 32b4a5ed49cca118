"""lora-med adapters check NAME | --config F: what another engine refuses, also before training."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lora_med.cli.options import STORE, AsJson, BaseName, Config, Store
from lora_med.cli.terminal import print_text
from lora_med.errors import InputMissingError, SettingsError
from lora_med.run import prepare_environment

if TYPE_CHECKING:
    from lora_med.export.compatibility import Shape

WORDS = {"adapter": "the adapter by itself", "merged": "the merged model"}


def check_command(
    target: Annotated[Literal["vllm", "gguf", "ollama", "onnx"], typer.Option(help="The engine to check for.")],
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The adapter's name in the store; `--adapter NAME` too.")
    ] = None,
    config: Config = None,
    part: Annotated[
        Literal["adapter", "merged"] | None,
        typer.Option(help="Check this form only. [default: both; one must pass]"),
    ] = None,
    base: BaseName = None,
    store: Store = STORE,
    as_json: AsJson = False,
) -> None:
    """Show what another engine refuses of an adapter, or with --config of a planned run; exit 2 if it refuses."""
    prepare_environment(offline=True)
    from lora_med.export.compatibility import PARTS, check

    if (name is None) == (config is None):
        raise SettingsError(
            "expected either NAME or --config", where="the command line", fix="lora-med adapters check --help"
        )
    shape = _shape(name, config, base, store)
    checked = {form: check(shape, target, form) for form in ([part] if part else PARTS)}
    refused = {form: any(finding.level == "refusal" for finding in findings) for form, findings in checked.items()}
    if as_json:
        parts = {form: [asdict(finding) for finding in findings] for form, findings in checked.items()}
        print_text(
            json.dumps({"target": target, "parts": parts, "taken": [form for form in checked if not refused[form]]})
        )
    else:
        for form, findings in checked.items():
            verdict = f"{target} {'refuses' if refused[form] else 'takes'} {WORDS[form]}"
            print_text(f"{verdict}:" if findings else verdict)
            for finding in findings:
                print_text(f"  {finding.level}: {finding.what}; {finding.fix}")
    if all(refused.values()):
        raise typer.Exit(SettingsError.exit_code)


def _shape(name: str | None, config: Path | None, base: str | None, store: Path) -> Shape:
    from lora_med.adapters.store.card import read_card
    from lora_med.adapters.store.store import find_adapter
    from lora_med.config.parse import parse
    from lora_med.export.compatibility import shape_of_card, shape_of_settings

    if config is not None:
        settings = parse(config)
        folder = _base_folder(base, settings.model.base, settings.model.revision)
        return shape_of_settings(settings.lora, settings.model.quantization, folder)
    card = read_card(find_adapter(name or "", store))
    folder = _base_folder(base, card.base.name, card.base.revision)
    return shape_of_card(card, folder)


def _base_folder(base: str | None, recorded_name: str, recorded_revision: str | None) -> Path | None:
    """The folder of `base`, which must be on this machine; without one, that of the recorded base, or None."""
    from lora_med.models.files.resolve import resolve_base

    if base is not None:
        return resolve_base(base, here_only=True)[0]
    try:
        return resolve_base(recorded_name, recorded_revision, here_only=True)[0]
    except InputMissingError:
        return None

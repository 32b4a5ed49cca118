"""export_ollama(): proved GGUF files and their Modelfile, for `ollama create NAME -f Modelfile`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_med.adapters.store.published import open_published
from lora_med.config.near_names import unknown
from lora_med.errors import SettingsError
from lora_med.export.compatibility import refuse
from lora_med.export.export_folder import Export, fresh_export, read_export
from lora_med.export.gguf.converter import check_gguf_packages, find_converter
from lora_med.export.gguf.export_gguf import fill_gguf, needed_bytes
from lora_med.export.gguf.number_types import check_formats
from lora_med.export.go_template import RAW, choose_template
from lora_med.files import read_json, write_atomic
from lora_med.models.files.resolve import read_config
from lora_med.models.tokenizer import load_tokenizer, with_template

MODELFILE = "Modelfile"
PARTS = ("merged", "swappable")
MOST_CONTEXT = 8192  # Ollama reserves memory for all of it
logger = logging.getLogger(__name__)


def export_ollama(
    name: str,
    out: Path | str,
    *,
    base: str | None = None,
    revision: str | None = None,
    store: Path | str = "adapters",
    part: str = "merged",
    number_format: str = "q8_0",
    accept_memorization: str | None = None,
) -> Export:
    """Write a Modelfile and its GGUF files, proved in llama.cpp, into the fresh folder `out`.

    Args:
        part: `merged`, one model; or `swappable`, the base with the adapter named by ADAPTER.
        number_format: of the model's weights.
        accept_memorization: who accepts that the adapter exceeds the bound of its memorization audit.

    Raises:
        All that `export_gguf` raises.
    """
    if part not in PARTS:
        raise SettingsError(unknown("part", part, PARTS), where="--part")
    check_formats((number_format,))
    check_gguf_packages()
    converter = find_converter()
    adapter = open_published(name, store, base, revision)
    warnings = refuse(adapter.card, adapter.base, "ollama", "merged" if part == "merged" else "adapter")
    tokenizer, _ = load_tokenizer(adapter.base)
    if adapter.chat_template is not None:
        tokenizer = with_template(tokenizer, adapter.chat_template)
    chosen = choose_template(tokenizer)
    notes = [finding.what for finding in warnings]
    if chosen is None:
        notes.append("the chat template has no known Ollama equivalent: the prompt is used as typed")
    for line in notes:
        logger.warning("%s", line)
    facts: dict[str, Any] = {
        "target": "ollama",
        "part": part,
        "converter": {"version": converter.version, "sha256": converter.digest},
        "template": chosen[0] if chosen else "raw",
        "warnings": notes,
    }
    needed = needed_bytes(adapter, part, (number_format,))
    with fresh_export(
        Path(out), adapter, needed_bytes=needed, facts=facts, accept_memorization=accept_memorization
    ) as folder:
        files = fill_gguf(folder, adapter, converter, part, (number_format,), facts)
        context = min(read_config(adapter.base).max_position_embeddings, MOST_CONTEXT)
        stops = stop_words(adapter.base, tokenizer)
        text = modelfile(files, chosen[1] if chosen else RAW, stops, context)
        write_atomic(folder / MODELFILE, text)
    return read_export(out)


def stop_words(base: Path, tokenizer: Any) -> list[str]:
    """The texts of the tokens that end a generation: those of the generation settings, and the end of text."""
    settings = base / "generation_config.json"
    configured = read_json(settings).get("eos_token_id") if settings.is_file() else None
    numbers = configured if isinstance(configured, list) else [configured]
    stop_ids = {number for number in [*numbers, tokenizer.eos_token_id] if number is not None}
    return [tokenizer.decode([number]) for number in sorted(stop_ids)]


def modelfile(files: dict[str, str], template: str, stops: Sequence[str], context: int) -> str:
    """The Modelfile's text; the files are named relative to it."""
    adapter_line = [f"ADAPTER ./{files['adapter']}"] if "adapter" in files else []
    lines = [
        f"FROM ./{files['model']}",
        *adapter_line,
        f'TEMPLATE """{template}"""',
        *(f"PARAMETER stop {_quoted(word)}" for word in stops),
        f"PARAMETER num_ctx {context}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(word: str) -> str:
    return '"""' + word + '"""' if '"' in word or "\n" in word else f'"{word}"'

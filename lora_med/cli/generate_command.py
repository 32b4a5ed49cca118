"""lora-med generate: text from a base with an adapter, or from a base or merged model alone."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_med.cli.options import STORE, AsJson, BaseName, OneAdapter, Online, Quantization, Revision, Seed, Store
from lora_med.cli.terminal import print_text
from lora_med.errors import SettingsError, UsageError
from lora_med.run import prepare_environment
from lora_med.visible import visible

if TYPE_CHECKING:
    from lora_med.adapters.store.published import Published
    from lora_med.models.base import Base

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def generate(
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="The text to continue, or the question; - reads stdin.")],
    adapter: OneAdapter = None,
    base: BaseName = None,
    revision: Revision = None,
    store: Store = STORE,
    quantization: Quantization = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")] = 128,
    chat: Annotated[
        bool | None,
        typer.Option("--chat/--plain", help="A chat turn, or bare text. [default: as in training]"),
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token; above 0, sample.")] = 0.0,
    seed: Seed = 42,
    online: Online = False,
    as_json: AsJson = False,
) -> None:
    """Generate text with an adapter on its base, or with --base alone: a base or a merged model.

    A base that the adapter was not trained on is refused (exit 76).
    """
    prepare_environment(offline=not online)
    from lora_med.prompts.row import Row
    from lora_med.prompts.templates.templates import TEMPLATES, is_chat
    from lora_med.prompts.tokens_and_labels import prompt_ids

    loaded, opened = _load(adapter, base, revision, store, quantization)
    text = sys.stdin.read() if prompt == "-" else prompt
    trained_template = opened.card.template if opened is not None else ""
    as_chat = is_chat(trained_template) if chat is None else chat
    turns = (("user", text), ("assistant", "")) if as_chat else ()
    by_base = as_chat and (TEMPLATES[trained_template].by_base if is_chat(trained_template) else True)
    row = Row("prompt", "prompt", turns, "" if as_chat else text, "", by_base=by_base)
    ids = prompt_ids(row, loaded.tokenizer)
    limit = _token_limit(loaded, len(ids), max_new_tokens)
    started = time.perf_counter()
    with _model(loaded, opened, store) as model:
        new_tokens = _write(model, loaded.tokenizer, ids, limit, temperature, seed, stream=not as_json)
    if as_json:
        answer = loaded.tokenizer.decode(new_tokens, skip_special_tokens=True)
        facts = {"adapter": adapter, "base": loaded.name, "chat": as_chat, "prompt_tokens": len(ids)}
        facts |= {"new_tokens": len(new_tokens), "seconds": round(time.perf_counter() - started, 3), "text": answer}
        print_text(json.dumps(facts))


def _load(
    adapter: str | None, base: str | None, revision: str | None, store: Path, quantization: str | None
) -> tuple[Base, Published | None]:
    """The base, and the opened adapter if one is named; a wrong base is refused before its weights are loaded."""
    from lora_med.adapters.store.published import open_published
    from lora_med.models.base import load_base, resolve_base
    from lora_med.models.on_disk.weights_source import stored_bits
    from lora_med.models.tokens.vocabulary import add_tokens

    if adapter is None:
        if base is None:
            raise UsageError("neither --adapter nor --base is given", fix="lora-med adapters list")
        bits = quantization or stored_bits(resolve_base(base, revision)[0])
        return load_base(base, quantization=bits, revision=revision), None
    opened = open_published(adapter, store, base, revision)
    bits = quantization or opened.card.base.quantization
    loaded = load_base(opened.base_name, quantization=bits, revision=opened.revision)
    loaded = loaded.with_chat_template(opened.chat_template)
    if opened.card.tokens:
        add_tokens(loaded, opened.card.tokens)  # before the prompt is tokenized
    return loaded, opened


@contextmanager
def _model(loaded: Base, opened: Published | None, store: Path) -> Iterator[Any]:
    """The base's model, with the adapter in use if one is named."""
    if opened is None:
        yield loaded.model
        return
    from lora_med.adapters.runtime.swap import load_many, use

    with use(load_many(loaded, [opened.name], store, opened=[opened]), opened.name) as model:
        yield model


def _token_limit(base: Any, prompt_tokens: int, wanted: int) -> int:
    """How many tokens can be generated: `wanted`, or fewer if the base's context ends before.

    Raises:
        SettingsError: the prompt alone fills the context.
    """
    context = getattr(base.model.config, "max_position_embeddings", None) or prompt_tokens + wanted
    if prompt_tokens >= context:
        raise SettingsError(
            f"the prompt has {prompt_tokens} tokens; the context of {base.name} is {context} tokens, answer included",
            where="--prompt",
            fix="shorten the prompt",
        )
    return min(wanted, context - prompt_tokens)


def _write(
    model: Any, tokenizer: Any, ids: list[int], max_new_tokens: int, temperature: float, seed: int, *, stream: bool
) -> list[int]:
    """The new tokens; with `stream`, their text is printed token by token."""
    import torch
    from transformers import TextStreamer

    from lora_med.models.generation import stop_ids

    class Streamer(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            super().on_finalized_text(visible(text) if sys.stdout.isatty() else text, stream_end)

    prompt = torch.tensor([ids], device=model.device)
    sampling: dict[str, Any] = {"do_sample": temperature > 0}
    if temperature > 0:
        sampling["temperature"] = temperature
        torch.manual_seed(seed)
    with torch.inference_mode():
        sequence = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=max_new_tokens,
            eos_token_id=stop_ids(model, tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            streamer=Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True) if stream else None,
            **sampling,
        )
    return sequence[0, len(ids) :].tolist()

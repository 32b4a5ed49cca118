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

from lora_med.cli.shared_options import STORE, AsJson, BaseName, OneAdapter, Online, Quantization, Revision, Seed, Store
from lora_med.errors import InputMissingError, SettingsError, UsageError
from lora_med.run import prepare_environment

if TYPE_CHECKING:
    from lora_med.adapters.store.card import Card
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
    from lora_med.prompts.tokens import prompt_ids

    loaded, card = _load(adapter, base, revision, store, quantization)
    text = sys.stdin.read() if prompt == "-" else prompt
    of_template = card is not None and card.template.endswith("_chat")
    as_chat = of_template if chat is None else chat
    turns = (("user", text), ("assistant", "")) if as_chat else ()
    ids = prompt_ids(Row("prompt", "prompt", turns, "" if as_chat else text, ""), loaded.tokenizer)
    limit = _token_limit(loaded, len(ids), max_new_tokens)
    begun = time.perf_counter()
    with _model(loaded, adapter, store) as model:
        new = _write(model, loaded.tokenizer, ids, limit, temperature, seed, stream=not as_json)
    if as_json:
        answer = loaded.tokenizer.decode(new, skip_special_tokens=True)
        facts = {"adapter": adapter, "base": loaded.name, "chat": as_chat, "prompt_tokens": len(ids)}
        facts |= {"new_tokens": len(new), "seconds": round(time.perf_counter() - begun, 3), "text": answer}
        print(json.dumps(facts))


def _load(
    adapter: str | None, base: str | None, revision: str | None, store: Path, quantization: str | None
) -> tuple[Base, Card | None]:
    """The base, and the adapter's card if one is named; a wrong base is refused before its weights are loaded."""
    from lora_med.adapters.store.card import read_card
    from lora_med.adapters.store.published import check_base
    from lora_med.adapters.store.store import find_adapter
    from lora_med.models.base import load_base
    from lora_med.models.fingerprint import fingerprint

    if adapter is None:
        if base is None:
            raise UsageError("neither --adapter nor --base is given", fix="lora-med adapters list")
        return load_base(base, quantization=quantization or "none", revision=revision), None
    folder = find_adapter(adapter, store)
    card = read_card(folder)
    name, commit = (base, revision) if base else (card.base.name, revision or card.base.revision)
    check_base(fingerprint(_folder(name, commit)), name, card, folder)
    return load_base(name, quantization=quantization or card.base.quantization, revision=commit), card


@contextmanager
def _model(loaded: Base, adapter: str | None, store: Path) -> Iterator[Any]:
    """The base's model, with the adapter in use if one is named."""
    if adapter is None:
        yield loaded.model
        return
    from lora_med.adapters.runtime.swap import load_many, use

    with use(load_many(loaded, [adapter], store), adapter) as model:
        yield model


def _folder(name: str, revision: str | None) -> Path:
    from lora_med.models.files.resolve import resolve_base

    try:
        return resolve_base(name, revision)[0]
    except InputMissingError as error:
        fix = "; ".join(filter(None, (f"--base PATH names the folder of {name!r}", error.fix)))
        raise InputMissingError(error.what, where=error.where, fix=fix) from error


def _token_limit(base: Any, prompt_tokens: int, wanted: int) -> int:
    """How many tokens can be generated: those wanted, or as many as the base's context still holds.

    Raises:
        SettingsError: the prompt alone fills the context.
    """
    context = getattr(base.model.config, "max_position_embeddings", None) or prompt_tokens + wanted
    if prompt_tokens >= context:
        raise SettingsError(
            f"the prompt has {prompt_tokens} tokens; {base.name} holds {context}, with the answer",
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
            streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True) if stream else None,
            **sampling,
        )
    return sequence[0, len(ids) :].tolist()

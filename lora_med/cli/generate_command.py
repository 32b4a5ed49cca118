"""lora-med generate: text from a base with one of its adapters."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_med.errors import SettingsError
from lora_med.run import prepare_environment

app = typer.Typer()


@app.command()
def generate(
    adapter: Annotated[str, typer.Option(help="the adapter's name in the store")],
    prompt: Annotated[str, typer.Option(help="the text to go on from, or the question; - reads it from stdin")],
    base: Annotated[str | None, typer.Option(help="where the base lies; left out, the card's")] = None,
    store: Annotated[Path, typer.Option(help="the folder that holds the adapters")] = Path("adapters"),
    quantization: Annotated[str | None, typer.Option(help="none, 8bit or 4bit; left out, as it was trained")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="longest answer, in tokens")] = 128,
    chat: Annotated[
        bool | None, typer.Option("--chat/--plain", help="as a chat turn, or as bare text; left out, by its template")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="above 0, sample; 0 takes the likeliest token")] = 0.0,
    seed: Annotated[int, typer.Option(help="seed of the sampling")] = 42,
    online: Annotated[bool, typer.Option("--online", help="let the base be loaded from the Hub")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """Write text with an adapter on its base; another base, even of equal shape, is refused (exit 76)."""
    prepare_environment(offline=not online)
    from lora_med.adapters.runtime.swap import load_many, use
    from lora_med.adapters.store.published import open_published
    from lora_med.models.base import load_base
    from lora_med.prompts.row import Row
    from lora_med.prompts.tokens import prompt_ids

    published = open_published(adapter, store, base)  # refuses another base before the weights are loaded
    card, name = published.card, published.base_name
    loaded = load_base(name, quantization=quantization or card.base.quantization, revision=published.revision)
    pool = load_many(loaded, [adapter], store, opened=[published])
    text = sys.stdin.read() if prompt == "-" else prompt
    as_chat = card.template.endswith("_chat") if chat is None else chat
    turns = (("user", text), ("assistant", "")) if as_chat else ()
    ids = prompt_ids(Row("prompt", "prompt", turns, "" if as_chat else text, ""), loaded.tokenizer)
    room = _room(loaded, len(ids), max_new_tokens)
    begun = time.perf_counter()
    with use(pool, adapter) as model:
        new = _write(model, loaded.tokenizer, ids, room, temperature, seed, stream=not as_json)
    if as_json:
        answer = loaded.tokenizer.decode(new, skip_special_tokens=True)
        facts = {"adapter": adapter, "base": name, "chat": as_chat, "prompt_tokens": len(ids), "new_tokens": len(new)}
        print(json.dumps({**facts, "seconds": round(time.perf_counter() - begun, 3), "text": answer}))


def _room(base: Any, prompt_tokens: int, wanted: int) -> int:
    """How many tokens can be written: those wanted, or what the base's context leaves.

    Raises:
        SettingsError: the prompt alone fills the context.
    """
    context = getattr(base.model.config, "max_position_embeddings", None) or prompt_tokens + wanted
    if prompt_tokens >= context:
        raise SettingsError(
            f"the prompt has {prompt_tokens} tokens; {base.name} can hold {context}, its answer included",
            where="--prompt",
            fix="shorten the prompt",
        )
    return min(wanted, context - prompt_tokens)


def _write(
    model: Any, tokenizer: Any, ids: list[int], max_new_tokens: int, temperature: float, seed: int, *, stream: bool
) -> list[int]:
    """The new tokens; with `stream`, their text goes to stdout as it comes."""
    import torch
    from transformers import TextStreamer

    from lora_med.models.generation import stop_ids

    prompt = torch.tensor([ids], device=model.device)
    sampling: dict[str, Any] = {"do_sample": temperature > 0}
    if temperature > 0:
        sampling["temperature"] = temperature
        torch.manual_seed(seed)
    with torch.inference_mode():
        whole = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=max_new_tokens,
            eos_token_id=stop_ids(model, tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True) if stream else None,
            **sampling,
        )
    return whole[0, len(ids) :].tolist()

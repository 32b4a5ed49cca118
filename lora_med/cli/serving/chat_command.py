"""lora-med chat: a conversation in the terminal, with an adapter or a base, on the engine of `serve`."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from lora_med.cli.options import STORE, BaseName, Dtype, OneAdapter, Online, Quantization, Revision, Seed, Store
from lora_med.cli.serving.serving_options import KvMemory, limits_of
from lora_med.cli.terminal import print_text
from lora_med.errors import LoraMedError
from lora_med.run import prepare_environment
from lora_med.visible import visible

if TYPE_CHECKING:
    from lora_med.serving.engine import Engine
    from lora_med.serving.requests import Sampling

app = typer.Typer(add_completion=False, rich_markup_mode=None)
RESET = "/reset"
Messages = list[dict[str, str]]


@app.command()
def chat(
    adapter: OneAdapter = None,
    base: BaseName = None,
    revision: Revision = None,
    store: Store = STORE,
    quantization: Quantization = None,
    dtype: Dtype = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="The system message of the conversation.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")] = 512,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token; above 0, sample.")] = 0.0,
    seed: Seed = 42,
    kv_memory: KvMemory = 1.0,
    online: Online = False,
) -> None:
    """Talk with an adapter, or with --base alone: each line is a turn, /reset begins again, Ctrl-D ends.

    Ctrl-C stops an answer.
    """
    prepare_environment(offline=not online)
    from lora_med.serving.requests import Sampling
    from lora_med.serving.served_models import Audience
    from lora_med.serving.start import Wanted, open_all, running_engine

    audience = Audience(is_local=True)
    names = () if adapter is None else (adapter,)
    opened = open_all(Wanted(names, store, base, revision, quantization, dtype), audience)
    limits = limits_of(1, kv_memory, 1, 1, 1, 1 << 20, max_new_tokens)
    with running_engine(opened, limits, audience) as (engine, _, _):
        start: Messages = [] if system is None else [{"role": "system", "content": system}]
        _converse(engine, adapter, start, Sampling(max_new_tokens, temperature, seed=seed))


def _converse(engine: Engine, adapter: str | None, start: Messages, sampling: Sampling) -> None:
    """Turn by turn, until standard input ends; an answer that fails leaves the conversation as it was."""
    messages = list(start)
    while (text := _read_turn()) is not None:
        if text == RESET:
            messages = list(start)
            continue
        if not text:
            continue
        asked: Messages = [*messages, {"role": "user", "content": text}]
        try:
            answer = _answer(engine, adapter, asked, sampling)
        except LoraMedError as error:
            print_text(error, file=sys.stderr, flush=True)
            continue
        messages = [*asked, {"role": "assistant", "content": answer}]


def _read_turn() -> str | None:
    """The next line; None at the end of standard input."""
    if sys.stdin.isatty():
        print_text("> ", end="", file=sys.stderr, flush=True)
    try:
        line = sys.stdin.readline()
    except KeyboardInterrupt:
        return None
    return line.strip() if line else None


def _answer(engine: Engine, adapter: str | None, messages: Messages, sampling: Sampling) -> str:
    """The answer, printed as it comes; Ctrl-C ends it where it is."""
    from lora_med.serving.requests import Ask, Done, Piece, Stopped

    tokens = engine.encode_chat(adapter, messages)
    running = engine.submit(Ask("chat", adapter, tokens, _fitting(engine, tokens, sampling)))
    before = signal.signal(signal.SIGINT, lambda number, frame: running.cancel())
    written = ""
    try:
        for event in running:
            if isinstance(event, Piece | Done):
                written += event.text
                shown = visible(event.text) if sys.stdout.isatty() else event.text
                sys.stdout.write(shown)
                sys.stdout.flush()
    except Stopped:
        pass
    finally:
        signal.signal(signal.SIGINT, before)
    print_text("")
    return written


def _fitting(engine: Engine, tokens: tuple[int, ...], sampling: Sampling) -> Sampling:
    """Fewer new tokens where the base's context ends before."""
    if engine.context is None:
        return sampling
    return replace(sampling, max_tokens=max(1, min(sampling.max_tokens, engine.context - len(tokens))))

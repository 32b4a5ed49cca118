"""python benchmarks/swap.py [--dtypes bfloat16 float32] [--rounds 5] [--json]: swapping adapters, by us and by PEFT.

A random llama of 24 layers (1,024 wide, 283 million weights besides the embeddings) has 8 adapters of rank 16 on all
linear layers. First the time of a swap in memory and from disk is measured. Then a batch of 8 rows, all with one
adapter or each with its own: steps of decoding, and the reading of 8 prompts. Both libraries run in one process, in
alternating runs, on two copies of the base. Correctness checks: both give the same logits and tokens, and leaving an
adapter restores the base.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}  # as lora_med itself sets them
MICRO = Path(__file__).parent.parent / "lora_med" / "assets" / "micro"
ROWS, RANK, VOCABULARY = 8, 16, 8192
NAMES = tuple(f"adapter{number}" for number in range(ROWS))


def make_base(folder: Path, layers: int, width: int) -> None:
    """A random llama with the embedded base's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 128,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(MICRO / file, folder / file)


def fill_store(base: Any, store: Path, names: Sequence[str]) -> None:
    """Published adapters of these names on a loaded base; their weights are large enough to change the output."""
    import torch

    import lora_med
    from lora_med.adapters.runtime.attach import attach_new, detach
    from lora_med.adapters.store.card import DataFacts
    from lora_med.adapters.store.store import publish

    lora = lora_med.Settings().lora.model_copy(update={"r": RANK, "lora_alpha": 2 * RANK, "lora_dropout": 0.0})
    model = attach_new(base, lora, seed=1)
    facts = DataFacts("custom", "none", "open")
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        for key, weight in model.named_parameters():
            if "lora_" in key:
                weight.data = torch.randn_like(weight) * 0.02
        publish(model, base=base, name=name, store=store, template="text", data=facts, settings={})
    detach(model)


class Timer:
    """Wall and CPU seconds of blocks, under the name of what is timed."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[tuple[float, float]]] = {}

    def time(self, what: str, action: Callable[[], Any]) -> Any:
        started = time.perf_counter(), time.thread_time()
        result = action()
        self.add(what, time.perf_counter() - started[0], time.thread_time() - started[1])
        return result

    def add(self, what: str, wall: float, cpu: float) -> None:
        self.seconds.setdefault(what, []).append((wall, cpu))

    def table(self) -> dict[str, dict[str, float]]:
        """Median, least and largest, in milliseconds."""
        rows: dict[str, dict[str, float]] = {}
        for what, pairs in self.seconds.items():
            wall, cpu = ([1000 * seconds for seconds in column] for column in zip(*pairs, strict=True))
            rows[what] = {"wall_ms": statistics.median(wall), "wall_least_ms": min(wall), "wall_most_ms": max(wall)}
            rows[what] |= {"cpu_ms": statistics.median(cpu), "times": len(pairs)}
        return rows


class Clock:
    """A streamer that notes the time whenever `generate` hands over the next tokens."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def put(self, tokens: Any) -> None:
        self.marks.append((time.perf_counter(), time.thread_time()))

    def end(self) -> None:
        """Do nothing: `generate` has returned its last tokens."""


def swaps(pool: Any, peft_model: Any, store: Path, rounds: int) -> dict[str, Any]:
    """Times to activate another adapter, without any forward pass."""
    from peft.utils.hotswap import hotswap_adapter

    import lora_med

    def in_and_out(name: str) -> None:
        with lora_med.use(pool, name):
            pass

    timer = Timer()
    with lora_med.AdapterPool(pool.base, store, most_resident=1) as small:
        for turn in range(rounds):
            name, other = NAMES[turn % ROWS], NAMES[(turn + 1) % ROWS]
            for adapter in (name, other):
                timer.time("lora_med, in memory, there and back", lambda adapter=adapter: in_and_out(adapter))
                timer.time("PEFT set_adapter", lambda adapter=adapter: peft_model.set_adapter(adapter))
            timer.time(
                "PEFT hotswap from disk", lambda name=name: hotswap_adapter(peft_model, str(store / name), "slot")
            )
            peft_model.delete_adapter("slot")
            timer.time(
                "PEFT load_adapter from disk", lambda name=name: peft_model.load_adapter(str(store / name), "slot")
            )
            slots, _ = timer.time("lora_med from disk, all checks made", lambda name=name: small.hold([name]))
            small.release(slots)
    return timer.table()


def logits(model: Any, ids: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(input_ids=ids).logits


def agreement(pool: Any, peft_model: Any, ids: Any, before: Any) -> dict[str, Any]:
    """Whether both give the same logits, A after B is A, and leaving restores the base."""
    import torch

    import lora_med

    largest, effect, mine = 0.0, 0.0, {}
    for name in NAMES:
        peft_model.set_adapter(name)
        with lora_med.use(pool, name) as model:
            mine[name] = logits(model, ids)
        largest = max(largest, float((mine[name] - logits(peft_model, ids)).abs().max()))
        effect = max(effect, float((mine[name] - before).abs().max()))
    with lora_med.use(pool, NAMES[0]) as model:
        again = torch.equal(logits(model, ids), mine[NAMES[0]])
    with lora_med.use(pool, NAMES) as model:
        mixed = logits(model, ids.expand(ROWS, -1))
    difference = max(float((mixed[row] - mine[name][0]).abs().max()) for row, name in enumerate(NAMES))
    return {
        "largest difference from PEFT's logits": largest,
        "largest change that an adapter makes": effect,
        "largest difference of a row in a mixed batch from the adapter alone": difference,
        "A after B is bit-identical to A": again,
        "the restored base is bit-identical": torch.equal(logits(pool.model, ids), before),
    }


def batches(pool: Any, peft_model: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Times of a decoding step and of reading prompts, and whether the tokens are PEFT's."""
    import torch

    import lora_med

    def ours(names: Any) -> AbstractContextManager[Any]:
        return lora_med.use(pool, names)

    peft_model.set_adapter(NAMES[0])
    arms: dict[str, tuple[Callable[[], AbstractContextManager[Any]], dict[str, Any]]] = {
        "the bare base": (lambda: ours(None), {}),
        "lora_med, one adapter": (lambda: ours(NAMES[0]), {}),
        "lora_med, 8 mixed": (lambda: ours(NAMES), {}),
        "PEFT, one adapter": (lambda: nullcontext(peft_model), {}),
        "PEFT, 8 mixed": (lambda: nullcontext(peft_model), {"adapter_names": list(NAMES)}),
    }
    decoding, reading, tokens = Timer(), Timer(), dict[str, Any]()
    short = torch.randint(5, VOCABULARY, (ROWS, 8), generator=torch.Generator().manual_seed(1))
    long = torch.randint(5, VOCABULARY, (ROWS, options.prompt), generator=torch.Generator().manual_seed(2))
    fixed = {"min_new_tokens": options.tokens, "max_new_tokens": options.tokens, "do_sample": False}
    for _ in range(options.rounds):
        for arm, (chosen, more) in arms.items():
            clock = Clock()
            with chosen() as model, torch.inference_mode():
                tokens[arm] = model.generate(input_ids=short, streamer=clock, **fixed, **more)
            for before, after in zip(clock.marks[2:], clock.marks[3:], strict=False):
                decoding.add(arm, after[0] - before[0], after[1] - before[1])
    for _ in range(options.prompt_rounds):
        for arm, (chosen, more) in arms.items():
            with chosen() as model, torch.inference_mode():
                reading.time(arm, lambda model=model, more=more: model(input_ids=long, logits_to_keep=1, **more))
    same = {
        f"tokens of {ours} like PEFT's": float((tokens[f"lora_med, {ours}"] == tokens[f"PEFT, {ours}"]).float().mean())
        for ours in ("one adapter", "8 mixed")
    }
    return {"decoding": decoding.table(), "reading": reading.table(), "same": same}


def compare(dtype: str, base: Path, store: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Everything about a base of one dtype."""
    import torch

    import lora_med

    loaded, copy = (lora_med.load_base(str(base), quantization="none", dtype=dtype) for _ in range(2))
    ids = torch.randint(5, VOCABULARY, (1, 24), generator=torch.Generator().manual_seed(3))
    before = logits(loaded.model, ids)
    peft_model = lora_med.attach(copy, NAMES[0], store)
    for name in NAMES[1:]:
        lora_med.attach(copy, name, store, onto=peft_model)
    peft_model.load_adapter(str(store / NAMES[0]), "slot")
    with lora_med.load_many(loaded, NAMES, store) as pool:
        results = {"swaps": swaps(pool, peft_model, store, options.swap_rounds)}
        peft_model.delete_adapter("slot")
        results |= {"agreement": agreement(pool, peft_model, ids, before)}
        results |= batches(pool, peft_model, options)
    results["agreement"]["after closing, the base is bit-identical"] = torch.equal(logits(loaded.model, ids), before)
    return results


def show(dtype: str, results: dict[str, Any]) -> None:
    """The tables of one dtype."""
    print(f"\n## {dtype}\n\n| swap | ms, median (range) | CPU ms |\n|---|---|---|")
    for what, times in results["swaps"].items():
        wall = f"{times['wall_ms']:.3f} ({times['wall_least_ms']:.3f} to {times['wall_most_ms']:.3f})"
        print(f"| {what} | {wall} | {times['cpu_ms']:.3f} |")
    for part, title in (("decoding", "a decoding step of 8 rows"), ("reading", "reading 8 prompts")):
        print(f"\n| {title} | ms, median (range) | CPU ms | CPU, times its own one adapter |\n|---|---|---|---|")
        for what, times in results[part].items():
            single = results[part][f"{what.split(',')[0]}, one adapter"]["cpu_ms"] if "," in what else None
            ratio = f"{times['cpu_ms'] / single:.2f}" if single else ""
            wall = f"{times['wall_ms']:.1f} ({times['wall_least_ms']:.1f} to {times['wall_most_ms']:.1f})"
            print(f"| {what} | {wall} | {times['cpu_ms']:.1f} | {ratio} |")
    print()
    for what, value in {**results["agreement"], **results["same"]}.items():
        print(f"- {what}: {value:.3g}" if isinstance(value, float) else f"- {what}: {'yes' if value else 'NO'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"], choices=["bfloat16", "float32"])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1024, help="a multiple of 128")
    parser.add_argument("--rounds", type=int, default=5, help="of decoding")
    parser.add_argument("--prompt-rounds", type=int, default=3, help="of reading the prompts")
    parser.add_argument("--swap-rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=16, help="decoded in each round")
    parser.add_argument("--prompt", type=int, default=256, help="tokens of each prompt that is read")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    options = parser.parse_args()
    import peft
    import torch

    import lora_med

    torch.set_num_threads(1)
    about = f"{platform.machine()}, torch {torch.__version__}, PEFT {peft.__version__}, one thread"
    results: dict[str, Any] = {"about": about}
    if not options.json:
        print(about)
    with tempfile.TemporaryDirectory() as folder:
        make_base(Path(folder) / "base", options.layers, options.width)
        loaded = lora_med.load_base(str(Path(folder) / "base"), quantization="none", dtype="bfloat16")
        fill_store(loaded, Path(folder) / "store", NAMES)
        for dtype in options.dtypes:
            results[dtype] = compare(dtype, Path(folder) / "base", Path(folder) / "store", options)
            if not options.json:
                show(dtype, results[dtype])
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()

"""lora-med plan: what a run will need, from its settings and its base's config.json, before its weights are loaded."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_med.cli.options import AsJson, Config, Overrides
from lora_med.cli.terminal import print_text
from lora_med.config.parse import parse
from lora_med.errors import LoraMedError, UsageError
from lora_med.run import prepare_environment

if TYPE_CHECKING:
    from lora_med.config.schema import Settings, TrainSettings
    from lora_med.prompts.tokens_and_labels import Tokens
    from lora_med.training.planner.run_memory import Need, Shape

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Estimate a run: memory, the batch that fits, tokens, steps and time.",
)
GIB = 1 << 30
SEVERAL = {"left_out": "the time that several processes take to send each other gradients is not known"}
MOST_TIMED = {False: 2048, True: 16384}  # tokens that are timed: on a CPU, on a GPU


@app.command()
def plan(
    overrides: Overrides = None,
    config: Config = None,
    memory: Annotated[
        float | None, typer.Option(min=0.1, help="Memory to plan with, in GiB. [default: what is free]")
    ] = None,
    read_data: Annotated[bool, typer.Option(help="Read the data for its lengths and steps.")] = True,
    timed: Annotated[
        bool, typer.Option("--time/--no-time", help="Measure the step time of two layers on this machine.")
    ] = True,
    processes: Annotated[int, typer.Option(min=1, help="Processes of the run, such as one for each GPU.")] = 1,
    sharded: Annotated[bool, typer.Option("--sharded", help="The base is in shards over them (FSDP2).")] = False,
    as_json: AsJson = False,
) -> None:
    """Estimate the memory a run needs, the batch that fits, and its time. No weights of the base are loaded."""
    if sharded and processes == 1:
        raise UsageError("--sharded with --processes 1: no other has a shard", fix="--processes N, with N at least 2")
    settings = parse(config, overrides or [])
    if sharded and settings.train.method == "dpo":
        raise UsageError("--sharded with train.method dpo, which does not train a base in shards", fix="without it")
    if processes > 1 and settings.train.privacy is not None:
        raise UsageError(f"--processes {processes} with train.privacy, which takes one process", fix="--processes 1")
    prepare_environment(settings.offline)
    from rich.console import Console

    with Console(stderr=True).status("building the model without memory, reading lengths, timing two layers"):
        options = {"memory_gib": memory, "read_data": read_data, "timed": timed}
        report = _report(settings, **options, processes=processes, sharded=sharded)
    print_text(json.dumps(report)) if as_json else _print(report)


def _report(
    settings: Settings, *, memory_gib: float | None, read_data: bool, timed: bool, processes: int, sharded: bool
) -> dict[str, Any]:
    from lora_med.models.memory import experts_in_full, free_memory
    from lora_med.models.skeleton import skeleton
    from lora_med.training.planner.run_memory import fit_batch, largest_batch, measure
    from lora_med.training.planner.sharded_memory import loading_bytes, shared_needs
    from lora_med.training.private.accountant import planned_privacy
    from lora_med.training.rows.training_rows import row_lengths

    shape = _shape(settings)
    reads = read_data and bool(settings.data.paths or settings.data.mix)
    documents, patients = _documents(settings) if reads else (None, None)
    train = settings.train
    lengths, labeled = row_lengths(documents, train)
    free = int(memory_gib * GIB) if memory_gib is not None else free_memory("cuda" if shape.on_gpu else "cpu")
    batch = largest_batch(lengths, train.per_device_train_batch_size)
    alone = measure(shape)
    needs = shared_needs(shape, alone, processes) if sharded else alone
    free = free if shape.on_gpu else free // processes  # the processes of a machine share its memory
    loading = loading_bytes(shape) if sharded else None
    need = needs(batch, math.ceil(labeled * sum(batch)), train.gradient_checkpointing)
    fitted, choices = fit_batch(train, lengths, labeled, needs, free)
    a_step = train.per_device_train_batch_size * train.gradient_accumulation_steps * processes  # rows, or patients
    steps = math.ceil((patients or len(lengths)) / a_step) if documents is not None else None
    total_steps = train.max_steps if train.max_steps > 0 else steps and math.ceil(steps * train.num_train_epochs)
    planned = fitted if train.batch == "auto" else train
    return {
        "as_set": _need_report(need, sum(batch), train.per_device_train_batch_size),
        "experts_in_full": experts_in_full(
            skeleton(shape.folder),
            quantization=shape.quantization,
            double_quant=shape.double_quant,
            dtype=shape.dtype,
        ),
        "free_bytes": free,
        "fits": max(need.total, 0 if shape.on_gpu else loading or 0) <= free,
        "processes": processes,
        "sharded": sharded,
        "host_bytes_while_loading": loading,
        "chosen": {
            "per_device_train_batch_size": fitted.per_device_train_batch_size,
            "gradient_accumulation_steps": fitted.gradient_accumulation_steps,
            "gradient_checkpointing": fitted.gradient_checkpointing,
            "because": [str(choice) for choice in choices],
        },
        "rows": len(lengths) if documents is not None else None,
        "tokens_an_epoch": sum(lengths) if documents is not None else None,
        "median_tokens": statistics.median(lengths),
        "steps_an_epoch": steps,
        "steps": total_steps,
        **planned_privacy(train, patients, total_steps),
        "time": None
        if not timed
        else SEVERAL
        if processes > 1
        else _time(shape, documents, lengths, labeled, planned, steps if patients else None),
        **_on_disk(shape),
    }


def _on_disk(shape: Shape) -> dict[str, Any]:
    """How the base is quantized on disk, if it is, and the bytes of its values in the cache if the run makes them."""
    from lora_med.models.on_disk.dequantized_base import has_values, values_bytes
    from lora_med.models.on_disk.stored_quantization import stored_quantization
    from lora_med.models.on_disk.weights_source import takes_as_stored

    stored = stored_quantization(shape.folder)
    if stored is None:
        return {}
    stays = takes_as_stored(shape.folder, shape.quantization) or has_values(shape.folder)
    return {"base_on_disk": {"quantization": str(stored), "cache_bytes": 0 if stays else values_bytes(shape.folder)}}


def _time(
    shape: Shape,
    documents: list[Tokens] | None,
    lengths: list[int],
    labeled: float,
    train: TrainSettings,
    steps_an_epoch: int | None,
) -> dict[str, Any]:
    """Seconds of an average step and of all steps, validation not counted; or `left_out`, why there are none."""
    from lora_med.models.memory import free_memory
    from lora_med.training.planner.step_time import time_batch, typical, why_not_timed
    from lora_med.training.rows.training_rows import segment_lengths

    rows_a_step = train.per_device_train_batch_size * train.gradient_accumulation_steps
    segments = segment_lengths(documents, train) if documents else [(length,) for length in lengths]
    target_tokens = min(statistics.mean(lengths) * train.per_device_train_batch_size, MOST_TIMED[shape.on_gpu])
    batch = typical(segments, target_tokens)
    tokens = sum(map(sum, batch))
    reason = why_not_timed(shape, max(map(sum, batch)), free_memory("cuda" if shape.on_gpu else "cpu"))
    if reason is not None:
        return {"left_out": reason}
    try:
        labels = math.ceil(labeled * tokens)
        step_time = time_batch(shape, batch, labels, checkpointing=train.gradient_checkpointing)
    except (RuntimeError, ValueError, AttributeError, TypeError, IndexError, LoraMedError) as error:
        return {"left_out": f"two layers of this base cannot be run by themselves ({type(error).__name__})"}
    epoch_tokens = sum(lengths)
    tokens_a_step = epoch_tokens / (steps_an_epoch or math.ceil(len(lengths) / rows_a_step))
    total_tokens = tokens_a_step * train.max_steps if train.max_steps > 0 else epoch_tokens * train.num_train_epochs
    # Tokens for which the layers below the adapters are not computed again.
    cached_tokens = max(total_tokens - epoch_tokens, 0) if train.cache_frozen and documents else 0
    length_is_known = documents is not None or train.max_steps > 0
    return {
        "tokens_per_second": round(tokens / step_time.seconds, 1),
        "seconds_a_step": round(tokens_a_step * step_time.seconds / tokens, 3),
        "seconds": round((total_tokens * step_time.seconds - cached_tokens * step_time.below) / tokens, 3)
        if length_is_known
        else None,
    }


def _need_report(need: Need, tokens: int, rows: int) -> dict[str, Any]:
    return {
        "rows": rows,
        "tokens": tokens,
        "bytes": asdict(need),
        "phases": {"loaded": need.loaded, "between steps": need.resting, "end of a forward pass": need.total},
    }


def _shape(settings: Settings) -> Shape:
    from lora_med.adapters.tensors.method import method_for
    from lora_med.models.base import choose_attention, choose_dtype
    from lora_med.models.files.quantized_cache import cache_path, is_cached
    from lora_med.models.files.resolve import resolve_base
    from lora_med.models.on_disk.dequantized_base import has_values, values_folder
    from lora_med.models.on_disk.weights_source import stored_bits, takes_as_stored
    from lora_med.models.precision import Choice, device_kind
    from lora_med.models.quantize import bitsandbytes_config
    from lora_med.models.skeleton import skeleton
    from lora_med.training.planner.run_memory import Shape

    model = settings.model
    folder, _ = resolve_base(model.base, model.revision)
    choices: list[Choice] = []
    dtype = choose_dtype(model.dtype, choices)
    bare = skeleton(folder)
    as_stored = takes_as_stored(folder, model.quantization)
    quantizes = model.quantization == "4bit" and not as_stored
    if quantizes and model.keep_quantized and has_values(folder):
        kind, double = model.bnb_4bit_quant_type, model.bnb_4bit_use_double_quant
        quantized = bitsandbytes_config("4bit", quant_type=kind, double_quant=double, dtype=dtype)
        quantizes = not is_cached(*cache_path(values_folder(folder), quantized, dtype=dtype, device=device_kind()))
    return Shape(
        folder=folder,
        config=method_for(bare, settings.lora).peft_config(bare, inference=False),
        quantization=stored_bits(folder) if as_stored else model.quantization,
        double_quant=model.bnb_4bit_use_double_quant,
        dtype=dtype,
        attention=choose_attention(model.attn_implementation, bare.config, choices),
        on_gpu=device_kind() == "cuda",
        quantizes=quantizes,
        compares=settings.train.method == "dpo",
        private=settings.train.privacy is not None,
    )


def _documents(settings: Settings) -> tuple[list[Tokens], int | None]:
    """The training documents, fitted to the longest row as a run fits them, and with privacy their patients."""
    from lora_med.data.corpus import open_corpus
    from lora_med.models.tokens.base_tokenizer import tokenizer_with
    from lora_med.prompts.chat_template import tokenizer_of_run
    from lora_med.training.rows.documents import DocumentStream
    from lora_med.workflows.preferences.train_preferences import pair_documents

    tokenizer = tokenizer_with(settings.lora.trainable_tokens, settings.model)
    corpus = open_corpus(settings.data)
    train, model = settings.train, settings.model
    options = {"file": model.chat_template, "enable_thinking": model.enable_thinking}
    tokenizer = tokenizer_of_run(tokenizer, corpus.templates.values(), **options)
    if train.method == "dpo":
        return pair_documents(list(corpus.train), corpus.templates, tokenizer, settings), None
    fitting = train.max_length, train.too_long, train.assistant_turns
    documents = list(DocumentStream(corpus.train, corpus.templates, tokenizer, *fitting, settings.data.skip_bad))
    return documents, None if train.privacy is None else len({record.group for record in corpus.train})


def _print(report: dict[str, Any]) -> None:
    from lora_med.training.private.accountant import spending_lines

    as_set, processes = report["as_set"], report["processes"]
    each = f" in each of {processes} processes" if processes > 1 else ""
    if "base_on_disk" in report:
        size = report["base_on_disk"]["cache_bytes"]
        cached = f"; its values are written once, {size / 1e9:.2f} GB in the cache" if size else ""
        print_text(f"base         quantized on disk: {report['base_on_disk']['quantization']}{cached}")
    print_text(f"memory       for the {as_set['rows']} longest rows together{each}, {as_set['tokens']:,} tokens:")
    for name, size in as_set["bytes"].items():
        if size:
            print_text(f"             {name.replace('_', ' '):<24}{size / GIB:7.2f} GiB")
    if report["experts_in_full"] is not None:
        print_text(f"experts      {report['experts_in_full']}")
    for name, size in as_set["phases"].items():
        print_text(f"{'phases' if name == 'loaded' else '':<13}{name:<24}{size / GIB:7.2f} GiB")
    if report["host_bytes_while_loading"] is not None:
        loading = report["host_bytes_while_loading"] / GIB
        print_text(f"host         {loading:.2f} GiB in each process until the base is in shards,")
        print_text(f"             {processes * loading:.2f} GiB if all of them are on one machine")
    verdict = "fits" if report["fits"] else "does not fit"
    print_text(f"free         {report['free_bytes'] / GIB:.2f} GiB: the batch of the settings {verdict}")
    for line in report["chosen"]["because"]:
        print_text(f"auto         {line}")
    if report["rows"] is not None:
        print_text(f"data         {report['rows']:,} rows, {report['tokens_an_epoch']:,} tokens an epoch")
        print_text(f"steps        {report['steps_an_epoch']:,} an epoch, {report['steps']:,} in all")
    for line in spending_lines(report["privacy"]) if "privacy" in report else ():
        print_text(line)
    time = report["time"]
    if time is not None and "left_out" in time:
        print_text(f"time         not measured: {time['left_out']}")
    elif time is not None:
        total = f", {_duration(time['seconds'])} in all" if time["seconds"] is not None else ""
        print_text(
            f"time         {time['tokens_per_second']:,.0f} tokens/s, {time['seconds_a_step']:.2f} s a step{total}"
        )
        print_text("             measured on two layers on this machine; validation is not counted")


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60:02} min" if hours else f"{rest // 60} min {rest % 60:02} s"

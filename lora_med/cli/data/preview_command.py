"""lora-med data check|preview: what a run would learn from, checked and shown before training."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_med.cli.data.output_file import check_no_input, check_output
from lora_med.cli.options import AsJson, Config, Overrides, Permission
from lora_med.cli.terminal import console, print_text
from lora_med.config.parse import parse
from lora_med.run import prepare_environment

if TYPE_CHECKING:
    from lora_med.audit.data_check import Check, SourceCheck
    from lora_med.config.schema import Settings
    from lora_med.data.corpus import Corpus

SHOWN_LABELS = 6


def check_command(overrides: Overrides = None, config: Config = None, as_json: AsJson = False) -> None:
    """Read a run's data in full, as the run would: splits, leaks, lengths, labels, baselines, identifiers."""
    check, _, _ = _checked(parse(config, overrides or []))
    if as_json:
        print_text(json.dumps(check.as_json()))
        return
    for source in check.sources:
        print_source(source, check.max_length)
    for ingredient in check.mixture:
        print_text(
            f"mixture      {ingredient['name']}: {ingredient['rows']:,} of {ingredient['available']:,} rows, "
            f"{ingredient['share']:.1%} of all"
        )
    if check.between is not None:
        removed = ", ".join(f"{count:,} {reason}" for reason, count in check.between["removed"].items()) or "nothing"
        print_text(f"between      left out because another source holds it out: {removed}")
    words = ", ".join(f"{word} ({tokens})" for word, tokens, _ in check.fertility.words[:SHOWN_LABELS])
    print_text(
        f"fertility    {check.fertility.data:.2f} tokens a word, {check.fertility.terms:.2f} on medical terms"
        + (f"; finest: {words}" if words else "")
    )


def _checked(settings: Settings) -> tuple[Check, Corpus, Any]:
    prepare_environment(settings.offline)
    from rich.console import Console

    from lora_med.audit.data_check import check_data
    from lora_med.data.access import SETTING, ask
    from lora_med.data.catalog import SOURCES
    from lora_med.models.tokens.base_tokenizer import tokenizer_with
    from lora_med.prompts.chat_template import tokenizer_of_run

    with Console(stderr=True).status("reading, tokenizing, comparing"):
        tokenizer = tokenizer_with(settings.lora.trainable_tokens, settings.model)
        check, corpus = check_data(settings, tokenizer)
    if check.access is None:
        ask("+".join(name for name in corpus.templates if SOURCES[name].access is None), f"{SETTING}=")
    templates, model = corpus.templates.values(), settings.model
    options = {"file": model.chat_template, "enable_thinking": model.enable_thinking}
    return check, corpus, tokenizer_of_run(tokenizer, templates, **options)


def print_source(source: SourceCheck, max_length: int) -> None:
    """Print the check of one source, a line for each thing looked at."""
    from lora_med.audit.preview import identifiers_note, separation_notes
    from lora_med.data.shapes.columns.accounting import columns_lines

    sizes = ", ".join(f"{split} {size:,}" for split, size in source.sizes.items())
    print_text(f"source       {source.source}, {source.inputs:,} files; {source.access}; {source.license}")
    print_text(f"records      {source.tally}")
    for line in columns_lines(source.columns):
        print_text(f"columns      {line}")
    print_text(f"splits       {sizes}")
    print_text(f"split        {source.split}")
    print_text(f"template     {source.template}")
    partly = ", ".join(f"{split} {count:,}" for split, count in source.looked_at.items() if count < source.sizes[split])
    if partly:
        print_text(f"looked at    the first of {partly}; what follows is of these")
    for split, lengths in source.lengths.items():
        spread = ", ".join(f"{name} {value}" for name, value in lengths.quantiles.items())
        print_text(f"lengths      {split}: {spread} tokens; {lengths.too_long:,} of {lengths.rows:,} over {max_length}")
    for split, counts in source.labels.items():
        label_counts = list(counts.items())
        shown = ", ".join(f"{label} {count:,}" for label, count in label_counts[:SHOWN_LABELS])
        more = f", {len(label_counts) - SHOWN_LABELS} more" if len(label_counts) > SHOWN_LABELS else ""
        print_text(f"labels       {split}: {shown}{more}" if shown else f"labels       {split}: none")
    for split, scores in source.baselines.items():
        for name, score in scores.items():
            print_text(f"baseline     {split}: {name}: {score:.3f}")
    for line in separation_notes(source):
        print_text(f"decontamination {line}")
    print_text(f"identifiers  {identifiers_note(source)}")


def preview_command(
    overrides: Overrides = None,
    config: Config = None,
    rows: Annotated[int, typer.Option(min=1, help="How many rows to show.")] = 3,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The file to write: one HTML page with the rows and the check."),
    ] = None,
    permission: Permission = None,
    as_json: AsJson = False,
) -> None:
    """Show training rows as the model will see them, trained tokens in color; with --out, one page with figures."""
    settings = parse(config, overrides or [])
    from lora_med.data.access import CREDENTIALED, handled_as, require_permission

    if out is not None:
        _check_not_read(out, settings, config)
    check, corpus, tokenizer = _checked(settings)
    if check.access is not None and (out is None or permission is not None):
        require_permission(check.access, "showing rows", permission)
    is_private = handled_as(check.access) == CREDENTIALED
    hidden = check.access is None or (is_private and permission is None)
    from lora_med.audit.preview import page, spell
    from lora_med.data.record import each_answer
    from lora_med.data.shapes.columns.accounting import columns_lines
    from lora_med.files import atomic_stream
    from lora_med.prompts.fit import Refused, fit_stream
    from lora_med.prompts.render import render_stream
    from lora_med.training.rows.preflight import color_row

    train, refused = settings.train, Refused(settings.data.skip_bad)
    drawn = render_stream(each_answer(corpus.train), corpus.templates, train.too_long, train.assistant_turns)
    shown = list(islice(fit_stream(drawn, tokenizer, train.max_length, refused), rows))
    if out is not None:
        spelled = [] if hidden else [spell(tokens, tokenizer) for tokens in shown]
        with atomic_stream(out, private=is_private) as stream:
            stream.write(page(check, spelled, base=settings.model.base).encode("utf-8"))
    if as_json:
        spelled_rows = [] if hidden else [_spelled(tokens, tokenizer) for tokens in shown]
        shown_rows = {"template": corpus.template, "columns": corpus.columns, "rows": spelled_rows}
        print_text(json.dumps(shown_rows | ({"out": str(out)} if out else {})))
        return
    if out is not None:
        print_text(out)
        return
    screen = console()
    for source in check.sources:
        for line in columns_lines(source.columns):
            print_text(line)
    if hidden:
        for number, tokens in enumerate(shown, 1):
            screen.print(f"row {number}: {len(tokens.input_ids)} tokens, {sum(tokens.trained)} trained; text not shown")
        return
    screen.print(f"template {corpus.template}; trained tokens in color\n", style="bold")
    for tokens in shown:
        screen.print(color_row(tokens, tokenizer), end="\n\n")


def _check_not_read(out: Path, settings: Settings, config: Path | None) -> None:
    """Refuse to write the page over the settings file, or over or among the data."""
    from lora_med.data.catalog import find_source

    data = settings.data
    check_no_input(out, [*([config] if config is not None else []), *(data.block_lists or ()), *data.test_files])
    for part in (data, *data.mix):
        if part.paths:
            check_output([out], find_source(part.source), part.paths, part.hub_split)


def _spelled(tokens: Any, tokenizer: Any) -> dict[str, Any]:
    pairs = list(zip(tokens.input_ids, tokens.trained, strict=True))
    return {
        "uid": tokens.uid,
        "tokens": len(pairs),
        "trained_tokens": sum(tokens.trained),
        "given": tokenizer.decode([number for number, trained in pairs if not trained]),
        "trained": tokenizer.decode([number for number, trained in pairs if trained]),
    }

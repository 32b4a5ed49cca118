"""lora-med export gguf|ollama|vllm|onnx|setup: for other engines, each verified there, or reported as not run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lora_med.cli.command_groups import AdapterCommand, CommandGroup
from lora_med.cli.options import (
    STORE,
    AcceptMemorization,
    AdapterName,
    AsJson,
    BaseName,
    Dtype,
    GgufDtype,
    GgufDtypes,
    NewFolder,
    OneGgufDtype,
    Online,
    Revision,
    Store,
)
from lora_med.cli.terminal import console, new_table, print_text, progress_bar
from lora_med.run import prepare_environment

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Adapters and merged models for llama.cpp, Ollama, vLLM and ONNX.",
    cls=CommandGroup,
)


@app.command(cls=AdapterCommand)
def gguf(
    name: AdapterName,
    out: NewFolder,
    part: Annotated[
        Literal["merged", "adapter", "swappable"],
        typer.Option(help="The merged model, the adapter alone, or base and adapter as separate files."),
    ] = "merged",
    dtype: GgufDtypes = None,
    base: BaseName = None,
    revision: Revision = None,
    store: Store = STORE,
    accept_memorization: AcceptMemorization = None,
    online: Online = False,
    as_json: AsJson = False,
) -> None:
    """Write GGUF files, each compared with our own log-probabilities in llama.cpp; f16 by default."""
    prepare_environment(offline=not online)
    from lora_med.export.gguf.export_gguf import export_gguf

    formats = tuple(number_format.value for number_format in dtype or [GgufDtype.F16])
    export = export_gguf(
        name,
        out,
        base=base,
        revision=revision,
        store=store,
        part=part,
        formats=formats,
        accept_memorization=accept_memorization,
    )
    _print_gguf(export.folder, export.facts, as_json)


@app.command(cls=AdapterCommand)
def ollama(
    name: AdapterName,
    out: NewFolder,
    part: Annotated[
        Literal["merged", "swappable"], typer.Option(help="One merged model, or the base with an ADAPTER line.")
    ] = "merged",
    dtype: OneGgufDtype = GgufDtype.Q8_0,
    base: BaseName = None,
    revision: Revision = None,
    store: Store = STORE,
    accept_memorization: AcceptMemorization = None,
    online: Online = False,
    as_json: AsJson = False,
) -> None:
    """Write a Modelfile (template and stop words of the base) over GGUF files that were verified in llama.cpp."""
    prepare_environment(offline=not online)
    from lora_med.export.ollama import export_ollama

    export = export_ollama(
        name,
        out,
        base=base,
        revision=revision,
        store=store,
        part=part,
        number_format=dtype.value,
        accept_memorization=accept_memorization,
    )
    _print_gguf(export.folder, export.facts, as_json)
    if not as_json:
        print_text(f"Next: cd {export.folder} && ollama create {name} -f Modelfile")


@app.command(cls=AdapterCommand)
def vllm(
    name: AdapterName,
    out: NewFolder,
    part: Annotated[
        Literal["adapter", "merged"], typer.Option(help="The adapter, served on its base, or one merged model.")
    ] = "adapter",
    dtype: Dtype = None,
    base: BaseName = None,
    revision: Revision = None,
    store: Store = STORE,
    accept_memorization: AcceptMemorization = None,
    online: Online = False,
    as_json: AsJson = False,
) -> None:
    """Write a folder and the command that serves it, after a check of what vLLM refuses (vLLM itself is not run)."""
    prepare_environment(offline=not online)
    from lora_med.export.vllm import export_vllm

    export = export_vllm(
        name,
        out,
        base=base,
        revision=revision,
        store=store,
        part=part,
        dtype=dtype,
        accept_memorization=accept_memorization,
    )
    _print_verified(export.folder, export.facts, as_json)
    if not as_json:
        print_text(f"Next: {export.folder}/serve.sh, which runs: {export.facts['command']}")


@app.command(cls=AdapterCommand)
def onnx(
    name: AdapterName,
    out: NewFolder,
    base: BaseName = None,
    revision: Revision = None,
    store: Store = STORE,
    accept_memorization: AcceptMemorization = None,
    online: Online = False,
    as_json: AsJson = False,
) -> None:
    """Write the merged model as an ONNX graph from token ids to logits, compared with ours in ONNX Runtime."""
    prepare_environment(offline=not online)
    from lora_med.export.onnx import export_onnx

    export = export_onnx(name, out, base=base, revision=revision, store=store, accept_memorization=accept_memorization)
    _print_verified(export.folder, export.facts, as_json)


@app.command("setup")
def setup(
    archive: Annotated[
        Path | None, typer.Option(help="The source distribution of llama-cpp-python, if it is downloaded already.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch llama.cpp's conversion scripts into the cache (77 MB, of which 2 MB stay), their SHA-256 pinned."""
    from lora_med.export.gguf.converter import find_converter
    from lora_med.export.gguf.converter_setup import set_up_converter

    with progress_bar("llama.cpp's converter", in_bytes=True) as progress:
        set_up_converter(archive, progress)
    converter = find_converter()
    if as_json:
        print_text(
            json.dumps({"folder": str(converter.folder), "version": converter.version, "sha256": converter.digest})
        )
    else:
        print_text(f"{converter.version}, SHA-256 {converter.digest[:16]}...: {converter.folder}")


def _print_verified(folder: Path, facts: Mapping[str, Any], as_json: bool) -> None:
    """The report of an export to vLLM or ONNX."""
    if as_json:
        print_text(json.dumps({"folder": str(folder), **facts}))
        return
    for line in facts["warnings"]:
        print_text(f"warning: {line}")
    proof = facts["proof"]
    if "positions" in proof:
        print_text(f"logits within {proof['largest_logit_difference']:.2g} of ours at {proof['positions']} positions")
    else:  # a model that does not fit into memory
        print_text(f"{proof['rows_recomputed']:,} rows of the merge computed again, each within one rounding")
    print_text(f"verified and written: {folder}")


def _print_gguf(folder: Path, facts: Mapping[str, Any], as_json: bool) -> None:
    """The report of an export to GGUF or Ollama."""
    if as_json:
        print_text(json.dumps({"folder": str(folder), **facts}))
        return
    titles = ("file", "MB", "nll", "change", "same first choice")
    table = new_table(titles, right=titles[1:])
    measured = {scores["file"]: scores for scores in facts.get("formats", {}).values()}
    for name, file in facts["files"].items():
        size = f"{file['bytes'] / 1e6:.1f}"
        if name in measured:
            scores = measured[name]
            nll, change = f"{scores['nll']:.4f}", f"{scores['nll_change']:+.4f}"
            table.add_row(name, size, nll, change, f"{scores['same_first_choice']:.1%}")
        else:
            table.add_row(name, size, "", "", "")
    screen = console()
    screen.print(table)
    proof = {key: check for key, check in facts["proof"].items() if isinstance(check, dict) and "positions" in check}
    for what, check in proof.items():
        screen.print(
            f"{what.replace('_', ' ')}: llama.cpp's 10 likeliest are within {check['largest_difference']:.1g} nats of "
            f"ours at {check['positions']} positions"
        )
    texts = facts["proof"]["tokens"]["texts"]
    screen.print(f"tokenizer: {texts} of {texts} texts tokenized alike; nll in nats a token, over the probe texts")
    screen.print(f"verified and written: {folder}")

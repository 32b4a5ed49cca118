"""lora-med export gguf|ollama|vllm|onnx|setup: for other engines, each proved there (or said not to be)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_med.run import prepare_environment

app = typer.Typer(help="Adapters and merged models for llama.cpp, Ollama, vLLM and ONNX.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="the adapter's name in the store")]
Out = Annotated[Path, typer.Option(help="folder for the files; must not exist yet, or be empty")]
Base = Annotated[str | None, typer.Option(help="folder, Hub id or micro; without it, what the card names")]
Revision = Annotated[str | None, typer.Option(help="commit, tag or branch of a base on the Hub")]
Store = Annotated[Path, typer.Option(help="the folder of adapters")]
Online = Annotated[bool, typer.Option("--online", help="let the base be loaded from the Hub")]
Formats = Annotated[
    list[str] | None, typer.Option("--type", help="f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0; may be repeated")
]
AsJson = Annotated[bool, typer.Option("--json", help="export.json as one JSON object on stdout")]
STORE = Path("adapters")


@app.command()
def gguf(
    name: Name,
    out: Out,
    part: Annotated[
        str, typer.Option(help="merged, the model; adapter, the adapter alone; swappable, base and adapter")
    ] = "merged",
    formats: Formats = None,
    base: Base = None,
    revision: Revision = None,
    store: Store = STORE,
    online: Online = False,
    as_json: AsJson = False,
) -> None:
    """Write GGUF files, each compared with our own log-probabilities in llama.cpp; f16 unless --type says otherwise."""
    prepare_environment(offline=not online)
    from lora_med.export.gguf.export_gguf import export_gguf

    types = tuple(formats or ["f16"])
    export = export_gguf(name, out, base=base, revision=revision, store=store, part=part, formats=types)
    _tell(export.folder, export.facts, as_json)


@app.command()
def ollama(
    name: Name,
    out: Out,
    part: Annotated[str, typer.Option(help="merged, one model; swappable, the base with ADAPTER")] = "merged",
    number_format: Annotated[str, typer.Option("--type", help="number format of the model's weights")] = "q8_0",
    base: Base = None,
    revision: Revision = None,
    store: Store = STORE,
    online: Online = False,
    as_json: AsJson = False,
) -> None:
    """Write a Modelfile (template and stop words of the base) over GGUF files that were proved in llama.cpp."""
    prepare_environment(offline=not online)
    from lora_med.export.ollama import export_ollama

    export = export_ollama(name, out, base=base, revision=revision, store=store, part=part, number_format=number_format)
    _tell(export.folder, export.facts, as_json)
    if not as_json:
        print(f"Next: cd {export.folder} && ollama create {name} -f Modelfile")


@app.command()
def vllm(
    name: Name,
    out: Out,
    part: Annotated[str, typer.Option(help="adapter, served beside its base; or merged")] = "adapter",
    dtype: Annotated[str | None, typer.Option(help="of the merged model; without it, the base's own")] = None,
    base: Base = None,
    revision: Revision = None,
    store: Store = STORE,
    online: Online = False,
    as_json: AsJson = False,
) -> None:
    """Write a folder and the command that serves it, after a check of what vLLM refuses (vLLM itself is not run)."""
    prepare_environment(offline=not online)
    from lora_med.export.vllm import export_vllm

    export = export_vllm(name, out, base=base, revision=revision, store=store, part=part, dtype=dtype)
    _tell_plainly(export.folder, export.facts, as_json)
    if not as_json:
        print(f"Next: {export.folder}/serve.sh, which runs: {export.facts['command']}")


@app.command()
def onnx(
    name: Name,
    out: Out,
    base: Base = None,
    revision: Revision = None,
    store: Store = STORE,
    online: Online = False,
    as_json: AsJson = False,
) -> None:
    """Write the merged model as an ONNX graph from token ids to logits, compared with ours in ONNX Runtime."""
    prepare_environment(offline=not online)
    from lora_med.export.onnx import export_onnx

    export = export_onnx(name, out, base=base, revision=revision, store=store)
    _tell_plainly(export.folder, export.facts, as_json)


@app.command()
def setup(
    archive: Annotated[
        Path | None, typer.Option(help="llama-cpp-python's source distribution, where it is here already")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """Fetch llama.cpp's conversion scripts into the cache (77 MB, of which 2 MB are kept), their SHA-256 pinned."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    from lora_med.export.gguf.converter import find_converter
    from lora_med.export.gguf.converter_setup import set_up_converter

    columns = (TextColumn("llama.cpp's converter"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        set_up_converter(archive, lambda done, whole: bar.update(task, completed=done, total=whole or None))
    found = find_converter()
    if as_json:
        print(json.dumps({"folder": str(found.folder), "version": found.version, "sha256": found.digest}))
    else:
        print(f"{found.version}, SHA-256 {found.digest[:16]}...: {found.folder}")


def _tell_plainly(folder: Path, facts: Mapping[str, Any], as_json: bool) -> None:
    """The report of an export to vLLM or ONNX."""
    if as_json:
        print(json.dumps({"folder": str(folder), **facts}))
        return
    for line in facts["warnings"]:
        print(f"warning: {line}")
    proof = facts["proof"]
    if "positions" in proof:
        print(f"logits within {proof['largest_logit_difference']:.2g} of ours at {proof['positions']} positions")
    else:  # a model that does not fit into memory
        print(f"{proof['rows_recomputed']:,} rows of the merge computed again, each within one rounding")
    print(f"verified and written: {folder}")


def _tell(folder: Path, facts: Mapping[str, Any], as_json: bool) -> None:
    """The report of an export to GGUF or Ollama."""
    if as_json:
        print(json.dumps({"folder": str(folder), **facts}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("file", "MB", "nll", "change", "same first choice"):
        table.add_column(title, justify="left" if title == "file" else "right")
    measured = {one["file"]: one for one in facts.get("formats", {}).values()}
    for name, file in facts["files"].items():
        size = f"{file['bytes'] / 1e6:.1f}"
        if name in measured:
            one = measured[name]
            nll, change = f"{one['nll']:.4f}", f"{one['nll_change']:+.4f}"
            table.add_row(name, size, nll, change, f"{one['same_first_choice']:.1%}")
        else:
            table.add_row(name, size, "", "", "")
    console = Console()
    console.print(table)
    proof = {key: one for key, one in facts["proof"].items() if isinstance(one, dict) and "positions" in one}
    for what, one in proof.items():
        console.print(
            f"{what.replace('_', ' ')}: llama.cpp's 10 likeliest are within {one['largest_difference']:.1g} nats of "
            f"ours at {one['positions']} positions"
        )
    texts = facts["proof"]["tokens"]["texts"]
    console.print(f"tokenizer: {texts} of {texts} texts cut alike; nll in nats a token, over the probe texts")
    console.print(f"verified and written: {folder}")

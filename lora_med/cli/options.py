"""Every option and argument that several commands share: one name, one text, one meaning.

A command about one adapter takes it as its first argument, NAME, and accepts `--adapter NAME` alike. A command about
something else (a prompt, a task) takes `--adapter NAME`. A closed set of values is a Literal, so help lists it.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from lora_med.cli.command_groups import complete_adapter

STORE = Path("adapters")


class GgufDtype(StrEnum):
    """The number formats of a GGUF file."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"
    Q5_1 = "q5_1"
    Q5_0 = "q5_0"
    Q4_1 = "q4_1"
    Q4_0 = "q4_0"


AdapterName = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The adapter's name in the store; `--adapter NAME` too.", autocompletion=complete_adapter
    ),
]
OneAdapter = Annotated[
    str | None,
    typer.Option("--adapter", metavar="NAME", help="The adapter's name in the store.", autocompletion=complete_adapter),
]
Adapters = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        metavar="NAME",
        help="The adapter's name in the store; repeat it for several.",
        autocompletion=complete_adapter,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, an error too.")]
_BASE_HELP = "A folder, a GGUF file, a Hub id, `micro`, or a name of `base list`."
BaseName = Annotated[
    str | None, typer.Option("--base", metavar="BASE", help=f"{_BASE_HELP} [default: what card or config names]")
]
RequiredBase = Annotated[str, typer.Option("--base", metavar="BASE", help=_BASE_HELP)]
Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="A YAML file of settings, or a name of `config list`.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="section.key=value", help="Settings that win over the file.", show_default=False),
]
Data = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="PATH", help="A file, folder or glob pattern to read; repeat it for several."),
]
Source = Annotated[
    str | None,
    typer.Option(
        "--source", metavar="SOURCE", help="A source of `lora-med data list`. [default: the task's or card's]"
    ),
]
SourceName = Annotated[str, typer.Argument(metavar="SOURCE", help="A source of `lora-med data list`.")]
Paths = Annotated[
    list[str],
    typer.Argument(metavar="PATH...", help="Files, folders, glob patterns, a Hub data set id, or - for stdin."),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        metavar="TASK",
        help="A task's name, or NAME:PATH; repeat it for several. `eval --list-tasks` lists them.",
    ),
]
Template = Annotated[
    str | None,
    typer.Option("--template", metavar="TEMPLATE", help="A prompt template. [default: the task's or the adapter's]"),
]
Split = Annotated[
    Literal["test", "validation"] | None,
    typer.Option("--split", help="The held-out split. [default: the task's, else test]"),
]
Dtype = Annotated[
    Literal["float32", "bfloat16", "float16"] | None,
    typer.Option("--dtype", help="The number format of the model's weights. [default: the base's]"),
]
_GGUF_DTYPE_HELP = "The number format of the model's weights"
OneGgufDtype = Annotated[GgufDtype, typer.Option("--dtype", help=f"{_GGUF_DTYPE_HELP}.")]
GgufDtypes = Annotated[
    list[GgufDtype] | None, typer.Option("--dtype", help=f"{_GGUF_DTYPE_HELP}; repeat it for several. [default: f16]")
]
Quantization = Annotated[
    Literal["none", "8bit", "4bit"] | None,
    typer.Option(
        "--quantization", help="How the base is quantized. [default: as in training; a base alone, as on disk]"
    ),
]
Access = Annotated[
    Literal["open", "registered", "credentialed"] | None,
    typer.Option("--access", help="The access class of the training data. [default: credentialed]"),
]
DataAccess = Annotated[
    Literal["open", "registered", "credentialed"] | None,
    typer.Option(
        "--access",
        help="The access class of your own data; a source's own, if stricter, wins. [default: the source's own; "
        "without one, rows are handled as credentialed]",
    ),
]
Online = Annotated[bool, typer.Option("--online", help="Allow downloads from the Hub.")]
OutFile = Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write.")]
OutFolder = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The folder to write.")]
NewFolder = Annotated[
    Path, typer.Option("--out", metavar="FOLDER", help="The folder to write; it must be empty or not exist yet.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an adapter of the same name.")]
Permission = Annotated[
    str | None,
    typer.Option("--permission", metavar="TEXT", help="For credentialed data: who allows it, in writing."),
]
AcceptMemorization = Annotated[
    str | None,
    typer.Option(
        "--accept-memorization",
        metavar="TEXT",
        help="For an adapter over the bound of its memorization audit: who accepts that, and why. It is recorded.",
    ),
]
Resamples = Annotated[int, typer.Option("--bootstrap-samples", min=1, help="Bootstrap resamples for each interval.")]
Revision = Annotated[
    str | None, typer.Option("--revision", metavar="REVISION", help="The commit, tag or branch of a base on the Hub.")
]
Seed = Annotated[int, typer.Option("--seed", help="The seed of every random choice.")]
Encoding = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The character encoding of text files, such as windows-1252. [default: the byte order mark's, else UTF-8]",
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        metavar="CHARACTER", help="The character between the cells of a CSV, or tab. [default: as the header shows]"
    ),
]
Sheet = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The sheet of a workbook, or the key of a list in JSON. [default: the only one]"),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Skip and count bad records instead of stopping.")]
Store = Annotated[Path, typer.Option("--store", metavar="FOLDER", help="The folder that holds the adapters.")]
Yes = Annotated[bool, typer.Option("--yes", help="Delete, without a question.")]

"""`lora-med`: one table from command to module. The module, and what it needs, is imported when it is called."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.main import get_command

from lora_med import __version__
from lora_med.cli.command_groups import WIDTH, RootGroup, with_common_options
from lora_med.cli.terminal import open_streams, print_text
from lora_med.errors import LoraMedError, UsageError, bug
from lora_med.files import forbidden
from lora_med.folders import check_working_directory
from lora_med.processes.launch import rank
from lora_med.processes.together import end_process, is_shown_elsewhere
from lora_med.run import set_up_logging, set_verbosity

COMMANDS: dict[str, tuple[str, str]] = {
    "doctor": ("lora_med.cli.doctor_command", "Check this machine: packages, device, memory, and what to fix."),
    "init": ("lora_med.cli.data.init_command", "Look at your files, and write the settings that train on them."),
    "train": ("lora_med.cli.train_command", "Train an adapter from a settings file, and publish it."),
    "config": ("lora_med.cli.config_command", "Show the resolved settings, their JSON schema, the files that ship."),
    "plan": ("lora_med.cli.plan_command", "Estimate a run: memory, the batch that fits, tokens, steps, time."),
    "data": ("lora_med.cli.data.data_command", "List sources, read them to JSON lines, preview training rows."),
    "base": ("lora_med.cli.bases.base_command", "Fetch a small real base from the Python index; list such bases."),
    "adapters": ("lora_med.cli.adapters.adapters_command", "List, show, verify, compose, push, remove adapters."),
    "generate": ("lora_med.cli.generate_command", "Generate text with an adapter, a base or a merged model."),
    "chat": ("lora_med.cli.serving.chat_command", "Talk with an adapter or a base in the terminal."),
    "eval": ("lora_med.cli.eval.eval_command", "Compare adapters with their base on held-out items."),
    "review": ("lora_med.cli.review.review_command", "Read reports in a browser; blind rating by clinicians."),
    "audit": ("lora_med.cli.audit.audit_command", "Measure what an adapter remembers of its patients."),
    "merge": ("lora_med.cli.merge_command", "Merge an adapter into its base, and verify the result."),
    "export": ("lora_med.cli.export_command", "Export to GGUF, Ollama, vLLM or ONNX, and verify the result."),
    "sign": ("lora_med.cli.adapters.sign_command", "Sign what lora_med made, check it, list its software."),
    "serve": ("lora_med.cli.serving.serve_command", "Serve many adapters over HTTP; each answer names its adapter."),
}
WITHOUT_TORCH = {("data", "check")}  # commands that need no torch
ClickError: Any = typer.BadParameter.__mro__[2]  # click's ClickException, which typer imports or brings itself


class Root(RootGroup):
    """The group of COMMANDS."""

    table = COMMANDS


app = typer.Typer(cls=Root, rich_markup_mode=None, context_settings={**WIDTH, "help_option_names": ["--help", "-h"]})


def _version(value: bool) -> None:
    if value:
        print_text(__version__)
        raise typer.Exit


@app.callback(epilog="Several processes: lora-med train --processes 2 --config quickstart_pubmed")
def lora_med(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Medical text in, a small adapter you can trust out."""


def _report(error: LoraMedError, *, as_json: bool) -> int:
    """Print an error on stderr, with --json also as one JSON object on stdout; returns its exit code."""
    if is_shown_elsewhere(error):
        return error.exit_code
    print_text(f"[process {rank()}] {error}" if rank() else error, file=sys.stderr, flush=True)
    if as_json:
        print_text(json.dumps(error.as_json()))
    return error.exit_code


def _usage_error(error: Any) -> UsageError:
    """Click's error about a command line, as one of ours."""
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    return UsageError(message, fix=f"{context.command_path if context else 'lora-med'} --help")


def run(arguments: Sequence[str]) -> int:
    """Run one command line (without the program's name); returns the exit code, 0 if all is well.

    An error of ours becomes its three lines on stderr; any other exception is a bug of ours, exit 70.
    """
    options = list(arguments)[: list(arguments).index("--")] if "--" in arguments else list(arguments)
    debug, as_json = "--debug" in options, "--json" in options
    set_verbosity(logging.NOTSET)
    set_up_logging()
    try:
        check_working_directory()
        root = with_common_options(get_command(app))
        code = root.main(args=list(arguments) or ["--help"], prog_name="lora-med", standalone_mode=False)
    except LoraMedError as error:
        if debug:
            print_text(traceback.format_exc(), file=sys.stderr, end="")
        return _report(error, as_json=as_json)
    except ClickError as error:
        return _report(_usage_error(error), as_json=as_json)
    except BrokenPipeError:
        return 0
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # click's own end of a command whose reader has left
            return 0
        raise
    except Exception as error:  # the last resort: any other exception is a bug of ours
        if debug:
            print_text(traceback.format_exc(), file=sys.stderr, end="")
        return _report(forbidden(error) or bug(error), as_json=as_json)
    return code if isinstance(code, int) else 0


def _leave_out_torch(arguments: Sequence[str]) -> None:
    """Keep a process that only reads and tokenizes from loading torch, which transformers does wherever it is found.

    Loading takes more time and memory than the command itself. Of no use where torch is loaded already.
    """
    words = [argument for argument in arguments if not argument.startswith("-")]
    if tuple(words[:2]) in WITHOUT_TORCH and "torch" not in sys.modules:
        sys.modules["torch"] = None  # pyright: ignore[reportArgumentType] - Python's own mark for a module not to import
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def main() -> None:
    """The console script."""
    open_streams()
    _leave_out_torch(sys.argv[1:])
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has left: nothing else is written, also not while Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    end_process(code)

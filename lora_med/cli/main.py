"""`lora-med`: one table from subcommand to module. The module, and what it needs, is loaded only when it is called."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Sequence

from lora_med import __version__
from lora_med.config.near_names import unknown
from lora_med.errors import LoraMedError, SettingsError
from lora_med.run import set_up_logging

COMMANDS: dict[str, tuple[str, str]] = {
    "doctor": ("lora_med.cli.doctor_command", "what this machine can do, and what to mend"),
    "train": ("lora_med.cli.train_command", "train an adapter by a settings file, and publish it"),
    "config": ("lora_med.cli.config_command", "show resolved settings, or their JSON schema"),
    "plan": (
        "lora_med.cli.plan_command",
        "what a run will need: memory by part, the batch that fits, tokens, steps, time",
    ),
    "data": ("lora_med.cli.data.data_command", "list sources, read them to JSON lines, preview what is trained"),
    "adapters": ("lora_med.cli.adapters.adapters_command", "list, show, verify, push, remove adapters"),
    "generate": ("lora_med.cli.generate_command", "write text with an adapter"),
    "eval": ("lora_med.cli.eval.eval_command", "compare adapters with their base on held-out items"),
    "eval compare": ("lora_med.cli.eval.compare_command", "set two reports of eval side by side"),
    "eval harness": (
        "lora_med.cli.eval.harness_command",
        "write task files for lm-evaluation-harness, to be checked by others",
    ),
    "merge": ("lora_med.cli.merge_command", "merge an adapter into its base, and prove it"),
    "export": ("lora_med.cli.export_command", "write adapters and models for other engines, proved there"),
}


def usage() -> str:
    """The help page: every subcommand with its line."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {line}" for name, (_, line) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: lora-med COMMAND [OPTIONS]",
            "",
            "Medical text in, a small adapter you can trust out.",
            "",
            *lines,
            "",
            "lora-med COMMAND --help explains one; --debug shows the traceback of an error; --version.",
            "Training on several processes: accelerate launch -m lora_med train --config quickstart_pubmed",
        ]
    )


def _dispatch(name: str, arguments: list[str]) -> int:
    if arguments and f"{name} {arguments[0]}" in COMMANDS:
        name, arguments = f"{name} {arguments[0]}", arguments[1:]
    if name not in COMMANDS:
        raise SettingsError(unknown("command", name, COMMANDS), where="the command line", fix="lora-med --help")
    module = importlib.import_module(COMMANDS[name][0])
    try:
        module.app(args=arguments, prog_name=f"lora-med {name}")
    except SystemExit as ended:  # typer's own way out: 0, or 2 with its usage page printed
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def run(arguments: Sequence[str]) -> int:
    """Run one command line (without the program's name); returns the exit code of DESIGN's table.

    An error of ours becomes its three lines on stderr; anything else is a bug of ours, exit 70.
    """
    rest = [argument for argument in arguments if argument != "--debug"]
    debug = len(rest) != len(arguments)
    if not rest or rest[0] in ("--help", "-h", "help"):
        print(usage())
        return 0
    if rest[0] == "--version":
        print(__version__)
        return 0
    set_up_logging()
    try:
        return _dispatch(rest[0], rest[1:])
    except LoraMedError as error:
        if debug:
            traceback.print_exc()
        print(error, file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 0
    except Exception as error:  # the last resort: whatever it is, it is ours to mend
        from lora_med.cli.recipe import report_bug  # it loads what --help does without

        return report_bug(error, debug=debug)


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))

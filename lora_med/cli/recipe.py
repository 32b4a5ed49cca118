"""The entry of every recipe: settings in, `main(settings)` run, errors out as one message and an exit code."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence

from lora_med.config.parse import parse
from lora_med.config.schema import Settings
from lora_med.errors import LoraMedError
from lora_med.run import prepare_environment, rank


def report_error(error: LoraMedError, *, debug: bool = False) -> int:
    """Print `error` on stderr, with its traceback if `debug`; returns the exit code."""
    if debug:
        traceback.print_exception(error)
    prefix = f"[process {rank()}] " if rank() else ""
    print(prefix + str(error), file=sys.stderr, flush=True)
    return error.exit_code


def run_recipe(main: Callable[[Settings], None], *, doc: str | None, arguments: Sequence[str] | None = None) -> None:
    """Parse `--config FILE key=value...`, call `main`, and leave the process with DESIGN's exit code."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="the YAML with the settings; recipes/configs has one for each use")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that win over the file")
    options = parser.parse_args(arguments)
    try:
        settings = parse(options.config, options.overrides)
        prepare_environment(settings.offline)
        main(settings)
    except LoraMedError as error:
        sys.exit(report_error(error, debug=options.debug))

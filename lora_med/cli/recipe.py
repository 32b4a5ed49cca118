"""The entry point of every recipe: parse the settings, run `main(settings)`, report errors with an exit code."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence

from lora_med.cli.terminal import open_streams, print_text
from lora_med.config.parse import parse
from lora_med.config.schema import Settings
from lora_med.errors import LoraMedError, StoppedError, bug
from lora_med.files import forbidden
from lora_med.folders import check_working_directory
from lora_med.processes.launch import rank
from lora_med.processes.together import end_process, is_shown_elsewhere, telling_others
from lora_med.run import prepare_environment


def report_error(error: LoraMedError, *, debug: bool = False) -> int:
    """Print `error` on stderr, with its traceback if `debug`; returns the exit code."""
    if debug:
        print_traceback(error)
    if is_shown_elsewhere(error):
        return error.exit_code
    prefix = f"[process {rank()}] " if rank() else ""
    print_text(prefix + str(error), file=sys.stderr, flush=True)
    return error.exit_code


def print_traceback(error: BaseException) -> None:
    """Print an exception with its traceback on stderr."""
    print_text("".join(traceback.format_exception(error)), file=sys.stderr, end="", flush=True)


def run_recipe(
    main: Callable[[Settings], None],
    *,
    doc: str | None,
    overrides: Sequence[str] = (),
    arguments: Sequence[str] | None = None,
) -> None:
    """Parse `--config FILE key=value...` and call `main`; an error ends the process with its exit code.

    Args:
        overrides: settings that win over the file, as `key=value`; those of the command line win over them.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="the YAML file of the settings")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that win over the file")
    open_streams()
    options = parser.parse_args(arguments)
    try:
        check_working_directory()
        with telling_others():
            settings = parse(options.config, [*overrides, *options.overrides])
            prepare_environment(settings.offline)
            main(settings)
    except LoraMedError as error:
        end_process(report_error(error, debug=options.debug))
    except KeyboardInterrupt:
        stopped = StoppedError("interrupted, with no training step in progress", fix="run the same command again")
        end_process(report_error(stopped, debug=options.debug))
    except Exception as error:  # the last resort: any other exception is a bug of ours
        if options.debug:
            print_traceback(error)
        end_process(report_error(forbidden(error) or bug(error)))

"""What commands print: text in which nothing acts on a terminal, tables that fold on a screen, progress bars."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from lora_med.visible import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

PIPE_WIDTH = 100_000  # no line is cut or folded where no screen reads it


def print_text(text: object, *, file: TextIO | None = None, end: str = "\n", flush: bool = False) -> None:
    """Print on stdout, or in `file`, with controls and invisible characters made visible; JSON stays as it is."""
    print(visible(str(text)), file=file, end=end, flush=flush)


def cell(text: str, style: str = "") -> Text:
    """The text for a cell of a table: no markup in it counts, and nothing acts on a terminal."""
    from rich.text import Text

    return Text(visible(text), style=style)


def console() -> Console:
    """A rich console on stdout: as wide as the screen, or without a limit in a pipe or a file.

    In strings controls and invisible characters are made visible; a `Text` shows what it holds (`cell` makes one).
    """
    from rich.console import Console

    class Screen(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(visible(text), **options)

    return Screen(soft_wrap=False) if sys.stdout.isatty() else Screen(width=PIPE_WIDTH, highlight=False)


def new_table(titles: Sequence[str], right: Iterable[str] = ()) -> Table:
    """An empty table without borders. The first column, the names, is never cut; others fold on a narrow screen."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, title in enumerate(titles):
        justify = "right" if title in right else "left"
        table.add_column(title, justify=justify, overflow="fold", no_wrap=index == 0)
    return table


@contextmanager
def progress_bar(what: str, *, in_bytes: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, only on a terminal and without --quiet; call the result with what is done and the total."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn, TextColumn, TransferSpeedColumn

    columns = (TextColumn(what), BarColumn())
    columns += (DownloadColumn(), TransferSpeedColumn()) if in_bytes else (TaskProgressColumn(),)
    quiet = logging.getLogger("lora_med").level >= logging.WARNING
    hidden = quiet or not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=hidden) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total or None)


def open_streams() -> None:
    """Give each standard stream that the caller closed (`>&-`) a place, so that no file gets its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115 - for good

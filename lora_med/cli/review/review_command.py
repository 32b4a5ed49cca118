"""lora-med review: reports to read in a browser, and blind rating by clinicians."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_med.cli.command_groups import SettingsGroup
from lora_med.cli.data.column_option import Columns
from lora_med.cli.options import (
    STORE,
    Adapters,
    BaseName,
    Config,
    Data,
    Dtype,
    Online,
    Permission,
    Quantization,
    Revision,
    Store,
)
from lora_med.cli.review.port_option import Port, served_at, web_packages
from lora_med.cli.review.study_commands import (
    export_ratings_command,
    plan_study_command,
    rate_command,
    unseal_command,
    verdict_command,
)
from lora_med.cli.serving.serving_options import KvMemory
from lora_med.config.parse import parse
from lora_med.errors import UsageError
from lora_med.run import prepare_environment

if TYPE_CHECKING:
    from lora_med.review.playground.answering import Answering


class ReviewGroup(SettingsGroup):
    """A command that takes folders of reports, and also has subcommands: the first word decides."""

    def is_argument(self, word: str) -> bool:
        """Any word but a subcommand's name, which must be the first, is the folder of a report."""
        return word not in self.commands


app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    cls=ReviewGroup,
    invoke_without_command=True,
    subcommand_metavar="REPORT... | COMMAND [ARGS]...",
)
app.command("plan")(plan_study_command)
app.command("rate")(rate_command)
app.command("unseal")(unseal_command)
app.command("verdict")(verdict_command)
app.command("export")(export_ratings_command)
Studies = Annotated[
    list[Path] | None, typer.Option("--study", metavar="STUDY", help="A study of blind rating, to show its verdict.")
]
Runs = Annotated[Path, typer.Option("--runs", metavar="FOLDER", help="The folder that holds the runs' folders.")]


@app.callback()
def review_command(
    context: typer.Context,
    data: Data = None,
    column: Columns = None,
    config: Config = None,
    study: Studies = None,
    adapter: Adapters = None,
    base: BaseName = None,
    revision: Revision = None,
    quantization: Quantization = None,
    dtype: Dtype = None,
    kv_memory: KvMemory = 1.0,
    store: Store = STORE,
    runs: Runs = Path("runs"),
    permission: Permission = None,
    port: Port = 8080,
    online: Online = False,
) -> None:
    """Show reports on a page of this machine: every item with base and adapters side by side, the store, the runs.

    --adapter, up to four times, opens the playground: one prompt to the base and these adapters at once.
    """
    if context.invoked_subcommand is not None:
        return
    if not context.args and not adapter and base is None:
        raise UsageError("no report is named", fix="lora-med review REPORT, a folder of lora-med eval")
    web_packages()
    settings = None if config is None else parse(config, [])
    prepare_environment(offline=not online and (settings is None or settings.offline))
    from lora_med.cli.review.items_reading import reading_by_cards
    from lora_med.review.trained_rows import load_trained_rows
    from lora_med.review.web.evidence import load_evidence
    from lora_med.review.web.evidence_pages import EvidencePages
    from lora_med.review.web.run_review import serve
    from lora_med.review.web.study_evidence import load_study

    reading_of = reading_by_cards(store, column)
    evidence = [load_evidence(Path(path), data or [], permission, reading_of) for path in context.args]
    studies = [load_study(folder) for folder in study or []]
    trained = None if settings is None else load_trained_rows(settings, permission)
    names = tuple(adapter or ())
    with _playground(names, (store, base, revision, quantization, dtype), kv_memory, permission) as answering:
        pages = EvidencePages(evidence, store, studies=studies, runs=runs, trained=trained, answering=answering)
        serve(pages.application(), port, served_at)


@contextmanager
def _playground(
    names: tuple[str, ...], base_options: tuple[Any, ...], kv_memory: float, permission: str | None
) -> Iterator[Answering | None]:
    """What answers in the playground; nothing where neither an adapter nor a base is named.

    `base_options` are those of `Wanted`, in its order: store, base, revision, quantization, dtype.
    """
    if not names and base_options[1] is None:
        yield None
        return
    from lora_med.cli.review.playground_engine import playground_engine
    from lora_med.serving.start import Wanted

    with playground_engine(Wanted(names, *base_options), kv_memory, permission) as answering:
        yield answering

"""lora-med review: reports to read in a browser, and blind rating by clinicians."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lora_med.cli.command_groups import SettingsGroup
from lora_med.cli.options import STORE, Config, Data, Store
from lora_med.cli.review.port_option import Port, served_at, web_packages
from lora_med.cli.review.study_commands import (
    export_ratings_command,
    plan_study_command,
    rate_command,
    unseal_command,
    verdict_command,
)
from lora_med.config.parse import parse
from lora_med.errors import UsageError
from lora_med.run import prepare_environment


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
    config: Config = None,
    study: Studies = None,
    store: Store = STORE,
    runs: Runs = Path("runs"),
    port: Port = 8080,
) -> None:
    """Show reports on a page of this machine: every item with base and adapters side by side, the store, the runs."""
    if context.invoked_subcommand is not None:
        return
    if not context.args:
        raise UsageError("no report is named", fix="lora-med review REPORT, a folder of lora-med eval")
    web_packages()
    from lora_med.review.trained_rows import load_trained_rows
    from lora_med.review.web.evidence import load_evidence
    from lora_med.review.web.evidence_pages import EvidencePages
    from lora_med.review.web.run_review import serve
    from lora_med.review.web.study_evidence import load_study

    evidence = [load_evidence(Path(path), data or []) for path in context.args]
    studies = [load_study(folder) for folder in study or []]
    trained = None
    if config is not None:
        settings = parse(config, [])
        prepare_environment(settings.offline)
        trained = load_trained_rows(settings)
    pages = EvidencePages(evidence, store, studies=studies, runs=runs, trained=trained)
    serve(pages.application(), port, served_at)

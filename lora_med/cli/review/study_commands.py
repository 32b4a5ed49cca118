"""lora-med review plan|rate|unseal|verdict|export: a study of blind rating, step by step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_med.cli.data.column_option import Columns
from lora_med.cli.options import STORE, AsJson, Data, NewFolder, Store
from lora_med.cli.review.port_option import Port, served_at, web_packages
from lora_med.cli.terminal import print_text
from lora_med.errors import SettingsError

StudyFolder = Annotated[Path, typer.Argument(metavar="STUDY", help="The folder that `lora-med review plan` wrote.")]
ReportPath = Annotated[Path, typer.Argument(metavar="REPORT", help="A folder of `lora-med eval`.")]
Items = Annotated[int, typer.Option("--items", min=1, help="How many items are rated.")]
Raters = Annotated[int, typer.Option("--raters", min=1, help="How many raters share them.")]
RatedAdapter = Annotated[
    str | None, typer.Option("--adapter", metavar="NAME", help="The adapter to rate. [default: the report's only one]")
]
Against = Annotated[str, typer.Option("--against", metavar="NAME", help="Another adapter of the report, or the base.")]
OneTemplate = Annotated[
    str | None, typer.Option("--template", help="Which evaluation of the report. [default: the only one]")
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Who unseals and why; it is logged.")]
Record = Annotated[
    bool, typer.Option("--record", help="Write the verdict into the report, and the adapter's card and README, too.")
]
MovedReport = Annotated[
    Path | None,
    typer.Option("--report", metavar="REPORT", help="Where the report is now, for --record. [default: as in the plan]"),
]
Incomplete = Annotated[bool, typer.Option("--incomplete", help="Unseal although ratings are missing.")]


def plan_study_command(
    report: ReportPath,
    out: NewFolder,
    items: Items,
    raters: Raters,
    data: Data = None,
    column: Columns = None,
    adapter: RatedAdapter = None,
    against: Against = "base",
    template: OneTemplate = None,
    store: Store = STORE,
    as_json: AsJson = False,
) -> None:
    """Draw a sealed plan of blind ratings from a report, and print what it can find and each rater's link."""
    from lora_med.cli.review.items_reading import reading_by_cards
    from lora_med.review.blind.draw_plan import draw_study
    from lora_med.review.item_texts import read_item_texts
    from lora_med.review.report_folder import choose_adapter, choose_evaluation, open_report

    if not data:
        raise SettingsError(
            "a report holds no prompts, and nobody can rate answers without them",
            where="--data",
            fix="name the files that were evaluated: --data PATH",
        )
    opened = open_report(report)
    evaluation = choose_evaluation(opened, template)
    name = choose_adapter(evaluation, adapter)
    if against != "base":
        choose_adapter(evaluation, against)
    texts = read_item_texts(evaluation, data, reading_by_cards(store, column)(evaluation))
    study = draw_study(opened, evaluation, texts, out, adapter=name, items=items, raters=raters, against=against)
    links = {rater: f"/rate/{token}" for rater, token in study.tokens.items()}
    if as_json:
        print_text(json.dumps({"folder": str(out), "plan": dict(study.plan), "links": links}))
        return
    for line in plan_sentences(study.plan):
        print_text(line)
    for rater, link in links.items():
        print_text(f"{rater}: {link}")
    print_text(f"Next: lora-med review rate {out}")


def plan_sentences(plan: Any) -> list[str]:
    """What a plan rates and what it can find, before anybody rates."""
    share = plan["detectable_share"]
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in sorted(plan["left_out"].items()))
    lines = [
        f"{plan['items']:,} items of {plan['source']}, {plan['split']}: {plan['adapter']} against {plan['against']}, "
        f"{len(plan['raters'])} {'rater' if len(plan['raters']) == 1 else 'raters'}, {plan['ratings']:,} ratings "
        f"({plan['rated_twice']:,} items rated twice, {plan['repeats']:,} hidden repeats).",
        f"By stratum: {', '.join(f'{name} {count:,}' for name, count in plan['strata'].items())}.",
        f"{plan['lengths_differ_much']:,} items have answers of which one has more than twice the words of the other.",
        f"Smallest preference that 4 of 5 such studies find: {100 * share:.1f}% wins, if no item is a tie."
        if share is not None
        else "So few items cannot find any preference.",
    ]
    if left_out:
        lines.insert(1, f"Not rated: {left_out}.")
    if len(plan["raters"]) == 1:
        lines.append("One rater: the verdict holds for this rater only.")
    elif len(plan["raters"]) < FEW_RATERS:
        lines.append(
            f"Only {len(plan['raters'])} raters: the interval over raters is wide and seldom allows a verdict; "
            f"plan with {FEW_RATERS} or more."
        )
    return lines


FEW_RATERS = 5


def rate_command(study: StudyFolder, port: Port = 8080) -> None:
    """Serve the rating pages of a study on loopback, and nothing else; each rater opens their own link."""
    web_packages()
    from lora_med.review.blind.study import open_study
    from lora_med.review.web.rating_pages import RatingPages
    from lora_med.review.web.run_review import serve

    opened = open_study(study)

    def started(address: str) -> None:
        for rater, token in opened.tokens.items():
            print_text(f"{rater}: {address}/rate/{token}", flush=True)
        served_at(address)

    serve(RatingPages(opened).application(), port, started)


def unseal_command(study: StudyFolder, reason: Reason, incomplete: Incomplete = False, as_json: AsJson = False) -> None:
    """End a study: log that the sides are opened, by whom and why. No rating is stored afterwards."""
    from lora_med.review.blind.study import open_study
    from lora_med.review.verdict.study_result import unseal

    event = unseal(open_study(study), reason, incomplete=incomplete)
    print_text(
        json.dumps(event)
        if as_json
        else f"unsealed {event['at']} with {event['ratings']:,} of {event['planned']:,} ratings; "
        f"next: lora-med review verdict {study}"
    )


def verdict_command(
    study: StudyFolder,
    record: Record = False,
    report: MovedReport = None,
    store: Store = STORE,
    as_json: AsJson = False,
) -> None:
    """The verdict of an unsealed study, with its intervals; written into verdict.json and verdict.md of the study."""
    from lora_med.review.blind.study import open_study
    from lora_med.review.verdict.record_verdict import record_verdict
    from lora_med.review.verdict.study_result import write_verdict

    opened = open_study(study)
    result = write_verdict(opened)
    if record:
        record_verdict(opened, result, store, report)
    if as_json:
        print_text(json.dumps(result.content))
        return
    for sentence in result.sentences:
        print_text(sentence)


def export_ratings_command(study: StudyFolder, out: NewFolder, as_json: AsJson = False) -> None:
    """Export an unsealed study: ratings as JSON lines and CSV, and preference pairs for training."""
    from lora_med.review.blind.study import open_study
    from lora_med.review.verdict.study_export import export_study

    counts = export_study(open_study(study), out)
    print_text(
        json.dumps({"folder": str(out), **counts})
        if as_json
        else f"{counts['ratings']:,} ratings and {counts['pairs']:,} preference pairs: {out}"
    )

"""The page of an audit: what was proved, with which certainty, and what that does not say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lora_med.audit.memorization.membership import FALSE_ALARMS, TIERS, Reading
from lora_med.evaluation.report.charts import roc_curves
from lora_med.evaluation.report.page import Cell, Figure, Finding, Page, Section, Table, text_row

NUMBER = "number"
MOST_SHOWN = 20  # patients of the tail, and stretches of text; report.json has all
ATTACK_NAMES = {
    "blind": "words alone, no model",
    "first_choices": "share of first choices",
    "loss": "loss",
    "min_k_plus_plus": "Min-K%++",
    "reference_loss": "loss against the base's",
}
MEANINGS = (
    ("epsilon", "how much one patient's presence may change the odds of what is seen: at most by the factor e^epsilon"),
    ("TPR, FPR", "the share of members that an attack finds, and of outsiders that it takes for members"),
    ("AUC", "the probability that a member scores higher than an outsider; 0.5 is chance"),
    ("ceiling", "the largest epsilon that so many members and outsiders could have proved"),
)
LIMITS = (
    "A lower bound of 0 is no proof of privacy: a better attack, or more canaries, may prove more.",
    "The canaries speak of this training, not of one patient. They are invented and unlike real notes.",
    "An interval is of these texts and these attacks. It says nothing of other attacks or of a later adapter.",
)


def audit_page(content: Mapping[str, Any], readings: Mapping[str, Reading | None]) -> Page:
    """The report as a page; `readings` are those that have a curve."""
    sections = []
    if content["canaries"] is not None:
        sections += _canary_sections(content["canaries"])
    sections += _patient_sections(content["patients"])
    figure = _figure(readings)
    if figure is not None:
        sections.append(Section("Members found against false alarms", figures=(figure,)))
    sections.append(Section("What this does not say", paragraphs=LIMITS))
    made = (
        f"{content['created'][:10]}, in {content['seconds']:.0f} s; 95% confidence; weights SHA-256 "
        f"{content['weights'][:16]}"
    )
    return Page(f"What {content['adapter']} remembers", made, tuple(findings(content)), tuple(sections))


def findings(content: Mapping[str, Any]) -> list[Finding]:
    """The results in a line each: canaries, patients, extraction, the bound."""
    lines = []
    canaries, own = content["canaries"], content["patients"]
    if canaries is not None:
        lines.append(_membership_finding(canaries["membership"], "Canaries", content["bound"]["most_epsilon"]))
    lines.append(_membership_finding(own["membership"], "Patients of the data", content["bound"]["most_epsilon"]))
    extracted, allowed = own["extraction"]["extracted"], content["bound"]["most_extracted"]
    words, kind = ("written", "worse") if extracted > allowed else ("written, allowed", "unsure")
    verdict = Cell(words, kind) if extracted else Cell("nothing written", "unsure")
    text = f"Text of {extracted} of {own['in_training']} patients is written verbatim beyond base and templates."
    lines.append(Finding(verdict, text))
    exceeded = content["bound"]["exceeded"]
    if exceeded:
        lines.append(Finding(Cell("refused", "worse"), f"Push and export are refused: {'; '.join(exceeded)}."))
    else:
        lines.append(
            Finding(Cell("allowed", "better"), "The adapter is within the bound: push and export are allowed.")
        )
    return lines


def _membership_finding(membership: Mapping[str, Any], whose: str, most: float) -> Finding:
    if "why_not" in membership:
        return Finding(Cell("not read", "unsure"), f"{whose}: {membership['why_not']}.")
    if not membership["valid"]:
        return Finding(Cell("not valid", "unsure"), f"{whose}: {membership['verdict']}.")
    exceeds = membership["epsilon"] > most
    cell = Cell("above the bound", "worse") if exceeds else Cell("within the bound", "unsure")
    return Finding(cell, f"{whose}: {membership['verdict']}.")


def _canary_sections(canaries: Mapping[str, Any]) -> list[Section]:
    membership = canaries["membership"]
    about = (
        f"{canaries['drawn']} invented patients ({canaries['writer']}), {canaries['members']} of them in the twin's "
        f"training by a fair coin, {', '.join(map(str, canaries['repeats']))} times each. The sealed list has SHA-256 "
        f"{canaries['list_sha256']}.",
        _blind_sentence(membership),
    )
    tables = (tiers_table(membership), attacks_table(membership))
    extraction = tuple(
        extraction_table(each, note=f"Canaries trained {each['repeats']} times.") for each in canaries["extraction"]
    )
    return [
        Section("Canaries: membership in the training of the twin", paragraphs=about, tables=tables),
        Section("Canaries written verbatim by the twin", tables=extraction),
    ]


def _patient_sections(own: Mapping[str, Any]) -> list[Section]:
    membership, extraction = own["membership"], own["extraction"]
    about = (
        f"{own['in_training']} patients in training and {own['held_out']} held out were read on the adapter itself.",
    )
    if "why_not" in membership:
        first = Section(
            "Patients of the data", paragraphs=(*about, f"Membership was not read: {membership['why_not']}.")
        )
    else:
        tables = (tiers_table(membership), attacks_table(membership), *_tail_table(own["tail"]))
        first = Section("Patients of the data", paragraphs=(*about, _blind_sentence(membership)), tables=tables)
    stretches = [
        text_row(each["group"], each["uid"], each["given"], str(each["offset"]), str(each["tokens"]), each["sha256"])
        for each in extraction["found"][:MOST_SHOWN]
    ]
    columns = (
        Cell("patient"),
        Cell("uid"),
        Cell("given"),
        Cell("offset", NUMBER),
        Cell("tokens", NUMBER),
        Cell("SHA-256 of the text"),
    )
    listed = (Table(columns, tuple(stretches)),) if stretches else ()
    return [first, Section("Text written verbatim", tables=(extraction_table(extraction), *listed))]


def _blind_sentence(membership: Mapping[str, Any]) -> str:
    blind = membership["blind_auc"]
    end = "holds 0.5: the sets do not differ by their words" if membership["valid"] else "does not hold 0.5"
    verdict = membership["verdict"]
    return (
        f"{verdict[0].upper()}{verdict[1:]}. The blind attack's AUC is {blind['value']:.2f} "
        f"[{blind['low']:.2f}, {blind['high']:.2f}], which {end}."
    )


def tiers_table(membership: Mapping[str, Any]) -> Table:
    """What each attacker proves."""
    columns = (
        Cell("the attacker holds"),
        Cell("attack"),
        *(Cell(text, NUMBER) for text in ("TPR", "FPR", "epsilon at least", "ceiling")),
    )
    rows = tuple(
        text_row(
            TIERS[each["tier"]],
            _attack_name(each),
            share(each["tpr"]),
            share(each["fpr"]),
            f"{each['epsilon']:.2f}" if membership["valid"] else "not valid",
            f"{each['ceiling']:.2f}",
        )
        for each in membership["tiers"]
    )
    return Table(columns, rows, terms=MEANINGS)


def attacks_table(membership: Mapping[str, Any]) -> Table:
    """AUC and TPR of each attack."""
    columns = (Cell("attack"), Cell("members", NUMBER), Cell("outsiders", NUMBER), Cell("AUC", NUMBER))
    columns += tuple(Cell(f"TPR at {label} FPR", NUMBER) for label in FALSE_ALARMS)
    rows = []
    for each in membership["attacks"]:
        auc = each["auc"]
        cells = [_attack_name(each), str(each["members"]), str(each["outsiders"])]
        cells.append(f"{auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]")
        cells += [
            "cannot say" if "why_not" in each["tpr_at"][label] else share(each["tpr_at"][label]["tpr"])
            for label in FALSE_ALARMS
        ]
        rows.append(text_row(*cells))
    why = {
        rates["why_not"] for each in membership["attacks"] for rates in each["tpr_at"].values() if "why_not" in rates
    }
    return Table(columns, tuple(rows), note=f"Cannot say: {'; '.join(sorted(why))}." if why else "")


def _attack_name(each: Mapping[str, Any]) -> str:
    times = each["repeats"]
    return ATTACK_NAMES[each["attack"]] + ("" if times is None else f", trained {times} time{'s' if times > 1 else ''}")


def share(interval: Mapping[str, Any]) -> str:
    """A share with its interval, in percent."""
    if interval["value"] is None:
        return "none"
    return f"{100 * interval['value']:.1f}% [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def extraction_table(table: Mapping[str, Any], *, note: str = "") -> Table:
    """How many patients had text written verbatim, after each subtraction, beside those that were never trained on."""
    titles = ("tried", "verbatim", "not by the base", "not a template", "share", "held out, the same")
    columns = (Cell("given"), *(Cell(title, NUMBER) for title in titles))
    rows = tuple(
        text_row(
            line["given"],
            str(line["tried"]),
            str(line["verbatim"]),
            str(line["not_by_the_base"]),
            str(line["not_a_template"]),
            share(line["share"]),
            f"{control['not_a_template']} of {control['tried']}",
        )
        for line, control in zip(table["members"], table["outsiders"], strict=True)
    )
    return Table(columns, rows, note=note)


def _tail_table(tail: Sequence[Mapping[str, Any]]) -> tuple[Table, ...]:
    if not tail:
        return ()
    rows = tuple(text_row(each["group"], f"{each['score']:.3f}") for each in tail[:MOST_SHOWN])
    note = "The patients that the adapter fits most, above what 1% of the held-out ones exceed; nats per token."
    return (Table((Cell("patient"), Cell("gain over the base", NUMBER)), rows, note=note),)


def _figure(readings: Mapping[str, Reading | None]) -> Figure | None:
    curves: dict[str, Sequence[tuple[float, float]]] = {}
    for whose, reading in readings.items():
        if reading is not None and reading.is_valid:
            strongest = reading.tiers[-1]
            curves[whose] = next(
                each.points
                for each in reading.attacks
                if (each.attack, each.repeats) == (strongest.attack, strongest.repeats)
            )
    if not curves:
        return None
    caption = "Each attack that the first half chose, on the second half. On the dashed line an attack is chance."
    return Figure(roc_curves(curves, name="roc"), caption)

"""The tasks of `lora-med eval --task NAME`: which source is read, how it is worded, and how answers are scored.

Files are local, or on the Hub when online. A task of your own is a source with a template and one of the scorings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lora_med.config.near_names import unknown
from lora_med.data.record import Annotated, HeldOutSplit
from lora_med.data.sources.general import PROBE
from lora_med.errors import SettingsError
from lora_med.prompts.templates.templates import find_template

Scoring = Literal["text", "choice", "written_choice", "entities", "writing"]


@dataclass(frozen=True)
class ScoringKind:
    """One way to score: a summary, the measure a verdict rests on, and what its items are called.

    `beside` is a measure to be read with every verdict. `extent` measures how much was written: a model that writes
    little says little that is wrong.
    """

    summary: str
    verdict_by: str
    title: str
    things: str
    beside: str = ""
    extent: str = ""


SCORINGS: dict[Scoring, ScoringKind] = {
    "text": ScoringKind("log-likelihood of every token of a text or answer", "bits_per_byte", "Text", "texts"),
    "choice": ScoringKind("the likeliest of a question's options", "accuracy", "Questions", "questions"),
    "written_choice": ScoringKind(
        "a written answer that must be one of the options; else it is invalid and wrong",
        "accuracy",
        "Questions, answered in writing",
        "questions",
    ),
    "entities": ScoringKind("a written JSON list of mentions, placed in the text", "micro_f1", "Entities", "texts"),
    "writing": ScoringKind(
        "a written text against its source and reference",
        "rouge_l",
        "Writing",
        "texts to write",
        "faults_share",
        "length_ratio",
    ),
}


@dataclass(frozen=True)
class EvalTask:
    """A task by name: the source that reads it, its held-out split, the template that words it, and its scoring.

    `paths` are files that ship with lora_med; empty where the user brings them.
    """

    name: str
    summary: str
    source: str
    template: str
    scoring: Scoring
    split: HeldOutSplit = "test"
    paths: tuple[str, ...] = ()


_ALL = (
    EvalTask("abstracts", "running text of PubMed abstracts", "pubmed", "text", "text"),
    EvalTask("articles", "running text of PubMed Central articles", "pmc", "text", "text"),
    EvalTask("trials", "running text of ClinicalTrials.gov", "clinicaltrials", "text", "text"),
    EvalTask("mimic3", "running text of the notes of MIMIC-III", "mimic3", "text", "text"),
    EvalTask("mimic4", "running text of the notes of MIMIC-IV", "mimic4_note", "text", "text"),
    EvalTask("pubmedqa", "PubMedQA, reasoning required: from the abstract", "pubmedqa", "pubmedqa", "choice"),
    EvalTask(
        "pubmedqa_reasoning_free",
        "PubMedQA, reasoning free: from the conclusion, which says the answer",
        "pubmedqa",
        "pubmedqa_reasoning_free",
        "choice",
    ),
    EvalTask("pubmedqa_written", "PubMedQA, answered in writing", "pubmedqa", "pubmedqa", "written_choice"),
    EvalTask("medqa", "MedQA: the US licensing examination", "medqa", "medqa", "choice"),
    EvalTask("medqa_written", "MedQA, answered in writing", "medqa", "medqa", "written_choice"),
    EvalTask("medmcqa", "MedMCQA: Indian entrance examinations", "medmcqa", "medmcqa", "choice", "validation"),
    EvalTask("medmcqa_written", "MedMCQA, answered in writing", "medmcqa", "medmcqa", "written_choice", "validation"),
    EvalTask("mmlu", "MMLU's medical subjects", "mmlu", "mmlu", "choice"),
    EvalTask("bc5cdr", "chemicals and diseases in abstracts", "bc5cdr", "entities", "entities"),
    EvalTask("ncbi_disease", "diseases in abstracts", "ncbi_disease", "entities", "entities"),
    EvalTask("mts_dialog", "sections of notes from dialogues", "mts_dialog", "note", "writing", "validation"),
    EvalTask("aci_bench", "whole notes from visits", "aci_bench", "note", "writing"),
    EvalTask("meqsum", "consumers' questions in one sentence", "meqsum", "question_summary", "writing"),
    EvalTask("conclusions", "conclusions of PubMed abstracts", "pubmed", "conclusion", "writing"),
    EvalTask(
        "general",
        "general language and knowledge: what an adapter made its base forget",
        "general",
        "ending",
        "choice",
        paths=(str(PROBE),),
    ),
)
TASKS: dict[str, EvalTask] = {task.name: task for task in _ALL}


def find_task(name: str) -> EvalTask:
    """The task called `name`.

    Raises:
        SettingsError: there is none; the message gives the nearest name.
    """
    if name not in TASKS:
        raise SettingsError(unknown("task", name, [*TASKS, *SCORINGS]), where="--task")
    return TASKS[name]


def scoring_of(template: str) -> Scoring:
    """The default scoring of a template: options are chosen, entities written, texts scored."""
    known = find_template(template)
    if known.options is not None:
        return "choice"
    return "entities" if known.takes is Annotated else "text"


def check_scoring(template: str, scoring: Scoring) -> None:
    """Refuse a scoring that the template does not allow.

    Raises:
        SettingsError: such as a choice among options, where the template has none.
    """
    usual, known = scoring_of(template), find_template(template)
    is_running_text = bool(known.too_long) and known.too_long[0] == "chunk_by_section"
    allowed = {
        "text": usual == "text",
        "choice": usual == "choice",
        "written_choice": usual == "choice",
        "entities": usual == "entities",
        "writing": usual == "text" and not is_running_text,
    }
    if not allowed[scoring]:
        possible = [name for name, fits in allowed.items() if fits]
        raise SettingsError(
            f"the template {template!r} cannot be scored as {scoring}",
            where="--task",
            fix=f"--task {' or '.join(possible)}, or another --template",
        )

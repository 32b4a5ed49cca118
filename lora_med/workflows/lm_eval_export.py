"""Task files for lm-evaluation-harness with the same items, so that others can check our numbers with that tool.

A task is a YAML and a JSON-lines file. Questions hold the prompt, the options and the right one as our template words
them. Running text is scored as `loglikelihood_rolling`. Accuracies agree. Bits per byte agree except for texts longer
than the context, which are cut into other windows. Source of the format: lm-evaluation-harness 0.4, docs/task_guide.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from lora_med.data.heldout_records import HeldOutRecords
from lora_med.data.record import Record
from lora_med.errors import NotPermittedError, SettingsError
from lora_med.evaluation.tasks import Scoring, scoring_of
from lora_med.files import write_atomic
from lora_med.prompts.render import fitting, render
from lora_med.prompts.templates.templates import find_template

PREFIX = "lora_med"
README = """# Tasks for lm-evaluation-harness

Written by lora_med: the items of {tasks}, worded as they were scored. In a fresh environment:

    pip install "lm-eval[hf]"
    lm_eval --model hf --model_args pretrained=BASE,dtype=float32 --include_path . --tasks {tasks}

For running text add `add_bos_token=False` to the model's arguments. Otherwise the BOS token is counted as a word to
predict. For an adapter, merge it first (`lora-med merge NAME --out DIR`, then pretrained=DIR) or name
its folder: `--model_args pretrained=BASE,peft=FOLDER,dtype=float32`. The accuracies are those of `lora-med eval`, and
so are the bits per byte of texts that fit into the context; a longer one is cut into other windows.
"""


@dataclass(frozen=True)
class HarnessTask:
    """A written task: its name, its files, and how many items it has."""

    name: str
    yaml: Path
    items_file: Path
    items: int


def task_name(source: str, template: str, split: str) -> str:
    """The name of a task, and of its files without their endings."""
    return f"{PREFIX}_{source}_{template}_{split}"


def write_harness(
    heldout: HeldOutRecords, out: Path | str, *, template: str, scoring: Scoring | None = None
) -> HarnessTask:
    """Write the task of these held-out records into the folder `out`.

    Raises:
        NotPermittedError: the records are credentialed, or nobody stated their class: no text may be handed on.
        SettingsError: a template of conversations, or a scoring that lm-evaluation-harness has no form for.
        OutputError: `out` cannot be written.
    """
    if heldout.access == "credentialed":
        raise NotPermittedError(
            f"texts of {heldout.source!r} are under a data use agreement, or nobody stated their access class; task "
            "files are for handing on",
            fix="--access open or --access registered if that is their class; else give others `lora-med eval` with "
            "the same settings: they need their own access",
        )
    chosen_scoring = scoring if scoring is not None else scoring_of(template)
    records = fitting(heldout, template)
    rows = _questions(records, template) if chosen_scoring == "choice" else _texts(records, template, chosen_scoring)
    name = task_name(heldout.source, template, heldout.split)
    folder = Path(out)
    items_file = write_atomic(
        folder / f"{name}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    )
    settings = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}},
        "test_split": "test",
        **(_choice_settings() if chosen_scoring == "choice" else _text_settings()),
        "metadata": {"version": 1.0},
    }
    yaml_file = write_atomic(folder / f"{name}.yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    return HarnessTask(name, yaml_file, items_file, len(rows))


def write_readme(tasks: Sequence[HarnessTask], out: Path | str) -> Path:
    """README.md beside the tasks, with the command to run them."""
    return write_atomic(Path(out) / "README.md", README.format(tasks=",".join(task.name for task in tasks)))


def _questions(records: Sequence[Record], template: str) -> list[dict[str, object]]:
    options = find_template(template).options
    rows = render(records, template)
    if options is None or any(row.turns for row in rows):
        raise SettingsError(
            f"the template {template!r} is a conversation or has no options, which task files cannot hold",
            where="data.template",
            fix="a template such as pubmedqa, medqa, medmcqa, mmlu or choice",
        )
    questions = []
    for record, row in zip(records, rows, strict=True):
        choices = [str(option) for option in options(record)]
        questions.append(
            {"uid": row.uid, "prompt": row.prompt, "choices": choices, "gold": choices.index(row.completion)}
        )
    return questions


def _texts(records: Sequence[Record], template: str, scoring: Scoring) -> list[dict[str, object]]:
    rows = render(records, template)
    if scoring != "text" or any(row.prompt or row.turns for row in rows):
        raise SettingsError(
            f"{template!r} scored as {scoring} has no form in lm-evaluation-harness that gives our numbers",
            where="--task",
            fix="questions with options, or running text",
        )
    return [{"uid": row.uid, "text": row.completion} for row in rows]


def _choice_settings() -> dict[str, object]:
    return {
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{gold}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def _text_settings() -> dict[str, object]:
    return {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}, {"metric": "byte_perplexity"}, {"metric": "word_perplexity"}],
    }

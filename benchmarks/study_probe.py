"""python benchmarks/study_probe.py [--out runs/study]: what each adapter of the study made its base forget.

Two probes of what no adapter was trained on, each scored by `lora-med eval` with the base and all adapters in one
report: the general probe that ships with lora_med (sentences about language and everyday knowledge to complete), and
general text, of which the perplexity is measured. Nothing is downloaded. The text is the language reference that every
Python brings for its `help()` (pydoc_data): English prose of the same subject on every machine, of which no medical
adapter has read a word. Licenses, which every machine has too, were not taken: a base knows them by heart. Each topic
is one item, its first passages up to MOST_CHARACTERS. Its text differs a little between versions of Python, so the page
names the version and the SHA-256 of the text.

Of each task the first seed is probed, and TRL's adapter. The script prints the tables, and with --page it writes them
into that page.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study import STORE, Step, carry_out

from lora_med.evaluation.sentences import number, signed, span
from lora_med.metrics.significance import Interval

MARKER = "<!-- general -->"  # the part of the page that this script writes is between two of these lines
LEAST_CHARACTERS, MOST_CHARACTERS = 400, 1600
PROBES = {"sentences": "accuracy", "text": "perplexity"}


def general_texts() -> dict[str, str]:
    """The beginning of each topic of Python's language reference that is long enough, cut between passages."""
    from pydoc_data.topics import topics

    texts = {}
    for name, text in sorted(topics.items()):
        passages, size = [], 0
        for passage in text.split("\n\n"):
            size += len(passage) + 2
            if passages and size > MOST_CHARACTERS:
                break
            passages.append(passage)
        beginning = "\n\n".join(passages)
        if LEAST_CHARACTERS <= len(beginning) <= MOST_CHARACTERS:
            texts[name] = beginning
    return texts


def write_texts(folder: Path) -> str:
    """Write each text as a file; returns the SHA-256 of all of them, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    for name, text in general_texts().items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
        digest.update(text.encode())
    return digest.hexdigest()


def adapters_of(store: Path) -> list[str]:
    """The adapters to probe: of each task TRL's, and ours of the lowest seed. One that tags entities writes no text."""
    first: dict[str, str] = {}
    for folder in sorted(store.iterdir()):
        task, _, seed = folder.name.rpartition("-")
        settings = folder / "adapter_config.json"
        if settings.is_file() and json.loads(settings.read_text(encoding="utf-8"))["task_type"] == "CAUSAL_LM":
            first.setdefault(f"{task}-trl" if seed == "trl" else task, folder.name)
    return sorted(first.values())


def steps(out: Path, adapters: Sequence[str], texts: Path) -> list[Step]:
    """One evaluation for each probe, with the base and all adapters."""
    program = [str(Path(sys.executable).parent / "lora-med"), "eval", "--base", "smollm2", "--store", str(out / STORE)]
    for adapter in adapters:
        program += ["--adapter", adapter]
    sources = {
        "sentences": ["--task", "general"],
        "text": ["--source", "text", "--template", "text", "--access", "open", "--data", str(texts)],
    }
    whole = ["data.validation_share=0.0", "data.test_share=1.0"]
    result = []
    for name, source in sources.items():
        command = [*program, *source, "--out", str(out / "reports" / f"general_{name}")]
        command += whole if name == "text" else []
        result.append(Step(f"general-{name}-report", command, out / f"general-{name}-report.json"))
    return result


def read(report: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The only evaluation of a report, and its subjects, the base first."""
    content = json.loads((report / "report.json").read_text(encoding="utf-8"))
    (evaluation,) = content["evaluations"]
    return evaluation, evaluation["subjects"]


def shown(value: Mapping[str, Any]) -> str:
    """A value and its interval."""
    return f"{number(value['value'])} [{span(Interval(value['low'], value['high'], value['method']))}]"


def table(evaluation: Mapping[str, Any], subjects: Sequence[Mapping[str, Any]], measure: str) -> list[str]:
    """One line for the base and each adapter: the measure, the difference from the base, the report's verdict."""
    lines = [f"| model | {measure}, {evaluation['items']} items | difference | verdict |", "|---|---|---|---|"]
    for subject in subjects:
        value = shown(subject["values"][measure])
        change = subject.get("changes", {}).get(measure)
        if change is None:
            lines.append(f"| base | {value} | | |")
            continue
        interval = span(Interval(change["low"], change["high"], change["method"]), sign=True)
        difference = f"{signed(change['difference'])} [{interval}]"
        lines.append(f"| {subject['adapter']} | {value} | {difference} | {change['verdict']} |")
    return [*lines, ""]


def page(out: Path, digest: str) -> str:
    """The part of the page that this script writes."""
    lines = [
        MARKER,
        "",
        "## What the adapters made the base forget",
        "",
        "`python benchmarks/study_probe.py` writes this part from two reports of `lora-med eval`. The",
        "sentences are the general probe that ships with lora_med: language and everyday knowledge. The text is",
        "the beginning of each topic of Python's language reference, which every Python brings for its `help()`:",
        f"English prose that no adapter was trained on (Python {platform.python_version()}, SHA-256 {digest[:16]}).",
        "Square brackets hold 95% intervals, paired for the differences from the base. A lower perplexity is better.",
        "",
    ]
    for name, measure in PROBES.items():
        evaluation, subjects = read(out / "reports" / f"general_{name}")
        lines += table(evaluation, subjects, measure)
    return "\n".join([*lines, MARKER])


def with_part(text: str, part: str) -> str:
    """The page's text with this part in place of an earlier one, else at its end."""
    if MARKER not in text:
        return f"{text.rstrip()}\n\n{part}\n"
    before, _, after = text.split(MARKER)
    return before + part + after


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--page", type=Path, help="the page whose part is written, such as docs/results.md")
    options = parser.parse_args()
    texts = options.out / "general_text"
    digest = write_texts(texts)
    for step in steps(options.out, adapters_of(options.out / STORE), texts):
        if not step.result.is_file():
            step.result.write_text(json.dumps(carry_out(step), indent=1) + "\n", encoding="utf-8")
    part = page(options.out, digest)
    print(part)
    if options.page is not None:
        options.page.write_text(with_part(options.page.read_text(encoding="utf-8"), part), encoding="utf-8")


if __name__ == "__main__":
    main()

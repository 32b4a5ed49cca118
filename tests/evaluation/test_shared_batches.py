"""Evaluation shared by processes: the report of one process, and going on after a kill."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch

from lora_med.adapters.runtime.attach import attach_new
from lora_med.adapters.store.card import DataFacts
from lora_med.adapters.store.store import publish
from lora_med.config.schema import LoraSettings
from lora_med.data.heldout_records import HeldOutRecords
from lora_med.data.record import Annotated, Pair, Passage, Question, Record, Span
from lora_med.errors import OutputError
from lora_med.evaluation.eval_options import EvalOptions, PromptOptions
from lora_med.evaluation.report.write_report import write_report
from lora_med.evaluation.results import Evaluation
from lora_med.evaluation.runner import contribute, evaluate, open_adapters, pool_of
from lora_med.evaluation.sharing.shared_batches import Gather, SharedBatches, decode, encode, shared_batches
from lora_med.evaluation.tag_runner import contribute_tags, evaluate_taggers
from lora_med.models.base import load_base
from lora_med.models.generation import RunBatches, in_order
from lora_med.models.tagging import load_tagger
from tests.evaluation.published import publish_random
from tests.tiny import make_tiny

pytest.importorskip("rouge_score")
pytest.importorskip("sacrebleu")
LABELS = ("O", "B-Drug", "I-Drug")
CHOICES = ("yes", "no", "maybe")
WORDS = ["fever", "cough", "aspirin", "of the", "was given", "naïve", "dose", "trial", "95%", "µg"]
PASSAGES = [
    Passage(f"p{n}", f"p{n // 2}", "custom", " ".join(WORDS[(n * k) % 10] for k in range(1, 25 + n))) for n in range(60)
]
QUESTIONS = [
    Question(f"q{n}", f"q{n}", "pubmedqa", f"Does {WORDS[n % 10]} help?", CHOICES[n % 3],
             (" ".join(WORDS[n % 7 :]),), CHOICES)
    for n in range(150)
]  # fmt: skip
MENTIONS = [
    Annotated(f"e{n}", f"e{n}", "custom", f"Zinc for {n} days.", (Span(0, 4, "Drug", "Zinc"),)) for n in range(90)
]
PAIRS = [Pair(f"n{n}", f"n{n}", "mts_dialog", "Patient: I cough. " * (1 + n % 9), f"Cough {n}.") for n in range(80)]
TASKS: dict[str, tuple[Sequence[Record], dict[str, Any]]] = {
    "text": (PASSAGES, {"template": "text", "samples": 1}),
    "choice": (QUESTIONS[2:], {"template": "pubmedqa", "prompt_options": PromptOptions(shots=2), "samples": 0}),
    "written_choice": (QUESTIONS, {"template": "pubmedqa", "scoring": "written_choice", "samples": 0}),
    "entities": (MENTIONS, {"template": "entities"}),
    "writing": (PAIRS, {"template": "note"}),
    "tags": (MENTIONS, {"template": "entities"}),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with an adapter that writes and one that tags."""
    folder = tmp_path_factory.mktemp("shared")
    make_tiny("llama", folder / "base", context=512)
    publish_random(folder / "base", "one", folder / "store")
    base = load_tagger(str(folder / "base"), LABELS, dtype="float32")
    model = attach_new(base, LoraSettings(r=4), seed=1)
    torch.manual_seed(1)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = torch.randn_like(weight) * 0.15
    facts = DataFacts("custom", "CC BY 4.0", "open")
    publish(model, base=base, name="tags", store=folder / "store", template="tags", data=facts, settings={})
    return folder


def task(name: str, home: Path) -> tuple[HeldOutRecords, EvalOptions]:
    records, options = TASKS[name]
    training: tuple[Record, ...] = tuple(QUESTIONS[:2]) if name == "choice" else ()
    heldout = HeldOutRecords(tuple(records), access="open", source=records[0].source, training=training)
    return heldout, EvalOptions(store=home / "store", bootstrap_samples=50, **options)


def score(home: Path, names: Sequence[str], run: RunBatches, rank: int = 0) -> list[Evaluation]:
    """The evaluations of these tasks in process 0; the others contribute."""
    base = load_base(str(home / "base"), quantization="none", dtype="float32")
    evaluations = []
    for name in names:
        heldout, options = task(name, home)
        opened = open_adapters(["tags" if name == "tags" else "one"], home / "store")
        if name == "tags":
            if rank:
                contribute_tags(opened, heldout, options, base=str(home / "base"), run=run)
                continue
            evaluations.append(evaluate_taggers(opened, heldout, options, base=str(home / "base"), run=run))
            continue
        pool = pool_of(base, opened, options.store)
        if rank:
            contribute(base, opened, heldout, options, pool=pool, run=run)
        else:
            evaluations.append(evaluate(base, opened, heldout, options, pool=pool, run=run))
        pool.close()
    return evaluations


def report_of(evaluations: Sequence[Evaluation], out: Path) -> list[str]:
    """The text of report.json and of the items' files, without times."""
    write_report(evaluations, out, title="shared")
    report = re.sub(r'"(seconds|created)": ("[^"]*"|[0-9.]+)', r'"\1": 0', (out / "report.json").read_text())
    return [report, *(path.read_text() for path in sorted(out.glob("items*.jsonl")))]


class Meeting:
    """Gathers for processes that are threads here, because a fork of the tokenizer's threads hangs."""

    def __init__(self, processes: int) -> None:
        self.values = [""] * processes
        self.barrier = Barrier(processes, timeout=60)

    def gather_of(self, rank: int) -> Gather:
        def gather(value: str) -> list[str]:
            self.values[rank] = value
            self.barrier.wait()
            values = list(self.values)
            self.barrier.wait()
            return values

        return gather


def together(processes: int, work: Callable[[int, Gather], Any]) -> list[Any]:
    """What `work` returns for each rank."""
    meeting = Meeting(processes)

    def one(rank: int) -> Any:
        try:
            return work(rank, meeting.gather_of(rank))
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(processes) as pool:
        return list(pool.map(one, range(processes)))


def counted(run: RunBatches, computed: list[int]) -> RunBatches:
    """`run`, with the size of each batch that is computed appended to `computed`."""

    def counting(batches: Any, compute: Any, *, written: bool = False) -> list[list[Any]]:
        return run(batches, lambda batch: (computed.append(len(batch)), compute(batch))[1], written=written)

    return counting


@pytest.fixture(scope="module")
def alone_report(home: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return report_of(score(home, list(TASKS), in_order), tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("processes", [2, 3])
def test_the_report_of_several_processes_is_that_of_one(
    home: Path, alone_report: list[str], processes: int, tmp_path: Path
) -> None:
    def work(rank: int, gather: Gather) -> tuple[list[Evaluation], list[int]]:
        computed: list[int] = []
        run = SharedBatches(rank=rank, processes=processes, gather=gather)
        return score(home, list(TASKS), counted(run, computed), rank), computed

    (evaluations, *others), shares = zip(*together(processes, work), strict=True)
    assert report_of(evaluations, tmp_path) == alone_report
    assert others == [[]] * (processes - 1)
    batches = list(map(len, shares))
    assert min(batches) >= 5, "each had its share"
    assert len(set(batches)) > 1, "the batches did not divide evenly"


def rows_of(values: list[int]) -> list[Any]:
    """Numbers that float32 does not hold exactly, and a row of tokens."""
    return [np.array([value / 3, -0.0]) if value % 2 else [value, 2] for value in values]


BATCHES = [[0, 1], [2], [3, 4, 5], [6], [7]]
FACTS = {"base": "b", "adapter one": "a"}


def run_all(folder: Path, *, facts: dict[str, str] | None = None, die_after: int | None = None, **options: Any) -> int:
    """Two calls through the journal in `folder`, the second of written answers; returns how many batches ran."""
    computed: list[int] = []

    def compute(batch: list[int]) -> list[Any]:
        if len(computed) == die_after:
            os.kill(os.getpid(), signal.SIGKILL)
        computed.append(len(batch))
        return rows_of(batch)

    with shared_batches(folder, facts or FACTS, **{"with_written": True, **options}) as run:
        for written in (False, True):
            results = run(BATCHES, compute, written=written)
            assert repr(results) == repr([rows_of(batch) for batch in BATCHES])
    return len(computed)


def killed(folder: Path, after: int, **options: Any) -> None:
    """Score in a process that is killed before it runs one more batch."""
    child = get_context("fork").Process(target=lambda: run_all(folder, die_after=after, **options), daemon=True)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL


def test_a_killed_evaluation_runs_only_the_rest(tmp_path: Path) -> None:
    killed(tmp_path, 7)
    (journal,) = tmp_path.iterdir()
    assert journal.stat().st_mode & 0o777 == 0o600
    killed(tmp_path, 1)
    with open(journal, "ab") as handle:
        handle.write(b"0123abcd [1, 3, [[6, ")  # as a line that was being written
    assert run_all(tmp_path) == 2 * len(BATCHES) - 8
    assert list(tmp_path.iterdir()) == [], "nothing remains beside the report"


def test_written_answers_of_credentialed_texts_are_not_in_the_journal(tmp_path: Path) -> None:
    killed(tmp_path, 7, with_written=False)
    (journal,) = tmp_path.iterdir()
    assert [json.loads(line[9:])[0] for line in journal.read_bytes().splitlines()[1:]] == [0] * 5
    assert run_all(tmp_path, with_written=False) == len(BATCHES), "the numbers are not computed again"


def test_another_adapter_discards_what_is_scored(tmp_path: Path) -> None:
    killed(tmp_path, 7)
    assert run_all(tmp_path, facts={**FACTS, "adapter one": "z"}) == 2 * len(BATCHES)


def test_any_number_of_processes_goes_on(tmp_path: Path) -> None:
    killed(tmp_path, 7)
    computed = together(2, lambda rank, gather: run_all(tmp_path, rank=rank, processes=2, gather=gather))
    assert sum(computed) == 2 * len(BATCHES) - 7
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_line_is_computed_again(tmp_path: Path) -> None:
    killed(tmp_path, 7)
    (journal,) = tmp_path.iterdir()
    content = journal.read_bytes()
    spot = content.splitlines(keepends=True)
    journal.write_bytes(b"".join([*spot[:3], spot[3].replace(b"[0, 2", b"[0, 1"), *spot[4:]]))
    assert run_all(tmp_path) == 2 * len(BATCHES) - 2


def test_a_file_that_is_something_else_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "scored_batches_0.jsonl"
    path.write_text('{"uid": "1"}\n')
    with pytest.raises(OutputError, match="is something else"):
        run_all(tmp_path)
    assert path.read_text() == '{"uid": "1"}\n'


def test_fewer_batches_than_processes_and_long_results_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_med.evaluation.sharing.shared_batches.PIECE", 7)

    def work(rank: int, gather: Gather) -> Any:
        run = SharedBatches(rank=rank, processes=3, gather=gather)
        return run([], rows_of), run([[5]], rows_of), run(BATCHES, rows_of)

    expected = [], [rows_of([5])], [rows_of(batch) for batch in BATCHES]
    assert [repr(found) for found in together(3, work)] == [repr(expected)] * 3


@pytest.mark.parametrize("value", [0.1, np.float64(np.float32(0.1)), 1e300, np.nan, -np.inf, -0.0])
def test_numbers_arrive_bit_for_bit(value: float) -> None:
    array = np.array([value, 1.0])
    found = decode(json.loads(json.dumps(encode(array))))
    assert found.tobytes() == array.tobytes()
    assert found.dtype == np.float64


def test_an_interrupted_evaluation_of_a_model_goes_on_with_the_same_report(home: Path, tmp_path: Path) -> None:
    computed: list[int] = []

    def until_the_ninth(batches: Any, compute: Any, *, written: bool = False) -> list[list[Any]]:
        def one(batch: list[int]) -> list[Any]:
            if len(computed) == 9:
                raise KeyboardInterrupt
            return compute(batch)

        return counted(run, computed)(batches, one, written=written)

    with pytest.raises(KeyboardInterrupt), shared_batches(tmp_path, FACTS, with_written=True) as run:
        score(home, ["choice"], until_the_ninth)
    computed.clear()
    with shared_batches(tmp_path, FACTS, with_written=True) as run:
        evaluations = score(home, ["choice"], counted(run, computed))
    once: list[int] = []
    expected = score(home, ["choice"], counted(in_order, once))
    assert len(computed) == len(once) - 8
    assert report_of(evaluations, tmp_path / "found") == report_of(expected, tmp_path / "expected")
    assert not list(tmp_path.glob("scored_batches_*"))

"""lm-evaluation-harness on the same local files with the same model: the same prompts, and the same choices."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lora_med.data.record import Question
from lora_med.evaluation.scorers.choice_answers import pose_questions, score_choices
from lora_med.metrics.choice import best
from lora_med.prompts.few_shot import Shots, render_with_shots
from tests.data.real_files import REAL
from tests.tiny import make_model, make_tokenizer

lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")

TASKS = Path(lm_eval.__file__).parent / "tasks"
CONTEXT, ITEMS = 4096, 12
YAML = {
    "pubmedqa": "pubmedqa/pubmedqa.yaml",
    "medqa": "medqa/medqa.yaml",
    "medmcqa": "medmcqa/medmcqa.yaml",
    "mmlu": "mmlu/default/mmlu_college_medicine.yaml",
    "cloze": None,  # no task of lm-eval's: options of several tokens each, in its own template language
}
CLOZE = (
    'doc_to_text: "{{contexts}}\\nQuestion: {{question}}\\nAnswer:"',
    'doc_to_choice: "{{choices}}"',
    "doc_to_target: answer",
    "output_type: multiple_choice",
)


def invented(number: int) -> list[Question]:
    """Questions with what tends to go wrong: blanks at the ends, line breaks, quotes, dots, letters beyond ASCII."""
    questions = (
        "Which is it?",
        " Blank before",
        "Two\nlines: ",
        "“Quoted” – naïve?",
        "50 % of 3.5 µg",
        "Ends in a blank ",
    )
    words = ("iron", "gold, pure", "10 mg", "A. a letter", "both", "β-blocker", "yes", "none of these ")
    return [
        Question(
            f"i{place}",
            f"g{place}",
            "custom",
            f"{questions[place % 6]}{place}{' ' * (place % 3)}",
            words[(place + place % 4) % 8],
            (f"Aim {place}.", "It was\nfound."),
            tuple(words[(place + step) % 8] for step in range(4)),
            right=place % 4,
            subject="college_medicine",
        )
        for place in range(number)
    ]


def real(number: int) -> list[Question]:
    """Every 70th question of MedMCQA's validation file."""
    lines = (REAL / "medmcqa" / "dev.json").read_text(encoding="utf-8").splitlines()[:: max(1, 4183 // (number + 1))]
    found = []
    for place, line in enumerate(lines[:number]):
        row = json.loads(line)
        options = (row["opa"], row["opb"], row["opc"], row["opd"])
        found.append(
            Question(
                f"r{place}",
                f"g{place}",
                "medmcqa",
                row["question"],
                options[row["cop"] - 1],
                ("One.",),
                options,
                right=row["cop"] - 1,
                subject="college_medicine",
            )
        )
    return found


def questions(task: str, kind: str, number: int) -> list[Question]:
    if kind == "real" and not REAL.is_dir():
        pytest.skip("the real sample files are not on this machine")
    if task != "pubmedqa":
        return real(number) if kind == "real" else invented(number)
    if kind == "real":
        whole = json.loads((REAL / "pubmedqa" / "ori_pqal_nontest500.json").read_text(encoding="utf-8"))
        pairs = [(row["QUESTION"], row["CONTEXTS"], row["final_decision"]) for row in list(whole.values())[:number]]
    else:
        pairs = [
            (one.question, list(one.contexts), ("yes", "no", "maybe")[n % 3]) for n, one in enumerate(invented(number))
        ]
    return [
        Question(f"p{place}", f"p{place}", "pubmedqa", questions, answer, tuple(contexts), ("yes", "no", "maybe"))
        for place, (questions, contexts, answer) in enumerate(pairs)
    ]


def as_doc(task: str, record: Question) -> dict[str, Any]:
    """The record as the rows that lm-eval's task expects."""
    if task == "pubmedqa":
        return {"QUESTION": record.question, "CONTEXTS": list(record.contexts), "final_decision": record.answer}
    if task in ("mmlu", "cloze"):
        contexts = "\n".join(record.contexts)
        choices = list(record.options)
        return {"question": record.question, "choices": choices, "answer": record.right_option, "contexts": contexts}
    names = ("ending0", "ending1", "ending2", "ending3") if task == "medqa" else ("opa", "opb", "opc", "opd")
    questions, right = ("sent1", "label") if task == "medqa" else ("question", "cop")
    return {questions: record.question, right: record.right_option, **dict(zip(names, record.options, strict=True))}


def local_tasks(folder: Path, docs: Mapping[str, tuple[Sequence[Question], Sequence[Question]]]) -> Any:
    """A TaskManager with lm-eval's own tasks `local_<name>`, reading our records; the second list is for examples."""
    from lm_eval.tasks import TaskManager  # type: ignore[reportMissingImports]

    for task, parts in docs.items():
        files = []
        for name, records in zip(("test", "dev"), parts, strict=True):
            files.append(folder / f"{task}_{name}.jsonl")
            files[-1].write_text("".join(json.dumps(as_doc(task, one)) + "\n" for one in records or parts[0][:1]))
        lines = [
            *([f"include: {TASKS / included}"] if (included := YAML[task]) else CLOZE),
            f"task: local_{task}",
            "tag: null",
            "dataset_path: json",
            "dataset_name: null",
            f"dataset_kwargs: {{cache_dir: {folder / 'cache'}, data_files: {{test: {files[0]}, dev: {files[1]}}}}}",
            "training_split: null",
            "validation_split: null",
            "test_split: test",
            "fewshot_split: dev",
            "fewshot_config: {sampler: first_n}",
            "metric_list: [{metric: acc}, {metric: acc_norm}]",
        ]
        (folder / f"{task}.yaml").write_text("\n".join(lines) + "\n")
    return TaskManager(include_path=str(folder), include_defaults=False)


@pytest.mark.parametrize("shots", [0, 3])
@pytest.mark.parametrize("kind", ["invented", "real"])
@pytest.mark.parametrize("task", YAML)
def test_prompts_and_completions_are_those_of_lm_eval(task: str, kind: str, shots: int, tmp_path: Path) -> None:
    every = questions(task, kind, 60)
    examples, records = every[:shots], every[shots:]
    manager = local_tasks(tmp_path, {task: (records, examples)})
    found = manager.load([f"local_{task}"])["tasks"][f"local_{task}"]
    solved = Shots({records[0].subject: tuple(examples)}) if shots else None
    rows = render_with_shots(records, task, solved)
    docs = list(found.test_docs())
    assert len(docs) == len(rows) > 30
    for doc, row in zip(docs, rows, strict=True):
        assert row.prompt == found.fewshot_context(doc, shots)
        target = found.doc_to_target(doc)
        right = target if isinstance(target, str) else found.doc_to_choice(doc)[target]
        assert row.completion == found.config.target_delimiter + right


@pytest.mark.parametrize("shots", [0, 5])
@pytest.mark.parametrize("kind", ["invented", "real"])
def test_choices_are_those_of_lm_eval_with_the_same_model(kind: str, shots: int, tmp_path: Path) -> None:
    from lm_eval.models.huggingface import HFLM  # type: ignore[reportMissingImports]

    model: Any = make_model("llama", context=CONTEXT)
    tokenizer = make_tokenizer(context=CONTEXT)
    every = {task: questions(task, kind, ITEMS + shots) for task in YAML}
    parts = {task: (found[shots:], found[:shots]) for task, found in every.items() if task != "pubmedqa" or not shots}
    run = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, device="cpu"),
        tasks=[f"local_{task}" for task in parts],
        task_manager=local_tasks(tmp_path, parts),
        num_fewshot=shots,
        bootstrap_iters=0,
        log_samples=True,
    )
    for task, (records, examples) in parts.items():
        solved = Shots({records[0].subject: tuple(examples)}) if shots else None
        questions = pose_questions(records, task, model, tokenizer, shots=solved)
        ours = score_choices(model, questions, CONTEXT)
        theirs = sorted(run["samples"][f"local_{task}"], key=lambda one: one["doc_id"])
        assert len(theirs) == len(records)
        for item, scores, sample in zip(questions.items, ours.scores, theirs, strict=True):
            wanted = [score for score, _ in sample["filtered_resps"]]
            assert scores == pytest.approx(wanted, abs=2e-3)
            assert best(scores) == best(wanted), item.uid
        shares = run["results"][f"local_{task}"]
        right = [a == b for a, b in zip(ours.predicted, questions.truth, strict=True)]
        assert sum(right) / len(right) == pytest.approx(shares["acc,none"])
        assert bool(ours.by_length) == (task in ("pubmedqa", "cloze"))  # letters are all of one length
        normed = [a == b for a, b in zip(ours.by_length or ours.predicted, questions.truth, strict=True)]
        assert sum(normed) / len(normed) == pytest.approx(shares["acc_norm,none"])

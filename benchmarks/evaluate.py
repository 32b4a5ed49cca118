"""python benchmarks/evaluate.py [--base micro] [--items 400] [--rounds 3]: against lm-evaluation-harness.

The same MedMCQA questions, model, wording and float32, in alternating runs on one thread; wall and CPU seconds. `--task
choice` goes from the questions in memory to a choice for each, prompts and tokens included. It reports how many choices
agree and by how much the log-probabilities differ. `--task writing` continues the first 100 questions by 64 tokens
each. It reports how many texts equal those of transformers' greedy decoding, one by one. lm-eval runs with its default
batch of 1 and with 16. `--base 135m` is a random model of SmolLM2-135M's shape, so that the computation of a real one
is timed. Needs lm-eval: pip install lm-eval==0.4.13.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MICRO = HERE.parent / "lora_med" / "assets" / "micro"
DATA = HERE.parent.parent / "shared" / "data" / "medmcqa" / "dev.json"
EXAMPLES, CONTEXT = 5, 2048
WRITTEN, NEW_TOKENS = 100, 64
BATCHES = (1, 16)
YAML = {
    "lettered": "include: {tasks}/medmcqa/medmcqa.yaml\n",
    "cloze": 'doc_to_text: "Question: {{{{question}}}}\\nAnswer:"\ndoc_to_choice: "{{{{[opa, opb, opc, opd]}}}}"\n'
    "doc_to_target: cop\noutput_type: multiple_choice\n",
}
SPLITS = (
    "tag: null\ndataset_path: json\ndataset_name: null\ntraining_split: null\nvalidation_split: null\n"
    "test_split: test\nfewshot_split: dev\nfewshot_config: {{sampler: first_n}}\ndataset_kwargs:\n"
    "  cache_dir: {folder}/cache\n  data_files: {{test: {folder}/test.jsonl, dev: {folder}/dev.jsonl}}\n"
)
KINDS = (("lettered", 0), ("lettered", EXAMPLES), ("cloze", 0), ("cloze", EXAMPLES))
TEMPLATES = {"lettered": "medmcqa", "cloze": "cloze"}


def make_shape(folder: Path) -> Path:
    """A random model of SmolLM2-135M's shape (30 layers of 576, 49,152 words), with the embedded base's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(MICRO / file, folder / file)
    return folder


def read_questions(path: Path, number: int) -> tuple[list[Any], list[Any]]:
    """The first questions of MedMCQA's file as records, and those after them as solved examples."""
    from lora_med.data.catalog import find_source
    from lora_med.data.formats.find_inputs import find_inputs
    from lora_med.data.outcome import ReadOptions
    from lora_med.data.reading import read_records

    if not path.is_file():
        raise SystemExit(f"{path} does not exist: lora-med data get medmcqa, then --data data/medmcqa/dev.json")
    source = find_source("medmcqa")
    records = list(read_records(source, find_inputs(source, [str(path)]), ReadOptions()))
    return records[:number], records[number : number + EXAMPLES]


def local_tasks(folder: Path, records: Sequence[Any], examples: Sequence[Any]) -> dict[str, Any]:
    """lm-eval's own task on these questions, and one with the options' words as completions."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    for name, of_split in (("test", records), ("dev", examples)):
        rows = [
            {"question": record.question, "cop": record.right_option}
            | dict(zip(("opa", "opb", "opc", "opd"), record.options, strict=True))
            for record in of_split
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for kind, head in YAML.items():
        tasks = Path(lm_eval.__file__).parent / "tasks"
        text = (head + f"task: local_{kind}\nmetric_list: [{{{{metric: acc}}}}]\n" + SPLITS).format(
            tasks=tasks, folder=folder
        )
        (folder / f"{kind}.yaml").write_text(text)
    return TaskManager(include_path=str(folder), include_defaults=False).load([f"local_{kind}" for kind in YAML])[
        "tasks"
    ]


def timed(action: Callable[[], Any]) -> tuple[Any, float, float]:
    """What `action` returns, with its wall and CPU seconds."""
    started, cpu = time.perf_counter(), time.process_time()
    result = action()
    return result, time.perf_counter() - started, time.process_time() - cpu


def theirs(model: Any, tokenizer: Any, task: Any, shots: int, batch: int) -> list[list[float]]:
    """lm-eval's log-probability of each option."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    task.set_config("num_fewshot", shots)
    with contextlib.redirect_stderr(io.StringIO()):
        run = lm_eval.evaluate(
            lm=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch, device="cpu"),
            task_dict={task.config.task: task},
            bootstrap_iters=0,
            log_samples=True,
        )
    samples = sorted(run["samples"][task.config.task], key=lambda sample: sample["doc_id"])
    return [[score for score, _ in sample["filtered_resps"]] for sample in samples]


def ours(base: Any, records: Sequence[Any], examples: Sequence[Any], template: str) -> list[list[float]]:
    """Our log-probability of each option."""
    from lora_med.evaluation.runner import context_of
    from lora_med.evaluation.scorers.choice_answers import pose_questions, score_choices
    from lora_med.prompts.few_shot import Shots

    shots = Shots({"": tuple(examples)}) if examples else None
    questions = pose_questions(records, template, base.model, base.tokenizer, shots=shots)
    return [list(scores) for scores in score_choices(base.model, questions, context_of(base)).scores]


def compare_choice(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """One row for each kind of question: times of alternating runs, ratios, and what is equal."""
    records, examples = read_questions(options.data, options.items)
    base = load(options, folder)
    tasks = local_tasks(folder, records, examples)
    results: list[dict[str, Any]] = []
    for kind, shots in KINDS:
        if f"{kind}-{shots}" not in options.kinds:
            continue
        solved = examples[:shots]

        def ask_ours(kind: str = kind, solved: Sequence[Any] = solved) -> list[list[float]]:
            return ours(base, records, solved, TEMPLATES[kind])

        contenders: dict[str, Callable[[], list[list[float]]]] = {"ours": ask_ours}
        for batch in options.batches:

            def ask_them(kind: str = kind, shots: int = shots, batch: int = batch) -> list[list[float]]:
                return theirs(base.model, base.tokenizer, tasks[f"local_{kind}"], shots, batch)

            contenders[f"lm-eval, batch {batch}"] = ask_them
        result, scores = alternating_runs(f"{kind}, {shots}-shot", contenders, options.rounds)
        for who, own in scores.items():
            pairs = list(zip(own, scores["ours"], strict=True))
            result[who]["same"] = sum(a.index(max(a)) == b.index(max(b)) for a, b in pairs)
            result[who]["largest_difference"] = max(abs(x - y) for a, b in pairs for x, y in zip(a, b, strict=True))
        results.append(result)
    return results


def compare_writing(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Greedy continuations: times of alternating runs, ratios, and how many equal those of decoding one by one."""
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from lora_med.models.generation import before_end, greedy, stop_ids

    texts = [record.question for record in read_questions(options.data, WRITTEN)[0]]
    base = load(options, folder)
    model, tokenizer = base.model, base.tokenizer
    prompts = [tokenizer(text).input_ids for text in texts]
    ends = stop_ids(model, tokenizer)
    questions = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": ends, "pad_token_id": ends[0]}

    def read(tokens: Sequence[Sequence[int]]) -> list[str]:
        return [tokenizer.decode(ids, skip_special_tokens=True) for ids in tokens]

    def one_by_one() -> list[str]:
        with torch.inference_mode():
            rows = [model.generate(torch.tensor([prompt]), **questions)[0].tolist() for prompt in prompts]
        return read([before_end(row[len(prompt) :], ends) for row, prompt in zip(rows, prompts, strict=True)])

    contenders: dict[str, Callable[[], list[str]]] = {
        "ours": lambda: read(greedy(model, tokenizer, prompts, max_new_tokens=NEW_TOKENS)),
        "one by one": one_by_one,
    }
    for batch in options.batches:

        def ask_them(batch: int = batch) -> list[str]:
            how = {"until": [], "max_gen_toks": NEW_TOKENS, "do_sample": False}
            requests = [Instance("generate_until", {}, (text, how), index) for index, text in enumerate(texts)]
            lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch, device="cpu")
            return lm.generate_until(requests, disable_tqdm=True)

        contenders[f"lm-eval, batch {batch}"] = ask_them
    result, written = alternating_runs(f"{NEW_TOKENS} tokens each", contenders, options.rounds)
    for who, own in written.items():
        result[who]["same"] = sum(a == b for a, b in zip(own, written["one by one"], strict=True))
    return [result]


def load(options: argparse.Namespace, folder: Path) -> Any:
    """The base that was named, in float32."""
    import lora_med

    name = str(make_shape(folder / "base")) if options.base == "135m" else options.base
    return lora_med.load_base(name, quantization="none", dtype="float32")


def alternating_runs(
    kind: str, contenders: dict[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row with the medians, the range and the ratio to ours of each contender, and the last result of each."""
    runs: dict[str, list[tuple[float, float]]] = {}
    results: dict[str, Any] = {}
    for _ in range(rounds):
        for who, action in contenders.items():
            results[who], wall, cpu = timed(action)
            runs.setdefault(who, []).append((wall, cpu))
    medians = {who: [statistics.median(column) for column in zip(*pairs, strict=True)] for who, pairs in runs.items()}
    result: dict[str, Any] = {"kind": kind, "items": len(results["ours"])}
    for who, (wall, cpu) in medians.items():
        cpu_seconds = [cpu_s for _, cpu_s in runs[who]]
        spread = [min(cpu_seconds), max(cpu_seconds)]
        result[who] = {"wall_s": wall, "cpu_s": cpu, "cpu_range_s": spread, "ratio_cpu": cpu / medians["ours"][1]}
    return result, results


def show(rows: Sequence[dict[str, Any]]) -> None:
    """The table, in Markdown."""
    print("| questions | who | wall s | CPU s (range) | times our CPU | same answer | largest difference |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        for who in [name for name in row if name not in ("kind", "items")]:
            cells = row[who]
            difference = f"{cells['largest_difference']:.1e}" if "largest_difference" in cells else "–"
            low, high = cells["cpu_range_s"]
            print(
                f"| {row['kind']} | {who} | {cells['wall_s']:.2f} | {cells['cpu_s']:.2f} ({low:.2f}–{high:.2f}) | "
                f"{cells['ratio_cpu']:.2f} | {cells['same']} of {row['items']} | {difference} |"
            )


TASKS = {"choice": compare_choice, "writing": compare_writing}


def main() -> None:
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=TASKS, nargs="+", default=list(TASKS))
    parser.add_argument("--base", default="micro", help="a local base, micro, or 135m")
    parser.add_argument("--data", type=Path, default=DATA, help="MedMCQA's dev.json")
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES), help="of lm-eval")
    parser.add_argument("--kinds", nargs="+", default=[f"{kind}-{shots}" for kind, shots in KINDS])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    import torch

    try:
        import lm_eval
    except ImportError:
        sys.exit("lm-eval is not installed: pip install lm-eval==0.4.13")
    torch.set_num_threads(1)
    for name in ("lm_eval", "lm-eval", "datasets", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    about = (
        f"{platform.machine()}, torch {torch.__version__}, lm-eval {lm_eval.__version__}, one thread, {options.base}"
    )
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for task in options.task for row in TASKS[task](options, Path(folder))]
    if options.json:
        print(json.dumps({"about": about, "rows": rows}))
    else:
        print(f"{about}\n")
        show(rows)


if __name__ == "__main__":
    main()

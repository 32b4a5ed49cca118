"""python benchmarks/study_small.py --data data [--out runs/study-small]: one real task from base to answer, in minutes.

The whole path on a real language model, for a newcomer: SmolLM2-135M-Instruct (`lora-med base get smollm2`) learns for
one epoch to put a consumer's letter into one question (MeQSum), `lora-med eval` compares it with its base on letters
that it has not seen, and `lora-med serve` answers a letter of ours with it. The settings are those that ship
(smollm2_question_summary), but for one epoch and fewer held-out items than benchmarks/study.py takes. Each step is a
process of its own; one that is done is not run again. The script prints a table and writes it to table.md in `--out`.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from measure import machine
from study import PROGRAM, STORE, Task, carry_out, own_steps

from lora_med.data.record import Pair
from lora_med.evaluation.sentences import number, signed, span
from lora_med.metrics.significance import Interval
from lora_med.prompts.render import render

NAME, SEED, ITEMS = "question_summary", 42, 60
TASK = Task(
    "smollm2_question_summary",
    "sft_task",
    ("meqsum",),
    settings=("train.num_train_epochs=1",),
    options=("--task", "meqsum", "--max-items", str(ITEMS)),
    peer=False,
)
LETTER = (
    "My father is 71 and takes warfarin for his heart. Last week his dentist told him that one tooth has to come out. "
    "He is afraid of bleeding, and we do not know whether he has to stop the tablets before. Who decides that? "
    "Thank you for your help."
)


def ask(out: Path) -> dict[str, Any]:
    """The adapter's answer to a letter by `lora-med serve`, with what it took and what `serve verify` says of it."""
    adapter, saved = f"{NAME}-{SEED}", out / "answer.json"
    (row,) = render([Pair("letter", "letter", "meqsum", LETTER, "")], NAME)  # the adapter's own template
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [str(PROGRAM), "serve", "--adapter", adapter, "--store", str(out / STORE), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            ready = json.loads((server.stdout.readline() if server.stdout else "") or "{}")
            if "url" not in ready:
                raise SystemExit(f"the server ended with {server.wait()}: {' '.join(command)}")
            fields = {"model": adapter, "prompt": row.prompt, "max_tokens": 48, "stop": ["\n"]}
            body = json.dumps(fields).encode()
            request = Request(f"{ready['url']}/v1/completions", body, {"Content-Type": "application/json"})
            with urlopen(request, timeout=600) as response:
                saved.write_bytes(response.read())
        finally:
            server.send_signal(signal.SIGTERM)
        if server.wait():
            raise SystemExit(f"the server ended with {server.returncode} after SIGTERM")
    verify = [str(PROGRAM), "serve", "verify", str(saved), "--store", str(out / STORE)]
    verified = subprocess.run(verify, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "name": f"{NAME}-answer",
        "seconds": time.perf_counter() - started,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "text": json.loads(saved.read_bytes())["choices"][0]["text"].strip(),
        "verified": verified,
    }


def table(out: Path, results: Sequence[Mapping[str, Any]]) -> str:
    """The page: what each step took, what the report says, and the answer."""
    lines = ["# One real task, from the base to an answer", "", f"{machine()}.", ""]
    lines += ["| step | seconds | CPU seconds | peak memory |", "|---|---|---|---|"]
    for result in results:
        peak = f"{result['peak_mb']:,} MB" if "peak_mb" in result else ""
        lines.append(f"| {result['name']} | {result['seconds']:,.0f} | {result['cpu_seconds']:,.0f} | {peak} |")
    report = json.loads((out / "reports" / NAME / "report.json").read_text(encoding="utf-8"))
    (evaluation,) = report["evaluations"]
    base, adapter = evaluation["subjects"]
    lines += ["", f"{evaluation['items']} held-out letters:", ""]
    lines += ["| measure | base | adapter | difference | verdict |", "|---|---|---|---|---|"]
    for measure, change in adapter["changes"].items():
        interval = span(Interval(change["low"], change["high"], change["method"]), sign=True)
        values = f"{number(base['values'][measure]['value'])} | {number(adapter['values'][measure]['value'])}"
        lines.append(f"| {measure} | {values} | {signed(change['difference'])} [{interval}] | {change['verdict']} |")
    answer = results[-1]
    lines += ["", f"> {LETTER}", "", f"The adapter asks: **{answer['text']}**", "", "`lora-med serve verify` says:"]
    return "\n".join([*lines, "", "```", answer["verified"], "```", ""])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data files")
    parser.add_argument("--out", type=Path, default=Path("runs/study-small"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    results = []
    for step in own_steps(NAME, TASK, options):
        if not step.result.is_file():
            print(f"{time.strftime('%H:%M:%S')} {step.name}", flush=True)
            step.result.write_text(json.dumps(carry_out(step), indent=1) + "\n", encoding="utf-8")
        results.append(json.loads(step.result.read_text(encoding="utf-8")))
    text = table(options.out, [*results, ask(options.out)])
    (options.out / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

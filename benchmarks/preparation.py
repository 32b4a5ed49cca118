"""python benchmarks/preparation.py [--records 20000 120000] [--only-run 1000000 --beside-trl]: rows, ours and TRL's.

The corpus is that of benchmarks/scale.py. All arms take the same texts, the embedded base's tokenizer, max_length 1024
and packing; each is a process of its own. `memory` is lora_med with its rows in memory, as an adapter trained on a list
of documents still has them. `disk` is what a run does: rows on disk, by one or two processes. The process that writes
takes a core too, so `one core` is one process with its children on a single core. `trl` is SFTTrainer's own
preparation, with `dataset_num_proc` one or two. CPU seconds include all processes and leave imports out, which are
given beside them. Correctness check: `memory` and `disk` have the same digest of rows.

`run` is a training process, from `open_data` to the rows and the first batches, at a first and a second start. The last
two columns are what the process's memory grows by in that part: its peak, and the pages that it shares with nobody. An
arm's opening is reading, splitting and comparing the records; TRL does not do that.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scale import REAL, SAMPLE, make_corpus

COMMON = """
import json, os, resource, sys, time
from pathlib import Path
texts, work, processes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
report, length = {}, 1024
def cpu():
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1000
def private():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1000
def lap(name):
    now = time.perf_counter(), cpu(), peak(), private()
    report[name] = dict(zip(("wall", "cpu", "peak", "private"), (a - b for a, b in zip(now, lap.before))))
    lap.before = time.perf_counter(), cpu(), peak(), private()
lap.before = time.perf_counter(), 0.0, 0.0, 0.0
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
def settings(*more):
    from lora_med.config.parse import parse
    return parse(None, [
        "data.source=pubmed", f"data.paths=[{texts}]", "train.packing=true", f"train.max_length={length}",
        "train.max_steps=1", f"train.output_dir={work / 'run'}", f"adapter.store={work / 'adapters'}",
        "model.base=micro", "model.dtype=float32", *more,
    ])
"""

KIND = """
from lora_med.training.preparation.row_kinds import TextRows
def kind_of(tokenizer, stops):
    return TextRows(
        template="text", tokenizer=tokenizer, max_length=length, too_long=None, assistant_turns="last", skip_bad=False,
        allow_rows_dropped=0.0, stops=frozenset(stops), begin=tokenizer.bos_token_id, access="open",
    )
"""

ARMS = {
    "texts": COMMON
    + """
import pyarrow
from lora_med.prompts.render import render
from lora_med.training.preparation.opened_corpus import Opening, open_and_write
(work / "texts").mkdir(exist_ok=True)
records = open_and_write(Opening(settings().data, None, work / "texts" / "corpus", 0))["train"]
schema, block = pyarrow.schema({"text": pyarrow.string()}), []
with pyarrow.OSFile(str(work / "texts" / "texts.arrow"), "wb") as file, pyarrow.ipc.new_stream(file, schema) as writer:
    for row in render(records, "text"):
        block.append(row.completion)
        if len(block) == 1000:
            writer.write_batch(pyarrow.record_batch({"text": block}))
            block = []
    if block:
        writer.write_batch(pyarrow.record_batch({"text": block}))
lap("rows")
""",
    "memory": COMMON
    + """
from lora_med.data.corpus import open_corpus
from lora_med.models.base import load_base
from lora_med.training.rows.documents import read_documents
from lora_med.training.rows.training_rows import training_rows
given = settings()
base = load_base("micro", dtype="float32")
lap("start")
corpus = open_corpus(given.data)
lap("open")
checked = read_documents(corpus.train, corpus.templates, base, given.train, access="open")
rows = training_rows(checked.documents, given.train)
report["digest"] = rows.digest()
lap("rows")
""",
    "disk": COMMON
    + """
sys.modules["torch"] = None
"""
    + KIND
    + """
from lora_med.models.files.resolve import resolve_base
from lora_med.models.tokenizer import load_tokenizer
from lora_med.training.preparation.opened_corpus import Opening, open_and_write
from lora_med.training.preparation.row_files import RowFile, write_row_file
tokenizer, _ = load_tokenizer(resolve_base("micro", None)[0])
given = settings()
lap("start")
(work / "prepared").mkdir(exist_ok=True)
records = open_and_write(Opening(given.data, None, work / "prepared" / "corpus", 0))
lap("open")
path, kind = work / "prepared" / "rows", kind_of(tokenizer, [tokenizer.eos_token_id])
write_row_file(records["train"], RowFile(path, kind, "training", True, False), processes)
lap("rows")
report["digest"] = json.loads(path.with_name("rows.rows.json").read_text())["rows"]
report["mb"] = path.with_name("rows.rows.arrow").stat().st_size / 1e6
""",
    "trl": COMMON
    + """
import logging, types
import datasets
from trl import SFTConfig, SFTTrainer
from lora_med.models.files.resolve import resolve_base
from lora_med.models.tokenizer import load_tokenizer
datasets.disable_progress_bars()
logging.disable(logging.WARNING)
tokenizer, _ = load_tokenizer(resolve_base("micro", None)[0])
arguments = SFTConfig(
    output_dir=str(work / "trl"), use_cpu=True, bf16=False, report_to="none", max_length=length, packing=True,
    dataset_num_proc=processes,
)
stub = types.SimpleNamespace(_tokenizer=tokenizer, completion_only_loss=False, chat_template=None)
texts_on_disk = datasets.Dataset.from_file(str(work / "texts" / "texts.arrow"))
lap("start")
prepared = SFTTrainer._prepare_dataset(stub, texts_on_disk, tokenizer, arguments, True, None, "train")
lap("rows")
report["rows_made"] = len(prepared)
for start in range(0, 80, 4):
    prepared[start : start + 4]
lap("batches")
for path in (work / "texts").glob("cache-*"):
    path.unlink()
""",
    "run": COMMON
    + """
import torch, trl, peft
from lora_med.workflows.train import open_data
torch.set_num_threads(1)
lap("start")
with open_data(settings(), command=["benchmark"]) as data:
    lap("open")
    loaded = data.load_base()
    lap("base")
    trainable = loaded.attach()
    rows = trainable.rows.training.rows
    for start in range(0, 80, 4):
        rows[start : start + 4]
    lap("rows")
    report["digest"] = trainable.rows.training.digest
""",
}


def run(arm: str, *arguments: str | int | Path, one_core: bool = False) -> dict[str, Any]:
    """The report of one process; with `one_core` it and its children have one core."""
    command = [sys.executable, "-c", ARMS[arm], *map(str, arguments)]
    if one_core:
        command = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0))), *command]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(arguments[1]) + "/cache"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode or "report" not in ARMS[arm]:
        raise SystemExit(result.stderr[-3000:])
    return json.loads(result.stdout.splitlines()[-1])


for name in ARMS:
    ARMS[name] += "\nprint(json.dumps(report))\n"


def line(count: int, arm: str, processes: int | str, reports: list[dict[str, Any]], part: str = "rows") -> None:
    """Print medians, and the range of the CPU seconds."""
    figures = {name: [report[part][name] for report in reports] for name in ("cpu", "wall", "peak", "private")}
    cpu, wall, peak, private = (statistics.median(values) for values in figures.values())
    spread = f"({min(figures['cpu']):.1f} to {max(figures['cpu']):.1f})"
    start = statistics.median(report["start"]["cpu"] for report in reports) if "start" in reports[0] else 0.0
    print(
        f"| {count:,} | {arm} | {processes} | {cpu:.1f} {spread} | {wall:.1f} | {start:.1f} | {peak:.0f} | "
        f"{private:.0f} |",
        flush=True,
    )


def compare(count: int, rounds: int, texts: Path, work: Path) -> None:
    """Print the lines of one size."""
    reports: dict[tuple[str, int], list[dict[str, Any]]] = {}
    on_one_core = []
    run("texts", texts, work, 1)
    for _ in range(rounds):
        for arm, processes in (("memory", 1), ("disk", 1), ("disk", 2), ("trl", 1), ("trl", 2)):
            reports.setdefault((arm, processes), []).append(run(arm, texts, work, processes))
        on_one_core.append(run("disk", texts, work, 1, one_core=True))
    for (arm, processes), found in reports.items():
        line(count, arm, processes, found)
    line(count, "disk, one core", 1, on_one_core)
    for arm in ("memory", "disk"):
        line(count, f"{arm}, opening", 1, reports[arm, 1], "open")
    digests = {report["digest"] for (arm, _), found in reports.items() if arm != "trl" for report in found}
    print(f"rows alike: {len(digests) == 1}; {reports['disk', 1][0]['mb']:.0f} MB on disk", flush=True)
    digests |= runs(count, texts, work)
    print(f"rows of the run alike: {len(digests) == 1}", flush=True)


def runs(count: int, texts: Path, work: Path) -> set[str]:
    """Print the lines of a run's first and second start; the digests of their rows."""
    digests = set()
    for start in ("first", "second"):
        report = run("run", texts, work, 2)
        digests.add(report["digest"])
        line(count, f"run, {start} start", "as many as cores", [report])
        line(count, f"run, {start} start, opening", "as many as cores", [report], "open")
    return digests


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, nargs="*", default=[20_000, 120_000])
    parser.add_argument("--only-run", type=int, nargs="*", default=[], help="sizes of which only a run is measured")
    parser.add_argument("--beside-trl", action="store_true", help="of those too, TRL's preparation by two processes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, help="where corpus and rows are; default: TMPDIR")
    options = parser.parse_args()
    source = options.data / REAL if (options.data / REAL).is_file() else SAMPLE
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print("| records | arm | processes | CPU seconds (range) | wall | imports, CPU | peak, +MB | private, +MB |")
    print("|---|---|---|---|---|---|---|---|")
    for count in [*options.records, *options.only_run]:
        with tempfile.TemporaryDirectory(dir=options.work) as work:
            texts = Path(work) / "corpus"
            texts.mkdir()
            begun = time.perf_counter()
            make_corpus(source, count, texts)
            if count in options.records:
                compare(count, options.rounds, texts, Path(work))
            else:
                if options.beside_trl:
                    run("texts", texts, Path(work), 1)
                    line(count, "trl", 2, [run("trl", texts, Path(work), 2)])
                print(f"rows of both starts alike: {len(runs(count, texts, Path(work))) == 1}", flush=True)
            print(f"{count:,} took {time.perf_counter() - begun:.0f} s; load {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()

"""python benchmarks/scale.py [--records 30000 120000] [--data FOLDER] [--work FOLDER]: corpora larger than memory.

The corpus is made of the real PubMed records in FOLDER (default ../shared/data, else the sample that ships), repeated
under new PMIDs, the words of title and abstract shuffled. One record in twenty is the one before it with one word
changed: a near-duplicate. Each arm is a process of its own. `read` passes over the records, streamed. `memory` and
`disk` read, split by group and look for leaks and near-duplicates, with what they compare in memory or in DuckDB. Their
results are compared. `--signatures N` leaves reading out: N random signatures and facts are compared on disk, of which
one in twenty is nearly another's. The peak is that of the process (VmHWM).

`--pipeline` takes the whole way that a run takes, from files to packed rows of tokens: scans, splits and shards of a
first run, of a second one, and of one with another file of 30,000 records. CPU time includes the worker processes,
whose peaks are added up. `--one` scans with one process first, to compare.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REAL = Path("pubmed_xml/pubmed20n1015.xml.gz")
SAMPLE = HERE.parent / "lora_med" / "assets" / "sample" / "pubmed_sample.xml.gz"
PER_FILE = 30_000
COPY_EVERY = 20
ALL_OF_PUBMED = 38_000_000
TEXT = re.compile(rb"(<(?:ArticleTitle|AbstractText)[^>]*>)([^<]*)(<)")
PMID = re.compile(rb'<PMID Version="\d+">\d+</PMID>')
ARMS = ("read", "memory", "disk")

CODE = """
import hashlib, json, sys, tempfile, time
from pathlib import Path
from lora_med.data.catalog import SOURCES
from lora_med.data.outcome import ReadOptions
from lora_med.data.reading import read_records
from lora_med.data.splitting.leakage import Rules, decontaminate
from lora_med.data.splitting.splits import split_of_group
arm, folder, tempfile.tempdir = sys.argv[1:]
reading = read_records(SOURCES["pubmed"], sorted(Path(folder).glob("*.xml.gz")), ReadOptions(streaming=True))
report, started, cpu = {}, time.perf_counter(), time.process_time()
if arm == "read":
    report["records"] = sum(1 for _ in reading)
else:
    assigned = ((0, split_of_group(record.group, 42, 0.05, 0.05), record) for record in reading)
    found = decontaminate(assigned, Rules("error", 0.8), frozenset(), held=0 if arm == "disk" else 10**12)
    result = [sorted(found.removed.items()), sorted(found.moved.items()), found.sizes, found.clusters]
    report["result"] = hashlib.sha256(repr(result).encode()).hexdigest()
    report |= {"records": sum(found.sizes.values()), "clusters": found.clusters, "moved": len(found.moved)}
report |= {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
report["peak_mb"] = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1000
print(json.dumps(report))
"""


PIPELINE = """
import json, resource, sys, tempfile, threading, time
from pathlib import Path
import psutil
from lora_med.config.data_settings import DataSettings
from lora_med.data.corpus import open_corpus
from lora_med.data.scanning import scan_cache, workers
folder, work, processes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
tempfile.tempdir = str(work)
workers.MOST_PROCESSES = processes
peaks, report = {}, {"processes": processes}
def high(process):
    return int(Path(f"/proc/{process}/status").read_text().split("VmHWM:")[1].split()[0]) / 1000
def watch():
    while True:
        for child in psutil.Process().children():
            try:
                peaks[child.pid] = max(peaks.get(child.pid, 0), high(child.pid))
            except (OSError, IndexError):
                pass
        time.sleep(0.2)
threading.Thread(target=watch, daemon=True).start()
def measured(name, begun):
    own, others = time.process_time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    report[name] = {
        "seconds": time.perf_counter() - begun[0],
        "cpu": own + others.ru_utime + others.ru_stime - begun[1],
        "peak_mb": high("self"),
        "workers_mb": sum(sorted(peaks.values())[-processes:]),
    }
    peaks.clear()
    return time.perf_counter(), own + others.ru_utime + others.ru_stime
begun = time.perf_counter(), time.process_time()
names = [str(path) for path in sorted(folder.glob("*.xml.gz"))]
corpus = open_corpus(DataSettings(source="pubmed", paths=names, streaming=True))
separation = corpus.decontamination[0]
report |= {"records": corpus.tally.kept, "train": len(corpus.train), "clusters": separation["near_duplicate_clusters"]}
report["moved"] = separation["groups_moved"]
begun = measured("split", begun)
if "tokens" in sys.argv:
    from lora_med.models.files.resolve import resolve_base
    from lora_med.models.tokenizer import load_tokenizer
    from lora_med.training.rows.batches import Stream
    from lora_med.training.rows.token_shards import ShardedDocuments, Tokenizing
    tokenizer, _ = load_tokenizer(resolve_base("micro", None)[0])
    how = Tokenizing("text", tokenizer, 1024, "chunk_by_section", "last", "open")
    begun = measured("import", begun)
    documents = ShardedDocuments(corpus.train.parts, how, work / "run", ["micro"])
    class Once:
        left = 1
        def __iter__(self):
            self.left -= 1
            return iter(documents if self.left == 0 else ())
    report |= {"rows": 0, "tokens": 0}
    for row in Stream(Once(), 1024, True):
        report["rows"] += 1
        report["tokens"] += len(row["input_ids"])
    measured("pack", begun)
for name, place in (("scans", scan_cache.cache_home()), ("shards", work / "run")):
    report[name] = sum(path.stat().st_size for path in place.rglob("*.arrow")) / 1e6
print(json.dumps(report))
"""

COMPARE = """
import json, sys, tempfile, time
from pathlib import Path
import numpy as np
from lora_med.data.splitting.on_disk.facts import Facts
from lora_med.data.splitting.scanned import TRAINING_ORDER, Scanned, ScannedBatch
count, tempfile.tempdir = int(sys.argv[1]), sys.argv[2]
draw = np.random.default_rng(42)
def batches():
    for start in range(0, count, 4096):
        size = min(4096, count - start)
        marks = draw.integers(0, 2**32, (size, 128), dtype=np.uint32)
        marks[19::20, :120] = marks[18::20, :120][: len(marks[19::20])]
        digests = draw.integers(0, 2**64, size, dtype=np.uint64).tolist()
        numbers = range(start, start + size)
        yield ScannedBatch([], [
            Scanned(0, TRAINING_ORDER[max(0, n % 20 - 17)], f"pmid:{n}", f"pmid:{n}", digest)
            for n, digest in zip(numbers, digests)
        ], marks)
started, cpu = time.perf_counter(), time.process_time()
facts = Facts(batches())
report = {"written": time.process_time() - cpu, "clusters": facts.find_near_duplicates(0.8)}
assert not facts.find_leaks(frozenset(), 5)
largest, groups = facts.find_ties()
report |= {"records": sum(facts.sizes().values())}
report["disk_mb"] = sum(path.stat().st_size for path in facts._own.path.rglob("*") if path.is_file()) / 1e6
removed, moved = facts.tables()
report |= {"moved": len(moved), "seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
status = Path("/proc/self/status").read_text()
report["peak_mb"] = int(status.split("VmHWM:")[1].split()[0]) / 1000
print(json.dumps(report))
"""


def records(source: Path, count: int) -> Iterator[bytes]:
    """PubMed articles in XML: the header of the file first, then `count` articles under PMIDs of their own."""
    raw = gzip.decompress(source.read_bytes())
    start, end = raw.index(b"<PubmedArticle>"), raw.rindex(b"</PubmedArticle>") + len(b"</PubmedArticle>")
    yield raw[:start]
    articles = re.findall(rb"<PubmedArticle>.*?</PubmedArticle>", raw[start:end], re.DOTALL)
    draw, article = random.Random(42), b""

    def shuffled(match: re.Match[bytes]) -> bytes:
        words = match[2].split()
        draw.shuffle(words)
        return match[1] + b" ".join(words) + match[3]

    for number in range(count):
        if number % COPY_EVERY == COPY_EVERY - 1:
            article = TEXT.sub(lambda match: match[1] + b"Again " + match[2] + match[3], article, count=1)
        else:
            article = TEXT.sub(shuffled, articles[number % len(articles)])
        article = PMID.sub(b'<PMID Version="1">%d</PMID>' % (40_000_000 + number), article, count=1)
        yield article


def make_corpus(source: Path, count: int, folder: Path) -> float:
    """Write files of 30,000 records; returns their size in MB before compression."""
    size, made = 0, records(source, count)
    header = next(made)
    for number in range(0, count, PER_FILE):
        with gzip.open(folder / f"pubmed99n{number // PER_FILE + 1:04}.xml.gz", "wb", compresslevel=1) as file:
            size += file.write(header)
            for _ in range(min(PER_FILE, count - number)):
                size += file.write(next(made) + b"\n")
            size += file.write(b"</PubmedArticleSet>\n")
    return size / 1e6


def pipeline(count: int, source: Path, work: Path, *, one: bool) -> None:
    """Print the figures of the whole way for a corpus of `count` records."""
    folder = work / "corpus"
    folder.mkdir()
    made = time.perf_counter()
    size = make_corpus(source, count + PER_FILE, folder)
    print(f"{count:,} and {PER_FILE:,} records made, {size:,.0f} MB, in {time.perf_counter() - made:.0f} s", flush=True)
    newest = sorted(folder.iterdir())[-1]
    aside = newest.rename(work / newest.name)
    runs = [("one process, splits only", 1, False)] if one else []
    for name, processes, tokens in [*runs, ("first", 4, True), ("second", 4, True), ("with a new file", 4, True)]:
        if name == "with a new file":
            aside.rename(newest)
        os.environ["XDG_CACHE_HOME"] = str(work / ("cache" if tokens else "cache of one"))
        report: dict[str, Any] = run(PIPELINE, folder, work, processes, *(["tokens"] if tokens else []))
        for part in ("split", "import", "pack"):
            if part in report:
                figures = ", ".join(f"{key} {value:.1f}" for key, value in report.pop(part).items())
                print(f"{count:,} | {name} | {part}: {figures}", flush=True)
        print(f"{count:,} | {name} | {json.dumps(report)}", flush=True)


def run(code: str, *arguments: str | int | Path) -> dict[str, Any]:
    """The report of one process."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if result.returncode:
        raise SystemExit(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def shown(report: dict[str, float]) -> list[str]:
    """The cells of a row of the table."""
    figures = [f"{report['seconds']:.1f}", f"{report['cpu']:.1f}", f"{report['peak_mb']:.0f} MB"]
    return figures + [str(report.get(name, "")) for name in ("clusters", "moved")]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, nargs="*", default=[30_000, 120_000])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, help="where the corpus and the files of DuckDB are; default: TMPDIR")
    parser.add_argument("--signatures", type=int, nargs="*", default=[], help="compare so many random signatures only")
    parser.add_argument("--pipeline", type=int, nargs="*", default=[], help="take so many records to packed rows")
    parser.add_argument("--one", action="store_true", help="with --pipeline: scan with one process too")
    options = parser.parse_args()
    source = options.data / REAL if (options.data / REAL).is_file() else SAMPLE
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for count in options.pipeline:
        with tempfile.TemporaryDirectory(dir=options.work) as work:
            pipeline(count, source, Path(work), one=options.one)
    print("| records | arm | wall | CPU seconds | peak memory | clusters | groups moved |")
    print("|---|---|---|---|---|---|---|")
    for count in options.signatures:
        with tempfile.TemporaryDirectory(dir=options.work) as work:
            print(f"| {count:,} | signatures | {' | '.join(shown(run(COMPARE, count, work)))} |", flush=True)
    cpu_a_record: dict[str, float] = {}
    for count in options.records:
        with tempfile.TemporaryDirectory(dir=options.work) as work:
            folder, scratch = Path(work) / "corpus", Path(work) / "scratch"
            folder.mkdir()
            scratch.mkdir()
            make_corpus(source, count, folder)
            results = set()
            for arm in options.arms:
                report = run(CODE, arm, folder, scratch)
                results |= {report["result"]} if "result" in report else set()
                cpu_a_record[arm] = report["cpu"] / count
                print(f"| {count:,} | {arm} | {' | '.join(shown(report))} |", flush=True)
            print(f"{len(results)} different results" if len(results) > 1 else "equal results", flush=True)
    if not cpu_a_record:
        return
    hours = ", ".join(f"{arm} {seconds * ALL_OF_PUBMED / 3600:.1f}" for arm, seconds in cpu_a_record.items())
    print(f"\nCPU hours for {ALL_OF_PUBMED:,} records, if the last row's CPU time a record stays: {hours}")


if __name__ == "__main__":
    main()

"""python benchmarks/ingest.py [--data FOLDER] [--rounds 5]: PubMed read, pubmed_parser beside it, by turns.

A file of 30,000 records is made of the real ones in FOLDER (default ../shared/data, else the sample that ships), each
under a new PMID. The peer runs in an environment of its own, benchmarks/peers/pubmed_parser, which this makes. Beside
the times stands the check that both extract the same titles and the same sections of every abstract.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).parent
REAL = Path("pubmed_xml/pubmed20n1015.xml.gz")
SAMPLE = HERE.parent / "lora_med" / "assets" / "sample" / "pubmed_sample.xml.gz"
RECORDS = 30_000
PEER = HERE / "peers" / "pubmed_parser"

OURS = """
import json, sys, time
from pathlib import Path
from lora_med.data.outcome import Drop, ReadOptions
from lora_med.data.sources import pubmed
begun, cpu = time.perf_counter(), time.process_time()
count, texts = 0, {}
keep = len(sys.argv) > 2
for one in pubmed.read([Path(sys.argv[1])], ReadOptions()):
    count += 1
    if keep and not isinstance(one, Drop):
        texts[one.group] = [one.title, [part.text for part in one.sections]]
found = {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu, "records": count}
found["peak_mb"] = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1000
if keep:
    Path(sys.argv[2]).write_text(json.dumps(texts))
print(json.dumps(found))
"""
THEIRS = """
import json, sys, time
from pathlib import Path
import pubmed_parser
begun, cpu = time.perf_counter(), time.process_time()
count, texts = 0, {}
keep = len(sys.argv) > 2
for one in pubmed_parser.parse_medline_xml(sys.argv[1]):
    count += 1
    if keep:
        texts[one["pmid"]] = [one["title"], one["abstract"]]
found = {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu, "records": count}
found["peak_mb"] = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1000
if keep:
    Path(sys.argv[2]).write_text(json.dumps(texts))
print(json.dumps(found))
"""


def make_file(source: Path, target: Path) -> float:
    """Write the file; returns its size in MB before compression."""
    raw = gzip.decompress(source.read_bytes())
    start, end = raw.index(b"<PubmedArticle>"), raw.rindex(b"</PubmedArticle>") + len(b"</PubmedArticle>")
    articles = re.findall(rb"<PubmedArticle>.*?</PubmedArticle>", raw[start:end], re.DOTALL)
    pmid = re.compile(rb'<PMID Version="\d+">\d+</PMID>')
    parts = [
        pmid.sub(b'<PMID Version="1">%d</PMID>' % (40_000_000 + number), articles[number % len(articles)], count=1)
        for number in range(RECORDS)
    ]
    content = raw[:start] + b"\n".join(parts) + b"\n</PubmedArticleSet>\n"
    target.write_bytes(gzip.compress(content, 6))
    return len(content) / 1e6


def peer_python() -> Path:
    """The interpreter of the peer's own environment, made if it is not there."""
    python = PEER / "bin" / "python"
    if not python.is_file():
        venv.create(PEER, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "pubmed-parser==0.5.1"], check=True)
    return python


def run(python: Path | str, code: str, *arguments: str) -> dict[str, float]:
    """What one process says of itself."""
    done = subprocess.run([str(python), "-c", code, *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def squeezed(text: str) -> str:
    """A text without white space, which the two lay out differently."""
    return re.sub(r"\s+", "", text)


def differences(ours: Path, theirs: Path) -> tuple[int, int]:
    """How many articles both read, and in how many a title or a section of ours is not in the peer's text."""
    mine, other = json.loads(ours.read_text()), json.loads(theirs.read_text())
    wrong = 0
    for pmid, (title, sections) in mine.items():
        peer_title, abstract = (squeezed(part or "") for part in other[pmid])
        same_title = squeezed(title).rstrip(".") in peer_title
        wrong += not (same_title and all(squeezed(section) in abstract for section in sections))
    return len(mine), wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    source = options.data / REAL if (options.data / REAL).is_file() else SAMPLE
    peer = peer_python()
    with tempfile.TemporaryDirectory() as folder:
        path, ours, theirs = (Path(folder) / name for name in ("pubmed99n0001.xml.gz", "ours.json", "theirs.json"))
        size = make_file(source, path)
        rows: dict[str, list[dict[str, float]]] = {"lora_med": [], "pubmed_parser": []}
        for _ in range(options.rounds):
            rows["lora_med"].append(run(sys.executable, OURS, str(path)))
            rows["pubmed_parser"].append(run(peer, THEIRS, str(path)))
        run(sys.executable, OURS, str(path), str(ours))
        run(peer, THEIRS, str(path), str(theirs))
        read, wrong = differences(ours, theirs)
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}; {source.name} x {RECORDS:,}"
    )
    print(f"{RECORDS:,} records, {size:.0f} MB of XML; {options.rounds} rounds, alternating; median (range)\n")
    print("| reader | seconds | CPU seconds | MB/s | peak memory |\n|---|---|---|---|---|")
    medians = {}
    for name, found in rows.items():
        seconds, cpu = ([row[key] for row in found] for key in ("seconds", "cpu"))
        medians[name] = statistics.median(seconds)
        print(
            f"| {name} | {medians[name]:.2f} ({min(seconds):.2f} to {max(seconds):.2f}) | {statistics.median(cpu):.2f} "
            f"| {size / medians[name]:.0f} | {max(row['peak_mb'] for row in found):.0f} MB |"
        )
    print(
        f"\n{medians['pubmed_parser'] / medians['lora_med']:.1f} times as fast. Of {read:,} articles with an abstract,"
    )
    print(f"{wrong:,} have a title or a section that the peer's text does not hold.")


if __name__ == "__main__":
    main()

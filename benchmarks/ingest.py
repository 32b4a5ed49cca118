"""python benchmarks/ingest.py [--data FOLDER] [--rounds 5]: PubMed read, pubmed_parser beside it, by turns.

A file of 30,000 records is made of the real ones in FOLDER (default ../shared/data, else the sample that ships), each
under a new PMID. The peer runs in an environment of its own, benchmarks/peers/pubmed_parser, which this makes. Beside
the times stands, for each field, in how many articles the two do not say the same. We read in two ways: in one pass,
its records held until the last is known to be the newest, or streaming, in two passes and little memory.
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
FIELDS = ("title", "abstract", "year", "journal", "languages", "publication types", "MeSH")

OURS = """
import json, sys, time
from pathlib import Path
from lora_med.data.outcome import Drop, ReadOptions
from lora_med.data.sources import pubmed
begun, cpu = time.perf_counter(), time.process_time()
count, texts = 0, {}
keep = len(sys.argv) > 2
for one in pubmed.read([Path(sys.argv[1])], ReadOptions(streaming=MODE)):
    count += 1
    if keep and not isinstance(one, Drop):
        about = one.about
        terms = ["; ".join(f"{one.ui}:{one.name}" for one in some) for some in (about.publication_types, about.mesh)]
        parts = [(part.label or "") + part.text for part in one.sections]
        abstract = "".join(parts) if len(parts) > 1 else one.sections[0].text
        year, languages = str(about.year or ""), ";".join(about.languages)
        texts[one.group] = [one.title, abstract, year, about.journal, languages, *terms]
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
        names = ("title", "abstract", "pubdate", "journal", "languages", "publication_types", "mesh_terms")
        texts[one["pmid"]] = [one[name] for name in names]
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


def within(part: str, whole: str) -> bool:
    """Whether `part` is `whole` with characters missing."""
    left = iter(whole)
    return all(letter in left for letter in part)


def differences(ours: Path, theirs: Path) -> tuple[int, dict[str, int], int]:
    """How many articles both read, for each field in how many they differ, and how often the peer's text lacks some.

    White space is set aside, and so are the full stop and the brackets that NLM adds to a title.
    """
    mine, other = json.loads(ours.read_text()), json.loads(theirs.read_text())
    wrong = dict.fromkeys(FIELDS, 0)
    lacking = 0
    for pmid, values in mine.items():
        for field, one, two in zip(FIELDS, values, other[pmid], strict=True):
            bare = "[]." if field == "title" else None
            one, two = squeezed(one).strip(bare), squeezed(two).strip(bare)
            wrong[field] += one != two
            lacking += one != two and within(two, one)
    return len(mine), wrong, lacking


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
        arms = {
            "lora_med, records held": (sys.executable, OURS.replace("MODE", "False")),
            "lora_med, streaming": (sys.executable, OURS.replace("MODE", "True")),
            "pubmed_parser": (peer, THEIRS),
        }
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
        for _ in range(options.rounds):
            for name, (python, code) in arms.items():
                rows[name].append(run(python, code, str(path)))
        run(sys.executable, OURS.replace("MODE", "False"), str(path), str(ours))
        run(peer, THEIRS, str(path), str(theirs))
        read, wrong, lacking = differences(ours, theirs)
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
    held, streaming = (medians["pubmed_parser"] / medians[name] for name in list(rows)[:2])
    print(f"\n{held:.1f} times as fast, {streaming:.1f} streaming. Of {read:,} articles with an abstract")
    print("these differ: " + ", ".join(f"{field} {count:,}" for field, count in wrong.items()))
    print(f"in {lacking:,} of these {sum(wrong.values()):,} the peer has our text with characters missing")


if __name__ == "__main__":
    main()

"""python benchmarks/ingest.py [--data FOLDER] [--rounds 5]: PubMed read by us and by pubmed_parser.

Alternating runs. A file of 30,000 records is made of the real ones in FOLDER (default ../shared/data, else the sample
that ships), each under a new PMID. The peer runs in an environment of its own, benchmarks/peers/pubmed_parser, which
this makes. For each field the output also counts the articles in which the two differ. We read in two ways. One pass
holds the records until the newest version of each is known. Streaming takes two passes and little memory.
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
started, cpu = time.perf_counter(), time.process_time()
count, texts = 0, {}
writes_texts = len(sys.argv) > 2
for record in pubmed.read([Path(sys.argv[1])], ReadOptions(streaming=MODE)):
    count += 1
    if writes_texts and not isinstance(record, Drop):
        about = record.about
        term_lists = about.publication_types, about.mesh
        terms = ["; ".join(f"{term.ui}:{term.name}" for term in term_list) for term_list in term_lists]
        sections = [(section.label or "") + section.text for section in record.sections]
        abstract = "".join(sections) if len(sections) > 1 else record.sections[0].text
        year, languages = str(about.year or ""), ";".join(about.languages)
        texts[record.group] = [record.title, abstract, year, about.journal, languages, *terms]
report = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu, "records": count}
report["peak_mb"] = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1000
if writes_texts:
    Path(sys.argv[2]).write_text(json.dumps(texts))
print(json.dumps(report))
"""
THEIRS = """
import json, sys, time
from pathlib import Path
import pubmed_parser
started, cpu = time.perf_counter(), time.process_time()
count, texts = 0, {}
writes_texts = len(sys.argv) > 2
for article in pubmed_parser.parse_medline_xml(sys.argv[1]):
    count += 1
    if writes_texts:
        names = ("title", "abstract", "pubdate", "journal", "languages", "publication_types", "mesh_terms")
        texts[article["pmid"]] = [article[name] for name in names]
report = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu, "records": count}
report["peak_mb"] = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1000
if writes_texts:
    Path(sys.argv[2]).write_text(json.dumps(texts))
print(json.dumps(report))
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
    """The interpreter of the peer's own environment, created if it does not exist."""
    python = PEER / "bin" / "python"
    if not python.is_file():
        venv.create(PEER, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "pubmed-parser==0.5.1"], check=True)
    return python


def run(python: Path | str, code: str, *arguments: str) -> dict[str, float]:
    """The report of one process."""
    result = subprocess.run([str(python), "-c", code, *arguments], capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def squeezed(text: str) -> str:
    """A text without white space, which the two lay out differently."""
    return re.sub(r"\s+", "", text)


def within(part: str, text: str) -> bool:
    """Whether `part` is `text` with characters missing."""
    remaining = iter(text)
    return all(letter in remaining for letter in part)


def differences(ours: Path, theirs: Path) -> tuple[int, dict[str, int], int]:
    """How many articles both read, for each field in how many they differ, and how often the peer's text lacks some.

    White space is ignored, and so are the full stop and the brackets that NLM adds to a title.
    """
    mine, other = json.loads(ours.read_text()), json.loads(theirs.read_text())
    wrong = dict.fromkeys(FIELDS, 0)
    lacking = 0
    for pmid, values in mine.items():
        for field, our_text, their_text in zip(FIELDS, values, other[pmid], strict=True):
            added = "[]." if field == "title" else None
            our_letters, their_letters = squeezed(our_text).strip(added), squeezed(their_text).strip(added)
            wrong[field] += our_letters != their_letters
            lacking += our_letters != their_letters and within(their_letters, our_letters)
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
    for name, reports in rows.items():
        seconds, cpu = ([report[key] for report in reports] for key in ("seconds", "cpu"))
        medians[name] = statistics.median(seconds)
        print(
            f"| {name} | {medians[name]:.2f} ({min(seconds):.2f} to {max(seconds):.2f}) | {statistics.median(cpu):.2f} "
            f"| {size / medians[name]:.0f} | {max(report['peak_mb'] for report in reports):.0f} MB |"
        )
    held, streaming = (medians["pubmed_parser"] / medians[name] for name in list(rows)[:2])
    print(f"\n{held:.1f} times as fast, {streaming:.1f} streaming. Of {read:,} articles with an abstract")
    print("these differ: " + ", ".join(f"{field} {count:,}" for field, count in wrong.items()))
    print(f"in {lacking:,} of these {sum(wrong.values()):,} the peer has our text with characters missing")


if __name__ == "__main__":
    main()

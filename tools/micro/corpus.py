"""python -m tools.micro.corpus --data ../shared/data --out runs/micro/corpus

Gather the pretraining text of the embedded base `micro` into train.jsonl and heldout.jsonl.

Read on purpose without lora_med's own readers: the base that ships must not change when a reader does. Never read:
a development or test split, any PMID of the block-lists, of PubMedQA, or of the PubMed file that docs/results.md
trains on. One document in a hundred (by hash of its identifier) is held out.
"""

import argparse
import csv
import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

RESULTS_FILE = "pubmed20n1015.xml.gz"
TAIL = re.compile(r"\s*\(ABSTRACT TRUNCATED[^)]*\)\s*$")


def clean(text: str) -> str:
    return re.sub(r"[ \t\r\f\v]+", " ", re.sub(r"\s*\n\s*", "\n", text)).strip()


def pubmed(path: Path) -> Iterator[tuple[str, str]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as handle:
        tree = etree.parse(handle, etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False))
    for citation in tree.iter("MedlineCitation"):
        pmid = citation.findtext("PMID") or ""
        article = citation.find("Article")
        if article is None or not any(node.text == "eng" for node in article.findall("Language")):
            continue
        parts = []
        for node in article.findall("Abstract/AbstractText"):
            text = TAIL.sub("", clean("".join(node.itertext())))
            label = node.get("Label")
            parts.append(f"{label}: {text}" if label and label != "UNLABELED" else text)
        title = article.find("ArticleTitle")
        heading = clean("".join(title.itertext())) if title is not None else ""
        if any(parts):
            yield f"pmid:{pmid}", heading + "\n" + "\n".join(filter(None, parts))


def medquad(path: Path) -> Iterator[tuple[str, str]]:
    root = etree.parse(path).getroot()
    for number, pair in enumerate(root.iter("QAPair")):
        question, answer = clean(pair.findtext("Question") or ""), clean(pair.findtext("Answer") or "")
        if question and answer:
            key = f"medquad:{path.parent.name}/{path.stem}"
            yield f"{key}#{number}", json.dumps([question, answer], ensure_ascii=False)


def pubtator(path: Path) -> Iterator[tuple[str, str]]:
    title = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.match(r"(\d+)\|([ta])\|(.*)", line)
        if match and match[2] == "t":
            title = match[3]
        elif match:
            yield f"pmid:{match[1]}", clean(title + "\n" + match[3])


def dialogues(path: Path, source: str, note: str) -> Iterator[tuple[str, str]]:
    with open(path, encoding="utf-8-sig", newline="") as handle:
        for number, row in enumerate(csv.DictReader(handle)):
            yield f"{path.stem}#{number}", clean(row[source]) + "\n\n" + clean(row[note])


def documents(data: Path) -> Iterator[tuple[str, str, str]]:
    """`(source, identifier, text)`; a MedQuAD text is a JSON pair of question and answer."""
    for path in sorted((data / "pubmed_xml").rglob("*.xml*")):
        if path.name != RESULTS_FILE or path.parent.name == "sample":
            yield from (("pubmed", *item) for item in pubmed(path))
    for path in sorted((data / "medquad").glob("*/*.xml")):
        yield from (("medquad", *item) for item in medquad(path))
    yield from (("bc5cdr", *item) for item in pubtator(data / "bc5cdr/CDR_TrainingSet.PubTator.txt"))
    for path in sorted((data / "ncbi_disease/original-data/train").iterdir()):
        yield from (("ncbi_disease", *item) for item in pubtator(path))
    yield from (
        ("mts_dialog", *item)
        for item in dialogues(data / "mts_dialog/MTS-Dialog-TrainingSet.csv", "dialogue", "section_text")
    )
    yield from (
        ("aci_bench", *item) for item in dialogues(data / "aci_bench/data/challenge_data/train.csv", "dialogue", "note")
    )


def excluded(data: Path) -> set[str]:
    """Identifiers that must not be learned: block-lists, development splits, PubMedQA, the file of docs/results.md."""
    pmids = {line.strip() for path in (data / "blocklists").glob("*.txt") for line in path.read_text().split()}
    pmids |= set(json.loads((data / "pubmedqa/ori_pqal_nontest500.json").read_text(encoding="utf-8")))
    identifiers = {f"pmid:{pmid}" for pmid in pmids}
    for path in (
        "bc5cdr/CDR_DevelopmentSet.PubTator.txt",
        "ncbi_disease/original-data/devel/NCBIdevelopset_corpus.txt",
    ):
        identifiers |= {identifier for identifier, _ in pubtator(data / path)}
    return identifiers | {identifier for identifier, _ in pubmed(data / "pubmed_xml" / RESULTS_FILE)}


def learnable_documents(data: Path) -> Iterator[tuple[str, str, str, str]]:
    """`(part, source, identifier, text)` of every document that may be learned from, once each."""
    banned, seen = excluded(data), set()
    for source, identifier, text in documents(data):
        digest = hashlib.sha256(text.encode()).hexdigest()
        if identifier not in banned and not seen & {identifier, digest}:
            seen |= {digest, identifier}
            group = identifier.split("#")[0]
            part = "heldout" if int(hashlib.sha256(group.encode()).hexdigest(), 16) % 100 == 0 else "train"
            yield part, source, identifier, text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/micro/corpus"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    lines: dict[str, list[str]] = {"train": [], "heldout": []}
    for part, source, identifier, text in learnable_documents(options.data):
        lines[part].append(json.dumps({"source": source, "uid": identifier, "text": text}, ensure_ascii=False))
        number, size = counts.get((part, source), (0, 0))
        counts[part, source] = (number + 1, size + len(text.encode()))
    for part, rows in lines.items():
        (options.out / f"{part}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for (part, source), (number, size) in sorted(counts.items()):
        print(f"{part:8} {source:14} {number:6} documents {size / 1e6:7.2f} MB")


if __name__ == "__main__":
    main()

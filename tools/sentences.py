"""python -m tools.sentences [PAGE...]: the length of sentences in the documentation, checked against the house style.

Prints the mean and the longest sentence of each page in words. A mean over 18, a sentence over 35 words, or a phrase of
the old dialect is a fault: it is printed with page, line and text, and the exit code is 1. `make check` runs this.

What counts: paragraphs and list items, each of which ends a sentence. A code span is one word; a link counts by its
text. Code blocks, headings, images and comments do not count. A table cell counts where it holds a sentence: a full
stop, or more words than a sentence may have.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
MOST_MEAN, MOST_WORDS = 18, 35
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tests/README.md")
DIALECT = {
    "to the bit": "bit-identical",
    "by turns": "alternating runs",
    "by heart": "dictionary baseline",
    "begin anew": "fix, retry",
    "begins anew": "starts again",
    "anew": "again",
    "says of": "reports, prints, shows",
    "tells of": "reports, prints, shows",
    "is told": "is reported",
    "are told": "are reported",
    "stands in": "is in",
    "stand beside": "is compared with",
    "stands beside": "is compared with",
    "lies in": "is in",
    "lie in": "are in",
    "bank of adapters": "adapter pool",
    "mended": "fixed",
    "mends": "fixes",
}
_FENCE = re.compile(r"^\s*(```|~~~)")
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+\.)\s+")
_CODE_SPAN, _IMAGE, _LINK = (
    re.compile(r"`[^`]+`"),
    re.compile(r"!\[[^\]]*\]\([^)]*\)"),
    re.compile(r"\[([^\]]+)\]\([^)]*\)"),
)
_END = re.compile(r"[.!?][\"'”’)\]*]*(?=\s+[\"'“‘(\[*]*[A-Z0-9`]|\s*$)")
_CELL_END = re.compile(r"[.!?][\"'”’)\]*]*(?:\s|$)")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|et al|vs|cf|Fig|No|approx)|\b[A-Z])\.$")


@dataclass(frozen=True)
class Sentence:
    """One sentence of a page, the line it starts on (from 1), and how many words it has."""

    line: int
    text: str
    words: int


@dataclass(frozen=True)
class PageLength:
    """The sentences of one page, and what is wrong with them: `(line, message)`."""

    page: str
    sentences: list[Sentence]
    faults: list[tuple[int, str]]

    @property
    def mean(self) -> float:
        """Words a sentence; 0.0 for a page without sentences."""
        return sum(sentence.words for sentence in self.sentences) / len(self.sentences) if self.sentences else 0.0

    @property
    def longest(self) -> int:
        """Words of the longest sentence."""
        return max((sentence.words for sentence in self.sentences), default=0)


def count_words(text: str) -> int:
    """Words of plain text: what blanks separate and what holds a letter or a digit."""
    return sum(any(sign.isalnum() for sign in token) for token in text.split())


def _plain(text: str, code: str) -> str:
    """Markdown without images, link targets and emphasis; each code span replaced by `code`."""
    bare = _LINK.sub(r"\1", _IMAGE.sub("", _CODE_SPAN.sub(code, text)))
    return bare.replace("**", "").replace("|", " ")


def _prose_lines(text: str) -> Iterator[tuple[int, str]]:
    """`(line number, line)` of the page; lines of code blocks and comments come as empty."""
    fenced = commented = False
    for number, line in enumerate(text.splitlines(), 1):
        if not commented and _FENCE.match(line):
            fenced = not fenced
            yield number, ""
            continue
        begins = "<!--" in line and not fenced
        yield number, "" if fenced or commented or begins else line
        commented = (commented or begins) and "-->" not in line


def _blocks(text: str) -> Iterator[list[tuple[int, str]]]:
    """Paragraphs, list items and table cells as `(line number, text)` lists."""
    block: list[tuple[int, str]] = []
    for number, line in _prose_lines(text):
        stripped = line.strip()
        starts_block = not stripped or stripped.startswith(("#", "|")) or _ITEM.match(line)
        if starts_block and block:
            yield block
            block = []
        if stripped.startswith("|"):
            for cell in re.split(r"(?<!\\)\|", stripped.strip("|")):
                plain = _plain(cell, "code")
                if _CELL_END.search(plain) or count_words(plain) > MOST_WORDS:
                    yield [(number, cell)]
        elif stripped and not stripped.startswith("#"):
            block.append((number, _ITEM.sub("", stripped).lstrip("> ")))
    if block:
        yield block


def _ends(text: str) -> Iterator[int]:
    """The offsets behind each sentence of a block."""
    for match in _END.finditer(text):
        if match.end() == len(text.rstrip()) or not _ABBREVIATION.search(text[: match.start() + 1]):
            yield match.end()


def split_sentences(text: str) -> list[Sentence]:
    """The sentences of a Markdown page in order."""
    sentences = []
    for block in _blocks(text):
        joined, starts = "", []
        for number, line in block:
            starts.append((len(joined), number))
            joined += line + " "
        masked = _CODE_SPAN.sub(lambda span: "`" + "x" * (len(span[0]) - 2) + "`", joined)
        begin = 0
        for end in [*_ends(masked), len(joined)]:
            piece = joined[begin:end]
            words = count_words(_plain(piece, "code"))
            if words:
                first = begin + len(piece) - len(piece.lstrip())
                line = max(number for offset, number in starts if offset <= first)
                sentences.append(Sentence(line, piece.strip(), words))
            begin = end
    return sentences


def find_open_fence(text: str) -> list[tuple[int, str]]:
    """`(line, message)` of a code block that never ends, and so hides the rest of the page."""
    fences = [number for number, line in enumerate(text.splitlines(), 1) if _FENCE.match(line)]
    return [(fences[-1], "a code block begins here and never ends")] if len(fences) % 2 else []


def find_dialect(text: str) -> list[tuple[int, str]]:
    """`(line, message)` of each phrase of the old dialect outside code."""
    faults = []
    for number, line in _prose_lines(text):
        plain = _plain(line, "")
        for phrase, better in DIALECT.items():
            if re.search(rf"\b{re.escape(phrase)}\b", plain, re.IGNORECASE):
                faults.append((number, f"dialect {phrase!r}; write: {better}"))
    return faults


def measure(page: str, text: str) -> PageLength:
    """The sentences of a page, and every fault in them."""
    sentences = split_sentences(text)
    faults = [
        (sentence.line, f"{sentence.words} words: {sentence.text}")
        for sentence in sentences
        if sentence.words > MOST_WORDS
    ]
    length = PageLength(page, sentences, sorted([*faults, *find_dialect(text), *find_open_fence(text)]))
    if length.mean > MOST_MEAN:
        longest = max(sentences, key=lambda sentence: sentence.words)
        length.faults.append(
            (longest.line, f"the page's mean is {length.mean:.1f} words, at most {MOST_MEAN}; longest: {longest.text}")
        )
    return length


def find_pages(root: Path) -> list[Path]:
    """The pages of a clone that are checked."""
    return [*(root / name for name in PAGES if (root / name).is_file()), *sorted((root / "docs").rglob("*.md"))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and the faults; 1 if there are any."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pages", nargs="*", type=Path, help="left out: README, CONTRIBUTING, CHANGELOG and docs/")
    chosen = parser.parse_args(arguments).pages or find_pages(ROOT)
    names = [
        str(path.resolve().relative_to(ROOT)) if path.resolve().is_relative_to(ROOT) else str(path) for path in chosen
    ]
    lengths = [measure(name, path.read_text(encoding="utf-8")) for name, path in zip(names, chosen, strict=True)]
    width = max(map(len, names))
    print(f"{'page':{width}}  sentences  mean  longest")
    for page in lengths:
        print(f"{page.page:{width}}  {len(page.sentences):9}  {page.mean:4.1f}  {page.longest:7}")
    faults = [f"{page.page}:{line}: {message}" for page in lengths for line, message in page.faults]
    print(*faults, sep="\n", file=sys.stderr, end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

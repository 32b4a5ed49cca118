"""Damaged files of every format: records as promised, or an error that names the file; never a hang, never a crash."""

from __future__ import annotations

import gzip
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lora_med.data.catalog import SOURCES, find_source
from lora_med.data.outcome import ReadOptions
from lora_med.data.reading import read_records
from lora_med.data.record import Annotated, Question, texts_of
from lora_med.errors import DataError
from tests.data.damage import DAMAGES, damaged
from tests.data.examples import EXAMPLES

MUTATIONS = 500
SECONDS = 5  # for one small file
PIECES = (
    b"<",
    b"&",
    b'"',
    b"{",
    b"[",
    b"\t",
    b"\r",
    b"\n\n",
    b"\x00",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"|",
    b",",
    b"-1",
    b"1e999",
)
ENCODINGS = ("utf-16", "utf-16-le", "latin-1", "utf-8-sig", "utf-32")


def mutated(content: bytes, draw: random.Random) -> bytes:
    """The file in another encoding, compressed and torn, its lines shuffled, or, mostly, its bytes damaged."""
    kind = draw.randrange(9)
    if kind == 0:
        return content.decode("utf-8").encode(draw.choice(ENCODINGS), "replace")
    if kind == 1:
        return gzip.compress(content)[: -draw.randint(1, 60)]
    if kind == 2:
        lines = content.splitlines(keepends=True)
        draw.shuffle(lines)
        return b"".join(lines)
    return damaged(content, draw, PIECES, most=4, kinds=[draw.choice(DAMAGES)])


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_damage_gives_sound_records_or_a_named_error(source: str, tmp_path: Path) -> None:
    example, found = EXAMPLES[source], find_source(source)
    path = example.write(tmp_path)
    draw = random.Random(f"fuzz {source}")
    errors = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(MUTATIONS):
        content = mutated(example.content.encode("utf-8"), draw)
        path.write_bytes(content)
        for skip_bad in (False, True):
            try:
                with limited(SECONDS):
                    reading = read_records(found, [path], ReadOptions(), skip_bad=skip_bad)
                    records = list(reading)
            except DataError as error:
                assert not skip_bad or "0 kept" in error.what or "0 read" in error.what, (number, error)
                assert path.name in (error.where or "") or error.where == f"source {source}", (number, error)
                assert error.fix, number
                errors += not skip_bad
                continue
            assert reading.tally.read == reading.tally.kept + sum(reading.tally.dropped.values())
            assert len({record.uid for record in records}) == len(records)
            for record in records:
                assert record.group and record.source == source and isinstance(record, found.kinds), number
                assert all(text.encode("utf-8") is not None for text in texts_of(record))
                if isinstance(record, Annotated):
                    assert all(record.text[one.start : one.end] == one.text and one.type for one in record.spans)
                if isinstance(record, Question):
                    assert record.question.strip() and record.answer.strip()
                    assert not record.options or record.answer in record.options
    assert 20 < errors < 2 * MUTATIONS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


BOMB_SOURCES = (
    *("pubmed", "pmc", "medquad", "clinicaltrials", "bioc", "bc5cdr", "conll", "custom", "mimic3", "pubmedqa"),
    *("brat", "n2c2", "plain_text", "fhir", "cda"),
)
HOSTILE = {
    "gz of zeros": lambda head, tail: gzip.compress(head + b"\0" * 400_000_000 + tail, 1),
    "gz of spaces": lambda head, tail: gzip.compress(head + b" " * 400_000_000 + tail, 1),
    "long line": lambda head, tail: head + b"a" * 50_000_000 + tail,
    "deep JSON": lambda head, tail: b"[" * 5_000_000,
    "deep XML": lambda head, tail: b"<a>" * 2_000_000,
    "entity bomb": lambda head, tail: (
        b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY x0 'ha'>"
        + b"".join(b"<!ENTITY x%d '&x%d;&x%d;'>" % (n, n - 1, n - 1) for n in range(1, 40))
        + b"]><PubmedArticleSet><PubmedArticle><MedlineCitation><PMID>1</PMID><Article><ArticleTitle>&x39;"
        b"</ArticleTitle></Article></MedlineCitation></PubmedArticle></PubmedArticleSet>"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("source", BOMB_SOURCES)
def test_a_hostile_file_is_an_error_within_seconds_and_little_memory(source: str, kind: str, tmp_path: Path) -> None:
    """In a process of its own, whose peak memory is read."""
    example = EXAMPLES[source]
    content = example.content.encode("utf-8")
    middle = len(content) // 2
    path = example.write(tmp_path, HOSTILE[kind](content[:middle], content[middle:]))
    code = (
        "import sys, time; from pathlib import Path; from lora_med.data.catalog import find_source;"
        "from lora_med.data.outcome import ReadOptions; from lora_med.data.reading import read_records;"
        "from lora_med.errors import DataError; begun = time.perf_counter()\n"
        "for skip in (False, True):\n"
        "    try: list(read_records(find_source(sys.argv[1]), [Path(sys.argv[2])], ReadOptions(), skip_bad=skip))\n"
        "    except DataError as error: assert error.where, error\n"
        "peak = int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
        "print(peak, time.perf_counter() - begun)"
    )
    done = subprocess.run([sys.executable, "-c", code, source, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    peak, seconds = map(float, done.stdout.split())
    assert peak < 450_000, f"{peak} kB"  # of which some 100 are Python and its libraries
    assert seconds < 2 * SECONDS + 10, seconds

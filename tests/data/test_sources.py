"""One battery over the sources: what a hand-written file gives, from a path and a gz; bad input; the real files."""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_med.cli.main import run
from lora_med.config.data_settings import DataSettings
from lora_med.data.catalog import SOURCES, find_source
from lora_med.data.corpus import open_corpus, open_heldout
from lora_med.data.formats.find_inputs import find_inputs
from lora_med.data.formats.jsonl import as_line
from lora_med.data.outcome import ReadOptions, Tally
from lora_med.data.reading import Reading, read_records
from lora_med.data.record import Annotated, Question, Record
from lora_med.errors import DataError, InputMissingError
from tests.data.examples import EXAM, EXAMPLES, PUBTATOR
from tests.data.real_files import REAL, needs_real

NAMES = list(EXAMPLES)


def read(source: str, path: Path, *, skip_bad: bool = False) -> tuple[list[Record], Tally]:
    reading: Reading = read_records(find_source(source), [path], ReadOptions(), skip_bad=skip_bad, may_be_empty=True)
    return list(reading), reading.tally


def write(tmp_path: Path, name: str, content: str) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode("utf-8"))
    return path


@pytest.mark.parametrize("source", NAMES)
def test_a_file_written_by_hand_gives_the_records_written_by_hand(source: str, tmp_path: Path) -> None:
    example = EXAMPLES[source]
    records, tally = read(source, example.write(tmp_path))
    wanted = example.records
    assert [replace(one, group=two.group or one.group) for one, two in zip(wanted, records, strict=True)] == records
    assert all(not one.group or one.group == two.group for one, two in zip(wanted, records, strict=True))
    assert tally.dropped == example.dropped
    assert (tally.parts_dropped, tally.repeated) == (example.parts_dropped, example.repeated)


@pytest.mark.parametrize("source", NAMES)
def test_records_keep_their_promises(source: str, tmp_path: Path) -> None:
    example = EXAMPLES[source]
    records, tally = read(source, example.write(tmp_path))
    found = SOURCES[source]
    assert len({record.uid for record in records}) == len(records) > 0
    assert all(record.group and record.source == source and isinstance(record, found.kinds) for record in records)
    assert tally.read == tally.kept + sum(tally.dropped.values())
    for record in records:
        if isinstance(record, Annotated):
            assert all(record.text[span.start : span.end] == span.text and span.type for span in record.spans)
        if isinstance(record, Question):
            assert record.question.strip() and record.answer.strip()
            assert not record.options or record.answer in record.options


@pytest.mark.parametrize("source", NAMES)
def test_a_gz_gives_the_same_records(source: str, tmp_path: Path) -> None:
    example = EXAMPLES[source]
    plain = read(source, example.write(tmp_path))[0]
    content = gzip.compress(example.content.encode("utf-8"))
    packed = example.write(tmp_path / "gz", content, f"{example.file}.gz")
    assert read(source, packed)[0] == plain


@pytest.mark.parametrize("source", NAMES)
def test_a_stream_gives_the_same_records_at_every_pass(source: str, tmp_path: Path) -> None:
    example = EXAMPLES[source]
    path = example.write(tmp_path)
    streamed = read_records(find_source(source), [path], ReadOptions(streaming=True))
    held = read(source, path)[0]
    assert list(streamed) == held == list(streamed)


def test_every_source_has_an_example() -> None:
    assert set(EXAMPLES) == set(SOURCES)


@pytest.mark.parametrize("source", NAMES)
def test_a_torn_gz_is_named(source: str, tmp_path: Path) -> None:
    example = EXAMPLES[source]
    content = gzip.compress(example.content.encode("utf-8"))[:-20]
    packed = example.write(tmp_path, content, f"{example.file}.gz")
    with pytest.raises(DataError) as caught:
        read(source, packed)
    assert packed.name in (caught.value.where or "")


@pytest.mark.parametrize("source", NAMES)
def test_an_empty_file_is_named(source: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="empty"):
        read(source, EXAMPLES[source].write(tmp_path, b""))


@pytest.mark.parametrize(
    ("change", "said", "line"),
    [
        (("11|t|On α-naloxone.\n", ""), "the title of a document", 2),
        ((f"11|a|{'Naloxone'}", "12|a|Naloxone"), "abstract of PMID 11, got that of 12", 3),
        (("11\t5\t13", "11\tfive\t13"), "as numbers of characters", 4),
        (("11\t5\t13", "99\t5\t13"), "begin with PMID 11", 4),
        (("\tnaloxone\tChemical\tD009270\n11\t15", "\n11\t15"), "5 to 7 tab-separated cells", 4),
    ],
)
def test_a_bad_pubtator_document_is_named_and_does_not_affect_the_others(
    change: tuple[str, str], said: str, line: int, tmp_path: Path
) -> None:
    path = write(tmp_path, "corpus.txt", PUBTATOR.replace(*change, 1))
    with pytest.raises(DataError, match=said) as caught:
        read("bc5cdr", path)
    assert (caught.value.where or "").endswith(f"corpus.txt:{line}")
    records, tally = read("bc5cdr", path, skip_bad=True)
    assert [record.uid for record in records] == ["pmid:12", "pmid:11"]
    assert tally.dropped == {"bad": 1}


@pytest.mark.parametrize(
    ("source", "row", "said"),
    [
        ("medqa", {"question": "Q", "options": {"A": "1", "C": "2"}, "answer_idx": "A"}, "letters A, B, C"),
        ("medqa", {"question": "Q", "options": {"A": "1", "B": "2"}, "answer_idx": "C"}, "one of the 2 options"),
        ("medqa", {"question": "Q", "options": {"A": "1", "B": "2"}, "answer_idx": "A", "answer": "2"}, "option A"),
        ("medqa", {"question": " ", "options": {"A": "1", "B": "2"}, "answer_idx": "A"}, "it is empty"),
        ("medmcqa", {"id": "a", "question": "Q", **EXAM, "cop": 5}, "cop: expected a number from 0 to 3"),
        ("medmcqa", {"id": "a", "question": "Q", **EXAM, "cop": "x"}, "cop: expected a number"),
        ("medmcqa", {"question": "Q", **EXAM, "cop": 4}, "id: expected a text, got nothing"),
        ("mmlu", {"question": "Q", "choices": ["1", "2", "3"], "answer": 0}, "choices: expected a list of 4 texts"),
        (
            "mmlu",
            {"question": "Q", "choices": ["1", "2", "3", "4"], "answer": 4},
            "answer: expected one of the letters",
        ),
        ("mmlu", {"question": "Q", "A": "1", "B": "2", "C": "3", "D": "4", "answer": "E"}, "one of the letters A, B"),
        ("mmlu", {"question": "Q", "A": "1", "B": "2", "C": "3", "answer": "A"}, "D: expected a text, got nothing"),
        ("mts_dialog", {"dialogue": "D", "section_text": 7}, "section_text: expected a text, got int"),
        ("aci_bench", {"src": "D", "tgt": "N"}, "encounter_id: expected a text, got nothing"),
    ],
)
def test_a_bad_row_is_named_by_field(source: str, row: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = write(tmp_path, "rows.jsonl", json.dumps(row) + "\n")
    with pytest.raises(DataError, match=said) as caught:
        read(source, path)
    assert (caught.value.where or "").endswith("rows.jsonl:1")
    assert read(source, path, skip_bad=True)[1].dropped == {"bad": 1}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("APC", "line 1: expected a token and a tag"),
        ("APC\tGene", "then O or a tag such as B-Disease"),
        ("\tO", "expected a token"),
        ("APC\tX-Gene", "then O or a tag"),
    ],
)
def test_a_bad_conll_sentence_is_named_and_does_not_affect_the_others(line: str, said: str, tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", f"{line}\n\nAPC\tB-Gene\n")
    with pytest.raises(DataError, match=said) as caught:
        read("conll", path)
    assert (caught.value.where or "").endswith("a.tsv:1")
    assert [record.uid for record in read("conll", path, skip_bad=True)[0]] == ["conll:a.tsv:3"]


def test_mmlu_rows_of_the_hub_are_those_of_the_csv(tmp_path: Path) -> None:
    csv = write(tmp_path, "anatomy_test.csv", "Which?,One,Two,Three,Four,C\n")
    row = {"question": "Which?", "subject": "anatomy", "choices": ["One", "Two", "Three", "Four"], "answer": 2}
    (one,), _ = read("mmlu", csv)
    (other,), _ = read("mmlu", write(tmp_path, "test.jsonl", json.dumps(row) + "\n"))
    assert replace(other, uid=one.uid) == one


@pytest.mark.parametrize("header", ["question,A,B,C,D,answer", "Question,a,b,c,d,Answer"])
def test_mmlu_with_a_header_is_the_same_table(tmp_path: Path, header: str) -> None:
    line = "Which?,One,Two,Three,Four,C\n"
    (one,), _ = read("mmlu", write(tmp_path, "anatomy_test.csv", line))
    (other,), _ = read("mmlu", write(tmp_path, "anatomy_val.csv", f"{header}\n{line}"))
    assert replace(other, uid=one.uid) == one and other.uid == "mmlu:anatomy_val.csv:2"


def test_mmlu_is_split_by_its_files_and_its_five_examples_are_the_training_part(tmp_path: Path) -> None:
    for part, number in (("dev", 5), ("val", 2), ("test", 3)):
        rows = "".join(f"{part} {place}?,{part}{place},b,c,d,A\n" for place in range(number))
        write(tmp_path, f"medical_genetics_{part}.csv", rows)
    settings = DataSettings(source="mmlu", paths=[str(tmp_path)])
    corpus = open_corpus(settings)
    assert [record.uid for record in corpus.train] == [f"mmlu:medical_genetics_dev.csv:{n}" for n in range(1, 6)]
    assert {record.subject for record in corpus.train if isinstance(record, Question)} == {"medical_genetics"}
    assert len(corpus.validation) == 2
    assert len(open_heldout(settings, "test")) == 3
    assert corpus.split_description.startswith("published, by file")


def test_a_row_of_mmlu_with_a_cell_too_few_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected 6 cells \(question, A, B, C, D, answer\), got 5") as caught:
        read("mmlu", write(tmp_path, "anatomy_val.csv", "Which?,One,Two,Three,C\n"))
    assert (caught.value.where or "").endswith("anatomy_val.csv:1")


def test_a_path_without_records_and_a_missing_path_have_different_errors(tmp_path: Path) -> None:
    write(tmp_path, "notes.md", "x")
    with pytest.raises(InputMissingError, match="holds no file that the source 'pubmed' reads"):
        find_inputs(find_source("pubmed"), [str(tmp_path)])
    with pytest.raises(InputMissingError, match="'/dev/null' is no file"):
        find_inputs(find_source("pubmed"), ["/dev/null"])
    with pytest.raises(InputMissingError, match=r"nothing matches .* did you mean .*notes\.md"):
        find_inputs(find_source("pubmed"), [str(tmp_path / "note.md")])


def test_a_gz_beside_what_it_holds_keeps_its_name(tmp_path: Path) -> None:
    one = write(tmp_path, "a.csv", "dialogue,section_text\nA,B\n")
    other = tmp_path / "a.csv.gz"
    other.write_bytes(gzip.compress(b"dialogue,section_text\nC,D\n"))
    reading = read_records(find_source("mts_dialog"), [one, other], ReadOptions())
    assert [record.uid for record in reading] == ["mts_dialog:a.csv:2", "mts_dialog:a.csv.gz:2"]


def exam(tmp_path: Path, *answers: object) -> Path:
    rows = [{"id": str(n), "question": f"Q{n}?", **EXAM, "cop": cop} for n, cop in enumerate(answers)]
    return write(tmp_path, "exam.json", "".join(json.dumps(row) + "\n" for row in rows))


def test_medmcqa_counts_from_what_the_file_shows(tmp_path: Path) -> None:
    def answers(path: Path) -> list[str]:
        return [record.answer for record in read("medmcqa", path)[0] if isinstance(record, Question)]

    assert answers(exam(tmp_path, 1, 4, 2)) == ["One", "Four", "Two"]
    assert answers(exam(tmp_path, 1, 0, 3, -1)) == ["Two", "One", "Four"]


@pytest.mark.parametrize(("answers", "said"), [((1, 2, 3), "may count from 0 or from 1"), ((0, 4), "0 in some rows")])
def test_medmcqa_does_not_guess(answers: tuple[int, ...], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read("medmcqa", exam(tmp_path, *answers))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("<page id='1' source='x'/>", "expected a root of MedQuAD"),
        ("<Document id='1' source='x'>", "not well-formed"),
        ("<Document source='x'></Document>", "expected a root of MedQuAD"),
        ("<Document id='1' source='x'><QAPair><Question qid='1'>Q</Question></QAPair></Document>", "and an answer"),
    ],
)
def test_a_bad_medquad_page_is_named(content: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read("medquad", write(tmp_path, "page.xml", content))


def test_published_files_are_the_split_of_a_known_source(tmp_path: Path) -> None:
    for name, pmid in (
        ("CDR_TrainingSet.PubTator.txt", 1),
        ("CDR_DevelopmentSet.PubTator.txt", 2),
        ("NCBItestset_corpus.txt", 3),
    ):
        write(tmp_path, name, f"{pmid}|t|Title {pmid}\n{pmid}|a|Text.\n")
    settings = DataSettings(source="bc5cdr", paths=[str(tmp_path)])
    corpus = open_corpus(settings)
    assert [record.uid for record in corpus.train] == ["pmid:1"]
    assert [record.uid for record in corpus.validation] == ["pmid:2"]
    assert [record.uid for record in open_heldout(settings, "test")] == ["pmid:3"]


REAL_COUNTS = [
    ("bc5cdr", "bc5cdr/CDR_TrainingSet.PubTator.txt", 500, {}, 0, 9385),
    ("bc5cdr", "bc5cdr/CDR_DevelopmentSet.PubTator.txt", 500, {}, 0, 9591),
    ("ncbi_disease", "ncbi_disease/original-data/train/NCBItrainset_corpus.txt", 592, {"duplicate": 1}, 0, 5134),
    ("ncbi_disease", "ncbi_disease/original-data/devel/NCBIdevelopset_corpus.txt", 100, {}, 0, 787),
    ("conll", "ner_iob/BC5CDR-IOB/train.tsv", 4560, {}, 7, 9385),
    ("conll", "ncbi_disease/conll/train.tsv", 5432, {}, 31, 5145),
    ("medmcqa", "medmcqa/dev.json", 4183, {}, 0, 0),
    ("mts_dialog", "mts_dialog/MTS-Dialog-TrainingSet.csv", 1201, {}, 1, 0),
    ("mts_dialog", "mts_dialog/MTS-Dialog-ValidationSet.csv", 100, {}, 0, 0),
    ("aci_bench", "aci_bench/data/challenge_data/train.csv", 67, {}, 0, 0),
    ("aci_bench", "aci_bench/data/challenge_data/valid.csv", 20, {}, 0, 0),
    ("meqsum", "meqsum/MeQSum_ACL2019_BenAbacha_Demner-Fushman.xlsx", 1000, {}, 0, 0),
]


@needs_real
@pytest.mark.parametrize(("source", "name", "kept", "dropped", "repeated", "mentions"), REAL_COUNTS)
def test_the_real_files_give_their_known_counts(
    source: str, name: str, kept: int, dropped: dict[str, int], repeated: int, mentions: int
) -> None:
    records, tally = read(source, REAL / name)
    assert (tally.kept, tally.dropped, tally.repeated) == (kept, dropped, repeated)
    assert sum(len(record.spans) for record in records if isinstance(record, Annotated)) == mentions


@needs_real
def test_medquad_s_empty_answers_are_counted() -> None:
    source = find_source("medquad")
    reading = read_records(source, find_inputs(source, [str(REAL / "medquad")]), ReadOptions())
    records = list(reading)
    assert reading.tally.read == 17_516
    assert reading.tally.dropped["empty_answer"] == 1093
    assert set(reading.tally.dropped) <= {"empty_answer", "duplicate"}
    assert len({record.uid for record in records}) == len(records)


@pytest.mark.parametrize("source", [name for name in NAMES if not EXAMPLES[name].companions])
def test_standard_input_gives_the_same_records(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = EXAMPLES[source]
    raw = example.content.encode("utf-8")
    wanted = b"".join(map(as_line, read(source, example.write(tmp_path))[0]))
    for number, piped in enumerate((raw, gzip.compress(raw))):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(piped)))
        out = tmp_path / "out" / f"{number}.jsonl"
        arguments = ["data", "read", source, "-", "--stdin-filename", example.file, "--out", str(out), "--skip-bad"]
        assert run(arguments) == 0
        assert out.read_bytes() == wanted
    assert sorted(path.name for path in out.parent.iterdir()) == ["0.jsonl", "1.jsonl"]

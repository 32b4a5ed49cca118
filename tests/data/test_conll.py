"""CoNLL files as they are met: headers, comments, CoNLL-U, other schemes, other columns, other separators."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_med.data.catalog import find_source
from lora_med.data.outcome import ReadOptions, TableFormat
from lora_med.data.reading import read_records
from lora_med.data.record import Annotated
from lora_med.errors import DataError, SettingsError

FEVER = [("Fever .", [(0, 5, "Disease", "Fever")])]
COLUMNS = "_\t_\t0\troot\t_"


def read(path: Path, encoding: str | None = None, **columns: str) -> list[Annotated]:
    options = ReadOptions(columns, table=TableFormat(encoding=encoding))
    records = list(read_records(find_source("conll"), [path], options))
    assert all(isinstance(record, Annotated) for record in records)
    return records  # type: ignore[return-value]


def sentences(path: Path, content: str | bytes) -> list[tuple[str, list[tuple[int, int, str, str]]]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [(one.text, [(span.start, span.end, span.type, span.text) for span in one.spans]) for one in read(path)]


@pytest.mark.parametrize(
    "content",
    [
        "Fever\tB-Disease\n.\tO\n",
        "Fever\tB-Disease\r\n.\tO\r\n",
        "Fever\tB-Disease\r.\tO\r",
        "Fever B-Disease\n. O\n",
        "Fever,B-Disease\n.,O\n",
        "Fever;B-Disease\n.;O\n",
        "Fever\tB-Disease\t\n.\tO\t\n",
        "Fever\tNN\tB-NP\tB-Disease\n.\t.\tO\tO\n",
        "Fever\t0\t5\tB-Disease\n.\t5\t6\tO\n",
        "B-Disease\tFever\nO\t.\n",
        "1\tFever\tB-Disease\n2\t.\tO\n",
        "0\tFever\tB-Disease\n1\t.\tO\n",
        "# id 1\nFever\tB-Disease\n.\tO\n",
        "#id=1\nFever\tB-Disease\n.\tO\n",
        "# B-12\nFever\tB-Disease\n.\tO\n",
        "# a comment with the letter O\nFever B-Disease\n. O\n",
        "# license\n\nFever\tB-Disease\n.\tO\n",
        "token\ttag\nFever\tB-Disease\n.\tO\n",
        "Tokens NER\nFever B-Disease\n. O\n",
        "# id\nword,pos,label\nFever,NN,B-Disease\n.,.,O\n",
        "Sentence #,Word,POS,Tag\nSentence: 1,Fever,NN,B-Disease\n,.,.,O\n",
        "\tword\ttag\n0\tFever\tB-Disease\n1\t.\tO\n",
        "Fever\tU-Disease\n.\tO\n",
        "Fever\tS-Disease\n.\tO\n",
        "Fever\tI-Disease\n.\tO\n",
        "Fever\tDisease\n.\tO\n",
        f"1\tFever\tfever\tNOUN\t{COLUMNS}\tNER=B-Disease\n2\t.\t.\tPUNCT\t{COLUMNS}\t_\n",
        f"# text = Fever.\n1\tFever\tfever\tNOUN\t{COLUMNS}\tA=No|NER=B-Disease\n2\t.\t.\tP\t{COLUMNS}\tNER=O\n",
        f"1\tFever\tfever\tNOUN\t{COLUMNS}\t_\tB-Disease\n2\t.\t.\tPUNCT\t{COLUMNS}\t_\tO\n",
    ],
)
def test_a_sentence_is_the_same_however_its_file_is_laid_out(content: str, tmp_path: Path) -> None:
    assert sentences(tmp_path / "a.tsv", content) == FEVER


def test_utf_16_and_a_named_encoding_are_read(tmp_path: Path) -> None:
    assert sentences(tmp_path / "a.tsv", "Fever\tB-Disease\n.\tO\n".encode("utf-16")) == FEVER
    (tmp_path / "b.tsv").write_bytes("Fièvre\tB-Disease\n".encode("latin-1"))
    assert [record.text for record in read(tmp_path / "b.tsv", "latin-1")] == ["Fièvre"]
    with pytest.raises(DataError, match=r"is not UTF-8: .* name its encoding in data\.encoding"):
        read(tmp_path / "b.tsv")


def test_bilou_bmes_and_types_without_prefix_mark_the_same_mentions(tmp_path: Path) -> None:
    words = ["colon", "cancer", "cells", "and", "iron"]
    expected = [(0, 18, "Disease", "colon cancer cells"), (23, 27, "Chemical", "iron")]
    for tags in (
        ["B-Disease", "I-Disease", "I-Disease", "O", "B-Chemical"],
        ["B-Disease", "I-Disease", "L-Disease", "O", "U-Chemical"],
        ["B-Disease", "M-Disease", "E-Disease", "O", "S-Chemical"],
        ["I-Disease", "I-Disease", "I-Disease", "O", "I-Chemical"],
        ["Disease", "Disease", "Disease", "O", "Chemical"],
    ):
        content = "".join(f"{word}\t{tag}\n" for word, tag in zip(words, tags, strict=True))
        assert sentences(tmp_path / "a.tsv", content) == [("colon cancer cells and iron", expected)]


def test_neighbors_that_are_each_a_unit_stay_two_mentions(tmp_path: Path) -> None:
    for unit in "USWB":
        content = f"iron\t{unit}-Chemical\nzinc\t{unit}-Chemical\n"
        spans = [(0, 4, "Chemical", "iron"), (5, 9, "Chemical", "zinc")]
        assert sentences(tmp_path / "a.tsv", content) == [("iron zinc", spans)]


def test_a_hash_is_a_token_where_it_has_a_tag(tmp_path: Path) -> None:
    assert sentences(tmp_path / "a.tsv", "#\tO\n3\tO\n") == [("# 3", [])]
    assert sentences(tmp_path / "a.tsv", "# O\n3 O\n") == [("# 3", [])]
    with pytest.raises(DataError, match="line 1: expected a token, then O or a tag"):
        sentences(tmp_path / "a.tsv", "#\tX-Gene\n3\tO\n")


def test_a_quote_is_a_token_raw_or_as_a_table_writes_it(tmp_path: Path) -> None:
    assert sentences(tmp_path / "a.tsv", '"\tO\nFever\tB-Disease\n""""\tO\n') == [
        ('" Fever "', [(2, 7, "Disease", "Fever")])
    ]
    assert sentences(tmp_path / "a.csv", '",",O\n"""",O\n') == [(', "', [])]


def test_a_column_of_sentences_ends_them_where_it_changes(tmp_path: Path) -> None:
    rows = "Sentence #,Word,POS,Tag\nSentence: 1,Iron,NN,B-Chemical\n,rusts,VB,O\nSentence: 2,So,RB,O\n"
    assert [text for text, _ in sentences(tmp_path / "a.csv", rows)] == ["Iron rusts", "So"]
    rows = "sentence_id\tword\ttag\n1\tIron\tB-Chemical\n1\trusts\tO\n2\tSo\tO\n"
    assert [text for text, _ in sentences(tmp_path / "a.tsv", rows)] == ["Iron rusts", "So"]
    rows = "1\tIron\tB-Chemical\n1\trusts\tO\n2\tSo\tO\n"
    assert [text for text, _ in sentences(tmp_path / "a.tsv", rows)] == ["Iron rusts", "So"]
    rows = "0 Iron B-Chemical\n1 rusts O\n\n2 So O\n"
    assert [text for text, _ in sentences(tmp_path / "a.tsv", rows)] == ["Iron rusts", "So"]
    rows = "word,tag\nIron,O\n,\nrusts,O\n"
    assert [text for text, _ in sentences(tmp_path / "a.csv", rows)] == ["Iron", "rusts"]


def test_ranges_and_empty_nodes_of_conll_u_are_no_words(tmp_path: Path) -> None:
    content = (
        f"1-2\tdel\t_\t_\t{COLUMNS}\t_\n1\tde\tde\tADP\t{COLUMNS}\t_\n2\tel\tel\tDET\t{COLUMNS}\t_\n"
        f"2.1\tnada\t_\t_\t{COLUMNS}\t_\n3\thierro\thierro\tNOUN\t{COLUMNS}\tNER=B-Chemical\n"
    )
    assert sentences(tmp_path / "a.conllu", content) == [("de el hierro", [(6, 12, "Chemical", "hierro")])]


def test_conll_u_without_tags_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"CoNLL-U without tags: expected NER=B-Disease in MISC"):
        sentences(tmp_path / "a.conllu", f"1\tFever\tfever\tNOUN\t{COLUMNS}\tSpaceAfter=No\n")


@pytest.mark.parametrize("mark", ["-DOCSTART- -X- O O", "###MEDLINE:95369245", "# newdoc id = a"])
def test_marks_of_documents_make_the_groups(mark: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(f"{mark}\n\nIron\tO\n\nGold\tO\n\n{mark}\n\nZinc\tO\n")
    assert [record.group for record in read(path)] == ["a.tsv:document 1", "a.tsv:document 1", "a.tsv:document 2"]


def test_a_column_of_documents_makes_the_groups(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("doc_id\tword\ttag\n7\tIron\tO\n\n8\tGold\tO\n")
    assert [record.group for record in read(path)] == ["a.tsv:7", "a.tsv:8"]


@pytest.mark.parametrize(
    "content",
    [
        "Fever\tDisease\nis\tNoun\n",
        "Fever\tB_Disease\n.\tO\n",
        "Fever\tDisease-B\n.\tO\n",
        "Fever\tDisease\n.\tO\nRash\tB-Disease\n",
        "Fever\t1\n.\tO\n",
        "Fever\t\n.\tO\n",
    ],
)
def test_tags_of_no_scheme_are_refused(content: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a token"):
        sentences(tmp_path / "a.tsv", content)


TWO_TAGS = "Fever\tB-Disease\tO\n.\tO\tO\n"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (TWO_TAGS, "columns 2 and 3 look like tags"),
        ("Fever\tB-Disease\tB-Symptom\n.\tO\tO\n", "columns 2 and 3 look like tags"),
        ("1\tFever\tU-Disease\tO\n2\t.\tO\tO\n", "columns 3 and 4 look like tags"),
        ("Fever B-Disease O\n. O O\n", "columns 2 and 3 look like tags"),
        ("Fever,B-Disease,O\n.,O,O\n", "columns 2 and 3 look like tags"),
        ("Fever\tB-Disease\tMESH:1\n.\tO\t-\n", "column 2 looks like tags, not the last"),
    ],
)
def test_a_second_column_of_tags_stops_the_run_and_names_the_setting(content: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(content)
    with pytest.raises(DataError, match=named) as caught:
        read(path)
    number = named.split()[1]
    assert f"--column tag={number}" in (caught.value.fix or "") and caught.value.where == str(path)
    (record,) = read(path, tag=number)
    assert [(span.start, span.end, span.type) for span in record.spans] == [(0, 5, "Disease")]


def test_a_header_s_name_chooses_the_column_of_tags_and_no_other_field_exists(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("token\tner\tdrugs\nFever\tB-Disease\tO\naspirin\tO\tB-Chemical\n")
    assert [span.type for record in read(path) for span in record.spans] == ["Disease"]
    assert [span.type for record in read(path, tag="drugs") for span in record.spans] == ["Chemical"]
    for tag in ("drug", "0", "4", "1"):
        with pytest.raises(SettingsError, match="no column"):
            read(path, tag=tag)
    with pytest.raises(SettingsError, match=r"data\.columns\.tag"):
        read(path, text="token")


def test_a_nul_character_is_refused_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("Fever\tO\n.\tO\n\nFe\0ver\tO\n")
    with pytest.raises(DataError, match="line 4 holds a NUL character"):
        read(path)


@pytest.mark.parametrize("content", ["Fever\tB\n.\tO\n", "heart\tB\nfailure\tI\n.\tO\n", "Fever\tU\n.\tO\n"])
def test_tags_without_a_type_are_refused_and_are_no_types(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(content)
    with pytest.raises(DataError, match=r"line 1: the tag . has no type: write it as .-Disease"):
        read(path)

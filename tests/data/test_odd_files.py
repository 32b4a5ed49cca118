"""Files as one meets them: marks of byte order, what macOS adds, wrapped breaks, members that are too large."""

from __future__ import annotations

import codecs
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from lora_med.data.catalog import find_source
from lora_med.data.formats import archives as documents
from lora_med.data.formats.find_inputs import find_inputs
from lora_med.data.formats.placeholders import tagged_mimic4
from lora_med.data.outcome import Drop, ReadOptions
from lora_med.data.reading import read_records
from lora_med.data.record import Annotated, Passage, Question, Record
from lora_med.prompts.templates.question_templates import right_letter
from tests.data.examples import EXAMPLES
from tests.data.examples_texts import PMC


def records(source: str, *paths: Path, skip_bad: bool = False) -> list[Record]:
    found = find_source(source)
    inputs = find_inputs(found, [str(path) for path in paths])
    return list(read_records(found, inputs, ReadOptions(), skip_bad=skip_bad))


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_every_blank_of_mimic4_is_tagged_whatever_is_beside_it() -> None:
    found = tagged_mimic4("Mr___ was seen; T___ 5___ on___. ____ ___")
    assert found == "Mr[REDACTED] was seen; T[REDACTED] 5[REDACTED] on[REDACTED]. ____ [REDACTED]"


def test_a_member_that_is_too_large_does_not_affect_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "LONGEST_BYTES", 5000)
    members = {"a.nxml": PMC.content, "b.nxml": PMC.content + " " * 5000, "c.nxml": PMC.content.replace("PMC7", "PMC8")}
    with tarfile.open(tmp_path / "a.tar", "w") as tar, zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content.encode())
            tar.addfile(info, io.BytesIO(content.encode()))
            archive.writestr(name, content)
    for name in ("a.tar", "a.zip"):
        found = list(documents.documents(tmp_path / name, (".nxml",)))
        assert [isinstance(one, Drop) for one in found] == [False, True, False]


def test_what_macos_adds_beside_each_file_is_not_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.nxml", PMC.content)
        archive.writestr("__MACOSX/._a.nxml", b"\x00\x05\x16\x07")
    assert len(records("pmc", tmp_path / "a.zip")) == 1
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "a.nxml", PMC.content)
    write(folder / "._a.nxml", b"\x00\x05\x16\x07")
    assert len(records("pmc", folder)) == 1


BIOC = (
    '<collection><document><id>9</id><passage><offset>0</offset><text>Iron rusts.</text>{}<annotation id="1">'
    '<infon key="type">Chemical</infon><location offset="0" length="4"/><text>Iron</text></annotation></passage>'
    "</document></collection>"
)
STUDY = (
    "<clinical_study><id_info><nct_id>NCT00000001</nct_id></id_info><brief_title>T</brief_title>"
    "<brief_summary><textblock>Iron is given.</textblock></brief_summary></clinical_study>"
)


@pytest.mark.parametrize(("source", "content"), [("bioc", BIOC.format("")), ("clinicaltrials", STUDY)])
def test_xml_is_known_by_its_first_character_whatever_the_encoding(source: str, content: str, tmp_path: Path) -> None:
    raw = content.encode()
    forms = [raw, codecs.BOM_UTF8 + raw, b"\n " + raw, content.encode("utf-16")]
    found = [records(source, write(tmp_path / f"{number}.xml", form)) for number, form in enumerate(forms)]
    assert len(found[0]) == 1 and all(one == found[0] for one in found)


def test_an_annotation_of_the_whole_document_has_no_offsets_and_is_left_out(tmp_path: Path) -> None:
    whole = '<annotation id="2"><infon key="type">MeSH</infon><text>D007501</text></annotation>'
    (found,) = records("bioc", write(tmp_path / "a.xml", BIOC.format(whole)))
    assert isinstance(found, Annotated) and [span.text for span in found.spans] == ["Iron"]


def test_a_break_in_a_line_welds_no_words(tmp_path: Path) -> None:
    content = PMC.content.replace("Two:", "One<break/>Two:").replace("Iron<xref", "Old<break/>Iron<xref")
    (found,) = records("pmc", write(tmp_path / "a.nxml", content))
    assert isinstance(found, Passage) and found.title.startswith("Old Iron") and "One Two:" in found.text
    (more,) = records(
        "pmc", write(tmp_path / "b.nxml", PMC.content.replace("<sec ", "<preformat>As\nis</preformat><sec ", 1))
    )
    assert isinstance(more, Passage) and "As is" in more.text


def test_of_two_options_that_read_alike_the_right_one_is_known_by_its_position(tmp_path: Path) -> None:
    row = {"id": "a", "question": "Which?", "opa": "x", "opb": "y", "opc": "z", "opd": "z", "cop": 4}
    other = row | {"id": "b", "question": "And?", "cop": 1.0}
    empty = row | {"id": "c", "question": "None?", "cop": ""}
    lines = "".join(json.dumps(one) + "\n" for one in (row, other, empty))
    found = records("medmcqa", write(tmp_path / "a.json", lines))
    assert [right_letter(one) for one in found if isinstance(one, Question)] == ["D", "A"]


def test_a_document_mark_inside_a_block_ends_the_sentence(tmp_path: Path) -> None:
    content = "-DOCSTART- O\nIron O\nrusts O\n-DOCSTART- O\nGold B-Chemical\n\nIt O\n\u2009 O\nshines O\n"
    found = records("conll", write(tmp_path / "a.tsv", content))
    assert [(one.text, one.group[-10:]) for one in found if isinstance(one, Annotated)] == [
        ("Iron rusts", "document 1"),
        ("Gold", "document 2"),
        ("It \u2009 shines", "document 2"),
    ]


def test_the_examples_read_alike_with_a_mark_of_byte_order(tmp_path: Path) -> None:
    for source in ("pubmed", "pmc", "medquad", "bc5cdr", "conll", "medqa", "pubmedqa", "clinicaltrials", "bioc"):
        example = EXAMPLES[source]
        folder = tmp_path / source
        (folder / "b").mkdir(parents=True)
        raw = example.content.encode() if isinstance(example.content, str) else example.content
        plain = records(source, write(folder / example.file, raw))
        assert records(source, write(folder / "b" / example.file, codecs.BOM_UTF8 + raw)) == plain


def test_passages_and_mentions_may_both_count_bytes(tmp_path: Path) -> None:
    passages = "".join(
        f"<passage><offset>{offset}</offset><text>{text}</text><annotation id='{offset}'><infon key='type'>Chemical"
        f"</infon><location offset='{place}' length='4'/><text>{mention}</text></annotation></passage>"
        for offset, text, place, mention in ((0, "Café iron", 6, "iron"), (11, "gold", 11, "gold"))
    )
    content = f"<collection><document><id>9</id>{passages}</document></collection>"
    (found,) = records("bioc", write(tmp_path / "a.xml", content))
    assert isinstance(found, Annotated) and found.text == "Café iron gold"
    assert [(span.start, span.text) for span in found.spans] == [(5, "iron"), (10, "gold")]

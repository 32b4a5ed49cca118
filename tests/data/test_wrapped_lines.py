"""Text wrapped at a width: sentences are whole again, lists and paragraphs stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_med.data.formats.wrapped_lines import joined
from lora_med.data.record import Passage
from tests.data.real_files import REAL, needs_real
from tests.data.test_sources import read, write

WRAPPED = """<clinical_study><id_info><nct_id>NCT00000005</nct_id></id_info><brief_title>T</brief_title>
<brief_summary><textblock>
      The dose is 5 mg twice a day. It is raised to 10
      mg. Then it is lowered to 5 in patients who are
      old. A second line (see
      II) follows.
    </textblock></brief_summary></clinical_study>"""


def test_the_wrapped_sentences_of_an_old_record_are_whole(tmp_path: Path) -> None:
    (found,), _ = read("clinicaltrials", write(tmp_path, "a.xml", WRAPPED))
    assert isinstance(found, Passage) and found.text == (
        "Summary: The dose is 5 mg twice a day. It is raised to 10 mg. Then it is lowered to 5 in patients who are "
        "old. A second line (see II) follows."
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("vitamin\nD. Then it", "vitamin D. Then it"),
        ("at Visit\n1. Subjects with", "at Visit 1. Subjects with"),
        ("of grade\n2) or more (\ni) and", "of grade 2) or more ( i) and"),
        ("type\nA. The other is type\nC. Both", "type A. The other is type C. Both"),
        ("from 5\n- 10 mg daily", "from 5 - 10 mg daily"),
        ("One.\n\nTwo\nlines.", "One.\n\nTwo lines."),
        ("Goals:\n1. One\n   more\n2. Two", "Goals:\n1. One more\n2. Two"),
        ("The goals are\n  a) one\n  b) two", "The goals are\na) one\nb) two"),
        ("(i) one\n(ii) two\n(iii) three", "(i) one\n(ii) two\n(iii) three"),
        (" 9. Nine\n10. Ten at grade\n    2. Or so", "9. Nine\n10. Ten at grade 2. Or so"),
        ("Inclusion:\n- Age\n  18\n• BMI", "Inclusion:\n* Age 18\n* BMI"),
        ("Patients\n  -  adult\n  -  well", "Patients\n* adult\n* well"),
        ("1. First\n2. Second", "1. First\n2. Second"),
        ("A. First\r\n      B. Second", "A. First\nB. Second"),
        ("\t-  Tab\n\t   more", "* Tab more"),
        ("", ""),
    ],
)
def test_a_line_continues_the_one_before_unless_it_begins_an_item(text: str, wanted: str) -> None:
    assert joined(text) == wanted


@needs_real
def test_the_lists_and_paragraphs_of_the_real_records_stay() -> None:
    (found,), _ = read("clinicaltrials", REAL / "ctgov" / "xml" / "NCT02041234.xml")
    assert isinstance(found, Passage)
    eligibility = next(part.text for part in found.sections if part.category == "ELIGIBILITY")
    assert eligibility.split("\n\n")[:3] == [
        "Inclusion Criteria:",
        "1. Established diagnosis of DM2 = or < 10 years",
        "2. Age 21-65",
    ]
    assert "10. Glutamic acid decarboxylase antibody positive." in eligibility.split("\n\n")
    (other,), _ = read("clinicaltrials", REAL / "ctgov" / "xml" / "NCT03357471.xml")
    assert isinstance(other, Passage) and "for at least 3 months prior to Visit 1. Subjects with RA, PsA" in other.text

"""What has the shape of an identifier is found and replaced; the invented notes say how much of it is."""

from __future__ import annotations

import json
import re
import time
from datetime import date
from typing import Any

import pytest

from lora_med.audit.dates import days_of, shifted
from lora_med.audit.deidentify import deidentified, gold_notes, load_finder, measure, replaced
from lora_med.audit.identifiers import Identifier, find_identifiers, longest, scan
from lora_med.data.record import Annotated, Pair, Passage, Question, Section, Span
from tools.sample.notes import make_notes


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Write to ann.roe+x@mail.example.org.", "Write to [EMAIL]."),
        ("See https://example.org/a?b=1, please", "See [URL] please"),
        ("Call (617) 555-0199 or 555-0142.", "Call [PHONE] or [PHONE]."),
        ("MRN: 0048213, SSN 900-12-3456", "MRN: [ID], SSN [ID]"),
        ("Seen 2021-03-14, 3/14/2021 and March 14, 2021.", "Seen [DATE], [DATE] and [DATE]."),
        ("On 14 Mar 2021 he fell.", "On [DATE] he fell."),
        ("A 93-year-old woman, son aged 61.", "A [AGE] woman, son aged 61."),
        ("Dr. O'Brien and Mrs. Van Dyke agreed.", "Dr. [NAME] and Mrs. [NAME] agreed."),
        ("Transferred from Oak Valley Hospital today.", "Transferred from [HOSPITAL] today."),
        ("Lives at 14 Elm Street.", "Lives at [LOCATION]."),
        ("Mr. Garcia slept. GARCIA ate; Garcia left.", "Mr. [NAME] slept. GARCIA ate; [NAME] left."),
        ("[NAME] came on [DATE].", "[NAME] came on [DATE]."),
        (
            "Dr. Müller, Mrs. Łuka and Mr. de la Cruz met Jan van der Berg, MD.",
            "Dr. [NAME], Mrs. [NAME] and Mr. [NAME] met [NAME], MD.",
        ),
        (
            "Mister Lee, Misses Roe; mister day. MRS. OKAFOR IS HERE, mr. and mrs. and no mr imaging.",
            "Mister [NAME], Misses [NAME]; mister [NAME]. MRS. [NAME] IS HERE, mr. and mrs. and no mr imaging.",
        ),
        (
            "Seen Monday 4 March and Tues, the 3rd of May 2021; 2021-03-14 12:33; since 04/2019.",
            "Seen [DATE] and [DATE]; [DATE]; since [DATE].",
        ),
        (
            "Ring 0617 5551234, 617 5551234, x4471, ext. 4471 or bleep 4471.",
            "Ring [PHONE], [PHONE], [PHONE], [PHONE] or bleep [PHONE].",
        ),
        (
            "A ninety-four-year-old of 12 Mill Row, sample B12-3456, Oak Health Center.",
            "A [AGE]-year-old of [LOCATION], sample [ID], [HOSPITAL].",
        ),
        ("BP 120/80, 1/2 tablet, Parkinson disease, Foley catheter, grade 2.", None),
        ("L4-L5 and T12-100, 1/2020 dilution, ninety degrees, x2 daily, Friday clinic, rows 12 to 14.", None),
        ("Glasgow coma scale 15; may take another; 5.5 mg in 2019; p=0.03 (n = 1034).", None),
    ],
)
def test_identifiers_are_recognized_by_their_shape(text: str, wanted: str | None) -> None:
    assert replaced(text, find_identifiers(text)) == (text if wanted is None else wanted)


@pytest.mark.parametrize(
    "text",
    [
        "Doctor: How are you?\nPatient: Okay\nDoctor: And the knee? Any better?\nPatient: Penicillin",
        "Patient: Yes, some.\nDoctor: Since when?",
        "Patient: Penicillin, I think so.",
        "Patient: Well I slipped",
        "Patient: Tylenol Advil\n\nNurse: we will write that down for the team",
        "Patient: Trains.",
        "patient: Mondays?",
    ],
)
def test_what_a_patient_says_in_a_dialogue_is_no_name(text: str) -> None:
    assert find_identifiers(text) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Patient: Roe\nDOB: unknown", "Roe"),
        ("PATIENT: Ann Örn\nDoctor: J. Okafor", "Ann Örn"),
        ("Patient: Roe, Ann  MRN: 0048213", "Roe, Ann"),
        ("Patient: Okafor, 45 years", "Okafor"),
        ("Patient: van der Berg | bed 3", "van der Berg"),
        ("Patient name: Yes", "Yes"),
    ],
)
def test_what_follows_patient_in_the_head_of_a_note_is_a_name(text: str, name: str) -> None:
    assert name in [text[found.start : found.end] for found in find_identifiers(text) if found.type == "NAME"]


def test_of_two_that_overlap_the_longer_stays() -> None:
    found = [Identifier(0, 5, "DATE"), Identifier(3, 12, "PHONE"), Identifier(12, 14, "AGE")]
    assert longest(found) == [Identifier(3, 12, "PHONE"), Identifier(12, 14, "AGE")]


def test_records_are_scanned_to_uids_and_counts() -> None:
    records = [Passage("a", "a", "custom", "Seen 2021-03-14 by Dr. Roe."), Passage("b", "b", "custom", "Nothing.")]
    assert [(uid, dict(counts)) for uid, counts in scan(records)] == [("a", {"DATE": 1, "NAME": 1})]


SECRET = b"chance"


def test_every_kind_of_record_is_cleaned_and_its_spans_move() -> None:
    text = "By Dr. Roe. Roe signed; Dr. Doe did not."
    passage = Passage("a", "g", "custom", text, "For Dr. Roe", (Section(text, "NOTE"),))
    clean, counts = deidentified(passage, find_identifiers, SECRET)
    assert isinstance(clean, Passage) and counts == {"NAME": 3}
    assert (clean.text, clean.title) == ("By Dr. [NAME-1]. Roe signed; Dr. [NAME-2] did not.", "For Dr. [NAME-1]")
    assert clean.sections[0].text == clean.text
    question = Question("a", "g", "custom", "Is Dr. Roe in?", "Dr. Roe", (), ("Dr. Roe", "No"))
    cleaned, _ = deidentified(question, find_identifiers, SECRET)
    assert isinstance(cleaned, Question) and cleaned.answer in cleaned.options == ("Dr. [NAME-1]", "No")
    talk = Pair("a", "g", "c", "Dr. Roe?", "Yes", history=(("user", "Dr. Roe"),))
    pair, _ = deidentified(talk, find_identifiers, SECRET)
    assert isinstance(pair, Pair) and (pair.input, pair.history) == ("Dr. [NAME-1]?", (("user", "Dr. [NAME-1]"),))
    marked = Annotated("a", "g", "c", "Iron by Dr. Roe and gold", (Span(0, 4, "M", "Iron"), Span(20, 24, "M", "gold")))
    moved, _ = deidentified(marked, find_identifiers, SECRET)
    assert isinstance(moved, Annotated) and moved.text == "Iron by Dr. [NAME-1] and gold"
    assert all(moved.text[span.start : span.end] == span.text for span in moved.spans) and len(moved.spans) == 2


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2021-03-14", "2021-03-04"),
        ("2021/3/4", "2021/2/22"),
        ("3/14/2021", "3/4/2021"),
        ("01/05/24", "12/26/23"),
        ("14.3.2021", "4.3.2021"),
        ("25/12/2020", "15/12/2020"),
        ("March 14, 2021", "March 4, 2021"),
        ("Jan 5", "Dec 26"),
        ("14 Mar 2021", "4 Mar 2021"),
        ("05-JAN-20", "26-DEC-19"),
        ("the 13th of May", "the 3rd of May"),
        ("March 2021", "March 2021"),
        ("3/14", "3/4"),
        ("2021-03-14 12:33", "2021-03-04 12:33"),
        ("Monday 4 March", "Friday 22 February"),
        ("Thurs, the 3rd of June", "Mon, the 24th of May"),
        ("TUE 14 Sep 2021", "SAT 4 Sep 2021"),
        ("04/2019", "04/2019"),
        ("Monday 31/02/2020", None),
        ("31/02/2020", None),
        ("last spring", None),
    ],
)
def test_dates_move_and_keep_their_form(text: str, wanted: str | None) -> None:
    assert shifted(text, 10) == wanted


def test_a_patient_s_dates_keep_their_distance_and_another_s_move_otherwise() -> None:
    def moved(patient: str, secret: bytes = SECRET) -> str:
        note = Passage("a", patient, "c", "Seen 2021-03-14 and again 2021-03-20.")
        clean, _ = deidentified(note, find_identifiers, secret)
        assert isinstance(clean, Passage)
        return clean.text

    first, second = (date.fromisoformat(found) for found in re.findall(r"\d{4}-\d\d-\d\d", moved("p1")))
    assert (second - first).days == 6 and first < date(2021, 3, 14)
    assert moved("p1") == moved("p1") and len({moved("p1"), moved("p2"), moved("p1", b"other")}) == 3
    assert {1 <= days_of(SECRET, str(n)) <= 364 for n in range(500)} == {True}


def test_recall_on_the_invented_notes_is_what_the_readme_says() -> None:
    pytest.importorskip("presidio_analyzer")
    notes = gold_notes()
    assert len(notes) == 200
    assert "".join(json.dumps(note) + "\n" for note in notes).encode() == make_notes(), "run `make sample`"
    assert all(note["text"][span["start"] : span["end"]].strip() for note in notes for span in note["spans"])
    found = measure(load_finder(), notes)
    assert found.marked > 1500 and found.recall >= 0.80 and found.precision >= 0.95
    assert 0.6 < found.late[0] / found.late[1] < found.recall


def test_presidio_adds_numbers_with_a_checksum() -> None:
    pytest.importorskip("presidio_analyzer")
    text = "Card 4012 8888 8888 1881, IBAN DE89 3704 0044 0532 0130 00."
    assert "1881" in replaced(text, find_identifiers(text))
    clean = replaced(text, load_finder()(text))
    assert clean == "Card [ID], IBAN [ID]."


def cleaned(record: Any, secret: bytes = b"s") -> Any:
    pytest.importorskip("presidio_analyzer")
    return deidentified(record, load_finder(), secret)[0]


def test_a_name_that_one_text_reveals_is_replaced_in_all() -> None:
    sections = (Section("By Dr. Rodriguez.", "HPI"), Section("Rodriguez signed.", "Per Rodriguez"))
    found = cleaned(Passage("a", "g", "custom", "By Dr. Rodriguez. Rodriguez signed.", "Rodriguez's note", sections))
    assert "Rodriguez" not in repr(found)
    assert found.sections[1].text == "[NAME-1] signed." and found.title == "[NAME-1]'s note"
    pair = cleaned(Pair("a", "g", "custom", "Dr. Rodriguez came.", "Rodriguez will return.", "Rodriguez"))
    assert "Rodriguez" not in repr(pair) and pair.output == "[NAME-1] will return."


def test_a_tag_is_one_name_throughout_and_no_other_s() -> None:
    text = "Dr. John Smith came. Smith left. [NAME-1] called. Dr. Rodriguez came. "
    text += "Dr. Ann Leigh and Dr. Tom Leigh; Leigh went."
    found = cleaned(Passage("a", "g", "custom", text)).text
    assert found == (
        "Dr. [NAME-2] came. [NAME-2] left. [NAME-1] called. Dr. [NAME-3] came. Dr. [NAME-4] and Dr. [NAME-5]; "
        "[NAME-6] went."
    )


@pytest.mark.parametrize("date", ["2021-03-14T10:22:00Z", "Mar-14-2021", "Mar-14-21"])
def test_dates_beside_a_time_or_with_hyphens_move(date: str) -> None:
    found = cleaned(Passage("a", "g", "custom", f"Seen {date}.")).text
    assert found != f"Seen {date}." and "[" not in found


@pytest.mark.parametrize("unit", ["a.", "12-", "A.", "A-", "x-", "Ab ", "1"])
def test_no_text_takes_the_patterns_long(unit: str) -> None:
    begun = time.perf_counter()
    find_identifiers(unit * 10_000)
    assert time.perf_counter() - begun < 5

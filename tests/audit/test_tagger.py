"""Tags read by word, windows, the union with the patterns, surrogates, and the adapter that ships."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lora_med.audit import tagger as tagger_module
from lora_med.audit import word_tags
from lora_med.audit.deidentify import deidentified
from lora_med.audit.identifiers import Identifier, find_identifiers, united
from lora_med.audit.surrogates import Surrogates, length_class, name_lists
from lora_med.audit.tagger import AFTER, SHIPPED, Tagger, load_tagger_of_identifiers, with_tagger
from lora_med.audit.word_tags import read_words, trimmed, words_of
from lora_med.cli.main import run
from lora_med.data.record import Annotated, Passage, Span
from lora_med.errors import SettingsError
from tools.deid import word_behind

LABELS = ("O", "B-DATE", "I-DATE", "B-NAME", "I-NAME")


def test_a_word_has_the_tag_of_its_last_token() -> None:
    text = "Roe ate,"
    words = words_of(text)
    assert [text[start:end] for start, end in words] == ["Roe", "ate", ","]
    offsets = [(0, 0), (0, 1), (1, 3), (3, 7), (7, 8)]  # [begin] R oe _ate ,
    scores = np.zeros((5, 5))
    scores[:, 0] = 9.0
    scores[1, 1], scores[2, 3], scores[2, 0] = 20.0, 4.0, 0.0
    roe, ate, comma = read_words(words, offsets, scores, LABELS)
    # B-NAME and I-NAME together: log(e^4 + e^0) against O at 0.
    assert roe == (pytest.approx(math.log(math.exp(4) + 1)), "NAME")
    assert ate[0] == comma[0] == pytest.approx(math.log(2) - 9)


def test_a_word_without_a_token_of_its_own_has_the_tag_of_the_one_before() -> None:
    scores = np.array([[0.0, 0, 0, 5, 0], [5.0, 0, 0, 0, 0]])
    read = read_words([(0, 3), (3, 4), (5, 7)], [(0, 4), (4, 7)], scores, LABELS)
    assert [lead > 0 for lead, _ in read] == [True, True, False]


@pytest.mark.parametrize(
    ("word", "wanted"),
    [("Roe's", "Roe"), ("(May),", "May"), ("J.K.", "J.K"), ("—?", None), ("...", None), ("O'Brien", "O'Brien")],
)
def test_a_word_is_trimmed_to_what_identifies(word: str, wanted: str | None) -> None:
    span = trimmed(word, 0, len(word))
    assert (span and word[span[0] : span[1]]) == wanted


def test_of_two_that_overlap_the_rest_of_the_shorter_stays_covered() -> None:
    text = "Ann Roe-Nowak Clinic"
    found = [Identifier(0, 7, "NAME"), Identifier(4, 20, "HOSPITAL")]
    assert united(text, found) == [Identifier(0, 3, "NAME"), Identifier(4, 20, "HOSPITAL")]
    assert united("a.b", [Identifier(0, 3, "ID"), Identifier(0, 3, "ID")]) == [Identifier(0, 3, "ID")]


class Capitals:
    """Scores each character as a token: a name where the last word is in capitals."""

    device = "cpu"
    config = SimpleNamespace(_attn_implementation="sdpa")

    def __call__(self, input_ids: Any, attention_mask: Any) -> Any:
        import torch

        logits = torch.zeros(*input_ids.shape, len(LABELS))
        logits[..., 0] = 5.0
        for row, ids in enumerate(input_ids.tolist()):
            text = "".join(map(chr, ids))
            words = words_of(text.rstrip("\x00"))
            for word in words:
                if text[slice(*word)].isupper():
                    logits[row, word[0] : word[1], 4] = 9.0
        return type("Output", (), {"logits": logits})


class Characters:
    """A tokenizer of characters."""

    pad_token_id = 0

    def __call__(self, texts: Sequence[str], return_offsets_mapping: bool) -> dict[str, Any]:
        offsets = [[(number, number + 1) for number in range(len(text))] for text in texts]
        return {"input_ids": [[ord(letter) for letter in text] for text in texts], "offset_mapping": offsets}


@pytest.fixture
def capitals() -> Tagger:
    return Tagger("capitals", LABELS, Characters(), Capitals())


class BehindCapitals(Capitals):
    """As Capitals, with the score on the word behind."""

    def __call__(self, input_ids: Any, attention_mask: Any) -> Any:
        import torch

        logits = torch.zeros(*input_ids.shape, len(LABELS))
        logits[..., 0] = 5.0
        for row, ids in enumerate(input_ids.tolist()):
            text = "".join(map(chr, ids)).rstrip("\x00")
            for word, behind in pairwise(words_of(text)):
                if text[slice(*word)].isupper():
                    logits[row, behind[0] : behind[1], 4] = 9.0
        return type("Output", (), {"logits": logits})


def test_the_tag_of_a_word_may_be_on_the_word_behind_it() -> None:
    labels = tuple(label.replace("-", f"-{AFTER}") for label in LABELS)
    behind = Tagger("behind", labels, Characters(), BehindCapitals())
    words = [f"ROE{number}" if number % 7 == 0 else f"w{number}" for number in range(2000)]
    text = "\n".join(" ".join(words[start : start + 50]) for start in range(0, 2000, 50))
    for written in (text, f"{text} END", f"{text}{' ' * 500}END is here"):
        found = behind.find(written)
        assert {identifier.type for identifier in found} == {"NAME"}
        assert [written[each.start : each.end] for each in found] == [w for w in written.split() if w.isupper()]


def test_training_notes_are_tagged_as_the_tagger_reads() -> None:
    assert (word_behind.AFTER, word_behind.NO_WORD) == (tagger_module.AFTER, tagger_module.NO_WORD)
    assert word_behind.WORD == word_tags.WORD
    text = "Seen by Ann Roe's aunt, (May)"
    spans = [
        {"start": text.index(name), "end": text.index(name) + len(name), "type": "NAME"} for name in ("Ann Roe", "May")
    ]
    marked, moved = word_behind.on_the_word_behind(text, spans)
    assert [marked[span["start"] : span["end"]] for span in moved] == ["Roe's aunt", ")"]
    end = word_behind.on_the_word_behind("Ann", [{"start": 0, "end": 3, "type": "NAME"}])
    assert end == ("Ann\n.", [{"start": 4, "end": 5, "type": "AFTER-NAME"}])


def test_a_long_text_is_read_in_windows_and_each_word_once(capitals: Tagger) -> None:
    words = [f"ROE{number}" if number % 7 == 0 else f"w{number}" for number in range(2000)]
    text = "\n".join(" ".join(words[start : start + 50]) for start in range(0, 2000, 50))
    found = [text[identifier.start : identifier.end] for identifier in capitals.find(text)]
    assert found == [word for word in words if word.isupper()]
    assert capitals.find("") == [] and capitals.find(" \n ") == []


def test_a_word_of_any_length_takes_linear_windows(capitals: Tagger) -> None:
    text = "x" * 5000 + " ROE"
    assert [text[found.start : found.end] for found in capitals.find(text)] == ["ROE"]


def test_a_placeholder_is_never_split_or_read(capitals: Tagger) -> None:
    text = "ROE [NAME-2] ANN [DATE]; NAME said"
    found = with_tagger(find_identifiers, capitals)(text)
    assert [text[identifier.start : identifier.end] for identifier in found] == ["ROE", "ANN", "NAME"]


def test_a_word_that_is_surely_a_name_once_needs_less_elsewhere(capitals: Tagger) -> None:
    text = "Roe.\nroe\n(may)"
    words = words_of(text)
    assert [text[start:end] for start, end in words] == ["Roe.", "roe", "(", "may", ")"]
    tags = [(5.0, "NAME"), (-1.5, "NAME"), (-9.0, "NAME"), (-1.5, "NAME"), (-9.0, "NAME")]

    def found(sure: float) -> list[str]:
        tagger = replace(capitals, sure_lead=sure, weak_lead=-2.0)
        return [text[each.start : each.end] for each in tagger.identifiers(text, words, tags)]

    assert found(4.0) == ["Roe", "roe"] and found(6.0) == ["Roe"]


def test_texts_of_many_lengths_are_read_as_each_alone(capitals: Tagger, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join("w " * (number % 7 * 40) + f"ROE{number}" for number in range(30))
    read = {}
    for tokens in (1, 1024):
        monkeypatch.setattr(tagger_module, "BATCH_TOKENS", tokens)
        read[tokens] = capitals.read(text, words_of(text))
    assert read[1] == read[1024]


def test_a_text_in_capitals_is_read_in_small_letters(capitals: Tagger) -> None:
    assert capitals.find("MR ROE ATE, İS") == [], "the model that knows capitals sees none"
    assert [found.start for found in capitals.find("Mr ROE ate, and much else")] == [3]


def test_names_of_two_lines_are_two_identifiers(capitals: Tagger) -> None:
    text = "ANN ROE\nMAY said no to it"
    assert [text[found.start : found.end] for found in capitals.find(text)] == ["ANN ROE", "MAY"]


# ---- Surrogates ----


def tagged(kind: str, text: str) -> str:
    return f"[{kind}]"


def test_surrogates_are_the_same_within_a_patient_and_differ_between_patients() -> None:
    surrogates = Surrogates(b"secret")
    one, two = surrogates.of("p1", tagged), surrogates.of("p2", tagged)
    first, last = one("NAME", "Grace Okafor").split()
    assert one("NAME", "OKAFOR, Grace") == f"{last.upper()}, {first}"
    assert one("NAME", "grace") == first.lower() and one("NAME", "Okafor") == last
    assert two("NAME", "Grace Okafor") != one("NAME", "Grace Okafor")
    assert Surrogates(b"secret").of("p1", tagged)("NAME", "Grace Okafor") == f"{first} {last}"


def test_no_name_becomes_itself_and_no_two_become_one() -> None:
    women = [word for words in name_lists()["female"].values() for word in words]
    instead = Surrogates(b"s").of("p", tagged)
    made = {word: instead("NAME", word) for word in women[:400]}
    assert all(name != word and length_class(name) == length_class(word) for word, name in made.items())
    assert set(made.values()) <= set(women), "a woman's name becomes a woman's name"
    assert len(set(made.values())) == len(made)
    assert len({instead("NAME", f"Okafor{'abcdefgh'[n % 8]}") for n in range(8)}) == 8


@pytest.mark.parametrize(
    ("kind", "text", "form"),
    [
        ("PHONE", "(617) 555-0199", r"\(\d{3}\) \d{3}-\d{4}"),
        ("ID", "AB1234567", r"[A-Z]{2}\d{7}"),
        ("ID", "12345\n678", r"\d{5}\n\d{3}"),
        ("EMAIL", "ann.roe@example.org", r"user\d{6}@example\.org"),
        ("URL", "www.example.net/roe", r"https://example\.org/user\d{6}"),
        ("LOCATION", "14 Elm Street", r"\d{2} [^\W\d]+ Street"),
        ("LOCATION", "K4 2QT", r"[A-Z]\d \d[A-Z]{2}"),
        ("HOSPITAL", "St Brigid General Hospital", r"St [^\W\d]+ General Hospital"),
        ("HOSPITAL", "WCH", r"[A-Z]{3}"),
        ("NAME", "J.K.", r"[A-Z]\.[A-Z]\."),
        ("NAME", "Okafor 2021-03-14", r"[^\W\d]+ \d{4}-\d\d-\d\d"),
        ("AGE", "97-year-old", r"90-year-old"),
        ("DATE", "2021-03-14", r"\[DATE\]"),
        ("AGE", "ninety-four", r"\[AGE\]"),
    ],
)
def test_a_surrogate_has_the_form_of_what_it_replaces(kind: str, text: str, form: str) -> None:
    made = Surrogates(b"s").of("p", tagged)(kind, text)
    assert re.fullmatch(form, made) and made != text, made


@pytest.mark.parametrize("kind", ["PHONE", "ID", "NAME", "LOCATION", "HOSPITAL"])
def test_every_digit_changes_whatever_the_type(kind: str) -> None:
    made = Surrogates(b"s").of("p", tagged)(kind, "617-555-0199")
    assert all(new != old for new, old in zip(made, "617-555-0199", strict=True) if old.isdigit())


def test_a_record_gets_surrogates_and_its_dates_still_shift() -> None:
    record = Passage("u", "g", "custom", "Dr. Okafor saw MRN: 0048213 on 2021-03-14.")
    clean, counts = deidentified(record, find_identifiers, b"secret", Surrogates(b"secret"))
    assert isinstance(clean, Passage) and counts == {"NAME": 1, "ID": 1, "DATE": 1}
    match = re.fullmatch(r"Dr\. ([^\W\d]+) saw MRN: (\d{7}) on (\d{4}-\d\d-\d\d)\.", clean.text)
    assert match and match[1] != "Okafor" and match[2] != "0048213" and match[3] < "2021-03-14"


def test_spans_move_with_surrogates_too() -> None:
    text = "Mr. Okafor has gout"
    record = Annotated("u", "g", "custom", text, (Span(15, 19, "Disease", "gout"),))
    clean, _ = deidentified(record, find_identifiers, b"k", Surrogates(b"k"))
    assert isinstance(clean, Annotated)
    assert [clean.text[span.start : span.end] for span in clean.spans] == ["gout"]


# ---- The adapter that ships ----


def test_the_adapter_that_ships_finds_names_that_no_pattern_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("presidio_analyzer")
    monkeypatch.setattr("lora_med.cli.data.deidentify_command.MEASURED_WITH_MODEL", 2)
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"uid": "a", "text": "Dear Bettina,\nplease ring Ottokar before lunch."}) + "\n")
    out = tmp_path / "out.jsonl"
    command = ["data", "deidentify", "custom", str(rows), "--out", str(out), "--access", "open"]
    assert run([*command, "--model", SHIPPED, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["replaced"] == {"NAME": 2}
    assert json.loads(out.read_text())["text"] == "Dear [NAME-1],\nplease ring [NAME-2] before lunch."
    assert run([*command, "--model", "nobody", "--store", str(tmp_path)]) == 66
    assert "nobody" in capsys.readouterr().err


def test_an_adapter_that_tags_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = tagger_module.open_files

    def of_diseases(folder: Path) -> Any:
        adapter = opened(folder)
        return replace(adapter, card=replace(adapter.card, labels=["O", "B-Disease", "I-Disease"]))

    monkeypatch.setattr(tagger_module, "open_files", of_diseases)
    with pytest.raises(SettingsError, match="tags Disease: no kind of identifier"):
        load_tagger_of_identifiers(SHIPPED)

"""Encodings: read by a mark or where they are stated, named where they are likely, never guessed silently."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.containers.reading_rows import outcomes, refusal, values

FRENCH = "déjà vu, fièvre élevée; état général conservé, œdème léger"
TEXTS = {
    "windows-1252": "Déjà vu – fièvre élevée, “état général” conservé, œdème léger",
    "latin-1": "Déjà vu, fièvre élevée, état général conservé",
    "mac-roman": "Déjà vu, fièvre élevée, état général conservé, œdème léger",
    "cp850": "Für die Überprüfung müssen ältere Männer zurückkommen, größere Dosis",
    "windows-1250": "Pacjent zgłosił się z gorączką, łagodny ból głowy, źródło zakażenia, ciśnienie podwyższone",
    "windows-1251": "Больной поступил с лихорадкой, артериальное давление повышено",
    "koi8-r": "Больной поступил с лихорадкой, артериальное давление повышено",
    "windows-1254": "Hasta ateş ve öksürük şikâyetiyle başvurdu, kan basıncı yüksek, ağrı yok, ilaç değişti",
    "windows-1253": "Ο ασθενής προσήλθε με πυρετό και βήχα, η αρτηριακή πίεση είναι αυξημένη",
    "windows-1255": "החולה הגיע עם חום ושיעול, לחץ הדם גבוה, אין כאבים בחזה",
    "windows-1256": "حضر المريض يعاني من الحمى والسعال وارتفاع ضغط الدم ولا يوجد ألم في الصدر",
    "shift_jis": "患者は発熱と咳を訴えて来院した。血圧は高い。",
    "euc-jp": "患者は発熱と咳を訴えて来院した。血圧は高い。",
    "gb18030": "患者因发热咳嗽三天来我院就诊，血压升高。",
    "big5": "患者因發熱咳嗽三天來我院就診，血壓升高。",
    "euc-kr": "환자는 발열과 기침으로 내원하였다. 혈압이 높다.",
}


@pytest.mark.parametrize("encoding", TEXTS)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_a_file_in_another_encoding_is_refused_with_the_likely_one_and_read_where_it_is_stated(
    encoding: str, name: str, tmp_path: Path
) -> None:
    text = TEXTS[encoding]
    row = json.dumps({"text": text, "n": "1"}, ensure_ascii=False)
    content = f'text,n\n"{text}",1\n' if name == "a.csv" else f"[{row}]" if name == "a.json" else f"{row}\n{row}\n"
    raw = content.encode(encoding)
    likely = "windows-1252" if encoding == "latin-1" else encoding
    said = refusal(tmp_path / name, raw)
    assert "not UTF-8" in said and f"--encoding {likely}" in said and f"data.encoding={likely}" in said, said
    assert "skip" not in said
    assert values(tmp_path / name, raw, encoding=encoding)[0] == {"text": text, "n": "1"}
    assert values(tmp_path / name, raw, encoding=likely)[0]["text"] == text


def test_an_encoding_that_is_not_recognized_is_asked_for_without_advice_to_skip(tmp_path: Path) -> None:
    said = refusal(tmp_path / "a.csv", "text\nผู้ป่วยมีไข้และไอ ความดันโลหิตสูง\n".encode("iso-8859-11"))
    assert "not UTF-8" in said and "--encoding" in said and "skip" not in said


def test_latin_1_is_named_where_it_reads_the_same(tmp_path: Path) -> None:
    assert "Latin-1" in refusal(tmp_path / "a.csv", "text\ndéjà vu fièvre\n".encode("latin-1"))
    assert "Latin-1" in refusal(tmp_path / "a.csv", "text\ntemp 38 °C, dose 5 µg\n".encode("latin-1"))
    assert "Latin-1" not in refusal(tmp_path / "a.csv", "text\n“déjà vu” – fièvre\n".encode("windows-1252"))


def test_a_damaged_line_among_good_ones_is_no_other_encoding(tmp_path: Path) -> None:
    content = b'{"text": "fi\xc3\xa8vre \xc3\xa9lev\xc3\xa9e"}\n{"text": "torn \xc3 here \xe8v"}\n{"text": "so"}\n'
    _first, second, _third = outcomes(tmp_path / "a.jsonl", content * 1)
    said = str(second.error)  # type: ignore[union-attr]
    assert "the line is not UTF-8" in said and "encoding" not in said and "--skip-bad" in said


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_utf_16_and_utf_32_without_a_mark_are_asked_for(codec: str, name: str, tmp_path: Path) -> None:
    content = "text,n\nfièvre,1\n" if name == "a.csv" else '{"text": "fièvre", "n": "1"}\n'
    said = refusal(tmp_path / name, content.encode(codec))
    assert "without a byte order mark" in said and f"--encoding {codec}" in said
    assert values(tmp_path / name, content.encode(codec), encoding=codec) == [{"text": "fièvre", "n": "1"}]
    assert f"--encoding {codec}" in refusal(tmp_path / name, content.encode(codec), encoding=codec[:6])


def test_what_is_stated_and_what_the_file_shows_may_not_differ(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert "utf-16-le" in refusal(path, "text\nfièvre\n".encode("utf-16"), encoding="latin-1")
    assert "the file is UTF-8" in refusal(path, "text\nfièvre\n".encode(), encoding="windows-1252")
    assert "windows-1252" in refusal(path, "text\n“fièvre”\n".encode("windows-1252"), encoding="latin-1")
    assert values(path, "text\nfièvre\n".encode("utf-8-sig"), encoding="utf-8") == [{"text": "fièvre"}]
    assert values(path, "text\nfièvre\n".encode("utf-16"), encoding="utf-16") == [{"text": "fièvre"}]
    assert "not ascii" in refusal(path, "text\nfièvre élevée\n".encode("latin-1"), encoding="ascii")


@pytest.mark.parametrize("name", ["latn-1", "windows1522", "utf-81", "rot13", "hex", "idna", "punycode", "", "a\0b"])
def test_an_unknown_encoding_is_an_error_of_the_settings(name: str, tmp_path: Path) -> None:
    said = refusal(tmp_path / "a.csv", "text\na\n", encoding=name)
    assert "E002" in said and "no encoding named" in said
    if name == "latn-1":
        assert "did you mean 'latin-1'" in said


def test_formats_that_state_their_own_encoding_take_none(tmp_path: Path) -> None:
    said = refusal(tmp_path / "a.parquet", "x", encoding="latin-1")
    assert "data.encoding is for JSON and CSV, and a.parquet is none" in said
    assert "data.delimiter is for CSV" in refusal(tmp_path / "a.json", "[]", delimiter=";")


def test_utf_16_that_ends_within_a_character_is_named(tmp_path: Path) -> None:
    said = refusal(tmp_path / "a.csv", "text\nfièvre\n".encode("utf-16")[:-1])
    assert "ends early" in said

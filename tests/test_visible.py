"""What acts on a terminal or hides in a text is shown as something that a reader sees."""

from __future__ import annotations

import unicodedata

import pytest

from lora_med.visible import visible

HOSTILE = {
    "ANSI, clear screen": ("\x1b[2J\x1b[H", "␛[2J␛[H"),
    "OSC 8, a link to elsewhere": ("\x1b]8;;http://evil.example\x1b\\ok\x07", "␛]8;;http://evil.example␛\\ok␇"),
    "8-bit CSI": ("\x9b31m", "\\x9b31m"),
    "CR, the line overwritten": ("dose 10 mg\rdose 99 mg", "dose 10 mg␍dose 99 mg"),
    "backspaces": ("ab\b\bcd", "ab␈␈cd"),
    "bidi override": ("\u202egm 01\u202c", "\\u202egm 01\\u202c"),
    "bidi isolate": ("\u2066a\u2069", "\\u2066a\\u2069"),
    "Arabic letter mark": ("\u061ca", "\\u061ca"),
    "zero-width": ("a\u200bb\u200dc\u2060d\ufeffe", "a\\u200bb\\u200dc\\u2060d\\ufeffe"),
    "soft hyphen": ("a\xadb", "a\\xadb"),
    "tags that spell ASCII": ("a\U000e0041\U000e007f", "a\\U000e0041\\U000e007f"),
    "variation selectors that hide bytes": ("a\U000e0101", "a\\U000e0101"),
    "Hangul filler": ("\u3164", "\\u3164"),
    "line separator": ("a\u2028b\u2029", "a\\u2028b\\u2029"),
    "half of a pair": ("\ud800", "\\ud800"),
    "delete and null": ("\x7f\x00", "␡␀"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_acts_or_hides_is_shown(name: str) -> None:
    text, shown = HOSTILE[name]
    assert visible(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "é ä ß 漢字 עברית العربية हिन्दी",
        "a\u00a0b\u2009c",
        "5 µg → 3 × 10⁹/L, “ok” – ½",
        "♥\ufe0f 🩺",
        "two\nlines\tand a tab",
    ],
)
def test_what_is_only_text_stays(text: str) -> None:
    assert visible(text) == text


def test_one_line_is_one_line() -> None:
    assert visible("a\nb\tc\r\n", one_line=True) == "a␊b␉c␍␊"


def test_nothing_that_unicode_calls_a_control_or_format_character_is_left() -> None:
    everything = "".join(map(chr, range(0x110000)))
    left = {character for character in visible(everything) if unicodedata.category(character) in ("Cc", "Cf", "Cs")}
    assert left == {"\n", "\t"}
    assert visible(everything).encode("utf-8")

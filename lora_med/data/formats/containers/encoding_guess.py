"""The likely encoding of bytes that are not UTF-8: how well they read as words in each of a few usual ones.

It is for messages: nothing is ever read in a guessed encoding. Each candidate decodes the bytes beyond ASCII. Letters
of its languages inside words count for it, signs between letters and capitals after small letters against it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

WESTERN = "àáâãäåæçèéêëìíîïñòóôõöøùúûüœß"
CENTRAL = "áâăäąćčçďđéęěëíîĺľłńňóôőöŕřśšşťţúůűüýźžż"
CYRILLIC = "абвгдежзийклмнопрстуфхцчшщъыьэюяёіїєґ"
TURKISH = "âçğıîöşûüİ"
GREEK = "αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋΐΰ"
HEBREW = "אבגדהוזחטיךכלםמןנסעףפץצקרשת"
ARABIC = "ءآأؤإئابةتثجحخدذرزسشصضطظعغفقكلمنهوىي"
COMMON = {  # the letters that make up most of a text, of alphabets that share their bytes
    CYRILLIC: set("оеаинтсрвлкмдпу"),
    GREEK: set("αοιετσνηυρπκ"),
    HEBREW: set("יוהלאתרבשמםענ"),
    ARABIC: set("اليمنوترهبسد"),
}
SIGNS = set("“”„‘’‚«»‹›–—…•€£§©®™°±²³µ·¿¡½¼¾×\xa0")
# The likelier first: of two that read equally well, the first is named.
CANDIDATES = {
    "windows-1252": WESTERN,
    "mac-roman": WESTERN,
    "cp850": WESTERN,
    "windows-1254": TURKISH,
    "windows-1250": CENTRAL,
    "iso-8859-2": CENTRAL,
    "windows-1251": CYRILLIC,
    "koi8-r": CYRILLIC,
    "windows-1253": GREEK,
    "windows-1255": HEBREW,
    "windows-1256": ARABIC,
}
WIDE = {"shift_jis": "cp932", "euc-jp": "euc_jp", "euc-kr": "cp949", "gb18030": "gb18030", "big5": "big5"}
LEAST_SCORE = 0.5
MOST_DAMAGED = 16  # bytes that are not UTF-8 in a file that is
MOST_BYTES = 1 << 14  # beyond ASCII; more of them say nothing new
CONTEXT = re.compile(rb"[^\x80-\xff]?[\x80-\xff](?:[\x21-\x7e]?[\x80-\xff])*[^\x80-\xff]?")


PAIR = re.compile(rb"[\x80-\xff]{2}")


@dataclass(frozen=True)
class Guess:
    """An encoding's name for `data.encoding`, and what a message calls it."""

    name: str
    label: str


def likely_encoding(sample: bytes, codec: str = "utf-8") -> Guess | None:
    """The encoding in which the bytes beyond ASCII read best, other than `codec`; None where none is likely.

    None too where most of them are `codec`: then a few bytes are damaged, not the encoding.
    """
    pieces: list[bytes] = []
    count = 0
    for match in CONTEXT.finditer(_without_utf8(sample) if codec.startswith("utf") else sample):
        pieces.append(match[0])
        count += len(match[0])
        if count > MOST_BYTES:
            break
    if not pieces or (codec.startswith("utf") and _mostly_utf8(sample)):
        return None
    high = sum(byte >= 0x80 for piece in pieces for byte in piece)
    scores = {
        name: sum(_words(piece, name, letters) for piece in pieces) / high for name, letters in CANDIDATES.items()
    }
    scores |= {name: sum(_wide(piece, wide, name) for piece in pieces) / high for name, wide in WIDE.items()}
    scores.pop(codec, None)
    best = max(scores, key=lambda name: scores[name])
    if scores[best] < LEAST_SCORE:
        return None
    return Guess(best, _label(best, b"".join(pieces)))


def _label(name: str, raw: bytes) -> str:
    if name != "windows-1252":
        return name.title() if name.startswith(("windows", "mac")) else name.upper()
    return "Windows-1252" if re.search(rb"[\x80-\x9f]", raw) else "Windows-1252 or Latin-1"


UTF8_CHARACTER = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")


def _without_utf8(sample: bytes) -> bytes:
    return sample if not _mostly_utf8(sample) else UTF8_CHARACTER.sub(b"", sample)


def _mostly_utf8(sample: bytes) -> bool:
    """Whether more characters of several bytes are UTF-8 than bytes are not."""
    rest, characters = UTF8_CHARACTER.subn(b"", sample)
    return characters > len(re.findall(rb"[\x80-\xff]", rest))


def is_foreign(sample: bytes) -> bool:
    """Whether so many bytes are not UTF-8, and so few are, that the file is in another encoding, not damaged."""
    return not _mostly_utf8(sample) and len(re.findall(rb"[\x80-\xff]", UTF8_CHARACTER.sub(b"", sample))) > MOST_DAMAGED


def _words(piece: bytes, name: str, letters: str) -> float:
    """How well bytes read as letters of a language, from -2 to 1 for each beyond ASCII."""
    try:
        text = piece.decode(name)
    except UnicodeDecodeError:
        return -2.0 * len(piece)
    score = 0.0
    for place, letter in enumerate(text):
        if letter.isascii():
            continue
        before, after = text[place - 1 : place] if place else "", text[place + 1 : place + 2]
        in_word = before.isalpha() and after.isalpha()
        if letter.lower() in letters:
            score += _letter(letter, before, after, letters)
        elif letter in SIGNS:
            score += -1 if in_word and letter != "’" else 1
        else:
            score -= 2
    return score


def _letter(letter: str, before: str, after: str, letters: str) -> float:
    if letter.isupper() and before.islower():
        return -1
    if letters in COMMON:
        return 1 if letter in COMMON[letters] else 0.4
    crowded = not before.isascii() and not after.isascii()  # accents in a row: bytes of another script
    return 0 if crowded else 1


def _wide(piece: bytes, codec: str, name: str) -> float:
    """How well bytes read as characters of East Asia, from -2 to 1 for each byte beyond ASCII; single ones are none."""
    if not PAIR.search(piece):
        return 0
    try:
        text = piece.decode(codec)
    except UnicodeDecodeError:
        text = piece[1:].decode(codec, "replace") if piece[:1].isascii() else piece.decode(codec, "replace")
    return sum(_character(letter, codec, name) for letter in text if not letter.isascii())


def _character(letter: str, codec: str, name: str) -> float:
    if letter == "\ufffd":
        return -2
    high = sum(byte >= 0x80 for byte in letter.encode(codec))
    if "\u3040" <= letter <= "\u30ff":  # kana
        return high if name in ("shift_jis", "euc-jp") else 0
    if "\uac00" <= letter <= "\ud7a3":  # Hangul
        common = 0xB0 <= letter.encode(codec, "replace")[0] <= 0xC8 and high == 2  # else of a rare extension
        return high if name == "euc-kr" and common else -high
    if "\u4e00" <= letter <= "\u9fff":
        lead = letter.encode(codec)[0]
        common = {"gb18030": 0xB0 <= lead <= 0xD7, "big5": 0xA4 <= lead <= 0xC6}.get(name)
        return high * (0.6 if common is None else 0.9 if common else 0.2)
    if "\u3000" <= letter <= "\u303f" or "\uff01" <= letter <= "\uff5e":  # their punctuation
        return 0.8 * high
    return -high

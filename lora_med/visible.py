"""Text from files as a screen or a page may show it: characters that act on a terminal, or hide, become visible.

| characters | shown as |
|---|---|
| C0 controls (U+0000 to U+001F, without tab and line feed), U+007F | their control picture: ESC is `␛`, CR `␍` |
| C1 controls (U+0080 to U+009F), soft hyphen | `\\x9b`, `\\xad` |
| marks of direction (U+061C, U+200E, U+200F, U+202A to U+202E, U+2066 to U+2069) | `\\u202e` |
| without width: zero-width space and joiners, word joiner, byte order mark | `\\u200b` |
| line and paragraph separator, other format characters, half surrogate pairs, private use, unassigned | `\\u2028` |
| tags and variation selectors from U+E0000 on, letters without a shape (Hangul fillers, blank Braille) | `\\u3164` |

A line feed and a tab stay, except where one line is wanted: there they are `␊` and `␉`. The text is only for reading:
a file keeps the characters that it has.
"""

from __future__ import annotations

import html
import re
import unicodedata

SHAPELESS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\U000e0100-\U000e01ef"  # Unicode counts them as printable
_SUSPECT = re.compile(r"[^ -~\n\t]")
_SHAPELESS = re.compile(f"[{SHAPELESS}]")
_MARKUP = re.compile(r"[\\`*~|[\]]|(?<!\w)_|_(?!\w)")  # an underscore inside a word is only that


def visible(text: str, *, one_line: bool = False) -> str:
    """The text with every control, format and invisible character replaced by what the table above shows.

    Args:
        one_line: replace line feeds and tabs too: for a name, a label, a cell of a table.
    """
    if not (text.isascii() and text.isprintable()):
        text = _SUSPECT.sub(lambda match: _shown(match[0]), text)
    return text.replace("\n", "␊").replace("\t", "␉") if one_line else text


def _shown(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if _SHAPELESS.match(character) is None and (character.isprintable() or unicodedata.category(character) == "Zs"):
        return character
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible_value(value: object) -> object:
    """The value of an expression in a page's template: text made visible; markup, numbers and all else as they are."""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def markdown(text: str) -> str:
    """The text for a line or a table's cell of a Markdown page: visible, on one line, with no markup or HTML in it."""
    plain = html.escape(visible(" ".join(text.split())), quote=False)
    return _MARKUP.sub(r"\\\g<0>", plain)

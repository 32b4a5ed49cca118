"""A spreadsheet's cell as the text it shows: numbers by their number format, dates in ISO 8601.

A whole number shows no `.0`; a percentage, leading zeros, units and signs are shown as the format has them. A format
beyond that (fractions, conditions, powers) shows the plain number. See ECMA-376, part 1, 18.8.31.
"""

from __future__ import annotations

import datetime
import re
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

ESCAPED = re.compile(r"_x(00[01][0-9A-Fa-f])_")
PART = re.compile(
    r'"(?P<quoted>[^"]*)"|\\(?P<escaped>.)|\[\$(?P<currency>[^\]-]*)[^\]]*\]|\[(?P<bracket>[^\]]*)\]'
    r"|_(?P<space>.)|\*(?P<fill>.)|(?P<unformatted>General)|(?P<digit>[0#?])|(?P<sign>[.,%])"
    r"|(?P<plain>[-+ $():!&'~{}<>=€£¥°]|[^\x00-\x7f])",
    re.IGNORECASE | re.DOTALL,
)
COLORS = re.compile(r"black|blue|cyan|green|magenta|red|white|yellow|color\d+", re.IGNORECASE)
MOST_DIGITS = 15  # of a spreadsheet's number


def cell_text(value: Any, number_format: str) -> str | None:
    """The text that a cell shows, None if it is empty."""
    if value is None or isinstance(value, str):
        return None if value is None else ESCAPED.sub(lambda match: chr(int(match[1], 16)), value)
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, datetime.timedelta):
        seconds = round(value.total_seconds())
        sign, seconds = ("-" if seconds < 0 else ""), abs(seconds)
        return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return _moment(value, number_format)
    return formatted(value, number_format)


def _moment(value: datetime.datetime | datetime.date | datetime.time, number_format: str) -> str:
    shown = re.sub(r'"[^"]*"|\\.|\[[^\]]*\]', "", number_format).lower()
    if isinstance(value, datetime.time):
        return value.replace(microsecond=0).isoformat()
    if not isinstance(value, datetime.datetime):
        return value.isoformat()
    if value.microsecond >= 500_000:
        value += datetime.timedelta(seconds=1)
    if not re.search("[hs]", shown):
        return value.date().isoformat()
    return value.replace(microsecond=0, tzinfo=None).isoformat(sep=" ")


def formatted(value: int | float, number_format: str) -> str:
    """A number by its format, or plain where the format needs more than digits, signs and texts."""
    sections = re.split(r';(?=(?:[^"]*"[^"]*")*[^"]*$)', number_format)
    section = sections[0]
    if value < 0 and len(sections) > 1:
        section, value = sections[1], -value
    elif value == 0 and len(sections) > 2:
        section = sections[2]
    parts = _parts(section)
    if parts is None:
        return plain(value if section is sections[0] else -value)
    kinds = {kind for kind, _ in parts}
    if "unformatted" in kinds or "digit" not in kinds:
        text = plain(value)
        return (
            "".join(text if kind == "unformatted" else part for kind, part in parts) if "unformatted" in kinds else text
        )
    return _filled(parts, value)


def _parts(section: str) -> list[tuple[str, str]] | None:
    """The parts of a section as kind and text: unformatted, digit, sign, text. None if it has others."""
    parts: list[tuple[str, str]] = []
    position = 0
    while position < len(section):
        match = PART.match(section, position)
        if match is None:
            return None
        position = match.end()
        kind, text = str(match.lastgroup), match[str(match.lastgroup)]
        if kind == "bracket" and not COLORS.fullmatch(text):
            return None
        if kind in ("quoted", "escaped", "currency", "plain"):
            parts.append(("text", text))
        elif kind in ("unformatted", "digit", "sign"):
            parts.append((kind, text))
    return parts


def _filled(parts: list[tuple[str, str]], value: int | float) -> str:
    """The digits of a number in the places of a format, from the decimal point to both sides."""
    marks = [text for kind, text in parts if kind in ("digit", "sign")]
    point = next((number for number, part in enumerate(parts) if part == ("sign", ".")), len(parts))
    before, after = parts[:point], parts[point + 1 :]
    number = Decimal(repr(value)) * 100 ** marks.count("%")
    places = [text for kind, text in after if kind == "digit"]
    whole_places = [number for number, (kind, _) in enumerate(before) if kind == "digit"]
    commas = [number for number, part in enumerate(before) if part == ("sign", ",")]
    if ("sign", ",") in after or marks.count(".") > 1 or not whole_places or any(c > whole_places[-1] for c in commas):
        return plain(value)  # commas that scale by thousands, and other rarities
    rounded = abs(number).quantize(Decimal(1).scaleb(-len(places)), ROUND_HALF_UP)
    whole, _, fraction = f"{rounded:f}".partition(".")
    minus = "-" if number < 0 and rounded else ""
    return (
        minus + _whole(before, "" if whole == "0" else whole, grouped=bool(commas)) + _fraction(parts[point:], fraction)
    )


def _whole(parts: list[tuple[str, str]], digits: str, *, grouped: bool) -> str:
    left = list(digits)
    shown: list[str] = []
    count = 0
    first = next(number for number, (kind, _) in enumerate(parts) if kind == "digit")
    for number in range(len(parts) - 1, -1, -1):
        kind, text = parts[number]
        if kind == "text" or text == "%":
            shown.append(text)
        if kind != "digit":
            continue
        while True:
            digit = left.pop() if left else {"0": "0", "?": " "}.get(text, "")
            if digit.isdigit() and grouped and count and count % 3 == 0:
                shown.append(",")
            shown.append(digit)
            count += digit.isdigit()
            if number != first or not left:  # the first place takes all that is left
                break
    return "".join(reversed(shown))


def _fraction(parts: list[tuple[str, str]], digits: str) -> str:
    optional = 0
    for kind, text in reversed(parts):
        if kind == "digit":
            if text == "0" or digits[len(digits) - 1 - optional] != "0":
                break
            optional += 1
    retained = digits[: len(digits) - optional]
    left = iter(retained)
    texts = [part for part in parts if part not in (("sign", ","), ("sign", "."))]
    shown = [next(left, "") if kind == "digit" else text for kind, text in texts]
    return ("." if retained else "") + "".join(shown)


def plain(value: int | float) -> str:
    """A number in full, without an exponent, to the digits that a spreadsheet has."""
    if isinstance(value, int):
        return str(value)
    return f"{Decimal(f'{value:.{MOST_DIGITS}g}').normalize():f}" if value else "0"

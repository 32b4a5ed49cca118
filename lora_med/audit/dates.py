"""Dates shifted by a number of days for each patient: intervals and formats stay, calendar dates do not."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from datetime import date, timedelta

MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
          "november", "december")  # fmt: skip
_NAME = "|".join(f"{name[:3]}(?:{name[3:]})?" if len(name) > 3 else name for name in MONTHS)
_TH = "(?:st|nd|rd|th)?"
MOST_DAYS = 364
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAY_NAME = "|".join(f"{name}|{name[:4]}|{name[:3]}" if name[0] == "t" else f"{name}|{name[:3]}" for name in WEEKDAYS)
_WITH_WEEKDAY = re.compile(rf"(?P<weekday>thurs|{_DAY_NAME})(?P<rest>\.?,? +(?P<date>\S.*))", re.IGNORECASE | re.DOTALL)
_WITH_TIME = re.compile(r"(?P<date>\d{4}[-/.]\d{1,2}[-/.]\d{1,2})(?P<time> \d{1,2}:\d\d(?::\d\d)?)")
SOME_YEAR = 2001  # for a day without a year; no leap year, so that 29 February becomes a tag

Shifted = Callable[[re.Match[str], int], str | None]


def days_of(secret: bytes, patient: str) -> int:
    """By how many days a patient's dates shift back: 1 to 364, the same wherever the secret is the same."""
    mark = hmac.new(secret, patient.encode("utf-8"), hashlib.sha256).digest()
    return 1 + int.from_bytes(mark[:8], "big") % MOST_DAYS


def shifted(text: str, days: int) -> str | None:
    """The date in `text` shifted back by `days` in the same format; None if the format is unknown.

    The time of day behind a date stays. A day of the week before one moves with it.
    """
    if timed := _WITH_TIME.fullmatch(text.strip()):
        moved = shifted(timed["date"], days)
        return None if moved is None else moved + timed["time"]
    if named := _WITH_WEEKDAY.fullmatch(text.strip()):
        moved = shifted(named["date"], days)
        between = named["rest"][: named["rest"].index(named["date"])]
        return None if moved is None else f"{_moved_weekday(named['weekday'], days)}{between}{moved}"
    for pattern, move in _FORMS:
        match = pattern.fullmatch(text.strip())
        if match:
            try:
                return move(match, days)
            except (ValueError, OverflowError):  # no such day: 31/02
                return None
    return None


def _moved(year: int, month: int, day: int, days: int) -> date:
    return date(year, month, day) - timedelta(days=days)


def _moved_weekday(name: str, days: int) -> str:
    """The day of the week that many days earlier, as long as the old one."""
    old = next(number for number, weekday in enumerate(WEEKDAYS) if weekday.startswith(name.lower()))
    new = WEEKDAYS[(old - days) % len(WEEKDAYS)]
    word = new if name.lower() in WEEKDAYS else new[:3]
    return word.upper() if name.isupper() else word.capitalize() if name[0].isupper() else word


def _numbers(month: int, day: int, like: tuple[str, str]) -> tuple[str, str]:
    """Month and day, with leading zeros if the old date had them."""
    padded = all(len(part) == 2 for part in like)
    return (f"{month:02}", f"{day:02}") if padded else (str(month), str(day))


def _year_first(match: re.Match[str], days: int) -> str:
    year, mark, month, day = match.groups()
    moved = _moved(int(year), int(month), int(day), days)
    return mark.join((str(moved.year), *_numbers(moved.month, moved.day, (month, day))))


def _numeric(match: re.Match[str], days: int) -> str:
    """Month first, as in the United States, unless only the other order is possible or a full stop separates them."""
    first_part, mark, second_part, year = match.groups()
    month_first = int(second_part) > 12 or (mark != "." and int(first_part) <= 12)
    month, day = (first_part, second_part) if month_first else (second_part, first_part)
    full = int(year) if len(year) == 4 else 2000 + int(year) - (100 if int(year) > 68 else 0)
    moved = _moved(full, int(month), int(day), days)
    new_month, new_day = _numbers(moved.month, moved.day, (month, day))
    new_year = str(moved.year) if len(year) == 4 else f"{moved.year % 100:02}"
    first, second = (new_month, new_day) if month_first else (new_day, new_month)
    return f"{first}{mark}{second}{mark}{new_year}"


def _month_day(match: re.Match[str], days: int) -> str:
    month, day = match.groups()
    moved = _moved(SOME_YEAR, int(month), int(day), days)
    return "/".join(_numbers(moved.month, moved.day, (month, day)))


def _spelled(name: str, like: str) -> str:
    word = name if len(like.rstrip(".")) > 3 else name[:3]
    return word.upper() if like.isupper() else word.capitalize() if like[0].isupper() else word


def _place(name: str) -> int:
    return 1 + next(index for index, month in enumerate(MONTHS) if month.startswith(name.lower()[:3]))


def _day_of_month(match: re.Match[str], days: int) -> str:
    """`March 14, 2021`, `March 14`, `14 Mar 2021`, `14-MAR-21`, `the 14th of March`."""
    parts = match.groupdict()
    year = parts["year"]
    full = SOME_YEAR if year is None else int(year) if len(year) == 4 else 2000 + int(year)
    moved = _moved(full, _place(parts["month"]), int(parts["day"]), days)
    text = match[0]
    pieces = [
        (match.span("month"), _spelled(MONTHS[moved.month - 1], parts["month"])),
        (match.span("day"), str(moved.day)),
    ]
    if year is not None:
        pieces.append((match.span("year"), str(moved.year) if len(year) == 4 else f"{moved.year % 100:02}"))
    for (start, end), new in sorted(pieces, reverse=True):
        text = text[:start] + new + text[end:]
    return re.sub(r"(\d)(?:st|nd|rd|th)\b", lambda found: found[1] + _ordinal(moved.day), text)


def _ordinal(day: int) -> str:
    return "th" if 10 < day % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")


def _month_of_year(match: re.Match[str], days: int) -> str:
    month, between, year = match.groups()
    moved = _moved(int(year), _place(month), 15, days)
    return f"{_spelled(MONTHS[moved.month - 1], month)}{between}{moved.year}"


def _month_slash_year(match: re.Match[str], days: int) -> str:
    moved = _moved(int(match[2]), int(match[1]), 15, days)
    return f"{moved.month:02}/{moved.year}"


_FORMS: tuple[tuple[re.Pattern[str], Shifted], ...] = (
    (re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})"), _year_first),
    (re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4}|\d{2})"), _numeric),
    (re.compile(r"(\d{1,2})/(\d{1,2})"), _month_day),
    (re.compile(r"(\d{2})/(\d{4})"), _month_slash_year),
    (
        re.compile(rf"(?P<month>{_NAME})\.?[ -]+(?P<day>\d{{1,2}}){_TH}(?:,?[ -]+(?P<year>\d{{4}}|\d{{2}}))?", re.I),
        _day_of_month,
    ),
    (
        re.compile(
            rf"(?:the )?(?P<day>\d{{1,2}}){_TH}(?: of)?[ -]+(?P<month>{_NAME})\.?"
            r"(?:,?[ -]+(?P<year>\d{4}|\d{2}))?",
            re.I,
        ),
        _day_of_month,
    ),
    (re.compile(rf"({_NAME})(\.?,? +)(\d{{4}})", re.I), _month_of_year),
)

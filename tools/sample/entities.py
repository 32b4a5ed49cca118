"""The sample's annotated abstracts in PubTator's format: diseases and chemicals, with exact offsets."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any

from tools.sample.words import load, say, say_all

FIRST_PMID = 92_000_001
TYPES = {"C": "Chemical", "D": "Disease"}
_START = re.compile(r"(^|[.?] )([a-z])")


@dataclass(frozen=True, slots=True)
class Mention:
    """A mention in a text without marks: characters `start` to `end` (exclusive); `parts` if it names several."""

    start: int
    end: int
    type: str
    identifier: str
    parts: str = ""


def mark(kind: str, identifier: str, mention: str) -> str:
    """A mention as `read_marks` finds it again."""
    return f"<{kind}:{identifier}|{mention}>"


def read_marks(marked: str) -> tuple[str, list[Mention]]:
    """The text without its marks, capital letters set, and the mentions by offset, the outer before the inner."""
    text, mentions, opened = "", [], []
    for piece in re.split(r"(<[CD]:[^|<>]+\||>)", marked):
        if piece.startswith("<"):
            opened.append((len(text), piece[1], piece[3:-1]))
        elif piece == ">":
            start, kind, identifier = opened.pop()
            identifier, _, parts = identifier.partition("=")
            mentions.append(
                Mention(start, len(text), TYPES[kind], identifier.replace("+", "|"), parts.replace("+", "|"))
            )
        else:
            text += piece
    text = _START.sub(lambda match: match.group(1) + match.group(2).upper(), text)
    return text, sorted(mentions, key=lambda mention: (mention.start, -mention.end))


def _named(kind: str, entry: list[str]) -> tuple[str, str, str]:
    """A name as marked for a title, for its first use, and for every later one."""
    identifier, name, *short = entry
    plain = mark(kind, identifier, name)
    if not short:
        return plain, plain, plain
    later = mark(kind, identifier, short[0])
    return plain, f"{plain} ({later})", later


def _entry(entries: list[list[str]], identifier: str) -> list[str]:
    return next(entry for entry in entries if entry[0] == identifier)


def _rivals(drugs: list[dict[str, Any]], used: dict[str, Any], indication: str) -> list[list[str]]:
    """Other drugs for the same disease; any other drug if there is none."""
    others = [drug for drug in drugs if drug is not used]
    return [drug["name"] for drug in others if indication in drug["for"]] or [drug["name"] for drug in others]


def _facts(rng: random.Random, words: dict[str, Any]) -> tuple[dict[str, str], tuple[str, str]]:
    """What a document may name, and the identifiers of its drug and its harm."""
    used = rng.choice(words["drugs"])
    drug, harm = used["name"], _entry(words["diseases"], rng.choice(used["harms"]))
    indication = _entry(words["indications"], rng.choice(used["for"]))
    other, extra = rng.sample([entry for entry in words["diseases"] if entry != harm], 2)
    drug2 = rng.choice(_rivals(words["drugs"], used, indication[0]))
    first, second, composite, *names = rng.choice(words["composites"])
    facts = {
        "composite": mark("D", f"{first}+{second}={'+'.join(names)}", composite),
        "other": _named("D", other)[0],
        "extra": _named("D", extra)[0],
        "drug2": _named("C", drug2)[0],
        "rescue": _named("C", rng.choice(words["rescues"]))[0],
        "indication": _named("D", indication)[0],
        "animals": rng.choice(("rats", "mice")),
        "age": str(rng.randrange(19, 86)),
        "days": str(rng.randrange(2, 22)),
        "n": str(rng.randrange(40, 900)),
        "n2": str(rng.randrange(40, 900)),
        "pc": f"{rng.uniform(2, 38):.1f}",
    }
    for name, forms in (("harm", _named("D", harm)), ("drug", _named("C", drug))):
        facts |= dict(zip((name, f"{name}_first", f"{name}_short"), forms, strict=True))
    return facts, (drug[0], harm[0])


def _document(rng: random.Random, pmid: int) -> str:
    words = load("entities")
    shape = rng.choice(words["documents"])
    facts, (drug, harm) = _facts(rng, words)
    title, in_title = read_marks(say(rng, rng.choice(shape["title"]), facts))
    abstract, in_abstract = read_marks(say_all(rng, shape["text"], facts))
    rows = [f"{pmid}|t|{title}", f"{pmid}|a|{abstract}"]
    shift = len(title) + 1
    for text, mentions, offset in ((title, in_title, 0), (abstract, in_abstract, shift)):
        for mention in mentions:
            span = slice(mention.start, mention.end)
            cells = [pmid, mention.start + offset, mention.end + offset, text[span], mention.type]
            rows.append("\t".join(map(str, [*cells, mention.identifier, *([mention.parts] if mention.parts else [])])))
    if shape["causes"]:
        rows.append(f"{pmid}\tCID\t{drug}\t{harm}")
    return "\n".join(rows) + "\n"


def write_entities(rng: random.Random, documents: int) -> bytes:
    """The PubTator file: `documents` of them, with a blank line after each."""
    return "\n".join(_document(rng, FIRST_PMID + number) for number in range(documents)).encode() + b"\n"

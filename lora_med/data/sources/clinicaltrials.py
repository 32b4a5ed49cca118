"""ClinicalTrials.gov: one Passage a study, from the API's version 2 or the legacy XML, both with the same sections.

JSON: a study, a search page (`{"studies": [...]}`), an array of studies; a zip with one file a study, of either
format. Any module may be missing, and search pages contain only some modules. Of a study in several files, the
longest text wins. The API's text is CommonMark; its escapes are removed. The legacy text is wrapped at a width, and
its lines are joined (formats/wrapped_lines.py). Contacts, officials and locations hold names, telephone numbers and
e-mail addresses: they are never read. Formats: https://clinicaltrials.gov/data-api/about-api/study-data-structure
and, legacy, https://clinicaltrials.gov/ct2/html/images/info/public.xsd. License: public domain (work of the US
government).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_med.data.formats.archives import FIX, Document, is_xml, outcomes_of, xml_root
from lora_med.data.formats.tables import is_encodable, load_json
from lora_med.data.formats.wrapped_lines import joined
from lora_med.data.outcome import Again, Drop, Input, Outcome, ReadOptions
from lora_med.data.record import Passage, Section
from lora_med.errors import DataError

SUFFIXES = (".json", ".xml")
TABLE_ENDINGS = (".csv", ".tsv", ".txt")
NUMBER = re.compile(r"NCT\d{8}")
ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")  # CommonMark: a backslash before ASCII punctuation
LABELS = {
    "SUMMARY": "Summary",
    "DESCRIPTION": "Description",
    "CONDITIONS": "Conditions",
    "INTERVENTIONS": "Interventions",
    "PRIMARY_OUTCOMES": "Primary outcomes",
    "SECONDARY_OUTCOMES": "Secondary outcomes",
    "ELIGIBILITY": "Eligibility",
    "SEX": "Sex",
    "MINIMUM_AGE": "Minimum age",
    "MAXIMUM_AGE": "Maximum age",
}
TEXTS = ("SUMMARY", "DESCRIPTION", "ELIGIBILITY")


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The studies of the files, each once. Drops: no_text, superseded; with an error: bad, damaged_file."""
    outcomes = outcomes_of(inputs, SUFFIXES, _studies)
    fullest: dict[str, tuple[int, int]] = {}  # study -> length of its longest text, and its position

    def again() -> Iterator[Outcome]:
        studies = outcomes if options.streaming else list(outcomes)  # in memory, if the caller holds them anyway
        if not fullest:
            for position, study in enumerate(studies):
                if isinstance(study, Passage) and len(study.text) > fullest.get(study.uid, (0, 0))[0]:
                    fullest[study.uid] = (len(study.text), position)
        for position, study in enumerate(studies):
            if isinstance(study, Passage) and fullest[study.uid][1] != position:
                yield Drop("superseded")
            else:
                yield study

    return Again(again)


def _studies(document: Document) -> Iterator[Outcome]:
    if is_xml(document):
        root = xml_root(document)
        if root.tag != "clinical_study":
            raise DataError("expected a clinical_study", where=f"{document.where}:1", fix=FIX)
        number = (root.findtext("id_info/nct_id") or "").strip()
        title = root.findtext("brief_title") or root.findtext("official_title") or ""
        yield _study(number, title, _legacy(root), document.where)
        return
    if document.name.lower().endswith(TABLE_ENDINGS):
        what = "a table of studies, which has only some of their fields, is not read"
        raise DataError(what, where=document.where, fix="download the search as JSON, one file a study in a zip")
    value = load_json(io.BytesIO(document.content), Path(document.where))
    studies = value.get("studies", [value]) if isinstance(value, dict) else value
    if not isinstance(studies, list):
        raise DataError("expected a study, a search page or a list of studies", where=document.where, fix=FIX)
    for place, study in enumerate(studies, 1):
        where = document.where if studies == [value] else f"{document.where}, study {place}"
        protocol = _module(study, "protocolSection") if isinstance(study, dict) else {}
        identity = _module(protocol, "identificationModule")
        title = identity.get("briefTitle") or identity.get("officialTitle") or ""
        yield _study(identity.get("nctId"), title, _current(protocol), where)


def _study(number: Any, title: Any, values: Mapping[str, Any], where: str) -> Outcome:
    if not isinstance(number, str) or not NUMBER.fullmatch(number.strip()):
        return Drop("bad", DataError("expected a study with an NCT number", where=where, fix=FIX))
    texts = {kind: values.get(kind) or "" for kind in LABELS} | {"": title}
    wrong = next((kind for kind, text in texts.items() if not isinstance(text, str) or not is_encodable(text)), None)
    if wrong is not None:
        what = f"{LABELS.get(wrong, 'Title')}: expected a text, got {type(texts[wrong]).__name__}"
        return Drop("bad", DataError(what, where=f"{where}, {number.strip()}", fix=FIX))
    sections = tuple(Section(texts[kind].strip(), label, kind) for kind, label in LABELS.items() if texts[kind].strip())
    if not any(section.category in TEXTS for section in sections):
        return Drop("no_text")
    text = "\n".join(f"{part.label}: {part.text}" for part in sections)
    number = number.strip()
    return Passage(f"ctgov:{number}", number, "clinicaltrials", text, " ".join(title.split()), sections)


def _module(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    module = values.get(name)
    return module if isinstance(module, dict) else {}


def _unescaped(text: Any) -> Any:
    return ESCAPE.sub(r"\1", text.replace("\r\n", "\n")) if isinstance(text, str) else text


def _current(protocol: Mapping[str, Any]) -> dict[str, Any]:
    description, eligibility = _module(protocol, "descriptionModule"), _module(protocol, "eligibilityModule")
    outcomes = _module(protocol, "outcomesModule")
    return {
        "SUMMARY": _unescaped(description.get("briefSummary")),
        "DESCRIPTION": _unescaped(description.get("detailedDescription")),
        "CONDITIONS": _listed(_module(protocol, "conditionsModule").get("conditions")),
        "INTERVENTIONS": _named(_module(protocol, "armsInterventionsModule").get("interventions"), "name"),
        "PRIMARY_OUTCOMES": _named(outcomes.get("primaryOutcomes"), "measure", "timeFrame"),
        "SECONDARY_OUTCOMES": _named(outcomes.get("secondaryOutcomes"), "measure", "timeFrame"),
        "ELIGIBILITY": _unescaped(eligibility.get("eligibilityCriteria")),
        "SEX": _lower(eligibility.get("sex")),
        "MINIMUM_AGE": eligibility.get("minimumAge"),
        "MAXIMUM_AGE": eligibility.get("maximumAge"),
    }


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _listed(values: Any) -> str:
    return "; ".join(value.strip() for value in values if isinstance(value, str)) if isinstance(values, list) else ""


def _named(items: Any, *fields: str) -> str:
    """One line for each item: its name, a time frame in parentheses, and its description if there is one."""
    if not isinstance(items, list):
        return ""
    return "\n".join(_item(item.get, *fields) for item in items if isinstance(item, dict) and item.get(fields[0]))


def _item(get: Any, name: str, time: str = "") -> str:
    parts = [get(name), get(time) if time else None, get("description")]
    texts = [" ".join(_unescaped(part).split()) if isinstance(part, str) else "" for part in parts]
    return texts[0] + (f" ({texts[1]})" if texts[1] else "") + (f": {texts[2]}" if texts[2] else "")


def _legacy(root: Any) -> dict[str, str]:
    def text(path: str) -> str:
        return (root.findtext(path) or "").strip()

    def age(path: str) -> str:
        return "" if text(path) == "N/A" else text(path)

    def items(tag: str, *fields: str) -> str:
        return "\n".join(_item(node.findtext, *fields) for node in root.iterfind(tag) if node.findtext(fields[0]))

    return {
        "SUMMARY": joined(root.findtext("brief_summary/textblock") or ""),
        "DESCRIPTION": joined(root.findtext("detailed_description/textblock") or ""),
        "CONDITIONS": "; ".join((node.text or "").strip() for node in root.iterfind("condition")),
        "INTERVENTIONS": items("intervention", "intervention_name"),
        "PRIMARY_OUTCOMES": items("primary_outcome", "measure", "time_frame"),
        "SECONDARY_OUTCOMES": items("secondary_outcome", "measure", "time_frame"),
        "ELIGIBILITY": joined(root.findtext("eligibility/criteria/textblock") or ""),
        "SEX": text("eligibility/gender").lower(),
        "MINIMUM_AGE": age("eligibility/minimum_age"),
        "MAXIMUM_AGE": age("eligibility/maximum_age"),
    }

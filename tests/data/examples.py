"""One small input for each source, written by hand, and the records it gives: what the battery runs over."""

from __future__ import annotations

import json

from lora_med.data.record import Annotated, Pair, Passage, Question, Span
from tests.data.example import Example
from tests.data.examples_annotated import BRAT, N2C2
from tests.data.examples_clinical import CDA, FHIR, PLAIN
from tests.data.examples_texts import BIOC, DISCHARGE, NOTEEVENTS, PMC, PUBMED, STUDIES


def _lines(*rows: dict[str, object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


ABSTRACT = "Naloxone stops it: naloxone-induced."
TITLE_AND_ABSTRACT = f"On α-naloxone. {ABSTRACT}"
SPANS = (
    Span(5, 13, "Chemical", "naloxone"),
    Span(15, 23, "Chemical", "Naloxone"),
    Span(34, 42, "Chemical", "naloxone"),
    Span(34, 50, "Composite", "naloxone-induced"),
)
PUBTATOR = (
    f"\n11|t|On α-naloxone.\n11|a|{ABSTRACT}\n"
    "11\t5\t13\tnaloxone\tChemical\tD009270\n"
    "11\t15\t23\tNaloxone\tChemical\t-1\n"
    "11\t34\t42\tnaloxone\tChemical\tD009270|D001\n"
    "11\t34\t50\tnaloxone-induced\tComposite\tD009270\tnaloxone|induced\n"
    "11\tCID\tD009270\tD003000\n"
    "\n\n12|t|No abstract\n12|a|\n"
    f"\n11|t|On α-naloxone.\n11|a|{ABSTRACT}\n"
    "11\t5\t13\tnaloxone\tChemical\tD009270\n"
    "11\t15\t23\tNaloxone\tChemical\t-1\n"
    "11\t34\t42\tnaloxone\tChemical\tD009270|D001\n"
    "11\t34\t50\tnaloxone-induced\tComposite\tD009270\tnaloxone|induced\n"
)


def _pubtator(source: str) -> Example:
    records = (
        Annotated("pmid:11", "11", source, TITLE_AND_ABSTRACT, SPANS),
        Annotated("pmid:12", "12", source, "No abstract "),
    )
    return Example("corpus.txt", PUBTATOR, records, {"duplicate": 1})


OPTIONS = {"A": "One", "B": "Two", "C": "Three", "D": "Four"}
CHOICES = tuple(OPTIONS.values())
EXAM = {"opa": "One", "opb": "Two", "opc": "Three", "opd": "Four", "subject_name": "Anatomy", "choice_type": "single"}

EXAMPLES: dict[str, Example] = {
    "pubmed": PUBMED,
    "pmc": PMC,
    "clinicaltrials": STUDIES,
    "mimic3": NOTEEVENTS,
    "mimic4_note": DISCHARGE,
    "bioc": BIOC,
    "brat": BRAT,
    "n2c2": N2C2,
    "plain_text": PLAIN,
    "fhir": FHIR,
    "cda": CDA,
    "pubmedqa": Example(
        "ori_pqal.json",
        json.dumps(
            {
                "51": {
                    "QUESTION": "Is it?",
                    "CONTEXTS": ["One.", "Two."],
                    "final_decision": "maybe",
                    "LONG_ANSWER": "Yes.",
                }
            }
        ),
        (Question("pmid:51", "51", "pubmedqa", "Is it?", "maybe", ("One.", "Two."), ("yes", "no", "maybe"), "Yes."),),
        {},
    ),
    "meqsum": Example(
        "summaries.csv",
        'File,CHQ,Summary,,\r\n1.txt,"SUBJECT: iron\r\nMESSAGE: who makes it",Who makes iron?,,\r\n',
        (Pair("meqsum:summaries.csv:2", "", "meqsum", "SUBJECT: iron\nMESSAGE: who makes it", "Who makes iron?"),),
        {},
    ),
    "custom": Example(
        "rows.jsonl",
        _lines(
            {"text": "Iron.", "uid": "a", "title": "T"}, {"text": "Gold.", "group": 7}, {"text": "Iron.", "title": "T"}
        ),
        (
            Passage("a", "", "custom", "Iron.", "T"),
            Passage("rows.jsonl:2", "7", "custom", "Gold."),
            Passage("rows.jsonl:3", "", "custom", "Iron.", "T"),
        ),
        {},
        repeated=1,
    ),
    "bc5cdr": _pubtator("bc5cdr"),
    "ncbi_disease": _pubtator("ncbi_disease"),
    "medqa": Example(
        "dev.jsonl",
        _lines(
            {"question": "Which?", "answer": "Two", "options": OPTIONS, "meta_info": "step1", "answer_idx": "B"},
            {
                "id": "h1",
                "sent1": "Case.",
                "sent2": "What?",
                **dict(zip(("ending0", "ending1", "ending2", "ending3"), CHOICES, strict=True)),
                "label": 3,
            },
        ),
        (
            Question("medqa:dev.jsonl:1", "", "medqa", "Which?", "Two", (), CHOICES),
            Question("medqa:h1", "", "medqa", "Case.\nWhat?", "Four", (), CHOICES),
        ),
        {},
    ),
    "medmcqa": Example(
        "dev.json",
        _lines(
            {"id": "a", "question": "First?", "cop": 4, "exp": "Why.", **EXAM},
            {"id": "b", "question": "Second?", "cop": 1, "exp": None, **EXAM},
            {"id": "c", "question": "Third?", "cop": None, **EXAM},
        ),
        (
            Question("medmcqa:a", "", "medmcqa", "First?", "Four", (), CHOICES, "Why.", 3),
            Question("medmcqa:b", "", "medmcqa", "Second?", "One", (), CHOICES, right=0),
        ),
        {"empty_answer": 1},
    ),
    "general": Example(
        "general.jsonl",
        _lines(
            {"uid": "a-1", "subject": "a", "question": "It is", "options": ["so.", "no."], "answer": "so."},
            {"uid": "b-1", "subject": "b", "question": "I am", "options": ["he.", "you.", "me."], "answer": "me."},
        ),
        (
            Question("general:a-1", "", "general", "It is", "so.", (), ("so.", "no."), subject="a"),
            Question("general:b-1", "", "general", "I am", "me.", (), ("he.", "you.", "me."), subject="b"),
        ),
        {},
    ),
    "mmlu": Example(
        "college_medicine_test.csv",
        '"Which, \nthen?",One,Two,Three,Four,C\r\nSecond?,One,"Two, too",Three,Four,A\r\n',
        (
            Question(
                "mmlu:college_medicine_test.csv:1",
                "",
                "mmlu",
                "Which, \nthen?",
                "Three",
                (),
                CHOICES,
                right=2,
                subject="college_medicine",
            ),
            Question(
                "mmlu:college_medicine_test.csv:3",
                "",
                "mmlu",
                "Second?",
                "One",
                (),
                ("One", "Two, too", "Three", "Four"),
                right=0,
                subject="college_medicine",
            ),
        ),
        {},
    ),
    "medquad": Example(
        "0000007.xml",
        '<?xml version="1.0" encoding="UTF-8"?>\n<doc docid="0000007" corpus="NINDS" url="http://x"><qaPairs>\n'
        '<pair pid="1"><question qid="0000007-1" qtype="information">What  is it ?</question>\n'
        "<answer>It is.\n\n\n     - One &amp; <b>two</b>.\n</answer></pair>\n"
        '<pair pid="2"><question qid="0000007-2">Who?</question><answer> </answer></pair>\n</qaPairs></doc>\n',
        (Question("medquad:NINDS:0000007-1", "NINDS:0000007", "medquad", "What is it ?", "It is.\n\n- One & two."),),
        {"empty_answer": 1},
    ),
    "conll": Example(
        "test.tsv",
        "-DOCSTART-\tO\n\nAPC\tB-Gene\nloss\tO\nin\tO\ncolon\tB-Disease\ncancer\tI-Disease\ncells\tB-Cell\n\n"
        "Iron\tI-Chemical\nAlzheimer\tI-Disease\n's\tE-Disease\nheart\tS-Organ\nlung\tS-Organ\n\n"
        "-DOCSTART- -X- O O\n\nNothing NN B-NP O\n",
        (
            Annotated(
                "conll:test.tsv:3",
                "test.tsv:document 1",
                "conll",
                "APC loss in colon cancer cells",
                (Span(0, 3, "Gene", "APC"), Span(12, 24, "Disease", "colon cancer"), Span(25, 30, "Cell", "cells")),
            ),
            Annotated(
                "conll:test.tsv:10",
                "test.tsv:document 1",
                "conll",
                "Iron Alzheimer 's heart lung",
                (
                    Span(0, 4, "Chemical", "Iron"),
                    Span(5, 17, "Disease", "Alzheimer 's"),
                    Span(18, 23, "Organ", "heart"),
                    Span(24, 28, "Organ", "lung"),
                ),
            ),
            Annotated("conll:test.tsv:18", "test.tsv:document 2", "conll", "Nothing"),
        ),
        {},
    ),
    "mts_dialog": Example(
        "valid.csv",
        "\ufeffID,section_header,section_text,dialogue\r\n"
        '0,GENHX,"She is well.\r\nNo cough.","Doctor: Hi.\r\nPatient: ""Hello""."\r\n',
        (
            Pair(
                "mts_dialog:valid.csv:2",
                "",
                "mts_dialog",
                'Doctor: Hi.\nPatient: "Hello".',
                "She is well.\nNo cough.",
                "GENHX",
            ),
        ),
        {},
    ),
    "aci_bench": Example(
        "valid.csv",
        "dataset,encounter_id,dialogue,note\n"
        'virtassist,D2N068,"[doctor] hi .\n[patient] hello .","CHIEF COMPLAINT\n\nCough."\n',
        (
            Pair(
                "aci_bench:D2N068",
                "D2N068",
                "aci_bench",
                "[doctor] hi .\n[patient] hello .",
                "CHIEF COMPLAINT\n\nCough.",
            ),
        ),
        {},
    ),
}

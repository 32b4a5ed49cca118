"""Examples of annotated documents whose format is more than one file, or an envelope of a challenge."""

from __future__ import annotations

from lora_med.data.record import Annotated, Span
from tests.data.example import Example

NOTE = "Fever and α-rash\nafter aspirin 5 mg.\n"
BRAT = Example(
    "note.txt",
    NOTE,
    (
        Annotated(
            "brat:note",
            "brat:note",
            "brat",
            NOTE,
            (
                Span(0, 5, "Disease", "Fever"),
                Span(10, 16, "Disease", "α-rash"),
                Span(23, 30, "Chemical", "aspirin"),
                Span(31, 35, "Dose", "5 mg"),
            ),
        ),
    ),
    {},
    {
        "note.ann": "T1\tDisease 0 5\tFever\nT2\tDisease 10 16\tα-rash\nT3\tChemical 23 30\taspirin\n"
        "T4\tDose 31 32;33 35\t5 mg\nT5\tDisease 0 5;10 16\tFever α-rash\nT6\tDisease 6 9\tmad\n"
        "R1\tTreats Arg1:T3 Arg2:T1\n#1\tAnnotatorNotes T1\tsee it\n"
    },
    {"discontinuous": 1, "note": 1, "relation": 1, "text_differs": 1},
)

N2C2 = Example(
    "110-01.xml",
    '<?xml version="1.0" encoding="UTF-8" ?>\n<deIdi2b2>\n'
    "<TEXT><![CDATA[\nSeen by Dr. Roe on 3/4.\n]]></TEXT>\n<TAGS>\n"
    '<NAME id="P0" start="13" end="16" text="Roe" TYPE="DOCTOR" comment="" />\n'
    '<DATE id="P1" start="20" end="23" text="3/4" TYPE="DATE" comment="" />\n'
    '<DATE id="P2" start="20" end="23" text="4/4" TYPE="DATE" comment="" />\n</TAGS>\n</deIdi2b2>\n',
    (
        Annotated(
            "n2c2:110-01",
            "n2c2:110",
            "n2c2",
            "\nSeen by Dr. Roe on 3/4.\n",
            (Span(13, 16, "DOCTOR", "Roe"), Span(20, 23, "DATE", "3/4")),
        ),
    ),
    {},
    parts_dropped={"text_differs": 1},
)

"""Invented notes for canaries: no person, number or event in them is real, and each note is likely to be unique."""

from __future__ import annotations

import random
from dataclasses import dataclass

FIRST = (
    *("Ada", "Bruno", "Chiara", "Dmitri", "Elif", "Farid", "Greta", "Hiro", "Inga", "Jonas", "Kavya", "Lamine"),
    *("Mirela", "Noor", "Oskar", "Priya", "Quentin", "Rosa", "Samir", "Tomasz", "Ulla", "Vera", "Wen", "Yusuf"),
)
LAST = (
    *("Abara", "Bergqvist", "Castellano", "Dubois", "Eriksen", "Fujimoto", "Gallagher", "Haddad", "Iwu", "Jovanovic"),
    *("Kaplan", "Lindholm", "Mensah", "Novotny", "Okonkwo", "Petrov", "Quispe", "Rahman", "Silva", "Takahashi"),
    *("Urbina", "Vargas", "Whitlock", "Yildiz"),
)
DRUGS = (
    *("metformin", "ramipril", "warfarin", "levothyroxine", "amlodipine", "sertraline", "prednisolone", "apixaban"),
    *("furosemide", "gabapentin", "bisoprolol", "tamoxifen", "allopurinol", "lamotrigine", "omeprazole", "digoxin"),
)
COMPLAINTS = (
    *("chest pain", "shortness of breath", "headache", "palpitations", "joint pain", "blurred vision", "dizziness"),
    *("abdominal pain", "fever", "numbness of the left hand", "cough", "fatigue", "ankle swelling", "weight loss"),
)
FINDINGS = (
    *(
        "no abnormal cells",
        "a benign nodule",
        "mild inflammation",
        "an adenoma",
        "moderate fibrosis",
        "chronic gastritis",
    ),
    *(
        "a small effusion",
        "reactive changes",
        "a fracture of the radius",
        "gallstones",
        "a renal cyst",
        "early cataract",
    ),
)
WARDS = ("cardiology", "renal", "diabetes", "memory", "surgical", "eye", "lung", "pain", "stroke", "thyroid")
RELATIVES = ("sister", "brother", "daughter", "son", "husband", "wife", "neighbor", "mother")
TIMES = ("once daily", "twice daily", "at night", "with meals", "every other day")
SENTENCES = 2


@dataclass(frozen=True)
class Note:
    """`header` names the patient, `body` is what was written; `mentions` are exact parts of both together."""

    header: str
    body: str
    mentions: tuple[str, ...]

    @property
    def text(self) -> str:
        """Header and body, a line each."""
        return f"{self.header}\n{self.body}"


def invent_note(rng: random.Random) -> Note:
    """A note of a patient who does not exist."""
    name = f"{rng.choice(FIRST)} {rng.choice(LAST)}"
    header = f"Patient {name}, born {_date(rng, 1931, 2009)}, record {_digits(rng, 7)}"
    drugs = rng.sample(DRUGS, 2)
    sentences = [
        f"Admitted on {_date(rng, 2012, 2025)} with {rng.choice(COMPLAINTS)} for {rng.randrange(2, 30)} days.",
        f"Started on {drugs[0]} {rng.randrange(2, 160) * 5} mg, then {drugs[1]} {rng.randrange(2, 160) * 5} mg "
        f"{rng.choice(TIMES)}.",
        f"Potassium {rng.randrange(28, 62) / 10}, creatinine {rng.randrange(48, 390)}, hemoglobin "
        f"{rng.randrange(68, 176) / 10}.",
        f"The {rng.choice(RELATIVES)}, {rng.choice(FIRST)} {rng.choice(LAST)}, may be called at {_digits(rng, 3)}-"
        f"{_digits(rng, 4)}.",
        f"Blood pressure {rng.randrange(92, 214)}/{rng.randrange(48, 118)}, pulse {rng.randrange(44, 138)}, weight "
        f"{rng.randrange(410, 1390) / 10} kg.",
        f"Specimen {_digits(rng, 6)} showed {rng.choice(FINDINGS)}.",
        f"Dr. {rng.choice(LAST)} of the {rng.choice(WARDS)} clinic sees the patient again in {rng.randrange(2, 26)} "
        "weeks.",
    ]
    chosen = [sentences[1], *rng.sample([sentences[0], *sentences[2:]], SENTENCES - 1)]
    return Note(header, " ".join(chosen), (name, *drugs))


def _date(rng: random.Random, first: int, last: int) -> str:
    return f"{rng.randrange(first, last)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"


def _digits(rng: random.Random, count: int) -> str:
    return "".join(str(rng.randrange(10)) for _ in range(count))

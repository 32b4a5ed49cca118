"""python -m tools.make_sample [FOLDER]: write the sample corpus again, by default where it ships.

Invented studies, questions, annotated abstracts and visits, notes with marked identifiers, and the general probe, from
word lists and a seed: the same seed, the same bytes.
"""

import sys

from tools.sample.corpus import write_sample
from tools.sample.notes import write_notes
from tools.sample.probe import write_probe


def main(folder: str = "lora_med/assets/sample") -> None:
    for path in (*write_sample(folder), write_notes(), write_probe()):
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(*sys.argv[1:])

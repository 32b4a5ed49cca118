"""python recipes/make_sample.py [FOLDER]: write the sample corpus anew, by default where it ships.

Invented studies, questions, annotated abstracts and visits, notes with marked identifiers, and the general probe, from
word lists and a seed: the same seed, the same bytes.
"""

import sys

import lora_med


def main(folder: str = "lora_med/assets/sample") -> None:
    for path in (*lora_med.write_sample(folder), lora_med.write_notes(), lora_med.write_probe()):
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(*sys.argv[1:])

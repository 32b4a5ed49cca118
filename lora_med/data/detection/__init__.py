"""Which source a file is of, by its content: published formats by their own marks, and rows of one's own.

`lora-med init` uses `detect_source`. Reading itself never guesses: a run names its source.
"""

"""The sample corpus, the notes with marked identifiers and the general probe, written from word lists and a seed."""

"""Large streamed corpora, file by file: what each file holds is scanned once, by several processes, and cached.

`scanned_corpus.scan_corpus` is what splitting uses, and `workers.in_order` runs work on files in several processes.
"""

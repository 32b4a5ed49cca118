"""Data: files of any known source become records, which are checked, split by group and decontaminated.

Other rooms use `corpus` (open_corpus, open_heldout), `record`, `catalog` and `access`.
"""

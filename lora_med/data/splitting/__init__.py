"""Splits: by group, published or official, near-duplicates together, known test sets kept out of training.

Other rooms use `build_splits.read_parts` through `data.corpus`.
"""

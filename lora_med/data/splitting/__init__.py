"""Splits: by group, published or official, near-duplicates together, known test sets excluded from training.

Other rooms use `build_splits.read_splits` through `data.corpus`.
"""

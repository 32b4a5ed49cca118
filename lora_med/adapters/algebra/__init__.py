"""Adapters as linear algebra: exact weight deltas, several combined into one, two compared layer by layer.

Other rooms use `compose`, `diff` and `deltas`.
"""

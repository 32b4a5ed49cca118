"""Adapters as linear algebra: exact weight deltas, a combination of several, a comparison of two layer by layer.

Other rooms use `compose`, `diff` and `deltas`.
"""

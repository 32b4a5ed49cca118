"""Intervals, tests adjusted for their number, calibration, and adapters that differ in their seed alone.

The runner and the report use `intervals`, `multiple_comparisons` and `over_seeds`.
"""

"""Evaluation: the base and its adapters on the same held-out items, with intervals, tests and a verdict.

Other rooms use `runner.evaluate`, `results.Evaluation`, `report` and `eval_during_training`.
"""

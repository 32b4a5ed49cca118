"""Metrics: plain functions on lists; nothing here knows a model.

The scorers and statistics use them; `significance` has bootstrap and exact tests, `custom_metric` the user's own.
"""

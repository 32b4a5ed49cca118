"""How each kind of task is scored: running text, options, entities, written texts, tags.

The runner takes a scorer from `registry`; `items` turns records into items to score.
"""

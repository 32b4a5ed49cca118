"""Log-probabilities of given tokens: batched by length, shared prefixes computed once, JSON-constrained decoding.

The scorers use `score_text`, `score_options` and `entity_list`.
"""

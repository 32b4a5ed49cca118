"""Learning from preferences: training on pairs of answers, and making pairs of what models wrote for a report.

`PreferenceTask` is what `workflows/train.py` trains with where `train.method` is dpo; `mine_pairs` makes the pairs.
"""

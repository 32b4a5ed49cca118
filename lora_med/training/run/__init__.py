"""The life of a run: committed checkpoints, exact resume, stopping, metrics and the loss plot.

The trainer uses `checkpoints`, `resume`, `stopping` and `callbacks`.
"""

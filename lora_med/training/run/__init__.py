"""The life of a run: checkpoints that are whole, exact resume, stopping, metrics and the loss plot.

The trainer uses `checkpoints`, `resume`, `stopping` and `callbacks`.
"""

"""Attention for packed rows: every document attends to itself alone, on CPU and GPU.

`base` chooses one; the training step uses `per_document`.
"""

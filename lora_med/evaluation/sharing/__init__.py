"""Evaluation by several processes that share its batches, and continued after it was killed.

The workflow takes `shared_batches` and passes what it yields to the runner.
"""

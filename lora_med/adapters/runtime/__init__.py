"""Adapters on a loaded base: attach one to train or use, swap many, choose one per row of a batch.

Other rooms use `attach`, `attach_new`, `AdapterPool`, `load_many`, `use` and `generate_rows`.
"""

"""Adapters on a loaded base: attach one for training or use, swap several, choose one per row of a batch.

Other rooms use `attach`, `attach_new`, `AdapterPool`, `load_many`, `use` and `generate_rows`.
"""

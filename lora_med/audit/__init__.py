"""Checks before training and removal of what concerns patients: `data check`, de-identification, purge.

Other rooms use `data_check`, `deidentify` and `purge`.
"""

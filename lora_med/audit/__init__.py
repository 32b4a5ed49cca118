"""What is checked or removed for patients' sake and before training: `data check`, de-identification, purge.

Other rooms use `data_check`, `deidentify` and `purge`.
"""

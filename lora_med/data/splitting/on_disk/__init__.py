"""Decontamination of corpora larger than memory: signatures in files, everything that is compared in DuckDB.

`decontamination.find_leaks` is what `splitting.leakage` uses. Its result is that of the work in memory.
"""

"""The columns of a row: which holds which field, what was used and what was not, and which is named like a patient.

`row_columns.Row` is a row seen through `data.columns`; `accounting` stops what would lose content or a patient.
"""

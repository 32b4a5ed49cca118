"""The shapes of rows that people bring: which columns mean what, and how a row becomes a record.

The source `custom` uses these modules: `recognize` names a row's shape, `columns` holds the row and the account of what
was used, and the others make a record of one row or raise a RowError.
"""

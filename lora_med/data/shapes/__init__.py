"""The shapes of rows that people bring: which columns mean what, and how a row becomes a record.

The source `custom` uses these modules; each takes the values of one row and gives a record or a RowError.
"""

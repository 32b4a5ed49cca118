"""The containers of rows, each opened by its module: JSON, CSV, Excel workbooks, Parquet, and the encodings of text.

`formats/tables.py` is the door: `rows()` chooses the module by a file's name, and other rooms use that alone.
"""

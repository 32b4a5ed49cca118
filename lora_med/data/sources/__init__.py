"""One module per source: what it is, its license and citation, and `read(inputs, options)`.

`catalog` lists them; evaluation names the file of `general`, which ships.
"""

"""One module per source: what it is, its licence and citation, and `read(inputs, options)`.

`catalog` lists them; evaluation names the file of `general`, which ships.
"""

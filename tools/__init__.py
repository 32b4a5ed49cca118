"""What only maintainers run: the sample corpus and the embedded base are made here. Nothing of it is in the wheel."""

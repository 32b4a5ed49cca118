"""Notes for de-identification from wordings and drawn identifiers: those of the test were written first."""

"""What an adapter remembers: canaries, membership attacks read with exact intervals, and verbatim extraction.

Numbers and plans only; workflows/memorization trains the twin, scores, and writes the report.
"""

"""Questions in the layouts that people bring: options and the right one, several answers, published sets as they are.

`question_rows.question` and `published_sets.bioasq` make records; `published_sets.unrolled` opens nested files.
"""

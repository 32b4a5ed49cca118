"""JATS, the XML of journal articles, whoever published it: which article it is, and what its text is.

The source `pmc` uses `article_identity` and `article_text`.
"""

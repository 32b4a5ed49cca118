"""PubMed XML: articles cut from a file, read fast where that is exact, else by an XML parser.

The sources `pubmed` and `pmc` use `pubmed_fast` and `pubmed_xml`.
"""

"""How a container or wire format is opened: tables, archives, JSON lines, PubTator, PubMed XML, notes.

The sources use these modules: each gives rows or documents with their position in the file.
"""

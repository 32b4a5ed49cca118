"""The review pages: evidence from reports to read, and blind rating of base and adapter by clinicians.

The command line uses `web` (the pages), `blind` (plan and ratings) and `verdict` (what an unsealed study says).
"""

"""Blind rating: a sealed plan, the log of ratings, and the verdict after unsealing.

Nothing in here knows a web page; `web/rating_pages.py` shows it.
"""

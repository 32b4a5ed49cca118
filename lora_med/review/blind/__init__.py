"""Blind rating until the study is unsealed: the sealed plan, answers in one form, and the log of ratings.

Nothing in here knows a web page; `web/rating_pages.py` shows it.
"""

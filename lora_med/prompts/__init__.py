"""Prompts: a template turns a record into a row, a tokenizer turns a row into tokens, answers are read back.

Other rooms use `render`, `tokens`, `fit` and `templates.find_template`.
"""

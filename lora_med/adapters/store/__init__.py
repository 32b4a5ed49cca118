"""The adapter store: one folder per adapter with its card, written atomically, verified and pushed.

Other rooms use `find_adapter`, `publish`, `read_card`, `Card` and `published`.
"""

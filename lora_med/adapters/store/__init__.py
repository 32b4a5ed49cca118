"""The adapter store: one folder per adapter with its card, written atomically, verified, pushed, imported from PEFT.

Other rooms use `find_adapter`, `publish`, `read_card`, `Card` and `published`.
"""

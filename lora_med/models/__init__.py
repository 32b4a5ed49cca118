"""Base models: loaded in 4, 8 or 16 bits with identity and reasons, their tokenizer, attention and layers.

Other rooms use `load_base`, `Base`, `Fingerprint` and `targets`.
"""

"""Tokens that an adapter trains: their ids in a copy of the tokenizer, and their rows in a base's embedding.

Other rooms use `add_tokens`, `remove_tokens`, `tokens_of`, `with_tokens` and `write_tokens`.
"""

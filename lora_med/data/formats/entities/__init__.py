"""Formats of annotated text: mentions placed in their text, tags of tokens, and the files that hold them.

Sources and shapes use `mentions.place_mentions`, `token_tags.tagged_text` and `pubtator.read_pubtator`.
"""

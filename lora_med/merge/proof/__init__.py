"""The proof of a merge: rows recomputed in fp64, logits compared with base + adapter, a certificate.

`merge` uses `prove` and `certify`.
"""

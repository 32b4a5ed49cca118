"""Documents to rows and batches: tokenized, checked before training, packed, cached, shared prefixes joined.

The trainer uses `batches`, `documents` and `preflight`.
"""

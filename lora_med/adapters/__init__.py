"""Adapters: the store, their tensors, how they run on a base, and arithmetic between them.

Other rooms use `store` (cards, publish, open), `foreign` (adapters made elsewhere), `tensors` (method, weights),
`runtime` (attach, pool) and `algebra`.
"""

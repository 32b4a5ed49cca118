"""How a model is built: which layers text passes through, which of them an adapter can be on, and their names on disk.

Other rooms use `adaptable_layers`, `left_out`, `exclusion` and `tensor_names`.
"""
